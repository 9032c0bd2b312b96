"""What makes a training repeatable, and its weights' moving average."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from sagitta.errors import ConfigError
from sagitta.loading import Stream, uniform


class StepSeed(pl.Callback):
    """Seeds torch before every training step from (seed, step, rank), so that dropout and the like repeat exactly.

    A resumed run then draws the same numbers as one that was never interrupted; no random state has to be saved.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed every device's generator of this process."""
        step = np.array([trainer.global_step])
        number = uniform(self.seed, trainer.current_epoch, step + batch_idx, Stream.STEP + trainer.global_rank, 1)
        torch.manual_seed(int(number[0, 0] * 2**53))


class WeightEMA(WeightAveraging):
    """Validates, keeps and tests an exponential moving average of the weights instead of the last ones.

    In the first steps the average forgets faster, by ``(1 + n) / (10 + n)`` after n of them (as in Tan & Le,
    "EfficientNet", 2019), or else a short training would never leave its initial weights behind. Lightning's callback
    does the rest; its checkpoints hold the average as ``state_dict`` and the last weights beside it, to go on from.

    Args:
        decay: of the average a step, 0 < decay < 1.

    Raises:
        ConfigError: the decay is out of range.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"ema {decay}: must lie between 0 and 1, such as 0.99; 0 for none")

        def average(mean: Tensor, value: Tensor, updates: Tensor) -> Tensor:
            if not mean.is_floating_point():  # BatchNorm's counters
                return value
            weight = torch.clamp((1 + updates) / (10 + updates), max=decay)
            return torch.lerp(value.to(mean.dtype), mean, weight.to(mean.dtype))

        super().__init__(avg_fn=average)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin an average with the model's own weights when a fit begins; forget it for everything else.

        It has float32 at least, whatever the precision: weights of 16 bits would not move by a thousandth.
        """
        self._average_model = None
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None and trainer.precision == "64-true":  # the weights become so later
            self._average_model.double()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with average and last weights in a fit; a test has the average already and must keep it."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
