"""Metrics: the cheap ones by torchmetrics while training, all of them with 95 % intervals from a test's predictions.

torchmetrics sums or gathers its states over devices before anything is divided, so every value is exact whatever their
number. Intervals are Wilson's (1927) where a value is a share of trials, else from a bootstrap over rows (Efron 1979).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelF1Score,
)
from torchmetrics.utilities.data import dim_zero_cat

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TOP5_CLASSES = 10  # top-5 accuracy says little of fewer classes than twice five
_BINS = 15  # of the expected calibration error, as in Guo et al. 2017
_RESAMPLES = 1000
_Z = 1.959964  # 97.5 % quantile of the normal distribution
_TINY = float(np.finfo(np.float32).tiny)  # a probability of 0 in float32 was at most this


def classification_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Return the cheap metrics of one label an image.

    Micro accuracy (``acc``, the share of images that are right), macro F1 (``f1``, the mean over classes) and, of more
    than ten classes, ``top5`` accuracy. All take logits (B, num_classes) and labels int64 (B,).

    Args:
        num_classes: at least 2.
        prefix: put before every name, such as ``val_``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "acc": MulticlassAccuracy(num_classes, average="micro"),
        "f1": MulticlassF1Score(num_classes, average="macro"),
    }
    if num_classes > TOP5_CLASSES:
        metrics["top5"] = MulticlassAccuracy(num_classes, top_k=5, average="micro")
    # Groups share one state between metrics, but are found by comparing states in the first update, which is
    # not the same on every rank; the states here are tiny.
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


def multilabel_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Return macro and micro F1 of several labels an image (``f1``, ``f1_micro``), each label decided at 0.5.

    Both take probabilities (B, num_classes) and targets int64 (B, num_classes) of 0 and 1.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "f1": MultilabelF1Score(num_classes, average="macro"),
        "f1_micro": MultilabelF1Score(num_classes, average="micro"),
    }
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


class Predictions(Metric):
    """Probabilities (N, classes) and labels (N,) or (N, classes) of a whole epoch, over all devices.

    ``compute`` gathers once: the rows of the first rank in their order, then those of the second, and so on.
    """

    full_state_update = False
    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Keep a batch."""
        self.probabilities.append(probabilities.float())
        self.labels.append(labels)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return probabilities, float32, and labels."""
        return dim_zero_cat(self.probabilities), dim_zero_cat(self.labels)


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScores:
    """How well one class is found; precision and recall are not a number where nothing was predicted or is there."""

    name: str
    support: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


Scores = tuple[dict[str, Estimate], list[ClassScores]]


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of independent trials (Wilson 1927): within 0..1, sound near its ends.

    Args:
        right: trials that succeeded.
        total: all trials; of none, nothing is known: (0, 1).
    """
    if total == 0:
        return 0.0, 1.0
    share, spread = right / total, _Z**2 / total
    middle = share + spread / 2
    half = (spread * (share * (1 - share) + spread / 4)) ** 0.5
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return (low if right else 0.0), (high if right < total else 1.0)  # exactly, whatever was rounded


def single_label_scores(probabilities: Floats, labels: Ints, class_names: Sequence[str]) -> Scores:
    """Return the scores of a test with one label an image, and those of each class.

    ``acc`` (micro), ``top5`` (of more than ten classes), ``f1`` (macro, over the classes that occur), ``ece`` (expected
    calibration error, 15 bins of equal width; Guo et al. 2017) and ``log_loss`` (nats).

    Args:
        probabilities: (N, classes), rows sum to 1.
        labels: (N,) int64.
        class_names: one a class.
    """
    one = _OneLabel(probabilities, labels)
    estimates = bootstrap(one.statistics, len(labels), [1, 1, np.inf, *np.ones(probabilities.shape[1])])
    scores = {name: _share(right, len(labels)) for name, right in one.right().items()}
    scores |= dict(zip(("f1", "ece", "log_loss"), estimates, strict=False))
    return scores, _class_scores(class_names, one.counts(np.ones(len(labels))), estimates[3:])


def single_label_values(probabilities: Floats, labels: Ints) -> dict[str, float]:
    """Return ``acc``, ``f1`` and ``top5`` of :func:`single_label_scores`, without intervals; takes no time."""
    one, rows = _OneLabel(probabilities, labels), len(labels)
    shares = {name: right / rows if rows else float("nan") for name, right in one.right().items()}
    return shares | {"f1": _mean(_f1(one.counts(np.ones(rows))))}


def multilabel_scores(probabilities: Floats, targets: Bools, thresholds: Floats, class_names: Sequence[str]) -> Scores:
    """Return the scores of a test with several labels an image, and those of each class.

    ``map`` (mean over classes of average precision), ``f1`` (macro) and ``f1_micro`` at the thresholds, ``log_loss``
    (nats, mean over images and labels).

    Args:
        probabilities: (N, classes), each of its own.
        targets: (N, classes).
        thresholds: (classes,); a label is given where its probability reaches its threshold.
        class_names: one a class.
    """
    several = _SeveralLabels(probabilities, targets, thresholds)
    estimates = bootstrap(several.statistics, len(targets), [1, 1, 1, np.inf, *np.ones(targets.shape[1])])
    scores = dict(zip(_SeveralLabels.NAMES, estimates, strict=False))
    return scores, _class_scores(class_names, several.counts(np.ones(len(targets))), estimates[len(scores) :])


def multilabel_values(probabilities: Floats, targets: Bools, thresholds: Floats) -> dict[str, float]:
    """Return ``map``, ``f1`` and ``f1_micro`` of :func:`multilabel_scores`, without intervals; takes no time."""
    values = _SeveralLabels(probabilities, targets, thresholds).statistics(np.ones(len(targets)))
    return dict(zip(_SeveralLabels.NAMES[:3], values.tolist(), strict=False))


def bootstrap(statistics: Callable[[Floats], Floats], rows: int, highest: npt.ArrayLike = np.inf) -> list[Estimate]:
    """Return values and 95 % intervals from 1,000 resamples of the rows, seeded.

    Percentiles are shifted by the resamples' mean distance from the value: resampling moves some statistics to one side
    (calibration error up, macro F1 down), and the interval should lie around the value.

    Args:
        statistics: of weights (rows,), how often each row is drawn, to values (k,).
        rows: at least 1.
        highest: value that is possible, of each (k,) or of all; the lowest is 0.
    """
    values = statistics(np.ones(rows))
    generator = np.random.default_rng(0)
    draws = (np.bincount(generator.integers(rows, size=rows), minlength=rows) for _ in range(_RESAMPLES))
    resampled = np.stack([statistics(draw.astype(np.float64)) for draw in draws])
    resampled = np.where(np.isnan(resampled), values, resampled)  # a class that a resample has no row of
    ends = np.percentile(resampled, (2.5, 97.5), axis=0) - resampled.mean(axis=0) + values
    low, high = np.clip(ends, 0, highest)
    return [
        Estimate(float(value), float(min(a, value)), float(max(b, value)))
        for value, a, b in zip(values, low, high, strict=True)
    ]


def best_thresholds(probabilities: Floats, targets: Bools) -> Floats:
    """Return for each label the threshold of highest F1 on these rows, or 0.5 where no row has the label.

    It lies halfway between the last probability that counts and the next lower one (Lipton et al. 2014 on why 0.5 is
    not best).

    Args:
        probabilities: (N, classes).
        targets: (N, classes).

    Returns:
        (classes,) float64 in 0..1.
    """
    order = np.argsort(-probabilities, axis=0, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=0).astype(np.float64)
    found = np.cumsum(np.take_along_axis(targets, order, axis=0), axis=0)
    taken = np.arange(1, len(targets) + 1)[:, None]
    f1 = 2 * found / (taken + targets.sum(axis=0))
    below = np.vstack([ranked[1:], np.zeros((1, ranked.shape[1]))])
    f1[below == ranked] = -1.0  # equal probabilities stand or fall together
    best = f1.argmax(axis=0)[None]
    middle = (np.take_along_axis(ranked, best, axis=0) + np.take_along_axis(below, best, axis=0))[0] / 2
    return np.where(targets.any(axis=0), middle, 0.5)


class _OneLabel:
    """The statistics of one label a row, for rows that count more than once."""

    def __init__(self, probabilities: Floats, labels: Ints) -> None:
        self._probabilities, self._labels = probabilities, labels
        self._predicted, self._confidence = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)
        self._own = np.take_along_axis(probabilities, labels[:, None], axis=1)
        self._losses = -np.log(np.maximum(self._own[:, 0], _TINY), dtype=np.float64)
        self._right = self._predicted == labels
        self._bins = np.clip(np.ceil(self._confidence * _BINS) - 1, 0, _BINS - 1).astype(np.int64)

    def right(self) -> dict[str, int]:
        """Return how many rows are right, ``acc``, and of more than ten classes have the label among five, ``top5``."""
        found = {"acc": int(self._right.sum())}
        if self._probabilities.shape[1] > TOP5_CLASSES:
            found["top5"] = int(((self._probabilities > self._own).sum(axis=1) < 5).sum())
        return found

    def counts(self, weights: Floats) -> Floats:
        """Return (3, classes): right, predicted, there."""
        kinds = ((self._labels, self._right), (self._predicted, True), (self._labels, True))
        classes = self._probabilities.shape[1]
        return np.stack([np.bincount(of, weights=weights * kept, minlength=classes) for of, kept in kinds])

    def statistics(self, weights: Floats) -> Floats:
        """Return macro F1, expected calibration error and log loss, then the F1 of each class."""
        gaps = np.bincount(self._bins, weights=weights * (self._right - self._confidence))
        total = weights.sum()
        f1 = _f1(self.counts(weights))
        return np.array([_mean(f1), np.abs(gaps).sum() / total, weights @ self._losses / total, *f1])


class _SeveralLabels:
    """The statistics of several labels a row, for rows that count more than once."""

    NAMES = ("map", "f1", "f1_micro", "log_loss")

    def __init__(self, probabilities: Floats, targets: Bools, thresholds: Floats) -> None:
        decided = probabilities >= thresholds
        own = np.where(targets, probabilities, 1 - probabilities)
        self._kinds = np.stack([decided & targets, decided, targets]).astype(np.float64)
        self._losses = -np.log(np.maximum(own, _TINY), dtype=np.float64).mean(axis=1)
        self._precision = _AveragePrecision(probabilities, targets)

    def counts(self, weights: Floats) -> Floats:
        """Return (3, classes): right, predicted, there."""
        found: Floats = np.einsum("n,knc->kc", weights, self._kinds)
        return found

    def statistics(self, weights: Floats) -> Floats:
        """Return the values of ``NAMES``, then the F1 of each class."""
        found = self.counts(weights)
        f1, micro = _f1(found), _f1(found.sum(axis=1, keepdims=True))
        loss = weights @ self._losses / weights.sum()
        return np.array([_mean(self._precision(weights)), _mean(f1), micro[0], loss, *f1])


class _AveragePrecision:
    """Average precision of each label for rows that count more than once; sorted once for all resamples."""

    def __init__(self, probabilities: Floats, targets: Bools) -> None:
        self._order = np.argsort(-probabilities, axis=0, kind="stable")
        self._targets = np.take_along_axis(targets, self._order, axis=0)
        ranked = np.take_along_axis(-probabilities, self._order, axis=0)
        # Rows of equal probability are found at once: each has the precision of the last of them.
        ends = [np.searchsorted(column, column, side="right") - 1 for column in ranked.T]
        self._ends = np.stack(ends, axis=1)

    def __call__(self, weights: Floats) -> Floats:
        """Return (classes,) average precisions, not a number where no row has the label."""
        drawn = weights[self._order]
        found = drawn * self._targets
        cumulated = np.cumsum(drawn, axis=0)
        precision = np.cumsum(found, axis=0) / np.maximum(cumulated, 1)
        with np.errstate(invalid="ignore"):
            result: Floats = (found * np.take_along_axis(precision, self._ends, axis=0)).sum(axis=0) / found.sum(axis=0)
        return result


def _f1(counts: Floats) -> Floats:
    """Return F1 of (3, classes) counts: right, predicted, there; not a number where a class does not occur at all."""
    right, predicted, there = counts
    with np.errstate(invalid="ignore"):
        f1: Floats = 2 * right / (predicted + there)
    return f1


def _mean(values: Floats) -> float:
    """Return the mean of those that are numbers."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _share(right: int, total: int) -> Estimate:
    return Estimate(right / total if total else float("nan"), *wilson_interval(right, total))


def _class_scores(class_names: Sequence[str], counts: Floats, f1: Sequence[Estimate]) -> list[ClassScores]:
    return [
        ClassScores(name, there, _share(right, predicted), _share(right, there), estimate)
        for name, (right, predicted, there), estimate in zip(class_names, counts.T.astype(int), f1, strict=True)
    ]
