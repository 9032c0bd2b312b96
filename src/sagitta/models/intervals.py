"""How sure a measured value is: 95 % intervals that do not close where a small test found no error.

Shares of trials have Wilson's interval (1927). F1 is a function of one: with J = right / (right + wrongly given +
missed), the Jaccard index, F1 = 2J / (1 + J) (Hand, Christen and Kirielle 2021), so the ends are those of J. A mean of
F1 has a variance by the delta method (Takahashi et al. 2022), here from the influence of each row; the trials that
would have that variance stand in Wilson's formula (effective sample size, Korn and Graubard 1998). Everything else is
resampled (bootstrap, Efron 1979). ``tests/models/test_intervals.py`` measures how often they hold the truth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

_RESAMPLES = 1000
_Z = 1.959964  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(float("nan"), 0.0, 1.0)
"""A share of nothing."""


def wilson_interval(right: float, total: float) -> tuple[float, float]:
    """Return the 95 % interval of a share of independent trials (Wilson 1927): within 0..1, sound near its ends.

    Args:
        right: trials that succeeded.
        total: all trials, also an effective number of them; of none, nothing is known: (0, 1).
    """
    if total <= 0:
        return 0.0, 1.0
    share, spread = right / total, _Z**2 / total
    middle = share + spread / 2
    half = (spread * (share * (1 - share) + spread / 4)) ** 0.5
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return (low if right else 0.0), (high if right < total else 1.0)  # exactly, whatever was rounded


def share(right: float, total: float) -> Estimate:
    """Return a share of trials with Wilson's interval."""
    return Estimate(right / total, *wilson_interval(right, total)) if total else UNKNOWN


def f1(right: float, predicted: float, there: float) -> Estimate:
    """Return the F1 of one class: its Jaccard index is a share of the images that have the class or are given it."""
    union = predicted + there - right
    return _f1_interval(2 * right / (predicted + there), union) if union else UNKNOWN


def mean_f1(counts: Floats, influences: Callable[[Floats, Floats], Floats]) -> Estimate:
    """Return the mean F1 over the classes that occur: are there, or are predicted.

    Where a test found no error its variance would be 0. So the variance is that with one more row, which is wrong: of
    each class in its share, given to each other class alike.

    Args:
        counts: (3, classes): right, predicted, there.
        influences: of ``gain`` and ``cost``, both (classes,), to (N,): of each row, the sum of ``gain`` over the
            classes that are right, less ``cost`` over those that are predicted and over those that are there.
    """
    right, predicted, there = counts
    known = predicted + there > 0
    classes = int(known.sum())
    if not there.any():
        return UNKNOWN
    value = float((2 * right[known] / (predicted + there)[known]).mean())
    more = np.where(known, there / there.sum(), 0.0)
    others = np.where(known, (1 - more) / max(classes - 1, 1), 0.0)
    sizes = np.where(known, predicted + there + more + others, 1.0)
    each = np.where(known, 2 * right / sizes, 0.0)
    gain, cost = np.where(known, 2 / sizes, 0.0) / classes, each / sizes / classes
    other, square = cost.sum() - cost, (cost**2).sum() - cost**2
    unseen = cost**2 + (2 * cost * other + square) / max(classes - 1, 1)
    variance = float((influences(gain, cost) ** 2).sum() + more @ unseen)
    trials = float(there.sum() + (predicted + there - 2 * right)[known].sum() / 2)
    mean = float(each.sum() / classes)
    if variance > 0:
        jaccard, slope = mean / (2 - mean), 2 / (2 - mean) ** 2
        trials = min(trials, jaccard * (1 - jaccard) / (variance * slope**2))
    return _f1_interval(value, trials)


def mean_share(value: float, sizes: Floats, variance: float) -> Estimate:
    """Return a mean over classes of what behaves like a share, such as average precision (Boyd et al. 2013).

    Args:
        value: the mean.
        sizes: (classes,) trials of each, at least 1.
        variance: of the mean, such as that of resamples; 0 where it says nothing.
    """
    trials = len(sizes) ** 2 / float((1 / sizes).sum())
    if variance > 0 and 0 < value < 1:
        trials = min(trials, value * (1 - value) / variance)
    return Estimate(value, *wilson_interval(value * trials, trials))


def _f1_interval(value: float, trials: float) -> Estimate:
    """Return an F1 with the ends of its Jaccard index as a share of so many trials."""
    low, high = (2 * end / (1 + end) for end in wilson_interval(value / (2 - value) * trials, trials))
    return Estimate(value, min(low, value), max(high, value))


def bootstrap(statistics: Callable[[Floats], Floats], rows: int, highest: npt.ArrayLike = np.inf) -> list[Estimate]:
    """Return values and 95 % intervals from 1,000 resamples of the rows, seeded; of a single row, nothing is known.

    Percentiles are shifted by the resamples' mean distance from the value: resampling moves some statistics to one side
    (calibration error up), and the interval should lie around the value.

    Args:
        statistics: of weights (rows,), how often each row is drawn, to values (k,).
        rows: at least 1.
        highest: value that is possible, of each (k,) or of all; the lowest is 0.
    """
    values = statistics(np.ones(rows))
    if rows == 1:
        most = np.broadcast_to(highest, values.shape)
        return [Estimate(float(value), 0.0, float(end)) for value, end in zip(values, most, strict=True)]
    resampled = resamples(statistics, rows)
    resampled = np.where(np.isnan(resampled), values, resampled)  # a class that a resample has no row of
    ends = np.percentile(resampled, (2.5, 97.5), axis=0) - resampled.mean(axis=0) + values
    low, high = np.clip(ends, 0, highest)
    return [
        Estimate(float(value), float(min(a, value)), float(max(b, value)))
        for value, a, b in zip(values, low, high, strict=True)
    ]


def resamples(statistics: Callable[[Floats], Floats], rows: int) -> Floats:
    """Return the values of 1,000 resamples, (1000, k); see :func:`bootstrap`."""
    generator = np.random.default_rng(0)
    draws = (np.bincount(generator.integers(rows, size=rows), minlength=rows) for _ in range(_RESAMPLES))
    return np.stack([statistics(draw.astype(np.float64)) for draw in draws])


def with_unseen_errors(loss: Estimate, losses: Floats, right: npt.NDArray[np.bool_], if_wrong: Floats) -> Estimate:
    """Return the interval of a mean loss, widened to what other numbers of wrong rows would make of it.

    A test without an error does not show what one costs, and no resample of it does: the loss of 90 confident and right
    rows would be certain to three digits. With the share of wrong rows at the ends of its own interval, the mean is
    that share of the loss of a wrong row, and the rest of that of a right one.

    Args:
        loss: the mean with the interval of its resamples.
        losses: (N,).
        right: (N,) of each row.
        if_wrong: (N,) loss of each row if its least certain decision were wrong; stands in where no row is.
    """
    ends = wilson_interval(int((~right).sum()), len(right))
    wrong = (if_wrong if right.all() else losses[~right]).mean()
    others = losses[right].mean() if right.any() else 0.0
    low, high = (end * wrong + (1 - end) * others for end in ends)
    return Estimate(loss.value, min(loss.low, float(low)), max(loss.high, float(high)))
