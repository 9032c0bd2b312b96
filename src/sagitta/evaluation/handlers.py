"""Who listens to signals while a Trainer works: whoever did before."""

import signal
import threading
from typing import Any

import lightning.pytorch as pl


class KeepHandlers(pl.Callback):
    """Puts back the handlers of signals that Lightning replaces when it begins to work.

    Its own would let one process tell the others from within the handler, where all of them may wait for another
    message already, and would save and queue a SLURM job again in the middle of a step.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remember who listens; Lightning begins to afterwards."""
        if threading.current_thread() is threading.main_thread():
            names = [name for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP") if hasattr(signal, name)]
            numbers = [getattr(signal, name) for name in names]
            self._before = {number: signal.getsignal(number) for number in numbers}

    def _put_back(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number, handler in self._before.items():
            if handler is not None:
                signal.signal(number, handler)
        self._before = {}  # a validation within a training begins with what the training has

    on_sanity_check_start = on_train_start = on_validation_start = _put_back
    on_test_start = on_predict_start = _put_back
