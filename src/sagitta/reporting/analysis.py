"""What predictions say beyond their scores: which classes are mixed up, how far probabilities hold, what to leave out.

Pure functions over arrays.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sagitta.models import BINS, bins_of, wilson_interval

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """Images of one class that were given another.

    Attributes:
        true: their class.
        given: what was predicted.
        count: how many.
        share: of the images of their class.
    """

    true: int
    given: int
    count: int
    share: float


def confusion(labels: Ints, decided: Ints, classes: int) -> Ints:
    """Return how often each class (rows) was given each (columns), (classes, classes)."""
    counts: Ints = np.bincount(labels * classes + decided, minlength=classes**2).reshape(classes, classes)
    return counts


def worst_pairs(labels: Ints, decided: Ints, classes: int, most: int) -> tuple[list[Pair], int]:
    """Return the pairs of classes that are mixed up most often, and how many there are; of 1,000 classes, too."""
    wrong = labels != decided
    codes, counts = np.unique(labels[wrong] * classes + decided[wrong], return_counts=True)
    there = np.bincount(labels, minlength=classes)
    shares = counts / there[codes // classes]
    order = np.lexsort((codes, -shares, -counts))[:most]
    found = [Pair(int(codes[i] // classes), int(codes[i] % classes), int(counts[i]), float(shares[i])) for i in order]
    return found, len(codes)


def confused_classes(labels: Ints, decided: Ints, classes: int, most: int) -> list[int]:
    """Return the classes of the worst pairs, from the worst on until there are so many, in label order.

    A pair both of whose classes are new is passed over where there is room for one only.
    """
    chosen: set[int] = set()
    for pair in worst_pairs(labels, decided, classes, classes**2)[0]:
        if len(both := chosen | {pair.true, pair.given}) <= most:
            chosen = both
        if len(chosen) == most:
            break
    return sorted(chosen)


def alike_first(counts: Ints, there: Ints) -> list[int]:
    """Return an order of the classes in which those that are mixed up stand side by side, (classes,).

    Args:
        counts: (classes, classes) how often each was given each.
        there: (classes,) images of each.

    The entries of the Fiedler vector of the graph of mistakes, as in spectral seriation (Atkins et al. 1998).
    """
    links = counts + counts.T - 2 * np.diag(np.diag(counts))
    shares = links / np.maximum(there, 1)[:, None]
    weights = (shares + shares.T) / 2 + 1e-6  # classes that nothing connects still have a place
    laplacian = np.diag(weights.sum(axis=1)) - weights
    vector = np.linalg.eigh(laplacian)[1][:, min(1, len(counts) - 1)]
    return [int(each) for each in np.argsort(vector, kind="stable")]


@dataclass(frozen=True)
class Bin:
    """Decisions of about the same probability.

    Attributes:
        low: end of the bin, and ``high`` the other.
        mean: probability in the mean.
        right: share of them that are right, with the ends of its 95 % interval.
        count: how many.
    """

    low: float
    high: float
    mean: float
    right: tuple[float, float, float]
    count: int


def reliability(chances: Floats, right: Bools) -> list[Bin]:
    """Return the bins of the probabilities (N,) of decisions, those of the metric ``ece`` that are not empty."""
    places = bins_of(chances)
    found = []
    for place in range(BINS):
        own = places == place
        if count := int(own.sum()):
            hits = int(right[own].sum())
            low, high = wilson_interval(hits, count)
            edges = place / BINS, (place + 1) / BINS
            found.append(Bin(*edges, float(chances[own].mean()), (hits / count, low, high), count))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error over bins (Guo et al. 2017)."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.mean - each.right[0]) for each in bins) / total if total else float("nan")


def uncalibrated(probabilities: Floats, temperature: float, *, several: bool) -> Floats:
    """Return the probabilities (N, classes) before their logits were divided by a temperature."""
    chances = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12 if several else 1.0)
    if several:
        odds = (np.log(chances) - np.log1p(-chances)) * temperature
        whole: Floats = 1 / (1 + np.exp(-odds))
        return whole
    logits = np.log(chances) * temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    spread: Floats = raised / raised.sum(axis=1, keepdims=True)
    return spread


@dataclass(frozen=True)
class Coverage:
    """How right a model is if it leaves out what it is least certain of.

    Attributes:
        share: (K,) of the images that are answered, rising.
        accuracy: (K,) of these.
        threshold: (K,) certainty from which on they are.
    """

    share: Floats
    accuracy: Floats
    threshold: Floats

    def at(self, accuracy: float) -> tuple[float, float] | None:
        """Return the largest share with at least this accuracy, and its threshold; None where there is none."""
        reached = np.flatnonzero(self.accuracy >= accuracy - 1e-12)
        if not reached.size:
            return None
        last = reached[-1]
        return float(self.share[last]), float(self.threshold[last])


def coverage(certainty: Floats, right: Bools) -> Coverage:
    """Return accuracy against coverage of rows (N,); rows of equal certainty are answered together."""
    order = np.argsort(-certainty, kind="stable")
    sure, hits = certainty[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))
    count = ends + 1
    return Coverage(count / len(sure), hits[ends] / count, sure[ends])


def telling(values: Sequence[float], most: int) -> Ints:
    """Return the places of at most so many of many values in their order: both ends, and what is extreme between.

    A peak stays, however short it is; of a stretch of nothing but NaN the first one stays, which leaves a gap.
    """
    if len(values) <= most:
        return np.arange(len(values))
    own = np.asarray(values, np.float64)
    ends = np.linspace(0, len(own), (most - 2) // 2 + 1).astype(np.int64)
    kept = {0, len(own) - 1}
    for start, end in itertools.pairwise(ends.tolist()):
        part = own[start:end]
        kept |= {start + int(np.where(np.isnan(part), np.inf, part).argmin())}
        kept |= {start + int(np.where(np.isnan(part), -np.inf, part).argmax())}
    return np.array(sorted(kept), np.int64)


def thinned(count: int, most: int) -> Ints:
    """Return at most so many of 0 … count - 1, spread evenly, with both ends."""
    places: Ints = np.unique(np.linspace(0, max(count - 1, 0), min(most, count)).round().astype(np.int64))
    return places
