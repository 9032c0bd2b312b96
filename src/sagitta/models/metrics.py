"""Metrics: the cheap ones by torchmetrics while training, all of them with 95 % intervals from a test's predictions.

torchmetrics sums or gathers its states over devices before anything is divided, so every value is exact whatever their
number. Macro F1 is the mean over the classes that occur, as scikit-learn and torchmetrics take it: a class that is only
predicted counts as 0, one that is neither there nor predicted not at all. Mean average precision leaves out labels that
no row has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MultilabelF1Score
from torchmetrics.utilities.data import dim_zero_cat

from sagitta.models.intervals import (
    UNKNOWN,
    Estimate,
    bootstrap,
    f1,
    mean_f1,
    mean_share,
    resamples,
    share,
    with_unseen_errors,
)

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TOP5_CLASSES = 10  # top-5 accuracy says little of fewer classes than twice five
BINS = 15
"""Of the expected calibration error and of its diagram, as in Guo et al. 2017."""
_TINY = float(np.finfo(np.float32).tiny)  # a probability of 0 in float32 was at most this


def classification_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Return the cheap metrics of one label an image.

    Micro accuracy (``acc``, the share of images that are right), macro F1 (``f1``) and, of more than ten classes,
    ``top5`` accuracy. All take logits (B, num_classes) and labels int64 (B,).

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
class ClassScores:
    """How well one class is found; precision and recall are not a number where nothing was predicted or is there."""

    name: str
    support: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


Scores = tuple[dict[str, Estimate], list[ClassScores]]


def single_label_scores(probabilities: Floats, labels: Ints, class_names: Sequence[str]) -> Scores:
    """Return the scores of a test with one label an image, and those of each class.

    ``acc`` (micro), ``top5`` (of more than ten classes), ``f1`` (macro), ``ece`` (expected calibration error, 15 bins
    of equal width; Guo et al. 2017) and ``log_loss`` (nats).

    Args:
        probabilities: (N, classes), rows sum to 1.
        labels: (N,) int64.
        class_names: one a class.
    """
    one, rows = _OneLabel(probabilities, labels), len(labels)
    ece, loss = bootstrap(one.statistics, rows, [1, np.inf])
    scores = {name: share(right, rows) for name, right in one.shares().items()}
    scores |= {
        "f1": mean_f1(one.counts(), one.influences),
        "ece": _with_unseen_gap(ece, scores["acc"]),
        "log_loss": with_unseen_errors(loss, one.losses, one.right, one.losses_if_wrong()),
    }
    return scores, _class_scores(class_names, one.counts())


def single_label_values(probabilities: Floats, labels: Ints) -> dict[str, float]:
    """Return ``acc``, ``f1`` and ``top5`` of :func:`single_label_scores`, without intervals; takes no time."""
    one, rows = _OneLabel(probabilities, labels), len(labels)
    values = {name: right / rows for name, right in one.shares().items()} if rows else {}
    return values | _known({"f1": _macro(_f1(one.counts()))})


def multilabel_scores(probabilities: Floats, targets: Bools, thresholds: Floats, class_names: Sequence[str]) -> Scores:
    """Return the scores of a test with several labels an image, and those of each class.

    ``map`` (mean of average precision), ``f1`` (macro) and ``f1_micro``, both F1 at the thresholds, ``log_loss`` (nats,
    mean over images and labels). Where no image has a label, ``map`` and ``f1`` are not a number.

    Args:
        probabilities: (N, classes), each of its own.
        targets: (N, classes).
        thresholds: (classes,); a label is given where its probability reaches its threshold.
        class_names: one a class.
    """
    several = _SeveralLabels(probabilities, targets, thresholds)
    (loss,) = bootstrap(several.loss, len(targets))
    scores = {
        "map": several.mean_precision(),
        "f1": mean_f1(several.counts(), several.influences),
        "f1_micro": mean_f1(several.counts().sum(axis=1, keepdims=True), several.influences),
        "log_loss": with_unseen_errors(loss, several.losses, several.right, several.losses_if_wrong()),
    }
    return scores, _class_scores(class_names, several.counts())


def multilabel_values(probabilities: Floats, targets: Bools, thresholds: Floats) -> dict[str, float]:
    """Return ``map``, ``f1`` and ``f1_micro`` of :func:`multilabel_scores`, without intervals; takes no time."""
    several = _SeveralLabels(probabilities, targets, thresholds)
    counts = several.counts()
    pooled = counts.sum(axis=1, keepdims=True)
    return _known(
        {
            "map": float(several.precision(np.ones(len(targets)))[0]),
            "f1": _macro(_f1(counts)),
            "f1_micro": _macro(_f1(pooled)),
        }
    )


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
    """What is known of one label a row, also for rows that count more than once."""

    def __init__(self, probabilities: Floats, labels: Ints) -> None:
        self._probabilities, self._labels = probabilities, labels
        self._predicted, self._confidence = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)
        self._own = np.take_along_axis(probabilities, labels[:, None], axis=1)
        self.losses = _loss(self._own[:, 0])
        self.right = self._predicted == labels
        self._bins = bins_of(self._confidence)

    def shares(self) -> dict[str, int]:
        """Return how many rows are right, ``acc``, and of more than ten classes have the label among five, ``top5``."""
        found = {"acc": int(self.right.sum())}
        if self._probabilities.shape[1] > TOP5_CLASSES:
            found["top5"] = int(((self._probabilities > self._own).sum(axis=1) < 5).sum())
        return found

    def counts(self) -> Floats:
        """Return (3, classes): right, predicted, there."""
        classes = self._probabilities.shape[1]
        kinds = (self._labels[self.right], self._predicted, self._labels)
        return np.stack([np.bincount(of, minlength=classes) for of in kinds]).astype(np.float64)

    def influences(self, gain: Floats, cost: Floats) -> Floats:
        """See :func:`sagitta.models.intervals.mean_f1`."""
        found: Floats = gain[self._labels] * self.right - cost[self._labels] - cost[self._predicted]
        return found

    def losses_if_wrong(self) -> Floats:
        """Return the losses (N,) if each row's label were its second most probable class."""
        return _loss(np.partition(self._probabilities, -2, axis=1)[:, -2])

    def statistics(self, weights: Floats) -> Floats:
        """Return expected calibration error and log loss."""
        gaps = np.bincount(self._bins, weights=weights * (self.right - self._confidence))
        found: Floats = np.array([np.abs(gaps).sum(), weights @ self.losses]) / weights.sum()
        return found


class _SeveralLabels:
    """What is known of several labels a row, also for rows that count more than once."""

    def __init__(self, probabilities: Floats, targets: Bools, thresholds: Floats) -> None:
        decided = probabilities >= thresholds
        own = np.where(targets, probabilities, 1 - probabilities)
        self._kinds = np.stack([decided & targets, decided, targets]).astype(np.float64)
        self._decided = np.where(decided, probabilities, 1 - probabilities)
        self.right = (decided == targets).all(axis=1)
        self.losses: Floats = _loss(own).mean(axis=1)
        self._precision = _AveragePrecision(probabilities, targets)

    def counts(self) -> Floats:
        """Return (3, classes): right, predicted, there."""
        found: Floats = self._kinds.sum(axis=1)
        return found

    def influences(self, gain: Floats, cost: Floats) -> Floats:
        """See :func:`sagitta.models.intervals.mean_f1`; a single gain and cost are those of every class."""
        right, predicted, there = self._kinds
        gain, cost = (np.broadcast_to(each, right.shape[1]) for each in (gain, cost))
        found: Floats = right @ gain - (predicted + there) @ cost
        return found

    def losses_if_wrong(self) -> Floats:
        """Return the losses (N,) if each row's least certain decision were wrong."""
        least = self._decided.min(axis=1)
        found: Floats = self.losses + (_loss(1 - least) - _loss(least)) / self._decided.shape[1]
        return np.maximum(found, self.losses)

    def loss(self, weights: Floats) -> Floats:
        """Return the log loss, (1,)."""
        return np.array([weights @ self.losses / weights.sum()])

    def precision(self, weights: Floats) -> Floats:
        """Return the mean over the labels that are there of their average precision, (1,)."""
        each = self._precision(weights)
        return np.array([_macro(each)])

    def mean_precision(self) -> Estimate:
        """Return it with its interval."""
        rows = self._kinds.shape[1]
        there = self._kinds[2].sum(axis=0)
        value = float(self.precision(np.ones(rows))[0])
        if np.isnan(value):
            return UNKNOWN
        variance = float(np.nanvar(resamples(self.precision, rows)))
        return mean_share(value, there[there > 0], variance)


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


def _loss(probabilities: Floats) -> Floats:
    losses: Floats = -np.log(np.maximum(probabilities, _TINY), dtype=np.float64)
    return losses


def bins_of(probabilities: Floats) -> Ints:
    """Return the bin (N,) of each probability (N,), 0 to ``BINS - 1``, of equal width; an edge belongs to the lower."""
    known = np.nan_to_num(probabilities.astype(np.float64))  # what is no number is told by whoever has the names
    found: Ints = np.clip(np.ceil(known * BINS) - 1, 0, BINS - 1).astype(np.int64)
    return found


def _f1(counts: Floats) -> Floats:
    """Return F1 of (3, classes) counts: right, predicted, there; not a number where a class does not occur at all."""
    right, predicted, there = counts
    with np.errstate(invalid="ignore"):
        found: Floats = 2 * right / (predicted + there)
    return found


def _macro(values: Floats) -> float:
    """Return the mean over the classes whose value is known; of none, not a number."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _known(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not np.isnan(value)}


def _with_unseen_gap(ece: Estimate, accuracy: Estimate) -> Estimate:
    """Return the calibration error's interval, up to what the accuracy at its lower end would add."""
    return Estimate(ece.value, ece.low, max(ece.high, min(1.0, ece.value + accuracy.value - accuracy.low)))


def _class_scores(class_names: Sequence[str], counts: Floats) -> list[ClassScores]:
    return [
        ClassScores(name, there, share(right, predicted), share(right, there), f1(right, predicted, there))
        for name, (right, predicted, there) in zip(class_names, counts.T.astype(int).tolist(), strict=True)
    ]
