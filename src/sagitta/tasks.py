"""One label an image, or several: what the logits mean, and what is logged of a validation or test epoch."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sagitta.metrics import best_thresholds, multilabel_values


def probabilities_of(logits: Tensor, *, multilabel: bool) -> Tensor:
    """Return probabilities (B, classes), float32: of one class each row, or of each label by itself."""
    logits = logits.float()
    return logits.sigmoid() if multilabel else logits.softmax(dim=1)


def mean_logits(first: Tensor, second: Tensor, *, multilabel: bool) -> Tensor:
    """Return logits (B, classes) whose probabilities are the mean of those of two, without loss of precision."""
    if multilabel:
        chance = torch.logaddexp(F.logsigmoid(first), F.logsigmoid(second))
        return chance - torch.logaddexp(F.logsigmoid(-first), F.logsigmoid(-second))
    return torch.logaddexp(first.log_softmax(dim=1), second.log_softmax(dim=1)) - math.log(2)


def chosen_thresholds(probabilities: Tensor, targets: Tensor) -> list[float]:
    """Return :func:`sagitta.metrics.best_thresholds` of tensors (N, classes)."""
    thresholds: list[float] = best_thresholds(probabilities.cpu().numpy(), targets.cpu().numpy() > 0).tolist()
    return thresholds


def epoch_values(probabilities: Tensor, targets: Tensor, thresholds: Sequence[float]) -> dict[str, float]:
    """Return :func:`sagitta.metrics.multilabel_values` of tensors (N, classes)."""
    return multilabel_values(probabilities.cpu().numpy(), targets.cpu().numpy() > 0, np.array(thresholds))
