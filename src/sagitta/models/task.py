"""One label an image, or several: what the logits mean, and what is logged of a validation or test epoch."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sagitta.models.metrics import best_thresholds, multilabel_values


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
    """Return :func:`sagitta.models.metrics.best_thresholds` of tensors (N, classes)."""
    thresholds: list[float] = best_thresholds(probabilities.cpu().numpy(), targets.cpu().numpy() > 0).tolist()
    return thresholds


def epoch_values(probabilities: Tensor, targets: Tensor, thresholds: Sequence[float]) -> dict[str, float]:
    """Return :func:`sagitta.models.metrics.multilabel_values` of tensors (N, classes)."""
    return multilabel_values(probabilities.cpu().numpy(), targets.cpu().numpy() > 0, np.array(thresholds))


def mix(
    images: Tensor, labels: Tensor, num_classes: int, *, mixup: float, cutmix: float, key: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return mixed images and soft targets.

    MixUp (Zhang et al. 2018) adds two images, CutMix (Yun et al. 2019) puts a box of one into the other; the labels are
    mixed in the same shares. With both, each has half of the batches. Partners are neighbours in the batch, 0 and 1, 2
    and 3 …, and a batch has one share and one box: so the ranks of a global batch mix as one process would, as long as
    each has an even number of images.

    Args:
        images: (B, C, H, W) float.
        labels: (B,) int64, or (B, num_classes) float of 0 and 1.
        num_classes: number of classes.
        mixup: alpha of the Beta distribution of MixUp's shares; 0 is off.
        cutmix: likewise for CutMix.
        key: non-negative integers that determine what is random, such as (seed, epoch, batch).

    Returns:
        images of the same shape, and targets (B, num_classes) float32 that sum to 1 where labels are classes.
    """
    targets = F.one_hot(labels, num_classes).float() if labels.ndim == 1 else labels.float()
    if not mixup and not cutmix:
        return images, targets
    random = np.random.default_rng(key)
    partner = torch.arange(len(images), device=images.device) ^ 1
    partner[-1].clamp_(max=len(images) - 1)  # the last of an odd number stays alone
    cut = bool(cutmix and (not mixup or random.random() < 0.5))
    alpha = cutmix if cut else mixup
    share = float(random.beta(alpha, alpha))
    if cut:
        height, width = images.shape[2:]
        centre, half = random.random(2) * (height, width), np.sqrt(1 - share) * np.array([height, width]) / 2
        top, left = np.rint(np.maximum(centre - half, 0)).astype(int)
        bottom, right = np.rint(np.minimum(centre + half, (height, width))).astype(int)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[partner][:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)  # what is left after the border cut the box
    else:
        mixed = torch.lerp(images[partner], images, share)
    return mixed, torch.lerp(targets[partner], targets, float(share))
