"""The precision in which a run is judged: that in which it predicts, so that a test and a prediction say the same."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import Precision
from torch import nn


def judged_in(trained: str | None, *, cpu: bool) -> str:
    """Return the precision of predictions and tests, as Lightning names it.

    On a GPU it is that of the training. On a CPU it is float32 at least: 16 bits gain nothing there without gradients,
    and cost a digit.

    Args:
        trained: precision of the training; None where nobody noted it.
        cpu: the processor computes.
    """
    if trained is None or (cpu and not str(trained).startswith("64")):
        return "32-true"
    return str(trained)


def judge_as_predicted(trainer: pl.Trainer, classifier: nn.Module) -> None:
    """Have a Trainer that has trained on a CPU in 16 bits compute in float32 from now on.

    Args:
        trainer: that will not train any more.
        classifier: its model.
    """
    if trainer.strategy.root_device.type == "cpu" and "16" in str(trainer.precision):
        trainer.strategy.precision_plugin = Precision()
        classifier.to(torch.float32)
