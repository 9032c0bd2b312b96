"""What a run directory says of itself, as plain values: its record, its curves, and everything that was predicted.

Nothing here opens the data or the model. What is not there is None, and :attr:`Gathered.missing` says in one line why a
part of the page has nothing to show.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from sagitta.dataset import read_table
from sagitta.errors import ConfigError, DatasetError
from sagitta.evaluation import UNCALIBRATED, judge, overlap_warnings, read_test_log
from sagitta.models import ClassScores, Estimate, Task, task_of
from sagitta.reporting.asking import check_run
from sagitta.run import CONFIG_FILE, MEMBERS, OUT_OF_FOLD, PACE_FILE, has_ended, history_table, members_of, read_record

Floats = npt.NDArray[np.floating[Any]]

PREDICTIONS, CLASSES = "predictions.parquet", "per_class.csv"
VALIDATION = "validation.parquet"
FINDINGS = "findings.parquet"
_MOST_CELLS = 10_000_000  # rows * classes, above which intervals take longer than a page is worth


@dataclass(frozen=True)
class Judged:
    """Predictions of rows whose labels are known.

    Attributes:
        key: of the part of the page: ``test``, ``unseen`` and the like.
        title: for people, such as ``Test``.
        source: the data, as it was named; None for that of the run.
        split: where its rows are, where that is one split.
        fingerprint: of the data, as it was noted.
        paths: (N,) of the images.
        labels: (N,) int64, or bool (N, classes) where an image has several.
        probabilities: (N, classes) float32.
        decided: as ``labels``: what was predicted.
        scores: with intervals, by name without a prefix, such as ``acc``.
        classes: those of each class.
        task: one label an image, or several.
        names: of the classes.
        notes: what a person has to know, one sentence each.
    """

    key: str
    title: str
    source: str | None
    split: str | None
    fingerprint: str | None
    paths: list[str]
    labels: npt.NDArray[Any]
    probabilities: Floats
    decided: npt.NDArray[Any]
    scores: dict[str, Estimate]
    classes: list[ClassScores]
    task: Task
    names: Sequence[str]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.paths)

    @property
    def calibrated(self) -> bool:
        """Whether the run's temperature is in the probabilities: not in another checkpoint's, nor once in a mean's."""
        return self.key == "unseen" or any(name.endswith(UNCALIBRATED) for name in self.scores)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(N,) of each row, whether all that was decided is so."""
        same: npt.NDArray[np.bool_] = self.decided == self.labels
        return same if same.ndim == 1 else np.asarray(same.all(axis=1))

    @property
    def losses(self) -> Floats:
        """(N,) loss of each row: minus the logarithm of the probability of its label, or its mean over the labels."""
        if self.labels.ndim == 1:
            own = self.probabilities[np.arange(len(self)), self.labels]
        else:
            own = np.where(self.labels, self.probabilities, 1 - self.probabilities)
        losses: Floats = -np.log(np.maximum(own.astype(np.float64), 1e-12))
        return losses if losses.ndim == 1 else np.asarray(losses.mean(axis=1))

    @property
    def certainty(self) -> Floats:
        """(N,) probability of what was decided; of several labels, that of the least certain one."""
        if self.labels.ndim == 1:
            return np.asarray(self.probabilities.max(axis=1))
        return np.asarray(np.where(self.decided, self.probabilities, 1 - self.probabilities).min(axis=1))


@dataclass(frozen=True)
class Gathered:
    """What a run directory holds.

    Attributes:
        path: the directory.
        record: ``run.json``.
        config: text of ``config.yaml``; empty without one.
        history: what was logged, a row a step, see :func:`sagitta.run.history_table`.
        members: histories of the members by name, where it has members.
        pace: of each epoch ``epoch``, ``seconds``, ``lr``, ``images_per_second`` and ``wait_share``, where it is known.
        judged: the rows that are shown, the most telling first.
        tests: the lines of ``test_logs.csv``.
        findings: of the doctor, or None.
        missing: why a part has nothing to show, by part.
    """

    path: Path
    record: dict[str, Any]
    config: str
    history: pa.Table
    members: dict[str, pa.Table]
    pace: list[dict[str, float]]
    judged: list[Judged]
    tests: list[dict[str, Any]]
    findings: pa.Table | None
    missing: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The classes in the order of the outputs."""
        return list(self.record.get("dataset", {}).get("class_names", []))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The values of ``config.yaml``, by group; empty where they cannot be read."""
        try:
            values = yaml.safe_load(self.config)
        except yaml.YAMLError:
            return {}
        return values if isinstance(values, dict) else {}

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return has_ended(self.record)

    @property
    def kind(self) -> str:
        """What made it: fit, probe, folds or ensemble."""
        return next((name for name in ("probe", "ensemble") if name in self.record), "folds" if self.members else "fit")


def gather(run: Path) -> Gathered:
    """Return what a run directory holds.

    Raises:
        ConfigError: there is no run, or its record is damaged.
    """
    check_run(run)
    record, missing = read_record(run), dict[str, str]()
    names = list(record.get("dataset", {}).get("class_names", []))
    tests = read_test_log(run)
    judged = []
    for key, read in (("test", _tests), ("unseen", _unseen)):
        try:
            judged += read(run, record, names, tests)
        except (DatasetError, KeyError, ValueError, TypeError, pa.ArrowException, OSError) as error:
            missing[key] = f"cannot be read: {' '.join(str(error).split())}"
    if not judged and "test" not in missing:
        missing["test"] = _why_unjudged(run, record)
    return Gathered(
        run,
        record,
        (run / CONFIG_FILE).read_text(encoding="utf-8") if (run / CONFIG_FILE).is_file() else "",
        history_table(run),
        {place.name: history_table(place) for place in _member_places(run)},
        _pace(run),
        judged,
        tests,
        _findings(run, missing),
        missing,
    )


def _member_places(run: Path) -> list[Path]:
    try:
        listed = members_of(run)
    except ConfigError:  # not all of them are there yet
        listed = None
    if listed is not None:
        return [run / member["run"] for member in listed]
    return sorted((place for place in (run / MEMBERS).glob("*") if place.is_dir()), key=lambda place: place.name)


def _pace(run: Path) -> list[dict[str, float]]:
    """Return how fast each epoch was, by epoch; of a resumed one the later line counts."""
    if not (run / PACE_FILE).is_file():
        return []
    with (run / PACE_FILE).open(newline="", encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    last = {row["epoch"]: row for row in rows if "epoch" in row}
    return [last[epoch] for epoch in sorted(last)]


def _why_unjudged(run: Path, record: Mapping[str, Any]) -> str:
    if "result" not in record:
        return "the run has not come to its end, and nothing was tested yet"
    return f"there is no test set, and nothing else was judged row by row: sagitta test {run} DATA"


def _findings(run: Path, missing: dict[str, str]) -> pa.Table | None:
    if not (run / FINDINGS).is_file():
        missing["findings"] = f"no {FINDINGS} in the run: sagitta doctor looks for wrong labels, copies and leaks"
        return None
    try:
        return read_table(run / FINDINGS)
    except DatasetError as error:
        missing["findings"] = str(error)
        return None


def _tests(run: Path, record: Mapping[str, Any], names: Sequence[str], log: Sequence[dict[str, Any]]) -> list[Judged]:
    """Return the last test, and the first where that is another: the one that ended the run, on its own data."""
    listed = [line for line in log if (run / (line.get("predictions") or "-")).is_file()]
    chosen = [listed[-1], listed[0]] if len(listed) > 1 else listed
    own = str(record.get("dataset", {}).get("fingerprint", ""))
    found = []
    for number, line in enumerate(chosen):
        file = run / line["predictions"]
        prefix = next((name for name in ("test_", "val_", "train_") if line.get(f"{name}log_loss")), "test_")
        source = None if line.get("fingerprint") == own else line.get("dataset")
        title = {"test_": "Test", "val_": "Validation", "train_": "Training images"}[prefix]
        title += "" if source is None else f" on {Path(line['dataset']).name}"
        judged = _judged(("test", "first")[number], title, file, names, _scores(line, prefix))
        notes = _notes(line, prefix)
        found.append(_with(judged, source, line.get("split") or None, line.get("fingerprint"), notes))
    return found


def _notes(line: Mapping[str, Any], prefix: str) -> list[str]:
    notes = []
    if prefix == "val_":
        notes.append(
            "there is no test set: these images also chose the checkpoint, so the figures are a little too good"
        )
    notes += overlap_warnings(int(line.get("images") or 0), int(line.get("trained_on") or 0), None)
    if line.get("tta"):
        notes.append("mean of each image and its mirror image (--tta flip)")
    return notes


def _unseen(run: Path, record: Mapping[str, Any], names: Sequence[str], _: Sequence[dict[str, Any]]) -> list[Judged]:
    """Return the rows that were held out while the run was made: out of fold, or those of val."""
    places = (
        (run / VALIDATION, "Validation", "val"),
        (run / OUT_OF_FOLD / PREDICTIONS, "Out of fold", None),
        (run / "val" / PREDICTIONS, "Validation", "val"),
    )
    for path, title, split in places:
        if not path.is_file():
            continue
        if path.name == VALIDATION and record.get("calibration", {}).get("fitted_on") == "out-of-fold":
            title, split = "Out of fold", None
        judged = _judged("unseen", title, path, names, {})
        note = (
            "each image by a model that was not trained on it"
            if split is None
            else "held out of training; it chose the checkpoint, so the figures are a little too good"
        )
        return [_with(judged, None, split, str(record["dataset"].get("fingerprint", "")), [note])]
    return []


def _with(judged: Judged, source: str | None, split: str | None, fingerprint: str | None, notes: list[str]) -> Judged:
    return Judged(**{**vars(judged), "source": source, "split": split, "fingerprint": fingerprint, "notes": notes})


def _judged(key: str, title: str, file: Path, names: Sequence[str], scores: dict[str, Estimate]) -> Judged:
    """Return the predictions in a file, with all scores; those that are known already are not computed again.

    Raises:
        DatasetError: the file is damaged, or not of this run's classes.
    """
    table, classes = read_table(file), _classes(file.with_name(CLASSES), names)
    flat = table["probabilities"].combine_chunks().flatten().to_numpy()
    if not names or len(flat) != table.num_rows * len(names):
        raise DatasetError("its predictions are not of the classes that run.json names")
    task = task_of(pa.types.is_list(table.schema.field("label").type))
    probabilities = flat.reshape(-1, len(names)).astype(np.float32)
    labels = task.numbers_of(table["label"].to_pylist(), names)
    decided = task.numbers_of(table["predicted"].to_pylist(), names)
    paths = table["path"].to_pylist()
    if not (scores and classes) and probabilities.size <= _MOST_CELLS:
        # What counts is what was decided, by thresholds that the table does not hold: any that decide alike will do.
        thresholds = _thresholds(probabilities, decided) if task.multilabel else []
        evaluation = judge(task, probabilities, labels, paths, names, {}, "", thresholds)
        classes, scores = evaluation.classes, scores or evaluation.scores
    rows = (paths, labels, probabilities, decided)
    return Judged(key, title, None, None, None, *rows, scores, classes, task, names)


def _classes(file: Path, names: Sequence[str]) -> list[ClassScores]:
    """Return the scores of each class that stand beside predictions; none where they are of others."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    if [row["class"] for row in rows] != list(names):
        return []

    def score(row: dict[str, str], kind: str) -> Estimate:
        return Estimate(*(float(row[f"{kind}{end}"] or "nan") for end in ("", "_low", "_high")))

    kinds = ("precision", "recall", "f1")
    return [ClassScores(row["class"], int(row["support"]), *(score(row, kind) for kind in kinds)) for row in rows]


def _thresholds(probabilities: Floats, decided: npt.NDArray[Any]) -> list[float]:
    """Return thresholds (classes,) by which labels are given as they were."""
    lowest = np.where(decided, probabilities, np.inf).min(axis=0, initial=np.inf)
    return [float(each) if math.isfinite(each) else 2.0 for each in lowest]


def _scores(line: Mapping[str, Any], prefix: str) -> dict[str, Estimate]:
    """Return the scores of a line of the log that have an interval."""
    found = {}
    for name, value in line.items():
        low, high = line.get(f"{name}_low"), line.get(f"{name}_high")
        if name.startswith(prefix) and value and low and high:
            found[name.removeprefix(prefix)] = Estimate(float(value), float(low), float(high))
    return found
