"""One label an image, or several: the one place where the two differ, from targets to metrics.

:data:`SINGLE_LABEL` and :data:`MULTI_LABEL` are used alike: by the classifier, by evaluations, by whoever shows
predictions. Labels are int64 (B,) of the one, and float or bool (B, classes) of 0 and 1 of the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection

from sagitta.models.metrics import (
    Bools,
    Floats,
    Ints,
    Scores,
    best_thresholds,
    classification_metrics,
    multilabel_metrics,
    multilabel_scores,
    multilabel_values,
    single_label_scores,
    single_label_values,
)
from sagitta.models.ranges import ROUNDING

_TINY = float(np.finfo(np.float32).tiny)  # a probability of 0 in float32 was at most this
_NEAREST = float(np.finfo(np.float32).epsneg)  # and one of 1 as near to it

Decisions = Ints | Bools
"""What is predicted: classes (N,), or which labels are given (N, classes)."""


class Task(Protocol):
    """What depends on the number of labels that an image has."""

    multilabel: bool
    words: str
    """For messages: ``one label`` or ``several labels``."""

    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of logits (B, classes), in float32 at least: sums and logarithms of 16 bits mean little.

        Args:
            logits: of the network, in any precision.
            labels: or shares of them, (B, classes), as MixUp makes them.
            weight: of each class, (classes,).
            smoothing: share of each target that is spread.
        """
        ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return probabilities (B, classes), float32."""
        ...

    def logits(self, probabilities: Floats) -> Tensor:
        """Return float64 logits (N, classes) of which these are the probabilities."""
        ...

    def losses(self, logits: Tensor, labels: npt.NDArray[Any]) -> Tensor:
        """Return the loss of each row (N,); their mean is :meth:`loss`."""
        ...

    def mean_logits(self, logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Return float32 logits (B, classes) whose probabilities are the weighted mean of those of several.

        Args:
            logits: (B, classes) each.
            weights: above 0, with the sum 1.
        """
        ...

    def labels(self, targets: Tensor) -> Tensor:
        """Return int64 labels for metrics: of mixed images, the larger share counts."""
        ...

    def metrics(self, num_classes: int, stage: str) -> MetricCollection | None:
        """Return what is summed up while training, named with ``STAGE_``; None where all rows are needed at once."""
        ...

    def values(self, probabilities: Tensor, labels: Tensor, thresholds: Sequence[float]) -> dict[str, float]:
        """Return the metrics of all rows (N, classes), by the definitions of :meth:`scores`, without intervals."""
        ...

    def thresholds(self, probabilities: Tensor, labels: Tensor) -> list[float] | None:
        """Return the thresholds that are best on these rows (N, classes); None where there are none to choose."""
        ...

    def scores(
        self, probabilities: Floats, labels: npt.NDArray[Any], names: Sequence[str], thresholds: Sequence[float]
    ) -> Scores:
        """Return the scores of a test, (N, classes), with 95 % intervals, and those of each class."""
        ...

    def decide(self, probabilities: Floats, thresholds: Sequence[float]) -> Decisions:
        """Return what is predicted from probabilities (N, classes); labels are given from their thresholds on."""
        ...

    def certainty(self, probabilities: Floats, thresholds: Sequence[float]) -> Floats:
        """Return the probability (N,) of what is decided; of several labels, that of the least certain one."""
        ...

    def agree(self, wanted: Floats, found: Floats, thresholds: Sequence[float]) -> Bools:
        """Return of which rows (N,) two engines decide alike, or so near to another decision that either is right.

        Args:
            wanted: probabilities (N, classes) of the one that is asked.
            found: of the other one.
            thresholds: of the labels.
        """
        ...

    def names_of(self, labels: npt.NDArray[Any], names: Sequence[str]) -> pa.Array:
        """Return the class names of labels or decisions: strings (N,), or lists of them."""
        ...

    def numbers_of(self, labels: Sequence[Any], names: Sequence[str]) -> Decisions:
        """Return the labels (N,), or (N, classes), of which these are the names."""
        ...


@dataclass(frozen=True)  # equal to its copies
class SingleLabel:
    """One label an image: logits become a distribution over the classes."""

    multilabel = False
    words = "one label"

    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy."""
        logits = _at_least_float32(logits)
        return F.cross_entropy(logits, _like(logits, labels), _like(logits, weight), label_smoothing=smoothing)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax."""
        return logits.float().softmax(dim=1)

    def logits(self, probabilities: Floats) -> Tensor:
        """Return the logarithm: logits but for what all classes have in common."""
        return torch.from_numpy(np.log(np.maximum(probabilities, _TINY), dtype=np.float64))

    def losses(self, logits: Tensor, labels: npt.NDArray[Any]) -> Tensor:
        """Return the cross-entropy of each row."""
        return F.cross_entropy(logits, torch.from_numpy(labels.astype(np.int64)), reduction="none")

    def mean_logits(self, logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Return the logarithm of the mean probabilities."""
        return _log_mean([each.float().log_softmax(dim=1) for each in logits], weights)

    def labels(self, targets: Tensor) -> Tensor:
        """Return (B,) labels; of shares (B, classes), the largest."""
        return targets.argmax(dim=1) if targets.is_floating_point() else targets

    def metrics(self, num_classes: int, stage: str) -> MetricCollection:
        """Return ``acc``, ``f1`` and, of more than ten classes, ``top5``."""
        return classification_metrics(num_classes, f"{stage}_")

    def values(self, probabilities: Tensor, labels: Tensor, thresholds: Sequence[float]) -> dict[str, float]:
        """Return ``acc``, ``f1`` and, of more than ten classes, ``top5``."""
        return single_label_values(probabilities.cpu().numpy(), labels.cpu().numpy())

    def thresholds(self, probabilities: Tensor, labels: Tensor) -> None:
        """Return None: the largest probability decides."""

    def scores(
        self, probabilities: Floats, labels: npt.NDArray[Any], names: Sequence[str], thresholds: Sequence[float]
    ) -> Scores:
        """Return :func:`sagitta.models.metrics.single_label_scores`."""
        return single_label_scores(probabilities, labels.astype(np.int64), names)

    def decide(self, probabilities: Floats, thresholds: Sequence[float]) -> Ints:
        """Return the most probable class (N,)."""
        best: Ints = probabilities.argmax(axis=1)
        return best

    def certainty(self, probabilities: Floats, thresholds: Sequence[float]) -> Floats:
        """Return the highest probability (N,)."""
        highest: Floats = probabilities.max(axis=1)
        return highest

    def agree(self, wanted: Floats, found: Floats, thresholds: Sequence[float]) -> Bools:
        """Return where the most probable class is the same, or the two most probable ones are as good as equal."""
        best = np.sort(wanted, axis=1)[:, -2:]
        agreed: Bools = (wanted.argmax(axis=1) == found.argmax(axis=1)) | (best[:, -1] - best[:, 0] < ROUNDING)
        return agreed

    def names_of(self, labels: npt.NDArray[Any], names: Sequence[str]) -> pa.Array:
        """Return a string for each row."""
        return pa.array([names[label] for label in labels.astype(np.int64).tolist()], pa.string())

    def numbers_of(self, labels: Sequence[Any], names: Sequence[str]) -> Ints:
        """Return the numbers of the names (N,)."""
        number = {name: index for index, name in enumerate(names)}
        return np.array([number[label] for label in labels], np.int64)


@dataclass(frozen=True)  # equal to its copies
class MultiLabel:
    """Several labels an image, or none: each logit is a question by itself."""

    multilabel = True
    words = "several labels"

    def loss(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Return the binary cross-entropy, the mean over images and labels."""
        logits = _at_least_float32(logits)
        labels = _like(logits, labels)
        return F.binary_cross_entropy_with_logits(logits, labels + smoothing * (0.5 - labels), _like(logits, weight))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the sigmoid."""
        return logits.float().sigmoid()

    def logits(self, probabilities: Floats) -> Tensor:
        """Return the logarithm of the odds, as far as float32 tells a probability from 0 and from 1."""
        sure = np.clip(probabilities.astype(np.float64), _TINY, 1 - _NEAREST)
        return torch.from_numpy(np.log(sure) - np.log1p(-sure))

    def losses(self, logits: Tensor, labels: npt.NDArray[Any]) -> Tensor:
        """Return the binary cross-entropy of each row, the mean over its labels."""
        targets = torch.from_numpy((labels > 0).astype(np.float64)).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)

    def mean_logits(self, logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Return the logarithm of the odds of the mean probabilities."""
        chance = _log_mean([F.logsigmoid(each.float()) for each in logits], weights)
        return chance - _log_mean([F.logsigmoid(-each.float()) for each in logits], weights)

    def labels(self, targets: Tensor) -> Tensor:
        """Return (B, classes) of 0 and 1; shares from one half on count as 1."""
        return targets.round().long()

    def metrics(self, num_classes: int, stage: str) -> MetricCollection | None:
        """Return ``f1`` and ``f1_micro`` of training; average precision and thresholds need all rows of the others."""
        return multilabel_metrics(num_classes, f"{stage}_") if stage == "train" else None

    def values(self, probabilities: Tensor, labels: Tensor, thresholds: Sequence[float]) -> dict[str, float]:
        """Return ``map``, ``f1`` and ``f1_micro``."""
        return multilabel_values(probabilities.cpu().numpy(), labels.cpu().numpy() > 0, np.array(thresholds))

    def thresholds(self, probabilities: Tensor, labels: Tensor) -> list[float]:
        """Return :func:`sagitta.models.metrics.best_thresholds`."""
        found: list[float] = best_thresholds(probabilities.cpu().numpy(), labels.cpu().numpy() > 0).tolist()
        return found

    def scores(
        self, probabilities: Floats, labels: npt.NDArray[Any], names: Sequence[str], thresholds: Sequence[float]
    ) -> Scores:
        """Return :func:`sagitta.models.metrics.multilabel_scores`."""
        return multilabel_scores(probabilities, labels > 0, np.array(thresholds), names)

    def decide(self, probabilities: Floats, thresholds: Sequence[float]) -> Bools:
        """Return which labels reach their thresholds (N, classes)."""
        given: Bools = probabilities >= np.array(thresholds)
        return given

    def certainty(self, probabilities: Floats, thresholds: Sequence[float]) -> Floats:
        """Return the lowest probability (N,) of a label to be as it is decided."""
        given = self.decide(probabilities, thresholds)
        lowest: Floats = np.where(given, probabilities, 1 - probabilities).min(axis=1)
        return lowest

    def agree(self, wanted: Floats, found: Floats, thresholds: Sequence[float]) -> Bools:
        """Return where each label is given by both, by neither, or is as good as at its threshold."""
        same = self.decide(wanted, thresholds) == self.decide(found, thresholds)
        agreed: Bools = (same | (np.abs(wanted - np.array(thresholds)) < ROUNDING)).all(axis=1)
        return agreed

    def names_of(self, labels: npt.NDArray[Any], names: Sequence[str]) -> pa.Array:
        """Return a list for each row."""
        rows = [[names[label] for label in np.flatnonzero(row).tolist()] for row in labels > 0]
        return pa.array(rows, pa.list_(pa.string()))

    def numbers_of(self, labels: Sequence[Any], names: Sequence[str]) -> Bools:
        """Return which names each row has (N, classes)."""
        found: Bools = np.array([[name in row for name in names] for row in map(set, labels)], np.bool_)
        return found.reshape(-1, len(names))


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


@overload
def _like(logits: Tensor, other: Tensor) -> Tensor: ...
@overload
def _like(logits: Tensor, other: None) -> None: ...
def _like(logits: Tensor, other: Tensor | None) -> Tensor | None:
    """Return shares or weights in the precision of logits; labels that are whole numbers stay."""
    return other.to(logits.dtype) if other is not None and other.is_floating_point() else other


def _log_mean(logarithms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the logarithm of the weighted mean of what these are the logarithms of."""
    weighted = [each + math.log(weight) for each, weight in zip(logarithms, weights, strict=True)]
    return torch.stack(weighted).logsumexp(dim=0)


SINGLE_LABEL: Task = SingleLabel()
MULTI_LABEL: Task = MultiLabel()


def task_of(multilabel: bool | None) -> Task:
    """Return the task of data that has several labels a row, or one, which is what is meant where nobody says."""
    return MULTI_LABEL if multilabel else SINGLE_LABEL


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
