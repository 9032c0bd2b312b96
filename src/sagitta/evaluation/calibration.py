"""Probabilities that mean what they say: a temperature for the logits, found on rows that the model has not seen.

Networks that were trained until they fit are too sure of themselves, and solved heads of few rows may be too unsure.
Dividing all logits by one number, the temperature, changes no decision of one label an image, and makes 90 % be right
in about 90 of 100 (Guo et al. 2017, arXiv 1706.04599). It is the one of lowest log loss on the rows, where its
logarithm is taken to be normally distributed around 0 before any row is seen: a few rows that are all right would ask
for infinite certainty. It stays at 1 where there are too few rows, or where on rows that it was not found on the log
loss is not surely lower.

Probabilities suffice for all of this: their logarithms are the logits but for what all classes have in common. So means
of several models are measured alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from torch import Tensor

from sagitta.evaluation.result import UNCALIBRATED, Evaluation, arrays_of, judge
from sagitta.models import Floats, Task

FEWEST = 50
"""Rows below which no temperature is looked for: by 30 rows of CIFAR-10, one division in twelve was made worse."""
VALIDATION_FILE = "validation.parquet"
"""In a run: every row that a temperature was looked for on, ``path``, ``split``, ``label``, ``predicted`` and
``probabilities`` (list<float>, in label order), calibrated."""

_SPREAD = 0.5  # standard deviation of the temperature's logarithm, as that of a solved head
_PARTS = 5  # of the rows, each judged by the temperature found on the others
_MOST = 10_000_000  # numbers of which a temperature is found; a sample of the rows where there are more
_LARGEST = 3.0  # logarithm of a temperature


@dataclass(frozen=True)
class Tempered:
    """A temperature, and why it is so.

    Attributes:
        value: what the logits are to be divided by; 1 where they stay.
        rows: that it was looked for on.
        reason: in words.
    """

    value: float
    rows: int
    reason: str


def find_temperature(task: Task, probabilities: Floats, labels: npt.NDArray[Any]) -> Tempered:
    """Return the temperature of rows (N, classes) that the model has not learned from.

    Args:
        task: one label an image, or several, which share it.
        probabilities: (N, classes), finite.
        labels: (N,), or (N, classes) of 0 and 1.
    """
    rows = len(labels)
    if rows < FEWEST:
        return Tempered(1.0, rows, f"only {rows} rows, and a temperature needs {FEWEST}")
    order = np.random.default_rng(0).permutation(rows)[: max(FEWEST, _MOST // probabilities.shape[1])]
    logits, own = task.logits(probabilities[order]), labels[order]
    gains = np.empty(len(order))
    for part in range(_PARTS):
        judged = np.arange(len(order)) % _PARTS == part
        found = _lowest(task, logits[~judged], own[~judged])
        before, after = (task.losses(logits[judged] / each, own[judged]).numpy() for each in (1.0, found))
        gains[judged] = before - after
    gain, error = float(gains.mean()), float(gains.std(ddof=1) / len(gains) ** 0.5)
    if gain <= error:
        told = f"{-gain:+.4f} a row, standard error {error:.4f}"
        return Tempered(1.0, rows, f"no temperature surely lowers the log loss ({told})")
    # Three decimals: what is computed in another order, such as on other devices, gives the same.
    value = round(_lowest(task, logits, own), 3)
    return Tempered(value, rows, f"log loss {-gain:+.4f} a row where it was not found, standard error {error:.4f}")


def temper(task: Task, probabilities: Floats, temperature: float) -> Floats:
    """Return probabilities (N, classes) float32 as they are when all logits are divided by a temperature."""
    if temperature == 1:
        return probabilities
    found: Floats = task.probabilities(task.logits(probabilities) / temperature).numpy()
    return found


def tempered_thresholds(thresholds: Sequence[float], temperature: float) -> list[float]:
    """Return the thresholds of several labels that decide about tempered probabilities as these did before."""
    odds = [math.log(max(each, 1e-12)) - math.log1p(-min(each, 1 - 1e-12)) for each in thresholds]
    return [1 / (1 + math.exp(-each / temperature)) for each in odds]


def figures(evaluation: Evaluation) -> dict[str, float]:
    """Return log loss and, of one label an image, calibration error, each with its 95 % interval, without prefixes."""
    found: dict[str, float] = {}
    for name, score in evaluation.scores.items():
        short = "loss" if name.endswith("log_loss") else "ece" if name.endswith("ece") else None
        if short is not None:
            found |= {short: score.value, f"{short}_low": score.low, f"{short}_high": score.high}
    return found


def tempered(
    evaluation: Evaluation,
    task: Task,
    names: Sequence[str],
    temperature: float,
    prefix: str,
    thresholds: Sequence[float],
) -> Evaluation:
    """Return the evaluation of the same rows as it is when all logits are divided by a temperature.

    Args:
        evaluation: of probabilities before.
        task: one label an image, or several.
        names: of the classes.
        temperature: 1 changes nothing.
        prefix: of the names of the figures, such as ``val_``.
        thresholds: of several labels, before.
    """
    if temperature == 1:
        return evaluation
    probabilities, labels = arrays_of(evaluation.predictions, task, names)
    own = tempered_thresholds(thresholds, temperature)
    paths = evaluation.predictions["path"].to_pylist()
    judged = judge(task, temper(task, probabilities, temperature), labels, paths, names, {}, prefix, own)
    metrics = {f"{prefix}loss": judged.metrics[f"{prefix}log_loss"]} if f"{prefix}loss" in evaluation.metrics else {}
    beside = replace(judged, metrics=metrics | judged.metrics, tested=evaluation.tested)
    return _with_uncalibrated(beside, evaluation, prefix)


def beside_uncalibrated(
    evaluation: Evaluation, task: Task, names: Sequence[str], temperature: float, prefix: str
) -> Evaluation:
    """Return an evaluation of calibrated probabilities with log loss and calibration error of those before."""
    probabilities, labels = arrays_of(evaluation.predictions, task, names)
    before = temper(task, probabilities, 1 / temperature)
    scores, _ = task.scores(before, labels, names, [0.5] * len(names))
    known = {f"{prefix}{name}": score for name, score in scores.items()}
    return _with_uncalibrated(evaluation, replace(evaluation, scores=known), prefix)


def _with_uncalibrated(evaluation: Evaluation, before: Evaluation, prefix: str) -> Evaluation:
    found = {
        f"{prefix}{name}{UNCALIBRATED}": before.scores[f"{prefix}{name}"]
        for name in ("log_loss", "ece")
        if f"{prefix}{name}" in before.scores
    }
    values = {name: score.value for name, score in found.items()}
    return replace(evaluation, metrics=evaluation.metrics | values, scores=evaluation.scores | found)


def calibration_text(record: Mapping[str, Any]) -> str:
    """Return ``calibration`` of ``run.json`` in a line."""
    shown = []
    for name, words in (("loss", "log loss"), ("ece", "calibration error")):
        if name in record["before"]:
            before, after = (record[when] for when in ("before", "after"))
            ends = (f"({each[f'{name}_low']:.4f} to {each[f'{name}_high']:.4f})" for each in (before, after))
            shown.append(f"{words} {before[name]:.4f} {next(ends)} before, {after[name]:.4f} {next(ends)} after")
    where = "out of fold" if record["fitted_on"] == "out-of-fold" else f"of {record['fitted_on']}"
    rows = f"{record['rows']:,} rows {where}"
    if record["temperature"] == 1:
        return f"calibration: logits stay as they are: {record['reason']}; {rows}"
    return f"calibration: logits are divided by {record['temperature']:g}, found on {rows}: {'; '.join(shown)}"


def _lowest(task: Task, logits: Tensor, labels: npt.NDArray[Any]) -> float:
    """Return the most probable temperature of rows."""

    def cost(logarithm: float) -> float:
        loss = float(task.losses(logits * math.exp(-logarithm), labels).sum())
        return loss + (logarithm / _SPREAD) ** 2 / 2

    found = minimize_scalar(cost, bounds=(-_LARGEST, _LARGEST), method="bounded", options={"xatol": 1e-3})
    return math.exp(float(found.x))
