"""Which rows train, validate and test: pure functions over classes, groups and content hashes.

Why the rows are wanted decides: to train, splits that a source gives are kept and missing ones are made
(:func:`for_training`); to test or validate, nothing is ever divided (:func:`as_given`). A split is made class by
class, of the rows whose seeded hash is lowest, so the outcome depends neither on file names nor on order, and adding
rows moves only those at the edge. Rows that must stay together form a *unit*: rows of identical content, rows of one
group, and whatever these connect.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sagitta.dataset import SPLITS
from sagitta.errors import ConfigError, SourceError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DEFAULT_FRACTION = 0.1


@dataclass(frozen=True)
class SplitRule:
    """What decides each row's split.

    Attributes:
        given: the splits that are kept as the source gives them.
        made: splits to make, in this order, with their share of each class (0 to 1, exclusive).
        seed: of the hash that orders rows.
        rest: the split of every other row.
        warning: what a person should know about it.
    """

    given: tuple[str, ...]
    made: Mapping[str, float]
    seed: int
    rest: str = "train"
    warning: str | None = None

    def __str__(self) -> str:
        """Say the rule in words, for provenance."""
        kept = f"{', '.join(self.given)} as the source gives them" if self.given else ""
        shares = ", ".join(f"{name} {share:g}" for name, share in sorted(self.made.items(), reverse=True))
        made = (
            f"made from {'train' if self.given else 'all rows'}: {shares} of each class, the rows of lowest content "
            f"hash with seed {self.seed}; identical images and groups stay together"
        )
        rest = f"the others are {self.rest}, undivided" if self.rest != "train" else ""
        return "; ".join(filter(None, (kept, made if self.made else "", rest)))


def for_training(rows: pa.Table, val: float | None, test: float | None, seed: int) -> SplitRule:
    """Decide which splits are kept and which are made, to train on the rows.

    Where every row is of one split (the test batch of CIFAR alone), that is no split at all, and the rows are divided.

    Args:
        rows: of ``sources.ROWS``.
        val: share of each class; None means 0.1 where ``val`` must be made, 0 that it is not wanted.
        test: likewise; but where the source gives other splits, None means that ``test`` is not made.
        seed: of the hash that orders rows.

    Raises:
        ConfigError: a share is outside [0, 1) or of a split that the source gives, or nothing is left to train on.
        SourceError: the source gives splits, but not for every row, or none for training.
    """
    given, warning = _given(rows), None
    if given and rows["split"].null_count:
        row = rows["split"].to_pylist().index(None)
        path = rows["path"][row].as_py()
        raise SourceError(f"{path} (row {row}) has no split though others have one; give every row one or none")
    if len(given) == 1:
        warning = f"all of it is {given[0]}, so it counts as not split" if given != ("train",) else None
        given = ()
    if given and "train" not in given:
        raise SourceError(f"there is no split to train on, only {' and '.join(given)}; add train, or remove the splits")
    for name, share in (("val", val), ("test", test)):
        if share and name in given:
            raise ConfigError(f"{name} {share:g}: the source has a {name} of its own, which is kept; leave it out")
    test = test if test is not None or given else DEFAULT_FRACTION
    wanted = {"test": test or 0.0, "val": DEFAULT_FRACTION if val is None else val}
    made = {name: share for name, share in wanted.items() if name not in given and share}
    for name, share in wanted.items():
        if not 0 <= share < 1:
            raise ConfigError(f"{name} {share:g}: give a share of the rows, from 0 to below 1")
    if sum(made.values()) >= 1:
        raise ConfigError(f"val {wanted['val']:g} and test {wanted['test']:g} leave nothing to train on")
    return SplitRule(given, made, seed, warning=warning)


def as_given(rows: pa.Table, name: str) -> SplitRule:
    """Keep every row in the split that the source gives it, and all others in ``name``: nothing is divided."""
    return SplitRule(_given(rows), {}, 0, rest=name)


def _given(rows: pa.Table) -> tuple[str, ...]:
    named = set(rows["split"].unique().to_pylist())
    return tuple(name for name in SPLITS if name in named)


def assign(
    rule: SplitRule,
    labels: Ints,
    given: Sequence[str | None],
    hashes: Sequence[str],
    groups: Sequence[str | None],
) -> npt.NDArray[np.str_]:
    """Return each row's split.

    Args:
        rule: from :func:`for_training` or :func:`as_given`.
        labels: (N,) class of each row; :func:`strata` where rows have several.
        given: the source's split of each row.
        hashes: content hash of each row.
        groups: group of each row, or None.
    """
    splits = np.array([name if name in rule.given else rule.rest for name in given], dtype="<U5")
    if rule.made:
        pool = np.flatnonzero(splits == "train").tolist()
        hashes = [hashes[row] for row in pool]
        groups = [groups[row] for row in pool]
        splits[pool] = _carve(rule.made, labels[pool], units_of(hashes, groups), _keys(rule.seed, hashes, groups))
    return splits


def strata(targets: Bools) -> Ints:
    """Return what several labels a row are divided by: each row's rarest label, and a stratum of its own for none.

    A stratum leaves a row to train on, so a label is trained at least where it is the rarest of some row.

    Args:
        targets: (N, classes).

    Returns:
        (N,) int64 of 0..classes.
    """
    counts = targets.sum(axis=0)
    rarity = np.where(targets, counts, np.iinfo(np.int64).max)
    found: Ints = np.where(targets.any(axis=1), rarity.argmin(axis=1), targets.shape[1])
    return found


def deal(
    folds: int, seed: int, labels: Ints | Bools, hashes: Sequence[str], groups: Sequence[str | None]
) -> npt.NDArray[np.int64]:
    """Divide rows into folds for cross-validation; identical images and groups stay together.

    Units come in the order of their size, and of their seeded hash where it is equal; each goes to the fold that has
    the smallest share of its classes so far, then to the one with the fewest rows (as Sechidis et al. 2011 deal rows
    with several labels). So a class of fewer units than folds is in so many of them.

    Args:
        folds: how many.
        seed: of the hash.
        labels: (N,) class of each row, or (N, classes) where rows have several.
        hashes: content hash of each row.
        groups: group of each row, or None.

    Returns:
        (N,) int64 of 0..folds-1.

    Raises:
        ConfigError: there are fewer units than folds.
    """
    units, keys = units_of(hashes, groups), _keys(seed, hashes, groups)
    sizes = np.bincount(units)
    if len(sizes) < folds:
        raise ConfigError(
            f"--folds {folds}: only {len(sizes)} rows or groups that can be told apart (identical images and groups "
            f"stay together); take at most {len(sizes)}"
        )
    rows, classes = np.nonzero(labels) if labels.ndim == 2 else (np.arange(len(labels)), labels)
    totals = np.bincount(classes, minlength=1)
    order = np.argsort(units[rows], kind="stable")
    ends = np.cumsum(np.bincount(units[rows], minlength=len(sizes)))
    of_unit = np.split(classes[order], ends[:-1])
    lowest = _lowest(units, keys)
    counts, filled = np.zeros((folds, len(totals))), np.zeros(folds, np.int64)
    found = np.empty(len(sizes), np.int64)
    for unit in np.lexsort((lowest, -sizes)).tolist():
        mine = of_unit[unit]
        shares = (counts[:, mine] / totals[mine]).sum(axis=1)
        fold = int(np.lexsort((filled, shares))[0])
        np.add.at(counts[fold], mine, 1)
        filled[fold] += sizes[unit]
        found[unit] = fold
    return found[units]


def units_of(hashes: Sequence[str], groups: Sequence[str | None]) -> Ints:
    """Number the connected components of the rows that share a content hash or a group; (N,) from 0 without gaps.

    Args:
        hashes: content hash of each row.
        groups: group of each row, or None.
    """
    _, content = np.unique(np.array(hashes, dtype=np.str_), return_inverse=True)
    named = [row for row, group in enumerate(groups) if group is not None]
    if not named:
        return content.astype(np.int64)
    parent = list(range(len(hashes)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    first: dict[str, int] = {}
    for row in named:
        group = groups[row]
        assert group is not None
        parent[root(int(content[row]))] = root(first.setdefault(group, int(content[row])))
    _, units = np.unique([root(int(node)) for node in content], return_inverse=True)
    return units.astype(np.int64)


def _keys(seed: int, hashes: Sequence[str], groups: Sequence[str | None]) -> npt.NDArray[np.uint64]:
    """Hash each row's group, or its content where it has none, with the seed; (N,)."""
    texts = (
        f"{seed} content {content}" if group is None else f"{seed} group {group}"
        for content, group in zip(hashes, groups, strict=True)
    )
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _lowest(units: Ints, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the lowest key of each unit."""
    lowest = np.full(int(units.max()) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(lowest, units, keys)
    return lowest


def _carve(
    shares: Mapping[str, float], labels: Ints, units: Ints, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.str_]:
    """Give the units of lowest key to the splits of ``shares``, class by class, and the others to ``train``."""
    sizes, lowest = np.bincount(units), _lowest(units, keys)
    classes = _majority(labels, units)
    of_unit = np.full(len(sizes), "train", dtype="<U5")
    for label in np.unique(classes):
        queue = np.flatnonzero(classes == label)
        queue = queue[np.argsort(lowest[queue], kind="stable")]
        rows = int(sizes[queue].sum())
        for name, share in shares.items():
            wanted = max(round(rows * share), int(rows >= 3))
            # Units until `wanted` rows are reached, but one unit is always left to train on.
            count = min(int(np.searchsorted(np.cumsum(sizes[queue]), wanted)) + 1, len(queue) - 1) if wanted else 0
            of_unit[queue[:count]] = name
            queue = queue[count:]
    return of_unit[units]


def _majority(labels: Ints, units: Ints) -> Ints:
    """Return the class of most rows of each unit; of equally frequent ones, that of the first row."""
    classes = int(labels.max()) + 1
    pairs, first, counts = np.unique(units * classes + labels, return_index=True, return_counts=True)
    order = np.lexsort((first, -counts, pairs // classes))
    _, best = np.unique(pairs[order] // classes, return_index=True)
    result: Ints = pairs[order][best] % classes
    return result


def check_splits(
    rule: SplitRule, class_names: Sequence[str], labels: Ints | Bools, splits: npt.NDArray[np.str_]
) -> None:
    """Refuse splits that nothing sensible can be trained or measured on.

    Args:
        rule: by which they were assigned, :func:`for_training`.
        class_names: names of the labels.
        labels: (N,) class of each row, or (N, classes) where rows have several.
        splits: (N,) from :func:`assign`.

    Raises:
        SourceError: fewer than two classes to train on, or a class that training lacks.
    """
    trained = classes_in(labels[splits == "train"])
    for name in ("val", "test"):
        if lacking := sorted(classes_in(labels[splits == name]) - trained):
            advice = (
                "its images equal those of another class or share their groups: mend the labels or the groups"
                if name in rule.made
                else "add training images or take it out (names are compared letter by letter)"
            )
            raise SourceError(f"class {class_names[lacking[0]]!r} is in {name} but has no image in train; {advice}")
    if len(trained) < 2:
        only = "".join(f" ({class_names[label]!r})" for label in trained)
        raise SourceError(f"one class only{only}: a classifier needs at least two; is this the right folder or column?")


def classes_in(labels: Ints | Bools) -> set[int]:
    """Return the classes that some row has: labels (N,), or (N, classes) where rows have several."""
    return set((labels if labels.ndim == 1 else np.flatnonzero(labels.any(axis=0))).tolist())
