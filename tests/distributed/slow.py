"""A callback that has evaluations take their time, and say how far they are, where the environment asks for it."""

import os
import time
from typing import Any

import lightning.pytorch as pl


class Slow(pl.Callback):
    """Says each batch of the stage that ``SLOW`` names, and waits a moment."""

    def _say(self, trainer: pl.Trainer, stage: str, batch: int) -> None:
        if os.environ.get("SLOW") == stage:
            if trainer.is_global_zero:
                print(f"{stage} batch {batch}", flush=True)
            time.sleep(0.5)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Say and wait."""
        self._say(trainer, "validation", batch_idx)

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Say and wait."""
        self._say(trainer, "test", batch_idx)
