"""What a page shows of predictions: figures with intervals, confusions, classes, the worst mistakes, how far to trust.

Everything here is a value that the template writes down; pictures go into the album, the most telling first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sagitta.evaluation import UNCALIBRATED
from sagitta.models import ClassScores, Estimate
from sagitta.reporting import analysis
from sagitta.reporting.escaping import phrase
from sagitta.reporting.gathering import Judged
from sagitta.reporting.matrix import MOST_PAIRS, cells_of, matrix_of, values_of
from sagitta.reporting.pictures import Album, Shelf
from sagitta.reporting.plots import confusion_plot, coverage_plot, reliability_plot
from sagitta.reporting.svg import Figure, number, percent

_WORST = 24  # mistakes
_OF_A_CELL = 8  # images that a cell lists
_WHOLE_CELLS = 15  # mistaken cells of which all that is listed has a picture
_CELL_PICTURES, _RIGHT_PICTURES = 150, 40
_SIDE, _LARGE = 96, 160  # pixels of a picture, and of a mistake
_TOP = 12  # metric cards

LABELS = {
    "acc": "Accuracy", "map": "Mean AP", "top5": "Top-5 accuracy", "f1": "Macro F1", "f1_micro": "Micro F1",
    "ece": "Calibration error", "log_loss": "Log loss",
}  # fmt: skip
_SHARES = {"acc", "top5", "f1", "f1_micro", "map"}
_COVERAGES = (0.9, 0.95, 0.99)


@dataclass
class Part:
    """A part of the page about one set of predictions: ``values`` for the template, ``data`` for the script."""

    values: dict[str, Any]
    data: dict[str, Any]
    figures: list[Figure]


def figures_of(judged: Judged, temperature: float | None = None) -> list[Figure]:
    """Return the plots of predictions.

    Args:
        judged: the predictions.
        temperature: by which their logits were divided; None where they are not calibrated.
    """
    key = "" if judged.key == "test" else f"_{judged.key}"
    found = []
    if (matrix := matrix_of(judged)) is not None:
        found.append(confusion_plot(matrix, key))
    found += [reliability_plot(_bins(judged, temperature), key)]
    words = "all labels right" if judged.task.multilabel else "accuracy"
    found.append(coverage_plot({words: analysis.coverage(judged.certainty, judged.right)}, key))
    return found


def part_of(
    judged: Judged, shelf: Shelf | None, album: Album, heat: Mapping[str, int], temperature: float | None
) -> Part:
    """Return the part of the page about some predictions.

    Args:
        judged: the predictions.
        shelf: the data that they are of.
        album: of the page.
        heat: numbers of the heat maps of mistakes, by path.
        temperature: see :func:`figures_of`.
    """
    several = judged.task.multilabel
    rows = _Rows(judged, shelf, album)
    figures = {figure.name.split("_")[0]: figure for figure in figures_of(judged, temperature)}
    worst = worst_rows(judged)
    album.take(shelf, [judged.paths[row] for row in worst], _LARGE)
    matrix = matrix_of(judged)
    cells = _label_cells(judged) if several else cells_of(judged, matrix)
    pairs, total = ([], 0) if several else analysis.worst_pairs(*_numbers(judged), MOST_PAIRS)
    listed = {key: [rows.add(row) for row in own] for key, own in cells.items()}
    _picture(judged, shelf, album, cells)
    curve = analysis.coverage(judged.certainty, judged.right)
    values = {
        "key": judged.key,
        "title": judged.title,
        "rows": len(judged),
        "several": several,
        "notes": judged.notes,
        "metrics": metrics_of(judged.scores),
        "matrix": None if matrix is None else values_of(matrix),
        "pairs": [_pair(pair, judged.names) for pair in pairs],
        "pair_total": total,
        "wrong": int((~judged.right).sum()),
        "classes": _classes(judged, cells),
        "worst": [_tile(judged, row, shelf, album, heat) for row in worst],
        "reliability": figures["reliability"],
        "errors": {name: f"{analysis.calibration_error(own):.3f}" for name, own in _bins(judged, temperature).items()},
        "coverage": figures["coverage"],
        "coverages": [_covered(curve, each) for each in _COVERAGES],
        "all_right": judged.right.all(),
    }
    data = {"names": list(judged.names), "rows": rows.values, "cells": listed}
    return Part(values, data, list(figures.values()))


def metrics_of(scores: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    """Return the metrics as cards: name, value, interval, and where these lie between 0 and 1, if that is the scale."""
    known = {name for name in scores if not name.endswith(UNCALIBRATED)}
    order = [name for name in LABELS if name in known] + sorted(known - set(LABELS))
    found = []
    for name in order[:_TOP]:
        score = scores[name]
        if math.isnan(score.value):
            continue
        share = name in _SHARES
        words = percent_short if share else lambda value: f"{value:.3f}"
        found.append(
            {
                "name": name,
                "label": LABELS.get(name, name),
                "value": words(score.value),
                "low": words(score.low),
                "high": words(score.high),
                "before": words(before.value) if (before := scores.get(f"{name}{UNCALIBRATED}")) else "",
                "bar": [round(100 * each, 2) for each in (score.low, score.value, score.high)] if share else None,
            }
        )
    return found


def percent_short(value: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def worst_rows(judged: Judged, most: int = _WORST) -> list[int]:
    """Return the wrong rows of highest loss; of a test without one, none."""
    wrong = np.flatnonzero(~judged.right)
    order = wrong[np.argsort(-judged.losses[wrong], kind="stable")]
    return [int(row) for row in order[:most]]


def _numbers(judged: Judged) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    return judged.labels, judged.decided, len(judged.names)


def _bins(judged: Judged, temperature: float | None) -> dict[str, list[analysis.Bin]]:
    """Return the reliability of decisions, before and after calibration where there was one."""

    def own(probabilities: npt.NDArray[Any]) -> list[analysis.Bin]:
        if judged.task.multilabel:
            return analysis.reliability(probabilities.ravel(), judged.labels.ravel())
        return analysis.reliability(probabilities.max(axis=1), judged.right)

    if temperature is None or not judged.calibrated:
        return {"as it is": own(judged.probabilities)}
    before = analysis.uncalibrated(judged.probabilities, temperature, several=judged.task.multilabel)
    return {"before": own(before), "after": own(judged.probabilities)}


class _Rows:
    """The rows that the script knows: path, truth, prediction, probabilities, picture; each once."""

    def __init__(self, judged: Judged, shelf: Shelf | None, album: Album) -> None:
        self._judged, self._shelf, self._album = judged, shelf, album
        self._places: dict[int, int] = {}
        self._rows: list[int] = []

    def add(self, row: int) -> int:
        """Return the place of a row."""
        if row not in self._places:
            self._places[row] = len(self._rows)
            self._rows.append(row)
        return self._places[row]

    @property
    def values(self) -> list[list[Any]]:
        """The rows; called when all pictures are made."""
        found = []
        for row in self._rows:
            truth, given, chance, own = words_of(self._judged, row)
            picture = self._album.number(self._shelf, self._judged.paths[row])
            found.append([self._judged.paths[row], truth, given, chance, own, -1 if picture is None else picture])
        return found


def words_of(judged: Judged, row: int) -> tuple[str, str, float, float]:
    """Return truth and prediction of a row in words, the probability of what was predicted, and of the truth."""
    chances = judged.probabilities[row]
    if judged.task.multilabel:
        both = [np.flatnonzero(each[row]).tolist() for each in (judged.labels, judged.decided)]
        truth, given = (", ".join(judged.names[label] for label in each) or "no label" for each in both)
        return truth, given, round(float(judged.certainty[row]), 4), round(float(np.exp(-judged.losses[row])), 4)
    label, decided = int(judged.labels[row]), int(judged.decided[row])
    own = round(float(chances[decided]), 4), round(float(chances[label]), 4)
    return judged.names[label], judged.names[decided], *own


def _label_cells(judged: Judged) -> dict[str, list[int]]:
    """Return the images of which a label was missed (``m-LABEL``) or falsely given (``f-LABEL``), the surest first."""
    found = {}
    for label in range(len(judged.names)):
        true, given, chances = judged.labels[:, label] > 0, judged.decided[:, label] > 0, judged.probabilities[:, label]
        for key, rows, order in (("m", true & ~given, chances), ("f", given & ~true, -chances)):
            own = np.flatnonzero(rows)
            own = own[np.argsort(order[own], kind="stable")][:_OF_A_CELL]
            if own.size:
                found[f"{key}-{label}"] = [int(row) for row in own]
    return found


def _picture(judged: Judged, shelf: Shelf | None, album: Album, cells: Mapping[str, list[int]]) -> None:
    """Take pictures of cells: all of the largest mistakes, one of each other, then of what is right."""
    right = [key for key in cells if key.partition("-")[0] == key.partition("-")[2]]
    wrong = sorted((key for key in cells if key not in set(right)), key=lambda key: -len(cells[key]))
    shown = [row for key in wrong[:_WHOLE_CELLS] for row in cells[key]]
    deep = max(map(len, cells.values()), default=0)
    shown += [cells[key][place] for place in range(deep) for key in wrong[_WHOLE_CELLS:] if place < len(cells[key])]
    album.take(shelf, [judged.paths[row] for row in shown[:_CELL_PICTURES]], _SIDE)
    shown = [cells[key][place] for place in range(deep) for key in right if place < len(cells[key])]
    album.take(shelf, [judged.paths[row] for row in shown[:_RIGHT_PICTURES]], _SIDE)


def _pair(pair: analysis.Pair, names: Sequence[str]) -> dict[str, Any]:
    return {
        "key": f"{pair.true}-{pair.given}",
        "true": names[pair.true],
        "given": names[pair.given],
        "count": pair.count,
        "share": round(pair.share, 4),
    }


def _classes(judged: Judged, cells: Mapping[str, list[int]]) -> list[dict[str, Any]]:
    """Return the rows of the per-class table, the worst first; classes that nothing is known of come last."""
    several, rows = judged.task.multilabel, []
    mixed = _mixed_with(judged) if not several else {}
    for label, each in enumerate(judged.classes):
        row: dict[str, Any] = {"name": each.name, "support": each.support, "label": label}
        row |= {kind: _score(each, kind) for kind in ("precision", "recall", "f1")}
        if several:
            true, given = judged.labels[:, label] > 0, judged.decided[:, label] > 0
            row |= {"missed": int((true & ~given).sum()), "false": int((given & ~true).sum())}
            row |= {"missed_key": f"m-{label}" if f"m-{label}" in cells else None}
            row |= {"false_key": f"f-{label}" if f"f-{label}" in cells else None}
        else:
            other, count = mixed.get(label, (-1, 0))
            row |= {"mixed": judged.names[other] if count else None, "mixed_count": count}
            row |= {"mixed_key": f"{label}-{other}" if f"{label}-{other}" in cells else None}
        rows.append(row)
    return sorted(rows, key=lambda row: (not row["support"], 1.0 if row["f1"] is None else row["f1"]["value"]))


def _score(scores: ClassScores, kind: str) -> dict[str, Any] | None:
    score: Estimate = getattr(scores, kind)
    if math.isnan(score.value):
        return None
    return {
        "value": round(score.value, 4),
        "low": round(score.low, 4),
        "high": round(score.high, 4),
        "words": f"{score.value:.3f}",
        "span": f"{score.low:.3f} to {score.high:.3f}",
    }


def _mixed_with(judged: Judged) -> dict[int, tuple[int, int]]:
    """Return for each class that was mistaken the class that it was given most often, and how often."""
    pairs, _ = analysis.worst_pairs(*_numbers(judged), 10**9)
    found: dict[int, tuple[int, int]] = {}
    for pair in pairs:
        found.setdefault(pair.true, (pair.given, pair.count))
    return found


def _tile(judged: Judged, row: int, shelf: Shelf | None, album: Album, heat: Mapping[str, int]) -> dict[str, Any]:
    truth, given, chance, own = words_of(judged, row)
    path = judged.paths[row]
    return {
        "path": path,
        "truth": truth,
        "given": given,
        "chance": chance,
        "own": own,
        "loss": f"{judged.losses[row]:.2f}",
        "picture": album.number(shelf, path),
        "heat": heat.get(path),
        "alt": phrase("image {}: {}, taken for {}", path, truth, given),
    }


def _covered(curve: analysis.Coverage, accuracy: float) -> dict[str, Any]:
    found = curve.at(accuracy)
    return {
        "accuracy": percent(accuracy),
        "share": None if found is None else percent_short(found[0]),
        "threshold": None if found is None else number(round(found[1], 4)),
    }
