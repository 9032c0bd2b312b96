"""Rows of some splits as a split of its own: what cross-validation trains and validates on. No image is copied."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sagitta.dataset.shards import Bools, Ints, ShardSet, Split


class Selection(Split):
    """Some rows of some splits, one split after the other; can be pickled, as splits can.

    Args:
        name: of the new split.
        parts: each split with the numbers (n,) of its rows.
    """

    def __init__(self, name: str, parts: Sequence[tuple[Split, Ints]]) -> None:  # has no files of its own to open
        self.name, self._parts = name, tuple(parts)
        self.files = tuple(file for split, _ in parts for file in split.files)
        self.zero_copy = all(split.zero_copy for split, _ in parts)
        self._part = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
        self._row = np.concatenate([np.empty(0, np.int64), *(rows for _, rows in parts)])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._row)

    def __reduce__(self) -> tuple[Callable[..., "Selection"], tuple[Any, ...]]:
        return Selection, (self.name, self._parts)

    def image(self, row: int) -> memoryview:
        """Return a row's encoded image, see :meth:`Split.image`."""
        split, number = self._place(row)
        return split.image(number)

    def images(self, rows: npt.ArrayLike) -> list[memoryview]:
        """Return the encoded images of (N,) rows, see :meth:`Split.images`."""
        numbers = np.asarray(rows, np.int64)
        if numbers.size and numbers.min() < 0:
            raise IndexError(f"row {numbers.min()}")
        found: dict[int, memoryview] = {}
        for part in np.unique(self._part[numbers]).tolist():
            mine = np.flatnonzero(self._part[numbers] == part).tolist()
            found |= zip(mine, self._parts[part][0].images(self._row[numbers[mine]]), strict=True)
        return [found[place] for place in range(len(numbers))]

    def release(self) -> None:
        """Take the pages of mapped files out of this process's memory."""
        for split, _ in self._parts:
            split.release()

    def where(self, row: int) -> str:
        """Return file and row for an error message."""
        split, number = self._place(row)
        return split.where(number)

    def path(self, row: int) -> str:
        """Return the path that a row's image had at its source."""
        split, number = self._place(row)
        return split.path(number)

    @cached_property
    def labels(self) -> Ints | Bools:
        """(N,) int64 class indices; bool (N, classes) where rows have several labels."""
        found: Ints | Bools = np.concatenate([split.labels[rows] for split, rows in self._parts])
        return found

    @cached_property
    def content_hashes(self) -> pa.Array:
        """(N,) strings, see :attr:`Split.content_hashes`."""
        return pa.concat_arrays([split.content_hashes.take(pa.array(rows)) for split, rows in self._parts])

    @cached_property
    def source_hashes(self) -> pa.Array:
        """(N,) strings, see :attr:`Split.source_hashes`."""
        return pa.concat_arrays([split.source_hashes.take(pa.array(rows)) for split, rows in self._parts])

    def column(self, name: str) -> npt.NDArray[Any] | None:
        """Return a column of the files as an array (N,), or None where they have no such column."""
        columns = [split.column(name) for split, _ in self._parts]
        found = [column[rows] for column, (_, rows) in zip(columns, self._parts, strict=True) if column is not None]
        return np.concatenate(found) if found and len(found) == len(columns) else None

    def as_dataset(self, transform: Callable[..., Any] | None = None) -> Any:
        """Refuse: a map-style dataset of it is had from :meth:`sagitta.ImageData.as_dataset`."""
        raise TypeError("a selection of rows: ask ImageData.as_dataset, or SplitDataset, for a map-style dataset of it")

    def close(self) -> None:
        """Let go of files and memory maps, as soon as no view is left."""
        for split, _ in self._parts:
            split.close()

    def _place(self, row: int) -> tuple[Split, int]:
        if row < 0:
            raise IndexError(f"row {row}")
        return self._parts[self._part.item(row)][0], self._row.item(row)


class Regrouped(ShardSet):
    """An open dataset with other splits, such as selections of its rows; what it says of itself stays.

    Args:
        whole: the dataset.
        splits: by name.
    """

    def __init__(self, whole: ShardSet, splits: Mapping[str, Split]) -> None:
        self.root, self.cache, self.info, self.splits = whole.root, whole.cache, whole.info, dict(splits)
        self._whole = whole

    def __reduce__(self) -> tuple[Callable[..., "Regrouped"], tuple[Any, ...]]:
        return Regrouped, (self._whole, self.splits)
