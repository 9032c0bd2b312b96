"""Images that are there more than once, exactly or nearly: within a split, across splits, under two labels.

*Exact* are images of equal bytes, and of equal upright pixels: a losslessly saved or tagged copy counts, and one that
is turned by its orientation. Whole images are decoded only where their thumbnails are alike.

*Near* are also copies that are mirrored or turned by quarters, whether their pixels are equal then or nearly: what a
mirrored picture shows may be another class (a left hand, a digit), so a person decides, and ``--drop-duplicates``
leaves them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from sagitta.diagnosis.findings import finding
from sagitta.diagnosis.likeness import (
    NEAR,
    NEAR_SMALL,
    SMALL,
    SMALLEST,
    Candidates,
    candidates,
    likenesses,
    signatures,
)
from sagitta.diagnosis.looks import Looks
from sagitta.diagnosis.rows import Ints, Rows
from sagitta.diagnosis.symmetries import SYMMETRIES, WORDS, symmetric_hash
from sagitta.errors import ImageError
from sagitta.files import content_hash
from sagitta.images import pixel_hash

_CLEARLY = 0.05  # of likeness, by which a turned copy has to be more alike to be called one
_SAME = 0.97  # likeness from which two images of one size may have equal pixels


class Near(NamedTuple):
    """Two rows that are nearly alike.

    Attributes:
        one: a row, the first of its group of equal pixels.
        other: likewise, of a higher number.
        score: how their details agree, -1..1.
        symmetry: under which, of ``WORDS``.
        equal: their pixels are equal under it.
    """

    one: int
    other: int
    score: float
    symmetry: int = 0
    equal: bool = False


@dataclass(frozen=True)
class Duplicates:
    """What is there more than once.

    Attributes:
        exact: rows of equal pixels, two or more each, in ascending order.
        near: pairs of rows that are nearly alike.
        skipped: pairs that might have been alike were left out.
    """

    exact: tuple[tuple[int, ...], ...]
    near: tuple[Near, ...]
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
            *((pair.one, pair.other) for pair in self.near),
        ]:
            parent[root(one)] = root(other)
        _, numbers = np.unique([root(row) for row in range(count)], return_inverse=True)
        return numbers.astype(np.int64)


def find_duplicates(rows: Rows, looks: Looks, *, pairs: int, turned: bool = True) -> Duplicates:
    """Find what is there more than once among the rows that were looked at, and equal bytes among all.

    Args:
        rows: of the dataset.
        looks: at some of them.
        pairs: that are compared closely at most, and as many again that are mirrored or turned.
        turned: look for these, too.

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
    upright = candidates(signatures(looks.thumbnails, places), pairs, small=small)
    near = _scored(upright, looks, places)
    for one, other, score, *_ in near:
        if score >= _SAME and (rows.geometry[one, :2] == rows.geometry[other, :2]).all():
            groups.join_equal([one, other])
    skipped = upright.more
    if turned:
        square = signatures(looks.thumbnails, places, square=True)
        others = candidates(square, pairs, small=small, symmetries=SYMMETRIES)
        # What looks like its own mirror image is alike both ways: as it is, unless the other is clearly more so.
        near = [*near, *_scored(others, looks, places)]
        near.sort(key=lambda pair: (pair.symmetry > 0) * _CLEARLY - pair.score)
        skipped = skipped or others.more
    return Duplicates(groups.found(), tuple(_nearly(near, groups, rows)), skipped)


def _scored(found: Candidates, looks: Looks, places: Ints) -> list[Near]:
    """Return how alike candidates are, the most alike first; they are numbered among the places (N,) of some looks."""
    found = found._replace(pairs=places[found.pairs])
    scores = np.concatenate([np.empty(0, np.float32), *likenesses(looks.thumbnails, found)])
    order = np.argsort(-scores, kind="stable")
    pairs = looks.rows[found.pairs[order]].tolist()
    told = zip(pairs, scores[order].tolist(), found.symmetries[order].tolist(), strict=True)
    return [Near(one, other, score, symmetry) for (one, other), score, symmetry in told]


def _nearly(pairs: Iterable[Near], groups: "_Groups", rows: Rows) -> Iterator[Near]:
    """Yield the pairs that are alike enough and not equal, each pair of groups once."""
    told = set()
    hashed = _Hashed(rows, symmetric_hash)
    for pair in pairs:
        a, b = sorted((groups.first(pair.one), groups.first(pair.other)))
        sides = rows.geometry[[a, b], :2]
        if a != b and (a, b) not in told and pair.score >= (NEAR_SMALL if sides.min() < SMALL else NEAR):
            told.add((a, b))
            equal = False
            if pair.symmetry and pair.score >= _SAME and (np.sort(sides[0]) == np.sort(sides[1])).all():
                equal = hashed.of(a) is not None and hashed.of(a) == hashed.of(b)
            yield Near(a, b, 1.0 if equal else pair.score, pair.symmetry, equal)


def _equal(keys: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return the places of equal keys, where there are two or more."""
    found: dict[Any, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        found[key].append(place)
    return [tuple(places) for places in found.values() if len(places) > 1]


class _Hashed:
    """Digests of rows, each made once."""

    def __init__(self, rows: Rows, how: Callable[[memoryview], str]) -> None:
        self._rows = rows
        self._how = how
        self._known: dict[int, str | None] = {}

    def of(self, row: int) -> str | None:
        """Return the digest of a row, None where it cannot be decoded."""
        if row not in self._known:
            split, number = self._rows.where(row)
            try:
                self._known[row] = self._how(split.image(number))
            except ImageError:
                self._known[row] = None
        return self._known[row]


class _Groups:
    """Rows of equal pixels, each group known by its first row."""

    def __init__(self, rows: Rows) -> None:
        self._parent: dict[int, int] = {}
        self._hashed = _Hashed(rows, pixel_hash)
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
            if (pixels := self._hashed.of(self.first(row))) is not None:
                self.join([row, self._of_hash.setdefault(pixels, row)])

    def found(self) -> tuple[tuple[int, ...], ...]:
        members: dict[int, set[int]] = defaultdict(set)
        for row in self._parent:
            members[self.first(row)] |= {self.first(row), row}
        return tuple(tuple(sorted(group)) for _, group in sorted(members.items()) if len(group) > 1)


def duplicate_findings(rows: Rows, found: Duplicates) -> Iterator[dict[str, Any]]:
    """Yield a finding for each image that is a copy of another, exactly or nearly: the one that goes if one does.

    Of two splits the image of the one that is trained on is named, and the other one stays, as ``--drop-duplicates``
    has it, so that what is measured stays what it is; in a split the first stays.
    """
    for group in found.exact:
        stays = _stays(rows, group)
        for row in group:
            if row != stays:  # of two labels nobody knows which is right
                unsure = rows.label(row) != rows.label(stays)
                yield _copy(rows, row, stays, "the same pixels as", unsure=unsure)
    members = {group[0]: group for group in found.exact}
    told: set[tuple[int, bool]] = set()  # of several that an image is like, the most alike is named
    for pair in found.near:
        groups = [members.get(row, (row,)) for row in (pair.one, pair.other)]
        stays = _stays(rows, [*groups[0], *groups[1]])
        against = groups[1] if stays in groups[0] else groups[0]
        crossing = [row for row in against if rows.rank[row] < rows.rank[stays]]
        for row in crossing or against[:1]:
            if (row, bool(crossing)) not in told:
                told.add((row, bool(crossing)))
                yield _copy(rows, row, stays, _likeness(pair), near=pair, unsure=True)
    yield from _conflicts(rows, found)


def _likeness(pair: Near) -> str:
    how = "it has the same pixels as" if pair.equal else f"{pair.score:.1%} of its details agree with"
    return f"{WORDS[pair.symmetry]}, {how}" if pair.symmetry else how


def _stays(rows: Rows, group: Sequence[int]) -> int:
    return max(group, key=lambda row: (rows.rank[row], -row))


def _copy(rows: Rows, row: int, stays: int, how: str, *, near: Near | None = None, unsure: bool) -> dict[str, Any]:
    leaks = rows.split[row] != rows.split[stays]
    kind = f"{'near' if near else 'exact'}-{'leak' if leaks else 'duplicate'}"
    relabelled = near is not None and near.symmetry and rows.label(row) != rows.label(stays)
    action = ("review" if leaks or relabelled else "none") if near else "review" if unsure else "drop"
    other = f"{rows.split[stays]}, there {rows.label(stays)}" if relabelled else rows.split[stays]
    goes = (
        f"drop takes this one, of {rows.split[row]}; that of {rows.split[stays]} stays"
        if leaks
        else "drop takes this one; the other stays"
    )
    evidence = f"{how} {rows.paths[stays]} ({other}); {goes}"
    return finding(kind, evidence, **_pair(rows, row, stays), score=near.score if near else 1.0, action=action)


def _conflicts(rows: Rows, found: Duplicates) -> Iterator[dict[str, Any]]:
    """Yield a finding for both images of each pair of two labels: nobody knows which is wrong, so either can be mended.

    Only one of them is proposed for a review, so that whoever drops all of these keeps one.
    """
    pairs = [Near(one, other, 1.0) for group in found.exact for one, other in combinations(group, 2)]
    upright = [pair for pair in found.near if not pair.symmetry]  # mirrored, it may well be of another class
    told = set()
    for one, other, score, *_ in [*pairs, *upright]:
        row, against = (other, one) if rows.rank[other] <= rows.rank[one] else (one, other)
        if rows.label(row) == rows.label(against):
            continue
        how = "equal to" if score == 1.0 else "nearly"
        for this, that, action in ((row, against, "review"), (against, row, "none")):
            if this not in told:
                told.add(this)
                evidence = f"{rows.label(this)}, but {how} {rows.paths[that]} ({rows.label(that)}, {rows.split[that]})"
                proposed = {"action": action, "proposed_label": rows.label(that)}
                yield finding("label-conflict", evidence, **_pair(rows, this, that), score=score, **proposed)


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
