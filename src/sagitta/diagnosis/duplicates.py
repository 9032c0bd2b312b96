"""Images that are there more than once, exactly or nearly: within a split, across splits, under two labels.

*Exact* are images of equal bytes, and of equal upright pixels: a losslessly saved, tagged or turned copy counts. Whole
images are decoded only where their thumbnails are alike.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from sagitta.diagnosis.findings import finding
from sagitta.diagnosis.likeness import NEAR, NEAR_SMALL, SMALL, SMALLEST, candidates, likenesses, signatures
from sagitta.diagnosis.looks import Looks
from sagitta.diagnosis.rows import Ints, Rows
from sagitta.errors import ImageError
from sagitta.files import content_hash
from sagitta.images import pixel_hash

_SAME = 0.97  # likeness from which two images of one size may have equal pixels


@dataclass(frozen=True)
class Duplicates:
    """What is there more than once.

    Attributes:
        exact: rows of equal pixels, two or more each, in ascending order.
        near: pairs of rows that are nearly alike, first rows of their groups of equal pixels, and how much.
        skipped: pairs that might have been alike were left out.
    """

    exact: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, int, float], ...]
    skipped: bool

    def units(self, count: int) -> Ints:
        """Return a number for each of ``count`` rows, equal for those that are copies of each other, also nearly."""
        parent = list(range(count))

        def root(row: int) -> int:
            while parent[row] != row:
                parent[row] = row = parent[parent[row]]
            return row

        for one, other in [
            *((group[0], row) for group in self.exact for row in group[1:]),
            *(p[:2] for p in self.near),
        ]:
            parent[root(one)] = root(other)
        _, numbers = np.unique([root(row) for row in range(count)], return_inverse=True)
        return numbers.astype(np.int64)


def find_duplicates(rows: Rows, looks: Looks, *, pairs: int) -> Duplicates:
    """Find what is there more than once among the rows that were looked at, and equal bytes among all.

    Args:
        rows: of the dataset.
        looks: at some of them.
        pairs: that are compared closely at most.

    Raises:
        DatasetError: a file cannot be read.
    """
    groups = _Groups(rows)
    for same in _equal(rows.hashes), _equal(rows.stored):
        for group in same:
            groups.join(group)
    # Images whose thumbnails and sizes are equal: copies, or flat pictures that show nothing to tell them apart by.
    keys = [
        (height, width, content_hash(thumbnail.data))
        for (height, width), thumbnail in zip(rows.geometry[looks.rows, :2].tolist(), looks.thumbnails, strict=True)
    ]
    for alike in _equal(keys):
        groups.join_equal(looks.rows[list(alike)].tolist())
    first = np.array([groups.first(row) == row for row in looks.rows.tolist()], np.bool_)
    sides = rows.geometry[looks.rows, :2].min(axis=1)
    places = np.flatnonzero(first & (sides >= SMALLEST))
    small = bool(np.median(sides) < SMALL) if len(sides) else False
    found, skipped = candidates(signatures(looks.thumbnails)[places], pairs, small=small)
    found = places[found]
    scores = np.concatenate([np.empty(0, np.float32), *likenesses(looks.thumbnails, found)])
    numbers = looks.rows[found].tolist()
    near = [(one, other, float(score)) for (one, other), score in zip(numbers, scores.tolist(), strict=True)]
    sizes = rows.geometry[:, :2]
    for one, other, score in near:
        if score >= _SAME and (sizes[one] == sizes[other]).all():
            groups.join_equal([one, other])
    return Duplicates(groups.found(), tuple(_nearly(near, groups, rows)), skipped)


def _nearly(pairs: Iterable[tuple[int, int, float]], groups: "_Groups", rows: Rows) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs that are alike enough and not equal, each pair of groups once, the most alike first."""
    told = set()
    for one, other, score in sorted(pairs, key=lambda pair: -pair[2]):
        a, b = sorted((groups.first(one), groups.first(other)))
        small = rows.geometry[[one, other], :2].min() < SMALL
        if a != b and (a, b) not in told and score >= (NEAR_SMALL if small else NEAR):
            told.add((a, b))
            yield a, b, score


def _equal(keys: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return the places of equal keys, where there are two or more."""
    found: dict[Any, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        found[key].append(place)
    return [tuple(places) for places in found.values() if len(places) > 1]


class _Groups:
    """Rows of equal pixels, each group known by its first row."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._parent: dict[int, int] = {}
        self._hashes: dict[int, str | None] = {}
        self._of_hash: dict[str, int] = {}

    def first(self, row: int) -> int:
        while (parent := self._parent.get(row, row)) != row:
            row = parent
        return row

    def join(self, rows: Sequence[int]) -> None:
        first = min(map(self.first, rows))
        for row in rows:
            self._parent[self.first(row)] = first

    def join_equal(self, rows: Sequence[int]) -> None:
        """Join those rows whose pixels are equal."""
        for row in rows:
            if (pixels := self._pixels(self.first(row))) is not None:
                self.join([row, self._of_hash.setdefault(pixels, row)])

    def _pixels(self, row: int) -> str | None:
        if row not in self._hashes:
            split, number = self._rows.where(row)
            try:
                self._hashes[row] = pixel_hash(split.image(number))
            except ImageError:
                self._hashes[row] = None
        return self._hashes[row]

    def found(self) -> tuple[tuple[int, ...], ...]:
        members: dict[int, set[int]] = defaultdict(set)
        for row in self._parent:
            members[self.first(row)] |= {self.first(row), row}
        return tuple(tuple(sorted(group)) for _, group in sorted(members.items()) if len(group) > 1)


def duplicate_findings(rows: Rows, found: Duplicates) -> Iterator[dict[str, Any]]:
    """Yield a finding for each image that is a copy of another, exactly or nearly.

    Of two splits the image of the one that is trained on is named, and the other one stays; in a split the first stays.
    """
    for group in found.exact:
        stays = _stays(rows, group)
        for row in group:
            if row != stays:  # of two labels nobody knows which is right
                unsure = rows.label(row) != rows.label(stays)
                yield _copy(rows, row, stays, "the same pixels as", 1.0, near=False, unsure=unsure)
    members = {group[0]: group for group in found.exact}
    told: set[tuple[int, bool]] = set()  # of several that an image is like, the most alike is named
    for one, other, score in found.near:
        groups = [members.get(row, (row,)) for row in (one, other)]
        stays = _stays(rows, [*groups[0], *groups[1]])
        against = groups[1] if stays in groups[0] else groups[0]
        crossing = [row for row in against if rows.rank[row] < rows.rank[stays]]
        for row in crossing or against[:1]:
            if (row, bool(crossing)) not in told:
                told.add((row, bool(crossing)))
                yield _copy(rows, row, stays, f"{score:.1%} of its details agree with", score, near=True, unsure=True)
    yield from _conflicts(rows, found)


def _stays(rows: Rows, group: Sequence[int]) -> int:
    return max(group, key=lambda row: (rows.rank[row], -row))


def _copy(rows: Rows, row: int, stays: int, how: str, score: float, *, near: bool, unsure: bool) -> dict[str, Any]:
    leaks = rows.split[row] != rows.split[stays]
    kind = f"{'near' if near else 'exact'}-{'leak' if leaks else 'duplicate'}"
    action = ("review" if leaks else "none") if near else "review" if unsure else "drop"
    evidence = f"{how} {rows.paths[stays]} ({rows.split[stays]})"
    return finding(kind, evidence, **_pair(rows, row, stays), score=score, action=action)


def _conflicts(rows: Rows, found: Duplicates) -> Iterator[dict[str, Any]]:
    pairs = [(one, other, 1.0) for group in found.exact for one, other in combinations(group, 2)]
    told = set()
    for one, other, score in [*pairs, *found.near]:
        row, against = (other, one) if rows.rank[other] <= rows.rank[one] else (one, other)
        if row in told or rows.label(row) == rows.label(against):
            continue
        told.add(row)
        how = "equal to" if score == 1.0 else "nearly"
        evidence = f"{rows.label(row)}, but {how} {rows.paths[against]} ({rows.label(against)}, {rows.split[against]})"
        yield finding("label-conflict", evidence, **_pair(rows, row, against), score=score)


def _pair(rows: Rows, row: int, other: int) -> dict[str, Any]:
    return named(rows, row) | {
        "other_split": str(rows.split[other]),
        "other_path": rows.paths[other],
        "other_hash": rows.hashes[other],
    }


def named(rows: Rows, row: int) -> dict[str, Any]:
    """Return the columns of a finding that say which image it is about."""
    return {
        "split": str(rows.split[row]), "path": rows.paths[row], "hash": rows.hashes[row], "label": rows.label(row),
    }  # fmt: skip
