"""What a test found out: metrics with 95 % intervals, the classes one by one, and every prediction, as text and files.

::

    RUN/test_logs.csv        one line a test: data, its split and fingerprint, number of images, how many of them the
                             model was trained on, each metric, the ends of its interval as METRIC_low and METRIC_high
    RUN/tests/001-NAME/      of the first line, and so on:
        per_class.csv        support, precision, recall and F1 of each class, with intervals
        predictions.parquet  path, label, predicted, probabilities (list<float>, in label order)
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sagitta.dataset import plural, warning_line, write_table
from sagitta.evaluation.overlap import overlap_warnings
from sagitta.files import write_atomic
from sagitta.models import ClassScores, Estimate, Task
from sagitta.terminal import printable, table

PREDICTIONS_FILE = "predictions.parquet"
CLASSES_FILE = "per_class.csv"
UNCALIBRATED = "_uncalibrated"
"""How the names of figures end that are of the probabilities before their calibration."""
_MOST_CLASSES = 20  # in print; of more, only the worst
_WORST = 10


@dataclass(frozen=True)
class Tested:
    """What was evaluated.

    Attributes:
        source: the data, as it was named.
        split: of it, by its own name.
        images: how many.
        total: images of the data in all its splits.
        fingerprint: of the data.
        classes: in words, where they are not just the model's; else empty.
        trained_on: how many of the images the model was trained on; None where nobody noted it.
        chose: how many chose its checkpoint, likewise.
        notes: what a person has to know of this test, one sentence each.
        warnings: likewise of the data, and of what the model has seen of it.
    """

    source: str
    split: str
    images: int
    total: int
    fingerprint: str
    classes: str = ""
    trained_on: int | None = None
    chose: int | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the head of the printed result: one line on what was evaluated, and one a note or warning."""
        whole = self.images == self.total
        of = plural(self.total, "image")
        images = f"{of} of {self.source} (all of its rows)" if whole else f"{self.images:,} of {of} of {self.source}"
        line = "; ".join(filter(None, [images if whole else f"{images} (split {self.split})", self.classes]))
        overlap = overlap_warnings(self.images, self.trained_on, self.chose)
        return [line, *self.notes, *map(warning_line, [*self.warnings, *overlap])]

    def log(self) -> dict[str, Any]:
        """Return the columns of ``test_logs.csv`` that say what was tested."""
        return {name: getattr(self, name) for name in ("split", "images", "fingerprint", "trained_on")}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The outcome of one evaluation.

    Attributes:
        metrics: what was logged, and the value of every score, by full name such as ``test_acc``.
        scores: the scores with their intervals, by full name.
        classes: those of each class, in label order.
        predictions: path, label, predicted (class names, lists of them where rows have several), probabilities.
        unknown: full names of the scores that these images have no value of.
        tested: what was evaluated.
        folder: where the run keeps it; None where it is not recorded.
    """

    metrics: dict[str, float]
    scores: dict[str, Estimate]
    classes: list[ClassScores]
    predictions: pa.Table
    unknown: tuple[str, ...] = ()
    tested: Tested | None = None
    folder: Path | None = None

    @property
    def trained_on(self) -> int | None:
        """How many of the images the model was trained on; None where nobody noted it."""
        return None if self.tested is None else self.tested.trained_on

    def log(self) -> dict[str, float]:
        """Return metrics and interval ends for ``test_logs.csv``."""
        ends = {f"{name}_low": score.low for name, score in self.scores.items()}
        ends |= {f"{name}_high": score.high for name, score in self.scores.items()}
        return self.metrics | ends

    def write(self, folder: Path) -> None:
        """Write the classes and the predictions into a folder."""
        write_table(folder / PREDICTIONS_FILE, self.predictions)
        write_atomic(folder / CLASSES_FILE, _as_csv(self.classes))

    def text(self) -> str:
        """Return the tables for people: what was evaluated; metrics with intervals; all classes, or the worst of many.

        Of classes that are not there, only those that were predicted are shown.
        """
        head = [] if self.tested is None else [*self.tested.lines(), ""]
        shown = {name: value for name, value in sorted(self.metrics.items()) if not name.endswith(UNCALIBRATED)}
        wide = max([14, *map(len, shown), *map(len, self.unknown)])
        lines = [
            f"{name:<{wide}} {value:.4f}{_interval(self.scores.get(name))}"
            f"{_before(self.scores.get(f'{name}{UNCALIBRATED}'))}"
            for name, value in shown.items()
        ]
        lines += [f"{name:<{wide}} -       no image has a label of these classes" for name in self.unknown]
        kept = [] if self.folder is None else ["", f"every prediction: {self.folder / PREDICTIONS_FILE}"]
        return "\n".join([*head, *lines, "", *_class_table(self.classes), *kept])

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text())}</pre>"


def judge(
    task: Task,
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
    paths: Sequence[str],
    names: Sequence[str],
    logged: Mapping[str, float],
    prefix: str,
    thresholds: Sequence[float] = (),
) -> Evaluation:
    """Return everything about some predictions.

    Args:
        task: one label an image, or several.
        probabilities: (N, classes).
        labels: (N,), or (N, classes) of 0 and 1 where an image has several.
        paths: of the images, (N,).
        names: of the classes.
        logged: metrics that are known already, by full name.
        prefix: of the names of the others, such as ``test_``.
        thresholds: (classes,) from which each of several labels is given.
    """
    scores, classes = task.scores(probabilities, labels, names, thresholds)
    columns = {
        "path": pa.array(paths),
        "label": task.names_of(labels, names),
        "predicted": task.names_of(task.decide(probabilities, thresholds), names),
        "probabilities": pa.array(list(probabilities), pa.list_(pa.float32())),
    }
    known = {f"{prefix}{name}": score for name, score in scores.items() if not math.isnan(score.value)}
    unknown = tuple(name for name in (f"{prefix}{name}" for name in scores) if name not in known)
    values = {name: float(value) for name, value in logged.items()} | {name: each.value for name, each in known.items()}
    return Evaluation(values, known, classes, pa.table(columns), unknown)


def arrays_of(predictions: pa.Table, task: Task, names: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return probabilities (N, classes) float32 and labels (N,), or (N, classes), of a table of predictions.

    Args:
        predictions: see :class:`Evaluation`.
        task: one label an image, or several.
        names: of the classes, in the order of the probabilities.
    """
    flat = predictions["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, len(names)), task.numbers_of(predictions["label"].to_pylist(), names)


def mean_of(
    evaluations: Sequence[Evaluation],
    shares: Sequence[float],
    task: Task,
    orders: Sequence[Sequence[str]],
    thresholds: Sequence[float],
    prefix: str,
) -> Evaluation:
    """Return the evaluation of the mean of several models' probabilities of the same rows.

    Args:
        evaluations: of each, at least one, in the same order of the rows.
        shares: of each, with the sum 1.
        task: one label an image, or several.
        orders: names of the classes of each; the first's order counts.
        thresholds: (classes,) from which each of several labels is given.
        prefix: of the names of the scores, such as ``test_``.
    """
    names, first = orders[0], evaluations[0]
    labels = arrays_of(first.predictions, task, names)[1]
    mean = np.zeros((len(labels), len(names)))
    for evaluation, share, order in zip(evaluations, shares, orders, strict=True):
        columns = [list(order).index(name) for name in names]
        mean += share * arrays_of(evaluation.predictions, task, order)[0][:, columns]
    paths = first.predictions["path"].to_pylist()
    judged = judge(task, mean.astype(np.float32), labels, paths, names, {}, prefix, thresholds)
    metrics = {f"{prefix}loss": judged.metrics[f"{prefix}log_loss"]} | judged.metrics
    return replace(judged, metrics=metrics, tested=first.tested)


def _interval(score: Estimate | None) -> str:
    return "" if score is None else f"  {score.low:.4f} to {score.high:.4f}"


def _before(score: Estimate | None) -> str:
    return "" if score is None else f"; before calibration {score.value:.4f}{_interval(score)}"


def _as_csv(classes: Sequence[ClassScores]) -> str:
    """Return one line a class; a score that is not known is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = ("precision", "recall", "f1")
    writer.writerow(["class", "support", *(f"{kind}{end}" for kind in kinds for end in ("", "_low", "_high"))])
    for each in classes:
        scores = [getattr(each, kind) for kind in kinds]
        numbers = [number for score in scores for number in (score.value, score.low, score.high)]
        writer.writerow([each.name, each.support, *("" if math.isnan(number) else number for number in numbers)])
    return text.getvalue()


def _class_table(classes: Sequence[ClassScores]) -> list[str]:
    """Return the lines of the per-class table, the worst class by F1 first where only some are shown."""
    shown, title = [each for each in classes if each.support or not math.isnan(each.f1.value)], "class"
    if len(shown) > _MOST_CLASSES:
        there = [each for each in shown if each.support]
        shown = sorted(there, key=lambda each: each.f1.value)[:_WORST]
        title = f"worst {len(shown)} of {len(there)} classes"
    rows = []
    for each in shown:
        values = ["-" if math.isnan(score.value) else f"{score.value:.3f}" for score in (each.precision, each.recall)]
        f1 = "-" if math.isnan(each.f1.value) else f"{each.f1.value:.3f}"
        span = f"{each.recall.low:.3f} to {each.recall.high:.3f}"
        rows.append([printable(each.name), str(each.support), *values, span, f1])
    return table([title, "images", "precision", "recall", "recall's 95 %", "F1"], rows)
