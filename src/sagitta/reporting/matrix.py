"""Which part of a confusion matrix is shown: all of few classes; of many, the classes of the worst pairs.

Of 1,000 classes a part without their right images is enough: what is right stands in the table of classes, and would
outshine mistakes that are a few in a hundred.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sagitta.reporting import analysis
from sagitta.reporting.escaping import phrase
from sagitta.reporting.gathering import Judged

MOST_CLASSES = 40
"""Up to so many classes a matrix shows all; of more, as many of the worst pairs."""
MOST_PAIRS = 100
_OF_A_CELL, _OF_A_RIGHT_CELL = 8, 4  # images that a cell lists
_MOST_LISTED = 3000

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matrix:
    """What is drawn of a confusion matrix.

    Attributes:
        classes: (K,) numbers of the classes that are drawn, rising.
        names: (K,) of them.
        counts: (K, K) how often each (rows) was given each (columns).
        there: (K,) images of each, whatever they were given.
        mistakes: (K,) images that are wrong and are of this class, or were given it.
        of: how many classes there are.
        wrong: how many images have a wrong class, drawn or not.
    """

    classes: list[int]
    names: list[str]
    counts: Ints
    there: Ints
    mistakes: Ints
    of: int
    wrong: int

    @property
    def whole(self) -> bool:
        """Whether all classes are drawn."""
        return len(self.classes) == self.of

    @property
    def shares(self) -> Floats:
        """(K, K) of all images of the true class, 0 to 1."""
        shares: Floats = self.counts / np.maximum(self.there[:, None], 1)
        return shares

    @property
    def strengths(self) -> Floats:
        """(K, K) how strong each cell is coloured, 0 to 1: by its share, and in a part by that of its worst mistake.

        What is right is 0 in a part.
        """
        if self.whole:
            return self.shares
        shares = self.shares * ~np.eye(len(self.classes), dtype=bool)
        strengths: Floats = shares / max(float(shares.max(initial=0)), 1e-12)
        return strengths

    @property
    def title(self) -> str:
        """What it is a part of, and of how many mistakes."""
        if self.whole:
            return "Confusion matrix"
        shown = int(self.counts.sum() - np.trace(self.counts))
        return (
            f"Part of the confusion matrix: {len(self.classes)} of {self.of:,} classes, "
            f"{shown:,} of {self.wrong:,} mistakes ({100 * shown / self.wrong:.3g}%)"
        )


def matrix_of(judged: Judged) -> Matrix | None:
    """Return what is drawn; None where there are many classes and not one mistake, or an image has several labels."""
    if judged.task.multilabel:
        return None
    labels, decided, of = judged.labels, judged.decided, len(judged.names)
    chosen = list(range(of))
    if of > MOST_CLASSES:
        chosen = analysis.confused_classes(labels, decided, of, MOST_CLASSES)
    if not chosen:
        return None
    places = np.full(of, -1)
    places[chosen] = range(len(chosen))
    kept = (places[labels] >= 0) & (places[decided] >= 0)
    wrong = labels != decided
    mistakes = np.bincount(labels[wrong], minlength=of) + np.bincount(decided[wrong], minlength=of)
    return Matrix(
        chosen,
        [judged.names[label] for label in chosen],
        analysis.confusion(places[labels[kept]], places[decided[kept]], len(chosen)),
        np.bincount(labels, minlength=of)[chosen],
        mistakes[chosen],
        of,
        int(wrong.sum()),
    )


def values_of(matrix: Matrix) -> dict[str, Any]:
    """Return a matrix for the template, with the orders in which it can be shown."""
    strengths = matrix.strengths
    return {
        "whole": matrix.whole,
        "title": matrix.title,
        "names": matrix.names,
        "cells": [[_cell(matrix, row, column, strengths) for column in range(len(own))] for row, own in _rows(matrix)],
        "darkest": f"{100 * _worst(matrix):.3g}%",
        "orders": {
            "errors": [int(each) for each in np.argsort(-matrix.mistakes, kind="stable")],
            "alike": analysis.alike_first(matrix.counts, matrix.there),
            "size": [int(each) for each in np.argsort(-matrix.there, kind="stable")],
        },
    }


def _rows(matrix: Matrix) -> list[tuple[int, list[int]]]:
    return list(enumerate(matrix.counts.tolist()))


def _worst(matrix: Matrix) -> float:
    """Return the largest share of a mistake."""
    return float((matrix.shares * ~np.eye(len(matrix.classes), dtype=bool)).max(initial=0))


def _cell(matrix: Matrix, row: int, column: int, strengths: Floats) -> dict[str, Any] | None:
    """Return a cell of the matrix; None for an empty one."""
    count = int(matrix.counts[row, column])
    if not count:
        return None
    right = row == column
    of = f"{count} of {int(matrix.there[row])} "
    true, given = matrix.names[row], matrix.names[column]
    return {
        "key": f"{matrix.classes[row]}-{matrix.classes[column]}",
        "count": count,
        "strength": round(float(strengths[row, column]), 4),
        "look": "miss" if not right else "hit" if matrix.whole else "muted",
        "words": phrase(of + "{} right", true) if right else phrase(of + "{} taken for {}", true, given),
    }


def cells_of(judged: Judged, matrix: Matrix | None) -> dict[str, list[int]]:
    """Return the images of each cell that is drawn and of each of the worst pairs, the surest first.

    There are at most 3,000 of them: one of each cell first, then a second one, and so on.
    """
    labels, decided, classes = judged.labels, judged.decided, len(judged.names)
    pairs, _ = analysis.worst_pairs(labels, decided, classes, MOST_PAIRS)
    shown = set(() if matrix is None else matrix.classes)
    listed = {(pair.true, pair.given) for pair in pairs}
    found: dict[tuple[int, int], list[int]] = {}
    for row in np.argsort(-judged.certainty, kind="stable").tolist():
        cell = int(labels[row]), int(decided[row])
        if cell in listed or (cell[0] in shown and cell[1] in shown):
            own = found.setdefault(cell, [])
            if len(own) < (_OF_A_CELL if cell[0] != cell[1] else _OF_A_RIGHT_CELL):
                own.append(row)
    return {f"{true}-{given}": own for (true, given), own in _some(found).items()}


def _some(cells: Mapping[tuple[int, int], list[int]]) -> dict[tuple[int, int], list[int]]:
    """Return as many of the images as are listed, shared out over the cells."""
    listed = sorted((place, number) for number, own in enumerate(cells.values()) for place in range(len(own)))
    kept = np.bincount([number for _, number in listed[:_MOST_LISTED]], minlength=len(cells)).tolist()
    return {cell: own[:most] for (cell, own), most in zip(cells.items(), kept, strict=True) if most}
