"""A training that a signal asks to end: between two steps, on all devices at the same, with what it has done saved."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from sagitta.signals import Interrupted, Listener
from sagitta.training.checkpoints import Checkpoints


class EndWhenAsked(Checkpoint):
    """Ends a training where a signal asked for it, on whichever device: after a step that all have finished.

    It is the first one from which the run can go on, or the next batch of a validation, which is made anew then. A
    second signal ends the training at once. Among Lightning's checkpoints it comes after all other callbacks, so that
    what is saved holds what they did.

    Args:
        kept: writes what the run goes on from.
    """

    def __init__(self, kept: Checkpoints) -> None:
        self._kept = kept
        self._listener: Listener | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen."""
        self._listener = Listener()
        self._listener.begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end where that was asked for."""
        if (number := self._asked(trainer)) and self._kept.save_inside(trainer, batch_idx + 1):
            raise Interrupted(number=number)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save what came before the validation, and end where that was asked for."""
        if number := self._asked(trainer):
            self._kept.save_before_validation(trainer)
            raise Interrupted(number=number)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End where that was asked for; the epoch is saved."""
        if number := self._asked(trainer):
            raise Interrupted(number=number)

    def _asked(self, trainer: Any) -> int:
        """Return the number of the signal that came to any process, the same in all; 0 for none."""
        if self._listener is None:
            return 0
        asked = self._listener.asked
        if trainer.world_size == 1:
            return asked
        return int(trainer.strategy.reduce(torch.tensor(asked, device=trainer.strategy.root_device), reduce_op="max"))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the signals to those who listened before; what was asked for behind the last epoch holds."""
        number = self._asked(trainer)
        self._leave()
        if number:
            raise Interrupted(number=number)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the signals to those who listened before."""
        self._leave()

    def _leave(self) -> None:
        if self._listener is not None:
            self._listener.end()
        self._listener = None
