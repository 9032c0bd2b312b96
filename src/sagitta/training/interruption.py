"""A training that a signal asks to end: between two steps, on all devices at the same, with what it has done saved."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from sagitta.signals import Interrupted, Listener


class EndWhenAsked(Checkpoint):
    """Ends a training where a signal asked for it, on whichever device: after the step that all have finished.

    Among Lightning's checkpoints it comes after all other callbacks, so that what is saved holds what they did. A
    second signal ends the training at once.

    Args:
        save: writes what the training goes on from, on every device; called between two steps.
    """

    def __init__(self, save: Callable[[pl.Trainer], None] | None = None) -> None:
        self._save = save
        self._listener: Listener | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen."""
        self._listener = Listener()
        self._listener.begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end where that was asked for."""
        if number := self._asked(trainer):
            if self._save is not None:
                self._save(trainer)
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
        """End where that was asked for; what the training goes on from was saved before the validation."""
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
        """Leave the signals to those who listened before; what was asked for meanwhile holds."""
        asked = self._asked(trainer)
        self._leave()
        if asked:
            raise Interrupted(number=asked)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the signals to those who listened before."""
        self._leave()

    def _leave(self) -> None:
        if self._listener is not None:
            self._listener.end()
        self._listener = None
