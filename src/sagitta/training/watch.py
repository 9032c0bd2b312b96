"""What a person sees of a training: a line an epoch, pictures of predictions, what it waits for."""

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from torch import Tensor

from sagitta.dataset import SPLITS, plural
from sagitta.files import write_atomic
from sagitta.images import missing_core, prediction_grid
from sagitta.loading import ImageData, Loader, Preprocessing
from sagitta.models import Classifier, Task, task_of
from sagitta.pool import usable_cores
from sagitta.ranks import by_first_process
from sagitta.run import COMMAND, PYTHON
from sagitta.settings import short_name
from sagitta.terminal import show

_WAIT_WORTH_MENTIONING = 0.2


@by_first_process
def say(line: str) -> None:
    """Print a line at once, on the first rank only."""
    show(line)


def say_core() -> None:
    """Say where decoding is slow because the native core is missing, and the remedy."""
    if reason := missing_core():
        say(f"note: {reason}; until then Pillow decodes, which takes several times as long")


def say_beginning(data: ImageData, classifier: Classifier, epochs: int | None, run: Path) -> None:
    """Say in a few lines what is trained on what, from which weights, and where it goes."""
    size = "x".join(str(side) for side in (data.preprocessing.channels, *data.preprocessing.size))
    splits = data.shards.splits
    counts = ", ".join(f"{name} {len(splits[name])}" for name in SPLITS if name in splits)
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    say(f"data:  {data.num_classes} classes, {counts}; images {size}, fingerprint {data.info.fingerprint[:12]}")
    if classifier.weights_report:
        say(classifier.weights_report)
    if epochs == -1:  # Lightning's word for it
        length = "; no number of epochs ends it"
    else:
        length = "; no epoch" if epochs == 0 else "" if epochs is None else f"; up to {plural(epochs, 'epoch')}"
    say(f"model: {classifier.name}, {parameters / 1e6:.2f} M parameters{length}; run {run}")


class PredictionImages(pl.Callback):
    """Shows what the model says of the same few validation images after every epoch.

    Writes ``predictions/epoch=05.png`` (truth, prediction and probability under each image; a green frame is right, a
    red one wrong) into the run directory, and sends the same to TensorBoard as an image and to Weights & Biases as a
    table.
    Works with any LightningModule whose ``forward`` returns logits.

    Args:
        count: how many images, spread evenly over the validation split.
        folder: where to write; by default ``predictions`` in the trainer's ``default_root_dir``.
    """

    def __init__(self, count: int = 16, folder: str | Path | None = None) -> None:
        self.count = count
        self.folder = None if folder is None else Path(folder)
        self._sample: tuple[Tensor, Tensor] | None = None

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first batch where the DataModule cannot choose a sample itself."""
        if self._sample is None and not hasattr(getattr(trainer, "datamodule", None), "sample"):
            images, labels = batch
            self._sample = images[: self.count].detach().cpu(), labels[: self.count].cpu()

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Predict the sample and show it, on the first rank only."""
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        data: Any = getattr(trainer, "datamodule", None)
        if self._sample is None and hasattr(data, "sample"):
            self._sample = data.sample("val", self.count)
        if self._sample is None:
            return
        images, labels = self._sample
        preprocessing: Any = getattr(data, "preprocessing", None) or getattr(pl_module, "preprocessing", None)
        model_input = preprocessing.normalize(images) if images.dtype == torch.uint8 else images
        # Lightning has put the module into evaluation mode for the whole validation.
        precision = trainer.precision_plugin
        with precision.forward_context():
            logits = pl_module(precision.convert_input(model_input.to(pl_module.device))).float().cpu()
        pixels = _as_pixels(images, preprocessing)
        names = getattr(data, "class_names", None) or [str(label) for label in range(logits.shape[1])]
        task = task_of(labels.ndim > 1)
        thresholds = getattr(pl_module, "thresholds", [0.5] * len(names))
        captions = _captions(task, logits, labels, names, thresholds)
        self._show(trainer, [(image, *caption) for image, caption in zip(pixels, captions, strict=True)])

    def _show(self, trainer: pl.Trainer, rows: list[tuple[Image.Image, str, str, float]]) -> None:
        folder = self.folder or Path(trainer.default_root_dir) / "predictions"
        grid, encoded = prediction_grid(rows), io.BytesIO()
        grid.save(encoded, "PNG")
        write_atomic(folder / f"epoch={trainer.current_epoch:02d}.png", encoded.getvalue())
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("predictions", np.asarray(grid), trainer.global_step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                _log_wandb_table(logger, rows)


def _captions(
    task: Task, logits: Tensor, labels: Tensor, names: Sequence[str], thresholds: Sequence[float]
) -> list[tuple[str, str, float]]:
    """Return truth, prediction and its probability for each image; of several labels, that of the least certain."""
    probabilities = task.probabilities(logits).numpy()
    truth = task.names_of(labels.numpy(), names).to_pylist()
    predicted = task.names_of(task.decide(probabilities, thresholds), names).to_pylist()
    texts = [[_text(each) for each in rows] for rows in (truth, predicted)]
    return list(zip(*texts, task.certainty(probabilities, thresholds).tolist(), strict=True))


def _text(names: str | Sequence[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names) or "no label"


def _log_wandb_table(logger: WandbLogger, rows: list[tuple[Image.Image, str, str, float]]) -> None:
    import wandb

    logger.log_table(
        "predictions",
        columns=["image", "truth", "prediction", "probability"],
        data=[[wandb.Image(image), *rest] for image, *rest in rows],
    )


def _as_pixels(images: Tensor, preprocessing: Preprocessing | None) -> list[Image.Image]:
    """Return a Pillow image for each of (B, 1 or 3, H, W): uint8, or float that was normalised."""
    if images.dtype != torch.uint8:
        if preprocessing is not None:
            images = preprocessing.denormalize(images)
        else:  # somebody's own normalisation: stretch what there is
            low, high = images.amin(), images.amax()
            images = ((images - low) / (high - low).clamp(min=1e-8) * 255).to(torch.uint8)
    arrays = images.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).convert("RGB") for array in arrays]


class EpochLines(pl.Callback):
    """Prints one line an epoch: losses, validation accuracy, seconds. Reads well in a file, unlike a progress bar."""

    def __init__(self) -> None:
        self._began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock: a training that is resumed inside an epoch does not begin it once more."""
        self._began = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line, on the first rank only."""
        values = trainer.callback_metrics  # on every rank: sums over all devices are made when they are read
        if not trainer.is_global_zero:
            return
        shown = "  ".join(
            f"{name} {float(values[key]):.4f}"
            for name, key in (
                ("train_loss", "train_loss_epoch"),
                ("val_loss", "val_loss"),
                ("val_acc", "val_acc"),
                ("val_map", "val_map"),
            )
            if key in values
        )
        seconds = time.monotonic() - self._began
        say(f"{_epoch(trainer.current_epoch, trainer)}  {shown}  {seconds:.1f} s")


def _epoch(epoch: int, trainer: pl.Trainer) -> str:
    """Return how an epoch is called, whose number begins with 0 inside."""
    return f"epoch {epoch + 1:>3}" if trainer.max_epochs in (None, -1) else f"epoch {epoch + 1:>3}/{trainer.max_epochs}"


class EpochBar(RichProgressBar):
    """Shows how far an epoch is, and counts epochs as the lines do; the values are in these."""

    def _get_train_description(self, current_epoch: int) -> str:
        return _epoch(current_epoch, self.trainer)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return nothing: in a narrow terminal values would stand in pieces beside the bar."""
        return {}


class Throughput(pl.Callback):
    """Measures how long training waits for data and how long it computes, and says what is the bottleneck.

    Waiting is the time from the end of one training step to the start of the next, on the host's monotonic clock; the
    first steps, which warm up caches and compilers, are left out. At the end of the fit a few lines say what to change.

    Args:
        file: a CSV that gets a line an epoch: ``epoch`` from 0, ``seconds`` of it with its validation, ``lr`` at its
            end, ``images_per_second`` and ``wait_share``; none by default. A resumed epoch gets another one.

    Attributes:
        waited: seconds spent waiting for batches.
        computed: seconds spent in training steps.
        images: how many images these steps have seen, on this rank.
    """

    _WARM_UP = 5  # steps

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.waited = self.computed = 0.0
        self.images = 0
        self._before = (0.0, 0.0, 0)  # the same at the beginning of the epoch
        self._epoch_began = 0.0
        self._steps = 0
        self._ended: float | None = None
        self._began = 0.0

    @property
    def wait_share(self) -> float:
        """Share of the training time, 0 to 1, that went into waiting for data."""
        total = self.waited + self.computed
        return self.waited / total if total else 0.0

    @property
    def images_per_second(self) -> float:
        """Training images a second on this rank, waiting included and validation left out."""
        total = self.waited + self.computed
        return self.images / total if total else 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a new epoch: what lies between two epochs is not waiting for data."""
        self._ended = None
        self._before = self.waited, self.computed, self.images
        self._epoch_began = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how long this batch was waited for."""
        self._began = time.monotonic()
        if self._ended is not None and self._steps >= self._WARM_UP:
            self.waited += self._began - self._ended

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note how long the step took and how many images it had."""
        self._ended = time.monotonic()
        if self._steps >= self._WARM_UP:
            self.computed += self._ended - self._began
            self.images += len(batch[0])
        self._steps += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the line of the epoch, on the first rank only."""
        if self.file is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        waited, computed, images = (now - before for now, before in zip(self._counts(), self._before, strict=True))
        total = waited + computed
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        line: list[Any] = [trainer.current_epoch, f"{time.monotonic() - self._epoch_began:.3f}", max(rates, default="")]
        line += [f"{images / total:.1f}", f"{waited / total:.4f}"] if total else ["", ""]
        heads = "" if self.file.is_file() else "epoch,seconds,lr,images_per_second,wait_share\n"
        with self.file.open("a", encoding="utf-8") as file:
            file.write(heads + ",".join(map(str, line)) + "\n")

    def _counts(self) -> tuple[float, float, int]:
        return self.waited, self.computed, self.images

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the lines, on the first rank only."""
        if self.images:
            say(self.diagnosis(trainer.train_dataloader, trainer.strategy.root_device.type, str(trainer.precision)))

    def diagnosis(self, loader: Any, device: str = "cpu", precision: str = "32-true") -> str:
        """Return images a second, the share of waiting and the bottleneck, and a line on each thing that would help."""
        text = f"throughput: {self.images_per_second:.0f} images/s, {self.wait_share:.0%} of the time waiting for data"
        waits = self.wait_share >= _WAIT_WORTH_MENTIONING
        remedies = _data_remedies(loader) if waits else _model_remedies(device, precision)
        return "\n  ".join([f"{text}; the {'data' if waits else 'model'} is the bottleneck; faster:", *remedies])


def _setting(key: str, value: object, command: str = "") -> str:
    """Return a setting as its reader writes it: as an option of a command, or as an argument in Python."""
    if COMMAND.get() == PYTHON:
        argument = f"{key.rpartition('.')[2]}={value!r}"
        return f"{command}(…, {argument})" if command else argument
    name = f"--{key.replace('_', '-')}" if command else short_name(key)
    option = name if value is True else f"{name} {value}"
    return f"sagitta {command} {option}" if command else option


def _model_remedies(device: str, precision: str) -> list[str]:
    """Return what would make the steps faster."""
    if device == "cpu":
        return ["a smaller model, smaller images, or a GPU"]
    mixed = [f"mixed precision ({_setting('trainer.precision', 'bf16-mixed')})"] if precision.startswith("32") else []
    return [*mixed, f"a larger batch ({_setting('data.batch_size', 'auto')})", "a smaller model"]


def _shorter_side(loader: Loader) -> float:
    """Return the shorter side of a typical image, pixels; 0 where the dataset does not say.

    Its largest height and largest width may be those of two images, neither of which is large.
    """
    if not max(loader.shards.info.max_size):
        return 0.0
    split = loader.shards.splits.get("train") or next(iter(loader.shards.splits.values()))
    sides = [side for side in map(split.column, ("height", "width")) if side is not None and len(side)]
    return float(np.median(np.minimum(*sides))) if len(sides) == 2 else 0.0


def _data_remedies(loader: Any) -> list[str]:
    """Return what would make a loader faster, the cheapest first."""
    if not isinstance(loader, Loader):
        return ["more workers of the DataLoader, or sagitta.ImageData"]
    remedies = []
    if loader.threads < (cores := usable_cores()):
        remedies.append(f"all {cores} cores ({_setting('data.threads', cores)})")
    height, width = loader.preprocessing.size
    stored = dict(loader.shards.info.provenance.get("options", {}))
    side = _shorter_side(loader)
    photos = side > max(height, width)
    if photos and not stored.get("restart_markers") and missing_core() is None:
        how = _setting("restart_markers", True, "convert")
        remedies.append(f"crops that decode only what they need, without loss ({how})")
    if photos and side > 2 * max(height, width):
        remedies.append(f"smaller stored images ({_setting('resize', round(1.5 * min(height, width)), 'convert')})")
    return remedies or ["a machine with more CPU cores"]
