"""How fast this machine trains, measured in a few steps; how many epochs fit into a time, and what keeps to it."""

import time
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from sagitta.dataset import plural
from sagitta.evaluation import quiet_trainer
from sagitta.loading import ImageData
from sagitta.models import Classifier
from sagitta.settings import Settings
from sagitta.training.watch import say

CAREFUL = 0.9
"""Share of a time that is planned: the machine may become slower."""
_END = 3.0  # seconds for writing, printing and a short report
_STEPS = 8  # of a trial


@dataclass(frozen=True)
class Pace:
    """What this machine does with this network and these images, in images a second.

    Attributes:
        training: forward, backward and step.
        evaluation: forward alone.
    """

    training: float
    evaluation: float


def plan_epochs(left: float, pace: Pace, *, train: int, val: int, test: int, checks: int, most: int) -> int:
    """Return how many epochs fit into ``left`` seconds, with what follows them; 0 where not a single one does.

    Args:
        left: seconds.
        pace: as measured.
        train: images of an epoch.
        val: images of the validation behind each epoch.
        test: images of the test at the end.
        checks: validations between the last epoch and the test.
        most: epochs that are wanted at all.
    """
    after = seconds_after(pace, val=val, test=test, checks=checks)
    epoch = train / pace.training + val / pace.evaluation
    return max(0, min(most, int((CAREFUL * left - after) / epoch)))


def seconds_after(pace: Pace, *, val: int, test: int, checks: int) -> float:
    """Return how long what follows the last epoch takes, see :func:`plan_epochs`."""
    return (checks * val + test) / pace.evaluation + _END


def measure(settings: Settings, data: ImageData, classifier: Classifier, limit: float) -> Pace:
    """Return the pace of a training, measured in a few steps on a model that is of no use afterwards.

    Args:
        settings: nothing open.
        data: set up.
        classifier: prepared.
        limit: seconds after which no step more is taken.
    """
    trial = _Trial(limit)
    trainer = quiet_trainer(
        **followed(settings),
        devices=1,
        max_epochs=1,
        limit_train_batches=_STEPS,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        callbacks=[trial],
    )
    with isolate_rng():
        trainer.fit(classifier, data)
    training = trial.rate("train")
    assert training is not None
    return Pace(training, trial.rate("val") or 2 * training)


def followed(settings: Settings) -> dict[str, Any]:
    """Return the Trainer's arguments that a trial has in common with the run, where they are set."""
    return {name: settings.trainer[name] for name in ("accelerator", "precision") if settings.trainer[name]}


class _Trial(pl.Callback):
    """Notes when batches begin and end."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.ends: dict[str, list[tuple[float, int]]] = {"train": [], "val": []}

    def rate(self, stage: str) -> float | None:
        """Return images a second; the first batch warms up, where there is another. None where there was none."""
        ends = self.ends[stage]
        if len(ends) < 2:
            return None
        first = min(1, len(ends) - 2)
        return sum(count for _, count in ends[first + 1 :]) / max(ends[-1][0] - ends[first][0], 1e-6)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends["train"].append((time.monotonic(), 0))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._note("train", pl_module, batch)
        trainer.should_stop = self.ends["train"][-1][0] - self.ends["train"][0][0] > self.limit

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends["val"].append((time.monotonic(), 0))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._note("val", pl_module, batch)

    def _note(self, stage: str, pl_module: pl.LightningModule, batch: Any) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.ends[stage].append((time.monotonic(), len(batch[0])))


class Deadline(pl.Callback):
    """Ends a training in time, also on a machine that has become slower than it was when the time was planned.

    What follows the last epoch is then slower, too: as much as the last training and validation were.

    Args:
        ends: when what follows the training has to be over, too, by ``time.monotonic``.
        epoch: seconds of training that were planned for an epoch; 0 where none were.
        validation: seconds that were planned for the validation behind it; likewise.
        after: seconds that were planned for what follows the last epoch.
    """

    def __init__(self, ends: float, *, epoch: float = 0.0, validation: float = 0.0, after: float = 0.0) -> None:
        self.ends, self.after = ends, after
        self.epoch, self.validation = epoch, validation
        self.epochs = 0
        self.slower = 1.0
        """How many times as long as planned the last epoch or its validation took, or this one seems to; at least 1."""
        self._before = 1.0
        self._began = self._validation_began = 0.0

    @property
    def left(self) -> float:
        """Seconds that are left for training."""
        return self.ends - self.after * self.slower - time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when it begins."""
        self._began, self._before = time.monotonic(), self.slower

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when it begins."""
        self._validation_began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave more time for what follows where this was slower than planned."""
        if self.validation and not trainer.sanity_checking:
            self.slower = max(self.slower, (time.monotonic() - self._validation_began) / self.validation)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End it where the time is over."""
        if self.epoch:  # the rest of it as the epoch before: a first step is always slow
            rest = self._before * (1 - (batch_idx + 1) / trainer.num_training_batches)
            self.slower = max(1.0, (time.monotonic() - self._began) / self.epoch + rest)
        if self.left < 0 and not trainer.should_stop:
            say("time:  it is over in the middle of an epoch, which ends here")
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin no epoch more where one as long as this would be too late."""
        self.epochs = trainer.current_epoch + 1
        more = self.epochs < (trainer.max_epochs or 0) and not trainer.should_stop
        if more and time.monotonic() - self._began > self.left:
            say(f"time:  another epoch does not fit any more; {plural(self.epochs, 'epoch')} it is")
            trainer.should_stop = True
