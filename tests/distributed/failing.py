"""Callbacks that fail in a training of several processes."""

from typing import Any

import lightning.pytorch as pl

from sagitta.errors import SagittaError


class One(pl.Callback):
    """Fails in the second process alone, in a way that nobody expects."""

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        """Fail in the second epoch."""
        if trainer.global_rank == 1 and trainer.current_epoch == 1:
            raise ArithmeticError("no number")


class All(pl.Callback):
    """Fails in every process alike, with an error that a person can mend."""

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        """Fail in the second epoch."""
        if trainer.current_epoch == 1:
            raise SagittaError("all have failed")
