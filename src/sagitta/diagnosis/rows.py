"""The rows of all splits of a dataset, one after the other: what a finding points at."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sagitta.conversion import STAYS
from sagitta.dataset import DatasetInfo, ShardSet, Split
from sagitta.errors import ImageError
from sagitta.images import read_header

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The N rows of an open dataset, split after split.

    Attributes:
        shards: the dataset.
    """

    shards: ShardSet

    @property
    def info(self) -> DatasetInfo:
        """What the dataset says about itself."""
        return self.shards.info

    @cached_property
    def _splits(self) -> tuple[Split, ...]:
        return tuple(split for split in self.shards.splits.values() if len(split))

    @cached_property
    def _starts(self) -> Ints:
        return np.cumsum([0, *map(len, self._splits)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def split(self) -> npt.NDArray[np.str_]:
        """(N,) name of each row's split."""
        return np.repeat([split.name for split in self._splits] or np.empty(0, "<U5"), np.diff(self._starts))

    @cached_property
    def labels(self) -> npt.NDArray[Any]:
        """(N,) int64 classes; bool (N, classes) where rows have several."""
        return np.concatenate([split.labels for split in self._splits])

    @cached_property
    def rank(self) -> Ints:
        """(N,) which row of two alike stays, the higher one: a test's before a val's before a train's."""
        return np.array([STAYS.get(name, 0) for name in self.split.tolist()], np.int64)

    @cached_property
    def paths(self) -> list[str]:
        """(N,) path that each image had at its source."""
        return [split.path(row) for split in self._splits for row in range(len(split))]

    @cached_property
    def hashes(self) -> list[str]:
        """(N,) hash of each image as a person gave it."""
        return [text for split in self._splits for text in split.source_hashes.to_pylist()]

    @cached_property
    def stored(self) -> list[str]:
        """(N,) hash of each image's stored bytes."""
        return [text for split in self._splits for text in split.content_hashes.to_pylist()]

    def label(self, row: int) -> str:
        """Return the class of a row in words, several joined by semicolons."""
        label = self.labels[row]
        names = self.info.class_names
        return ";".join(names[each] for each in np.flatnonzero(label)) if self.labels.ndim == 2 else names[int(label)]

    def where(self, row: int) -> tuple[Split, int]:
        """Return the split of a row, and its number there."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._splits[place], row - int(self._starts[place])

    def images(self, rows: Ints) -> list[memoryview]:
        """Return the stored bytes of (B,) rows."""
        places = np.searchsorted(self._starts, rows, side="right") - 1
        found: dict[int, memoryview] = {}
        for place in np.unique(places).tolist():
            own = rows[places == place]
            found |= zip(own.tolist(), self._splits[place].images(own - self._starts[place]), strict=True)
        return [found[row] for row in rows.tolist()]

    def column(self, name: str) -> npt.NDArray[Any] | None:
        """Return a column (N,) that every split has, else None."""
        columns = [split.column(name) for split in self._splits]
        known = [column for column in columns if column is not None]
        return np.concatenate(known) if known and len(known) == len(columns) else None

    @cached_property
    def geometry(self) -> Ints:
        """(N, 3) height, width and orientation of each image; zeros where no column holds them, until :meth:`know`."""
        columns = self._sizes
        return np.zeros((len(self), 3), np.int64) if columns is None else columns

    @cached_property
    def _sizes(self) -> Ints | None:
        columns = [self.column(name) for name in ("height", "width", "orientation")]
        known = [np.asarray(column, np.int64) for column in columns if column is not None]
        return np.stack(known, axis=1) if len(known) == len(columns) else None

    def know(self, rows: Ints, images: list[memoryview]) -> Ints:
        """Return the geometry (B, 3) of rows, read from their headers where no column holds it; else zeros."""
        if self._sizes is None:
            for row, image in zip(rows.tolist(), images, strict=True):
                try:
                    header = read_header(image)
                except ImageError:
                    continue
                self.geometry[row] = header.height, header.width, header.orientation
        known: Ints = self.geometry[rows]
        return known

    def release(self) -> None:
        """Let go of mapped pages."""
        for split in self._splits:
            split.release()


Progress = Callable[[int], None]
"""Is told how many images are done."""
