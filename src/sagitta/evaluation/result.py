"""What a test found out: metrics with 95 % intervals, the classes one by one, and every prediction, as text and files.

::

    RUN/test_logs.csv             one line a test: each metric, and the ends of its interval as METRIC_low, METRIC_high
    RUN/test_per_class.csv        the last test: support, precision, recall and F1 of each class, with intervals
    RUN/test_predictions.parquet  the last test: path, label, predicted, probabilities (list<float>, in label order)
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sagitta.files import write_atomic
from sagitta.models import ClassScores, Estimate, Task
from sagitta.terminal import printable, table

_MOST_CLASSES = 20  # in print; of more, only the worst
_WORST = 10


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The outcome of one evaluation.

    Attributes:
        metrics: what was logged, and the value of every score, by full name such as ``test_acc``.
        scores: the scores with their intervals, by full name.
        classes: those of each class, in label order.
        predictions: path, label, predicted (class names, lists of them where rows have several), probabilities.
    """

    metrics: dict[str, float]
    scores: dict[str, Estimate]
    classes: list[ClassScores]
    predictions: pa.Table

    def log(self) -> dict[str, float]:
        """Return metrics and interval ends for ``test_logs.csv``."""
        ends = {f"{name}_low": score.low for name, score in self.scores.items()}
        ends |= {f"{name}_high": score.high for name, score in self.scores.items()}
        return self.metrics | ends

    def write(self, run: Path) -> None:
        """Write the classes and the predictions into a run directory."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.predictions, sink)
        write_atomic(run / "test_predictions.parquet", sink.getvalue().to_pybytes())
        write_atomic(run / "test_per_class.csv", _as_csv(self.classes))

    def text(self) -> str:
        """Return the tables for people: metrics with intervals; all classes, or the worst of many."""
        lines = [
            f"{name:<14} {value:.4f}{_interval(self.scores.get(name))}" for name, value in sorted(self.metrics.items())
        ]
        return "\n".join([*lines, "", *_class_table(self.classes)])

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
    named = {f"{prefix}{name}": score for name, score in scores.items()}
    values = {name: float(value) for name, value in logged.items()} | {name: each.value for name, each in named.items()}
    return Evaluation(values, named, classes, pa.table(columns))


def _interval(score: Estimate | None) -> str:
    return "" if score is None else f"  {score.low:.4f} to {score.high:.4f}"


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
    shown, title = list(classes), "class"
    if len(classes) > _MOST_CLASSES:
        known = [each for each in classes if not math.isnan(each.f1.value)]
        shown, title = (
            sorted(known, key=lambda each: each.f1.value)[:_WORST],
            f"worst {_WORST} of {len(classes)} classes",
        )
    rows = []
    for each in shown:
        values = ["-" if math.isnan(score.value) else f"{score.value:.3f}" for score in (each.precision, each.recall)]
        f1 = "-" if math.isnan(each.f1.value) else f"{each.f1.value:.3f}"
        span = f"{each.recall.low:.3f} to {each.recall.high:.3f}"
        rows.append([printable(each.name), str(each.support), *values, span, f1])
    return table([title, "images", "precision", "recall", "recall's 95 %", "F1"], rows)
