"""Whether something beside the picture gives the class away: its size, its file, its brightness, its border.

A small forest is asked for the class by such numbers alone, cross-validated, one cue at a time and all together. A
model takes the easiest way, so what such a forest can do it will learn, too, and nothing else need be learned.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sagitta.diagnosis.findings import finding
from sagitta.diagnosis.looks import Looks
from sagitta.diagnosis.rows import Ints, Rows

Floats = npt.NDArray[np.float64]

_MOST_ROWS, _FOLDS, _TREES = 4000, 3, 25
_FEWEST = 2 * _FOLDS  # images of a class that counts
_FILE, _PICTURE = 0.25, 0.5
"""How far between chance (0) and certainty (1) a cue of the file has to come, and one of the picture, which may well
belong to the class: a polar bear is bright."""
_SURE = 3.0  # standard errors above chance


def cue_findings(rows: Rows, looks: Looks, units: Ints) -> Iterator[dict[str, Any]]:
    """Yield a finding for each cue that tells the class clearly better than chance, or one for all together.

    Args:
        rows: of the dataset, with one label each.
        looks: at some of them.
        units: (N,) equal for copies, of which one counts.
    """
    _, first = np.unique(units[looks.rows], return_index=True)
    labels = rows.labels[looks.rows[first]]
    counts = np.bincount(labels, minlength=len(rows.info.class_names))
    kept = first[counts[labels] >= _FEWEST]
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, min(len(kept), _MOST_ROWS)).astype(np.int64))]
    labels = rows.labels[looks.rows[kept]]
    counts = np.bincount(labels)
    kept = kept[counts[labels] >= _FEWEST]  # of many classes, some may be few only now
    labels = rows.labels[looks.rows[kept]]
    if len(np.unique(labels)) < 2:
        return
    chance = 1 / len(np.unique(labels))
    told = False
    cues = _cues(rows, looks, kept)
    for name, (values, limit) in cues.items():
        right, error = _recall(values, labels)
        if (right - chance) / (1 - chance) >= limit and right - _SURE * error > chance:
            told = True
            yield _found(f"{name} alone", right, chance)
    if not told and (files := [values for values, limit in cues.values() if limit == _FILE]):
        values = np.column_stack(files)
        right, error = _recall(values, labels)
        if (right - chance) / (1 - chance) >= _FILE and right - _SURE * error > chance:
            yield _found("size and file together", right, chance)


def _found(what: str, right: float, chance: float) -> dict[str, Any]:
    evidence = f"{what}, without the picture, tells {right:.0%} of the classes right, where chance tells {chance:.0%}"
    return finding("cue", evidence, score=right, action="none")


def _cues(rows: Rows, looks: Looks, kept: Ints) -> dict[str, tuple[Floats, float]]:
    """Return the numbers (M, k) of each cue, and how much it has to tell."""
    chosen = looks.rows[kept]
    height, width = rows.geometry[chosen, :2].T.astype(np.float64)
    size = np.array([len(image) for image in rows.images(chosen)], np.float64)
    formats = rows.column("format")
    modes = rows.column("mode")
    words = [np.unique(column[chosen], return_inverse=True)[1] for column in (formats, modes) if column is not None]
    measures = {name: looks.measure(name)[kept].astype(np.float64) for name in ("mean", "spread", "edge_spread")}
    border = np.column_stack([looks.measure(name)[kept] for name in ("red", "green", "blue", "edge_spread")])
    cues = {
        "image size": (np.column_stack([height, width]), _FILE),
        "aspect ratio": ((width / np.maximum(height, 1))[:, None], _FILE),
        "bytes per pixel": ((size / np.maximum(height * width, 1))[:, None], _FILE),
        "file type": (np.column_stack(words).astype(np.float64) if words else np.zeros((len(kept), 1)), _FILE),
        "border colour": (border.astype(np.float64), _PICTURE),
        "brightness": (np.column_stack([measures["mean"], measures["spread"]]), _PICTURE),
    }
    return {name: cue for name, cue in cues.items() if np.ptp(cue[0], axis=0).any()}


def _recall(values: Floats, labels: Ints) -> tuple[float, float]:
    """Return the mean of the classes' recalls, out of fold, and its standard error."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    # Leaves of some rows: else every value would stand for itself, and a class of few rows be learned by heart.
    model = ExtraTreesClassifier(
        _TREES, min_samples_leaf=2, max_features=None, class_weight="balanced", random_state=0, n_jobs=1
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    right = cross_val_predict(model, values, labels, cv=folds) == labels
    classes = np.unique(labels)
    recalls = np.array([right[labels == label].mean() for label in classes])
    counts = np.array([(labels == label).sum() for label in classes])
    return float(recalls.mean()), float(np.sqrt((recalls * (1 - recalls) / counts).sum()) / len(classes))
