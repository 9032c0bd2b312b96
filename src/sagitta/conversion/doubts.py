"""What a person should know about a dataset that can be used: one sentence each, kept in it as its warnings."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sagitta.conversion.splits import Bools, Ints, SplitRule, classes_in
from sagitta.dataset import QUARANTINE_FILE, SPLITS, plural

_NAMED = 5  # classes that a sentence names
_MANY_BAD = 0.05
_REASONS = 3


def lost(bad: pa.Table, rows: int) -> Iterator[str]:
    """Say where so many of the source's rows are left out that the dataset is another one than was given."""
    if bad.num_rows > _MANY_BAD * rows:
        reasons = Counter(bad["reason"].to_pylist()).most_common(_REASONS)
        shown = "; ".join(f"{reason} ({count:,})" for reason, count in reasons)
        yield (
            f"{bad.num_rows:,} OF {plural(rows, 'IMAGE').upper()} ({bad.num_rows / rows:.0%}) WERE LEFT OUT: {shown}; "
            f"{QUARANTINE_FILE} lists them"
        )


def group_overlap(groups: Sequence[str | None], splits: npt.NDArray[np.str_]) -> str | None:
    """Return in words which groups have rows in several splits, which given splits may; None where none has.

    Args:
        groups: (N,) group of each row, or None.
        splits: (N,) split of each row.
    """
    found: dict[str, set[str]] = {}
    for group, split in zip(groups, splits.tolist(), strict=True):
        if group is not None:
            found.setdefault(group, set()).add(split)
    shared = {group: names for group, names in found.items() if len(names) > 1}
    if not shared:
        return None
    group, names = next(iter(shared.items()))
    where = " and ".join(name for name in SPLITS if name in names)
    return f"{len(shared):,} of {plural(len(found), 'group')} are in several splits: {group!r} is in {where}"


def too_small(before: Sequence[str], kept: Sequence[str], least: int | None) -> Iterator[str]:
    """Say which classes were left out because they have too few images, as was asked for."""
    enough = set(kept)
    out = [name for name in before if name not in enough]
    if out:
        shown = ", ".join(out[:_NAMED]) + (f" and {len(out) - _NAMED} more" if len(out) > _NAMED else "")
        yield f"{len(out)} of {len(before)} classes have fewer than {least} readable images and are left out: {shown}"


def doubts(
    rule: SplitRule,
    class_names: Sequence[str],
    labels: Ints | Bools,
    splits: npt.NDArray[np.str_],
    hashes: Sequence[str],
    paths: Sequence[str],
) -> Iterator[str]:
    """Yield what a person should know about splits that can be used, one sentence each.

    Args:
        rule: by which they were assigned.
        class_names: names of the labels.
        labels: (N,) class of each row, or (N, classes) where rows have several.
        splits: (N,) split of each row.
        hashes: (N,) content hash of each row's source.
        paths: (N,) path of each row.
    """
    if rule.warning:
        yield rule.warning
    counts = {name: _counts(labels[splits == name], len(class_names)) for name in SPLITS if (splits == name).any()}
    total = sum(counts.values())
    if rule.rest == "train":
        yield from _small_classes(rule, class_names, np.asarray(total), counts)
    yield from _identical(class_names, labels, splits, hashes, paths)


def _small_classes(
    rule: SplitRule, class_names: Sequence[str], total: Ints, counts: Mapping[str, Ints]
) -> Iterator[str]:
    single = np.flatnonzero(total == 1)
    if single.size:
        yield (
            f"{plural(single.size, 'class has', 'classes have')} a single readable image, kept in train: "
            f"{_names(class_names, single)} (--min-images 2 leaves such classes out)"
        )
    for name, share in rule.made.items():
        if name not in counts:
            yield f"there is no {name}: no class has three different images; add some to each class"
            continue
        rows, whole = int(counts[name].sum()), int(total.sum())
        if rows > 1.5 * share * whole + 1:
            yield (
                f"{name} has {rows / whole:.0%} of all images where {share:.0%} was asked for: each class gives at "
                "least one image, and groups and copies stay together"
            )
    for name in (name for name in ("val", "test") if name in counts):
        lacking = np.flatnonzero((counts[name] == 0) & (total > 0))
        if lacking.size:
            yield (
                f"{name} has no image of {plural(lacking.size, 'class', 'classes')} of {len(class_names)}: "
                f"{_names(class_names, lacking)}; its figures say nothing about them"
            )


def _identical(
    class_names: Sequence[str],
    labels: Ints | Bools,
    splits: npt.NDArray[np.str_],
    hashes: Sequence[str],
    paths: Sequence[str],
) -> Iterator[str]:
    """Say which identical images have different labels or lie in different splits."""
    repeated = {content for content, count in Counter(hashes).items() if count > 1}
    copies: dict[str, list[int]] = {}
    for row, content in enumerate(hashes):
        if content in repeated:
            copies.setdefault(content, []).append(row)
    pairs = [(rows[0], row) for rows in copies.values() for row in rows[1:]]
    relabelled = [(one, other) for one, other in pairs if np.any(labels[one] != labels[other])]
    crossing = [(one, other) for one, other in pairs if splits[one] != splits[other]]
    for found, what in ((relabelled, "under different labels"), (crossing, "in different splits")):
        if found:
            shown = " = ".join(f"{paths[row]} ({_said(class_names, labels, splits, row)})" for row in found[0])
            yield f"{plural(len(found), 'image is', 'images are')} there twice {what}, the first: {shown}"


def _said(class_names: Sequence[str], labels: Ints | Bools, splits: npt.NDArray[np.str_], row: int) -> str:
    names = ";".join(class_names[label] for label in sorted(classes_in(labels[row : row + 1])))
    return f"{names or 'no label'}, {splits[row]}"


def _names(class_names: Sequence[str], labels: Ints) -> str:
    return ", ".join(class_names[label] for label in labels[:_NAMED]) + (", …" if len(labels) > _NAMED else "")


def _counts(labels: Ints | Bools, classes: int) -> Ints:
    counts: Ints = np.bincount(labels, minlength=classes) if labels.ndim == 1 else labels.sum(axis=0)
    return counts
