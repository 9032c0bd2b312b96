"""Probable label errors: what a model that has not seen a row says of it, against what its label says.

Confident learning (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068): a class is confidently said of a row where its
probability is at least what it is on average for rows that have this label. A row of which another class than its
label's is confidently said is a suspect. So classes that a model is never sure of are not suspected as a whole. A model
that is sure of nearly every row would rarely say another class as surely of one whose label is wrong: so it is also a
suspect where another class is clearly more probable than its label's.

A model that is often wrong about a class cannot tell its own mistakes from those of the labels: what it says of such
classes is told apart from the rest, as doubts.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sagitta.conversion import deal
from sagitta.dataset import plural
from sagitta.diagnosis.duplicates import named
from sagitta.diagnosis.findings import finding
from sagitta.diagnosis.rows import Ints, Rows
from sagitta.evaluation import digests_of, read_seen
from sagitta.loading import ImageData
from sagitta.models import Floats, extract, prepare, stage_widths
from sagitta.pool import follow
from sagitta.run import read_record, run_of
from sagitta.training import Candidate, build_candidate, features_for, fit_either

_KNOWN = 0.8  # of a class's rows that a model has to be right about, for its doubts to be about the label
_ENOUGH = 8  # of its rows, by which that is known
_CLEAR = 0.3  # of probability, by which another class is clearly more probable
_DOUBTFUL = 0.5  # of probability, by which it has to be wrong otherwise
_FOLDS = 5
_MANY = 5000  # rows from which a head judges but a fifth of them, so that the folds are made here


def suspects(probabilities: Floats, labels: Ints) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """Return rows whose label is probably wrong, the most probable first; the class for each; and by how much.

    Args:
        probabilities: (N, classes), of a model that has not seen the row.
        labels: (N,) int64.

    Returns:
        rows (M,), classes (M,), and the class's probability less the label's (M,), 0..1.
    """
    numbers = np.arange(len(labels))
    own = probabilities[numbers, labels].astype(np.float64)
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)  # nothing is confidently a class without rows
    said = np.where(probabilities >= usual, probabilities, -1.0)
    best = np.where(said.max(axis=1) >= 0, said.argmax(axis=1), labels)
    likely = probabilities.argmax(axis=1)
    clear = probabilities[numbers, likely] - own >= _CLEAR
    best = np.where((best == labels) & clear, likely, best)
    margin = probabilities[numbers, best] - own
    found = np.flatnonzero((best != labels) & (margin > 0))
    found = found[np.argsort(-margin[found], kind="stable")]
    return found, best[found], margin[found]


def label_findings(rows: Rows, judged: Ints, probabilities: Floats) -> Iterator[dict[str, Any]]:
    """Yield a finding for each suspect.

    Args:
        rows: of the dataset, with one label each.
        judged: (M,) of the rows.
        probabilities: (M, classes) of a model that has not seen them.
    """
    names, labels = rows.info.class_names, rows.labels[judged]
    agreed = _agreements(probabilities, labels)
    known = [len(each) >= _ENOUGH and each.mean() >= _KNOWN for each in agreed]
    for place, label, margin in zip(*suspects(probabilities, labels), strict=True):
        row, given = int(judged[place]), int(labels[place])
        sure = known[given] and known[label]
        if not sure and margin < _DOUBTFUL:
            continue
        own = float(probabilities[place, given])
        evidence = f"{names[given]} by its label ({own:.0%}), {names[label]} by its picture ({own + margin:.0%})"
        proposed = {"score": float(margin), "proposed_label": names[label]}
        yield finding("label-error" if sure else "label-doubt", evidence, **named(rows, row), **proposed)


def _agreements(probabilities: Floats, labels: Ints) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield for each class which of the rows of this label a model agrees with."""
    right = probabilities.argmax(axis=1) == labels
    for label in range(probabilities.shape[1]):
        yield right[labels == label]


def out_of_fold(
    data: ImageData, rows: Rows, candidate: Candidate, units: Ints, *, image_size: int | None, verbose: bool
) -> tuple[Ints, Floats, int]:
    """Return rows, their probabilities by heads that have not seen them, and the shorter side of the model's input.

    Features are computed once and cached, as a probe does.

    Args:
        data: set up.
        rows: its rows, with one label each.
        candidate: the network.
        units: (N,) equal for copies, which are judged by a head that has seen none of them.
        image_size: other height and width of the input than the weights were trained with.
        verbose: show progress.

    Raises:
        ConfigError: the network or its weights do not fit.
        DatasetError: an image cannot be decoded.
    """
    classifier, preprocessing = build_candidate(data, candidate, image_size)
    splits = [name for name, split in data.shards.splits.items() if len(split)]
    body, store = features_for(classifier, data, preprocessing, splits)
    hashes = [data.shards.splits[name].content_hashes for name in splits]
    total = store.lacking(hashes)
    fast = prepare(body) if total else body
    with closing(
        count for name in splits for count in extract(store, fast, data.shards, name, preprocessing)
    ) as counts:
        follow(candidate.name, counts, total, show=verbose)
    vectors = np.concatenate([store.read(each) for each in hashes])
    judged, logits = _judged(vectors, rows.labels, stage_widths(body), len(rows.info.class_names), units)
    return judged, torch.from_numpy(logits).softmax(dim=1).numpy(), min(preprocessing.size)


def _judged(vectors: Floats, labels: Ints, widths: Sequence[int], classes: int, units: Ints) -> tuple[Ints, Floats]:
    """Return rows (M,) and what heads say of them that have not seen them, logits (M, classes)."""
    if len(labels) <= _MANY:
        head = fit_either(vectors, labels, widths, classes, units=units)
        return head.judged, head.logits
    folds = deal(_FOLDS, 0, labels, [str(unit) for unit in units.tolist()], [None] * len(labels))
    logits = np.empty((len(labels), classes), np.float32)
    for fold in range(_FOLDS):
        others, own = folds != fold, folds == fold
        head = fit_either(vectors[others], labels[others], widths, classes, units=units[others])
        logits[own] = vectors[own][:, -head.weight.shape[1] :] @ head.weight.T + head.bias
    return np.arange(len(labels)), logits


def learned(rows: Rows, candidate: Candidate) -> list[str]:
    """Return what has to be said where the network itself was trained on labels that it is to judge; else nothing."""
    run = None if candidate.weights is None else run_of(Path(candidate.weights))
    seen = None if run is None or "probe" in read_record(run) else read_seen(run)
    if seen is None:
        return []
    count = sum(seen.count(digests_of(split), "trained") for split in rows.shards.splits.values())
    known = f"{plural(count, 'image')} whose label {run} was trained with: it may know wrong ones by heart"
    return [f"label errors among {known}; a network that has not seen them tells more"] if count else []


def rows_of(rows: Rows, paths: Sequence[str]) -> Ints:
    """Return the rows (M,) of these paths; -1 where none or several have it."""
    places: dict[str, int] = {}
    for row, path in enumerate(rows.paths):
        places[path] = -1 if path in places else row
    return np.array([places.get(path, -1) for path in paths], np.int64)
