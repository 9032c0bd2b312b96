"""Sagitta's head beside the plain ones on random divisions of stored features.

A division deals out the images of each class: three in ten, ``TEST`` at most, are for the test (none of a class with
one image), up to ``size`` of the others are labelled. A class with fewer gives what it has. The test rows of a division
are the same for all sizes, and its labelled rows contain those of a smaller size.
"""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import features
import plain_heads
from features import Ints, Labelled
from plain_heads import OURS, PEERS, Task

SIZES = (1, 2, 4, 8, 16, 100)
TEST = 60

Cell = dict[str, Any]


def cells(sets: Sequence[str], networks: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """Yield every set, network and size that is asked for; the generated set has no network."""
    for name in sets:
        for network in features.networks_of(name):
            if network in networks or network == "none":
                yield from ((name, network, size) for size in sizes)


def division(labels: Ints, size: int, number: int) -> tuple[Ints, Ints]:
    """Return the labelled rows and the test rows of a division."""
    rng = np.random.default_rng(number)
    labelled, test = [], []
    for label in range(int(labels.max()) + 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        tests = min(TEST, max(1, round(0.3 * len(rows)))) if len(rows) > 1 else 0
        test.append(rows[:tests])
        labelled.append(rows[tests : tests + size])
    return np.concatenate(labelled), np.concatenate(test)


def worth_a_cell(labels: Ints, size: int) -> bool:
    """Tell whether some class has more labelled rows at this size than at the next smaller one."""
    smaller = max((each for each in SIZES if each < size), default=0)
    return len(division(labels, size, 0)[0]) > len(division(labels, smaller, 0)[0])


def compare(data: Labelled, size: int, number: int, names: Sequence[str], cell: Cell) -> bool:
    """Fit the heads that a cell lacks on a division; tells whether there were any.

    Args:
        data: features and labels.
        size: labelled images a class.
        number: of the division; those before are there.
        names: of heads, in :data:`plain_heads.HEADS`.
        cell: its ``runs`` has for each head a list of what :func:`plain_heads.judge` found, a division each.
    """
    runs: dict[str, list[Any]] = cell["runs"]
    missing = [name for name in names if len(runs.setdefault(name, [])) <= number]
    if missing:
        labelled, test = division(data.labels, size, number)
        cell |= {"labelled": len(labelled), "test": len(test), "classes": int(data.labels.max()) + 1}
        stages = (data.stages[labelled], data.stages[test])
        task = Task(data.features[labelled], data.labels[labelled], data.features[test], stages, data.widths)
        for name in missing:
            runs[name].append(plain_heads.judge(name, task, data.labels[test]))
    return bool(missing)


def summary(cell: Cell) -> dict[str, Any]:
    """Return means over the divisions, the best peers, and Sagitta's differences to them with 95 % intervals.

    The interval is Student's over the paired differences of the divisions: it says how sure the mean over divisions of
    these images is. Divisions share images, so it is too narrow for other images.
    """
    count = min(len(found) for found in cell["runs"].values() if found)  # the divisions that all heads have
    runs = {head: found[:count] for head, found in cell["runs"].items() if found}
    runs = {head: found for head, found in runs.items() if not any("error" in each for each in found)}
    found: dict[str, Any] = {head: means(divisions) for head, divisions in runs.items()}
    result: dict[str, Any] = {"means": found}
    for key, best in (("acc", max), ("loss", min)):
        peers = [head for head in PEERS if key in found.get(head, {})]
        if peers and key in found.get(OURS, {}):
            peer = best(peers, key=lambda head: found[head][key])
            pairs = zip(runs[OURS], runs[peer], strict=False)
            result[key] = {"best": peer} | interval([mine[key] - its[key] for mine, its in pairs])
    return result


def means(divisions: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the means over divisions of accuracy, log loss and CPU seconds, as far as there are such."""
    keys = [key for key in ("acc", "loss", "cpu") if key in divisions[0]]
    return {key: round(statistics.fmean(each[key] for each in divisions), 5) for key in keys}


def interval(differences: Sequence[float]) -> dict[str, float]:
    """Return the mean and its 95 % interval by Student's t; without an interval where there is one difference."""
    from scipy.stats import t

    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return {"difference": round(mean, 5), "divisions": count}
    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(differences) / count**0.5
    return {
        "difference": round(mean, 5),
        "low": round(mean - half, 5),
        "high": round(mean + half, 5),
        "divisions": count,
    }
