"""Whether one run is better than another on the same images: paired tests, and the images on which they disagree.

McNemar's exact test (1947) asks whether the images that only one of two models gets right are shared out as a fair coin
would; the bootstrap (Efron 1979) resamples images, of both models together, for the interval of the difference.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from sagitta.models import Estimate
from sagitta.reporting.gathering import Judged
from sagitta.reporting.pictures import Shelf

_RESAMPLES = 10_000
_AT_ONCE = 2_000_000  # draws
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Paired:
    """Two models on the same images.

    Attributes:
        first: number of the one run, and ``second`` of the other.
        both: images that both get right; ``only_first``, ``only_second`` and ``neither`` likewise.
        p: McNemar's exact p, two-sided.
        accuracy: the second's less the first's, with its 95 % interval.
        loss: likewise of the log loss.
    """

    first: int
    second: int
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    accuracy: Estimate
    loss: Estimate


def compare(right: Sequence[Bools], losses: Sequence[Floats]) -> list[Paired]:
    """Return the paired comparison of each two models.

    Args:
        right: (N,) of each model, in one order of the images.
        losses: likewise.
    """
    found = []
    for first, second in itertools.combinations(range(len(right)), 2):
        a, b = right[first], right[second]
        only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
        found.append(
            Paired(
                first,
                second,
                int((a & b).sum()),
                only_a,
                only_b,
                int((~a & ~b).sum()),
                mcnemar(only_a, only_b),
                difference(b.astype(np.float64) - a),
                difference(losses[second] - losses[first]),
            )
        )
    return found


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of so many images that only one of two models gets right."""
    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def difference(paired: Floats) -> Estimate:
    """Return the mean of paired differences (N,) with its 95 % interval, from seeded resamples of the rows.

    A row is drawn with both models' results, from all rows alike, whatever their class.
    """
    random, rows = np.random.default_rng(0), len(paired)
    values, counts = np.unique(paired, return_counts=True)
    if len(values) <= 8:  # differences of right and wrong: how often each is drawn says all
        means = random.multinomial(rows, counts / rows, _RESAMPLES) @ values / rows
    else:
        at_once = max(1, _AT_ONCE // rows)
        parts = [
            paired[random.integers(rows, size=(min(at_once, _RESAMPLES // 5 - start), rows))].mean(axis=1)
            for start in range(0, _RESAMPLES // 5, at_once)
        ]
        means = np.concatenate(parts)
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(paired.mean()), float(low), float(high))


@dataclass(frozen=True)
class Matched:
    """Rows that all models were tested on.

    Attributes:
        orders: of each model, its rows (N,) of the images that all have, in one order of the images.
        left: of each model, how many of its rows are left out, since another was not tested on them.
    """

    orders: list[Ints]
    left: list[int]


def matched(judged: Sequence[Judged], shelves: Sequence[Shelf | None]) -> tuple[Matched | None, str]:
    """Return the rows that all models have; or None, and why there are none.

    Rows of data of one fingerprint are the same where their splits and paths are; of others, where their images are. Of
    an image that stands there several times, as many rows are matched as all have.

    Args:
        judged: of each model.
        shelves: the data of each, where it can be opened.
    """
    names = [sorted(each.names) for each in judged]
    if any(each != names[0] for each in names):
        return None, "the runs know different classes, so nothing of them can be compared row by row"
    keys, why = _keys(judged, shelves)
    if keys is None:
        return None, why
    words = [_label_words(each) for each in judged]
    rows = [_numbered(own, labels) for own, labels in zip(keys, words, strict=True)]
    common = sorted(set.intersection(*(set(each) for each in rows)))
    if not common:
        counts = ", ".join(f"{len(each):,}" for each in judged)
        return None, (
            f"the runs were tested on different rows ({counts}; none in common): test both on the same data with "
            "sagitta test RUN DATA"
        )
    orders = [np.array([own[key] for key in common], np.int64) for own in rows]
    labels = [[own[row] for row in order.tolist()] for own, order in zip(words, orders, strict=True)]
    if any(each != labels[0] for each in labels):
        return None, "the runs were given different labels of the same images, so nothing can be said of who is right"
    return Matched(orders, [len(each) - len(common) for each in judged]), ""


def _keys(judged: Sequence[Judged], shelves: Sequence[Shelf | None]) -> tuple[list[list[str]] | None, str]:
    """Return what a row is known by, of each model's rows; or None, and why that cannot be known."""
    if len({each.fingerprint for each in judged}) == 1 and judged[0].fingerprint is not None:
        split_known = all(each.split is not None for each in judged)
        return [[f"{each.split if split_known else ''}\n{path}" for path in each.paths] for each in judged], ""
    hashed = [None if shelf is None else shelf.hashes(each.paths) for shelf, each in zip(shelves, judged, strict=True)]
    found = [each for each in hashed if each is not None]
    if len(found) < len(judged):
        return None, "the runs were tested on different data, and not all of it can be opened to match the images"
    return found, ""


def _numbered(keys: Sequence[str], labels: Sequence[Any]) -> dict[tuple[str, int], int]:
    """Return the rows by key and number: of rows of one key, in the order of their labels."""
    order = sorted(range(len(keys)), key=lambda row: (keys[row], str(labels[row])))
    seen: Counter[str] = Counter()
    found = {}
    for row in order:
        found[keys[row], seen[keys[row]]] = row
        seen[keys[row]] += 1
    return found


def _label_words(judged: Judged) -> list[Any]:
    words: list[Any] = judged.task.names_of(judged.labels, judged.names).to_pylist()
    return [sorted(each) if isinstance(each, list) else each for each in words]


def disagreements(right: Sequence[Bools], certainty: Sequence[Floats], most: int) -> Ints:
    """Return the images that some of the models get right and others do not, those of most certainty first."""
    hits = np.stack(right)
    some = np.flatnonzero(hits.any(axis=0) & ~hits.all(axis=0))
    sure = np.stack(certainty)[:, some]
    wrong_sure = np.where(hits[:, some], 0, sure).max(axis=0) + np.where(hits[:, some], sure, 0).max(axis=0)
    order: Ints = some[np.argsort(-wrong_sure, kind="stable")][:most]
    return order
