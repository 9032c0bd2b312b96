"""Learning rate and batch size found by measuring, on throw-away models, before the real training.

What a run does afterwards depends on nothing here but the numbers: models, optimizers and trainers are made for the
measurement, and torch's, numpy's and Python's random states are put back.
"""

import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader

from sagitta.errors import ConfigError
from sagitta.evaluation import quiet_trainer
from sagitta.loading import Batch, ImageData
from sagitta.models import Classifier

_LOWEST, _HIGHEST, _STEPS = 1e-6, 1.0, 100
_DECADE = 17  # steps in which the rate becomes ten times as high; odd, so that there is one in the middle
_SMOOTHING = 0.8  # of the loss from step to step
_DIVERGED = 3.0  # times the lowest loss
_SMALLEST_BATCH, _LARGEST_BATCH = 8, 4096
_NEAR_BEST = 0.95
_CUDA_SHARE = 0.8  # of the memory; the rest is for fragmentation and for what validation needs
_TRIAL_STEPS = 4  # the first of them warms up


def find_lr(build: Callable[[], Classifier], data: ImageData, trainer: Mapping[str, Any]) -> tuple[float, str]:
    """Return the learning rate at which the loss falls most steeply in a range test (Smith 2017), and one line on it.

    The rate rises exponentially from 1e-6 to 1 in a hundred steps over training batches. Layers keep their shares.

    Args:
        build: makes the model, with any learning rate and a constant schedule.
        data: set up.
        trainer: arguments of Lightning's Trainer, of which accelerator and precision are followed.

    Raises:
        ConfigError: the loss is not finite from the beginning.
    """
    test = _RangeTest()
    with isolate_rng():
        pl.seed_everything(data.seed, verbose=False)
        _train(build(), data, trainer, test, _STEPS)
    lr = steepest(test.rates, test.losses)
    return lr, f"learning rate {lr:.1e}: where the loss fell most steeply in a range test of {len(test.rates)} steps"


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate, rounded to two digits, where the smoothed loss falls most steeply over the rate's logarithm.

    A line is fitted to every decade of rates: between single steps noise would decide.

    Args:
        rates: rising exponentially.
        losses: smoothed, one a rate, not more than a little beyond their minimum.

    Raises:
        ConfigError: there are too few.
    """
    end = int(np.argmin(losses)) + 1 if losses else 0
    if end < _DECADE:
        raise ConfigError("lr auto: the loss does not fall at any learning rate from 1e-6 on; give --lr a number")
    position = np.arange(_DECADE) - _DECADE // 2
    slopes = np.lib.stride_tricks.sliding_window_view(np.asarray(losses[:end]), _DECADE) @ position
    return float(f"{rates[int(np.argmin(slopes)) + _DECADE // 2]:.1e}")


def find_batch_size(build: Callable[[], Classifier], data: ImageData, trainer: Mapping[str, Any]) -> tuple[int, str]:
    """Return a batch size for this model on this machine, and one line on why.

    On a GPU the largest that takes at most four fifths of its memory; on a CPU the smallest within 5 % of the highest
    number of images a second, in at most half of the free memory. Powers of two from 8, never more than an eighth of
    the training rows.

    Args:
        build: makes the model.
        data: set up.
        trainer: arguments of Lightning's Trainer, of which accelerator and precision are followed.

    Raises:
        ConfigError: not even the smallest fits.
    """
    most = max(1, min(_LARGEST_BATCH, len(data.shards.splits["train"]) // 8))
    sizes = [size for size in (2**power for power in range(13)) if _SMALLEST_BATCH <= size <= most] or [most]
    cuda = str(trainer.get("accelerator", "auto")) in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    with isolate_rng():
        rates = dict(_measure_rates(build, data, trainer, sizes, cuda=cuda))
    if not rates:
        raise ConfigError(f"batch size auto: not even {sizes[0]} images fit into memory; take smaller images or model")
    best = max(rates.values())
    size = max(rates) if cuda else min(size for size in rates if rates[size] >= _NEAR_BEST * best)
    why = "the largest that fits" if cuda else f"the smallest within 5 % of the best of {list(rates)}"
    return size, f"batch size {size}: {why}, {rates[size]:.0f} images/s"


class _RangeTest(pl.Callback):
    """Raises the learning rate with every step and notes the smoothed loss until it diverges."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._mean = 0.0
        self._shares: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        groups = trainer.optimizers[0].param_groups
        highest = max(group["lr"] for group in groups)
        self._shares = [group["lr"] / highest for group in groups]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rate = _LOWEST * (_HIGHEST / _LOWEST) ** (len(self.rates) / (_STEPS - 1))
        self.rates.append(rate)
        for group, share in zip(trainer.optimizers[0].param_groups, self._shares, strict=True):
            group["lr"] = rate * share

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"])
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * loss
        smooth = self._mean / (1 - _SMOOTHING ** len(self.rates))
        if not math.isfinite(loss) or (self.losses and smooth > _DIVERGED * min(self.losses)):
            self.rates.pop()
            trainer.should_stop = True
        else:
            self.losses.append(smooth)


class _StepTimes(pl.Callback):
    """Notes how long each training step takes, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.seconds.append(time.perf_counter() - self._began)


def _measure_rates(
    build: Callable[[], Classifier], data: ImageData, trainer: Mapping[str, Any], sizes: Sequence[int], *, cuda: bool
) -> Iterator[tuple[int, float]]:
    """Yield sizes and images a second, from the smallest on; the end is where memory ends or nothing is gained."""
    images, labels = data.sample("train", min(max(sizes), len(data.shards.splits["train"])))
    images = data.preprocessing.normalize(images)
    best, idle = 0.0, 0
    for size in sizes:
        batch = (_repeated(images, size), _repeated(labels, size))
        times, before = _StepTimes(), _peak_bytes(cuda=cuda)
        with _out_of_memory_ends() as outcome:
            _train(build(), _Repeated(batch), trainer, times, _TRIAL_STEPS)
        if outcome or (cuda and _peak_bytes(cuda=True) > _CUDA_SHARE * torch.cuda.mem_get_info()[1]):
            return
        rate = size / float(np.median(times.seconds[1:]))
        yield size, rate
        idle = idle + 1 if rate * _NEAR_BEST < best else 0
        best = max(best, rate)
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if not cuda and (idle == 2 or 2 * (_peak_bytes(cuda=False) - before) > free / 2):
            return


class _Repeated(pl.LightningDataModule):
    """One batch again and again."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._batches: Any = [batch] * _TRIAL_STEPS  # torch's type for a list of items is Dataset

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches."""
        return DataLoader(self._batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the same; the Trainer does not ask for any of them."""
        return DataLoader(self._batches, batch_size=None)


def _repeated(tensor: Tensor, size: int) -> Tensor:
    return tensor[torch.arange(size) % len(tensor)]


def _peak_bytes(*, cuda: bool) -> int:
    """Return the most memory in use so far: of the process, or of the GPU in one trial."""
    if cuda:
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _out_of_memory_ends() -> Iterator[list[Exception]]:
    """Begin a trial with empty caches; a list that is given receives the error where memory runs out."""
    errors: list[Exception] = []
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        yield errors
    except (torch.OutOfMemoryError, MemoryError) as error:
        errors.append(error)


def _train(
    model: Classifier, data: pl.LightningDataModule, trainer: Mapping[str, Any], callback: pl.Callback, steps: int
) -> None:
    """Train for some steps on one device; nothing is logged, saved or validated."""
    followed = {name: trainer[name] for name in ("accelerator", "precision") if trainer.get(name) is not None}
    quiet_trainer(**followed, devices=1, max_steps=steps, max_epochs=-1, limit_val_batches=0, callbacks=[callback]).fit(
        model, data
    )
