"""What conversion knows already: files left out, losses, groups across splits, and how classes are filled."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from sagitta.dataset import plural, unreadable_files
from sagitta.diagnosis.findings import finding
from sagitta.diagnosis.rows import Rows

_TRAINED, _MEASURED = 5, 5  # images of a class that can be learned from, and that say something of it
_IMBALANCED = 10  # times as many images in the largest class as in the smallest


def known_findings(rows: Rows) -> Iterator[dict[str, Any]]:
    """Yield what can be found without looking at an image.

    Raises:
        DatasetError: a file is damaged.
    """
    yield from _quarantined(rows)
    for reason, files in rows.info.reduced.items():
        yield finding("reduced", f"{reason}, in {plural(files, 'file')}", score=float(files), action="none")
    yield from _groups(rows)
    yield from _classes(rows)


def _quarantined(rows: Rows) -> Iterator[dict[str, Any]]:
    for row in unreadable_files(rows.shards.root, rows.info):
        yield finding("quarantined", row["reason"], path=row["path"], label=row["label"], action="none")


def _groups(rows: Rows) -> Iterator[dict[str, Any]]:
    column = rows.column("group")
    if column is None:
        return
    found: dict[Any, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (group, split) in enumerate(zip(column.tolist(), rows.split.tolist(), strict=True)):
        if group is not None:
            found[group][split].append(row)
    for group, splits in found.items():
        if len(splits) > 1:
            first, *others = sorted(splits, key=lambda name: rows.rank[splits[name][0]])
            row, other = splits[first][0], splits[others[-1]][0]
            counts = " and ".join(f"{plural(len(own), 'image')} in {name}" for name, own in splits.items())
            yield finding(
                "group-leak", f"group {group!r} has {counts}", split=first, path=rows.paths[row],
                hash=rows.hashes[row], other_split=others[-1], other_path=rows.paths[other],
                other_hash=rows.hashes[other], score=float(sum(map(len, splits.values()))), label=rows.label(row),
            )  # fmt: skip


def _classes(rows: Rows) -> Iterator[dict[str, Any]]:
    """Yield the classes of too few images, and the imbalance, by the rows that are trained on."""
    names = rows.info.class_names
    counts = {name: _count(rows.labels[rows.split == name], len(names)) for name in rows.shards.splits}
    total = np.sum(list(counts.values()), axis=0)
    train = counts.get("train", total)
    for label in np.flatnonzero(total > 0).tolist():
        measured = {name: int(each[label]) for name, each in counts.items() if name in ("val", "test") and each.any()}
        few = [f"{train[label]} in train"] if train[label] < _TRAINED else []
        few += [f"{count} in {name}" for name, count in measured.items() if count < _MEASURED]
        if few and (train[label] < _TRAINED or any(count == 0 for count in measured.values())):
            evidence = f"class {names[label]!r} has {' and '.join(few)}"
            yield finding("small-class", evidence, label=names[label], score=float(total[label]), action="none")
    filled = train[train > 0]
    if len(filled) > 1 and filled.max() >= _IMBALANCED * filled.min():
        most, least = int(train.argmax()), int(np.where(train > 0, train, train.max() + 1).argmin())
        evidence = f"{names[most]!r} has {train[most]:,} images to train on, {names[least]!r} has {train[least]:,}"
        yield finding("imbalance", evidence, score=float(train[most] / train[least]), action="none")


def _count(labels: Any, classes: int) -> Any:
    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
