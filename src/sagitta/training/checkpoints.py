"""What a run keeps of its weights: those of the best epochs, and whatever is needed to go on from where it stood."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn

from sagitta.errors import ConfigError
from sagitta.loading import Loader
from sagitta.models import SMOOTHED, Classifier
from sagitta.run import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT


class Checkpoints(Checkpoint):
    """Keeps the weights of the epochs with the lowest loss on ``val``, and what a run goes on from.

    ::

        image-classifier-epoch=05-val_loss=0.08.ckpt    weights as they were validated, and what they are for
        last.ckpt                                       where the training stands, with the optimizer and all else
        previous.ckpt                                   the one before it, until the training has ended

    ``last.ckpt`` is written after every epoch and inside of long ones: at most an epoch or ``SECONDS`` of work are
    lost, whichever is less, and a validation, which is made anew as a whole. Each file is there as a whole or not at
    all, and what a checkpoint calls the best files is kept until the next one is written.

    The loss is that of smoothed labels where training smooths them, see :data:`sagitta.models.SMOOTHED`; else, and
    where a run of version 0.1.0 is resumed, ``val_loss``.

    Lightning's ``ModelCheckpoint`` writes the optimizer's state beside the best weights, too, which makes them three
    times as large; of averaged weights it would leave out the average; it forgets the best where a run has moved; and
    what has been measured of an epoch does not survive it.

    Args:
        folder: of the checkpoints.
        keep: how many of the best.

    Raises:
        ConfigError: ``keep`` is below 1.
    """

    SECONDS = 300.0
    """From one checkpoint inside an epoch to the next."""

    def __init__(self, folder: Path, keep: int = 1) -> None:
        if keep < 1:
            raise ConfigError(f"--keep {keep}: must be at least 1; the best weights are those that are tested")
        self.folder, self.keep = folder.absolute(), keep
        self._losses: dict[str, float] = {}  # of the files that are kept
        self._dropped: list[str] = []  # files that were, and will go when the next checkpoint to go on from is there
        self._criterion: str | None = None
        self._saved = time.monotonic()
        self._unfinished: dict[str, Any] | None = None  # what was measured of an epoch that is resumed
        self._resumed = False
        self._to_log: dict[str, Any] | None = None  # what Lightning logs only after a checkpoint is written
        self._step_log: dict[str, Any] | None = None  # what a resumed run has logged of the step it stands at
        self._validating = False  # a run is resumed in a validation

    @property
    def best_model_path(self) -> str:
        """The file of the lowest loss, by Lightning's name for it; empty before the first validation."""
        return str(self.folder / min(self._losses, key=self._losses.__getitem__)) if self._losses else ""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are among the best."""
        metrics = trainer.callback_metrics
        if "val_loss" not in metrics or trainer.sanity_checking or not _keeps(trainer):
            return
        self._criterion = self._criterion or (SMOOTHED if SMOOTHED in metrics else "val_loss")
        loss, value = (float(metrics[name].nan_to_num(torch.inf)) for name in ("val_loss", self._criterion))
        better = len(self._losses) < self.keep or value < max(self._losses.values())
        if not trainer.strategy.broadcast(better):
            return
        name = self._name(trainer.current_epoch, loss)
        with _weights_swapped(trainer):  # to those that were validated
            _write(trainer, self.folder / name, weights_only=True)
        self._losses[name] = value
        for worse in sorted(self._losses, key=self._losses.__getitem__)[self.keep :]:
            del self._losses[worse]
            self._dropped.append(worse)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the log of a resumed run, also where no epoch is left."""
        self._resumed = self._to_log is not None
        if self._to_log is not None:
            values, step = self._to_log["values"], self._to_log["step"]
            for logger in trainer.loggers if values else ():
                logger.log_metrics(values, step)
                logger.save()
            self._step_log, self._to_log = self._to_log, None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what a resumed run has of a time behind its checkpoint, and know the epoch that it validates."""
        self._saved = time.monotonic()
        if trainer.fit_loop.epoch_loop.val_loop.restarted_mid_evaluation:
            self._validating = True
            self._take_up(trainer, pl_module)
            total: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
            total.ready = total.started = total.completed
            if trainer.is_last_batch and isinstance(pl_module, Classifier) and pl_module.measures is not None:
                # No step of this epoch is left that would have Lightning log them at its end.
                pl_module.log_dict(pl_module.measures.of_training(), on_step=False, on_epoch=True, batch_size=1)
        if self._resumed:
            behind = (path for path in self.folder.glob(f"{_NAME}*.ckpt") if _epoch_of(path) >= trainer.current_epoch)
            self._dropped += [path.name for path in behind if path.name not in self._losses]
            self._dropped += [path.name for path in self.folder.glob(f"*{_PARTIAL}")]
            self._remove_dropped(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take up what had been measured of the epoch before it was interrupted."""
        self._take_up(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave all batches of the epoch behind where a run is resumed in its validation."""
        loader = trainer.train_dataloader
        if self._validating and trainer.is_last_batch and isinstance(loader, Loader):
            state = loader.state_dict()
            if state["samples"] == 0:  # which its state calls the beginning of the next one
                loader.load_state_dict(state | {"samples": len(loader) * state["global_batch"]})
        self._validating = False

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write what a resumed run goes on from, in the middle of a validation that takes long."""
        if trainer.world_size == 1 or (batch_idx + 1) % _AGREED == 0:
            due = time.monotonic() - self._saved >= self.SECONDS
            if self._can_validate_anew(trainer) and trainer.strategy.broadcast(due):
                self.save_before_validation(trainer)

    def _take_up(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up what had been measured, on the first rank for them all."""
        if self._unfinished is not None:
            if trainer.is_global_zero and isinstance(pl_module, Classifier) and pl_module.measures is not None:
                pl_module.measures.resume(self._unfinished)
            self._unfinished = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write what a resumed run goes on from, in the middle of an epoch that takes long."""
        if trainer.world_size > 1 and (batch_idx + 1) % _AGREED:
            return
        due = time.monotonic() - self._saved >= self.SECONDS
        if self._can_stop(trainer, batch_idx + 1) and trainer.strategy.broadcast(due):
            self.save_inside(trainer, batch_idx + 1)

    def save_inside(self, trainer: Any, batches: int) -> bool:
        """Write ``last.ckpt`` after so many batches of an epoch; returns whether a run can go on from there."""
        if not self._can_stop(trainer, batches):
            return False
        self._save_last(trainer, _of_step(trainer), inside=True)
        return True

    def save_before_validation(self, trainer: Any) -> bool:
        """Write ``last.ckpt`` as it would have been before the present validation; returns whether that can be.

        Lightning makes a validation anew if it stood in the middle of its first batch.
        """
        if not self._can_validate_anew(trainer):
            return False
        with _weights_swapped(trainer):  # back to those that are trained
            self._save_last(trainer, _of_step(trainer), inside=True)
        return True

    def _can_validate_anew(self, trainer: Any) -> bool:
        """Return whether a resumed run would come to the present validation, and have all that came before."""
        over = 0 <= trainer.max_steps <= trainer.global_step  # then it would not even begin
        planned = not trainer.should_stop and trainer.val_check_batch is not None  # by batches, not by time
        applied = not trainer.fit_loop._should_accumulate()
        return _keeps(trainer) and trainer.validating and planned and not over and applied  # none before the training

    def _can_stop(self, trainer: Any, batches: int) -> bool:
        """Return whether a resumed run could go on after so many batches of the epoch.

        Lightning would leave out a validation that follows, and gradients that are not yet applied are in no
        checkpoint.
        """
        count = batches if trainer.check_val_every_n_epoch else trainer.fit_loop.total_batch_idx + 1
        return bool(
            _keeps(trainer)
            and not trainer.is_last_batch
            and count % trainer.val_check_batch != 0
            and batches % trainer.accumulate_grad_batches == 0
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what a resumed run goes on from."""
        metrics = trainer.callback_metrics  # on every rank: sums over all devices are made when they are read
        if _keeps(trainer):
            values = {name: value for name, value in metrics.items() if _of_epoch(name)}
            self._save_last(trainer, values, inside=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the checkpoint before the last one: it was for the case that writing the last one is interrupted."""
        trainer.strategy.remove_checkpoint(self.folder / PREVIOUS_CHECKPOINT)

    def _save_last(self, trainer: pl.Trainer, values: Mapping[str, Any], *, inside: bool) -> None:
        """Write ``last.ckpt``, with the log up to it on the disk.

        Args:
            trainer: that trains.
            values: what Lightning is about to log of this step.
            inside: of an epoch.
        """
        for logger in trainer.loggers:
            logger.save()
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - (not inside)
        known = {name: float(value) for name, value in values.items() if value is not None}
        if inside and not known and self._step_log is not None and self._step_log["step"] == step:
            known = self._step_log["values"]
        self._to_log = {
            "values": known | {"epoch": trainer.current_epoch} if known else {},
            "step": step,
            "inside": inside,
        }
        last = self.folder / LAST_CHECKPOINT
        _write(trainer, last, before=self.folder / PREVIOUS_CHECKPOINT)
        self._to_log = None
        self._remove_dropped(trainer)
        self._saved = time.monotonic()

    def _remove_dropped(self, trainer: pl.Trainer) -> None:
        """Remove what is not among the best any more, now that no checkpoint calls it so."""
        for name in self._dropped:
            trainer.strategy.remove_checkpoint(self.folder / name)
        self._dropped = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what was measured of an unfinished epoch, which Lightning forgets; set a validation back to its start."""
        if self._to_log is None or not self._to_log["inside"]:
            return
        if isinstance(pl_module, Classifier):
            assert pl_module.measures is not None
            checkpoint["measured"] = pl_module.measures.unfinished()
        if trainer.validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            before = progress["total"]["completed"] - progress["current"]["completed"]
            for name, done in (("total", before), ("current", 0)):
                progress[name] |= {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}
            progress["is_last_batch"] = False

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember what was measured of an unfinished epoch."""
        self._unfinished = checkpoint.get("measured")

    def _name(self, epoch: int, loss: float) -> str:
        """Return a name that no other kept file has; one that a killed run left behind is replaced."""
        name, number = f"{_NAME}{epoch:02d}-val_loss={loss:.2f}", 0
        while (found := f"{name}-v{number}.ckpt" if number else f"{name}.ckpt") in {*self._losses, *self._dropped}:
            number += 1
        return found

    @property
    def state_key(self) -> str:
        """That of what wrote the checkpoints of version 0.1.0."""
        return str(ModelCheckpoint(monitor="val_loss").state_key)

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the best files and their losses; no path, since a run may move."""
        return {
            "best_k_models": dict(self._losses),
            "dropped": list(self._dropped),
            "criterion": self._criterion,
            "to_log": self._to_log,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Know the best files again, as far as they are still there."""
        losses = {Path(path).name: float(loss) for path, loss in state_dict["best_k_models"].items()}
        there = [name for name in sorted(losses, key=losses.__getitem__) if (self.folder / name).is_file()]
        self._losses = {name: losses[name] for name in there[: self.keep]}
        self._criterion = state_dict.get("criterion", "val_loss")
        self._dropped = list(state_dict.get("dropped", ()))
        self._to_log = state_dict.get("to_log")


_NAME = "image-classifier-epoch="
_AGREED = 16  # batches after which several devices agree whether it is time, which takes its own
_PARTIAL = ".partial"


def _write(trainer: pl.Trainer, path: Path, *, weights_only: bool = False, before: Path | None = None) -> None:
    """Write a checkpoint under another name and rename it: Lightning moves it there from a folder for temporary files.

    Args:
        trainer: that trains.
        path: of the checkpoint.
        weights_only: leave out what only a training needs.
        before: how a checkpoint that is there already is called from now on.
    """
    partial = path.with_suffix(_PARTIAL)
    try:
        trainer.save_checkpoint(partial, weights_only=weights_only)
    except OSError:  # such as a full disk
        with suppress(OSError):
            partial.unlink()
        raise
    if trainer.is_global_zero:
        if before is not None and path.exists():
            path.replace(before)
        partial.replace(path)
    trainer.strategy.barrier()


def _epoch_of(path: Path) -> int:
    return int(path.name.removeprefix(_NAME).partition("-")[0])


def _of_step(trainer: Any) -> dict[str, Any]:
    """Return what Lightning logs of the present step."""
    every = trainer.log_every_n_steps
    if every <= 0 or (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % every:
        return {}
    return {"train_loss_step": trainer.callback_metrics.get("train_loss_step")}


def _of_epoch(name: str) -> bool:
    """Return whether a metric is one of a whole epoch of training."""
    return name.startswith("train_") and not name.endswith("_step")


def _keeps(trainer: Any) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.fast_dev_run


@contextmanager
def _weights_swapped(trainer: Any) -> Iterator[None]:
    """Have the other weights in place meanwhile where they are averaged: in training the average, else the last."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]
    for callback in averages:
        callback.on_validation_epoch_start(trainer, trainer.lightning_module)
    try:
        yield
    finally:
        for callback in averages:
            callback.on_validation_epoch_end(trainer, trainer.lightning_module)
