"""Images as views into memory-mapped files: no byte is handed out that the index and the file do not agree on.

A map gives whatever lies there now. So each access compares the length before the image with the index, and each batch
the size of its files: beyond the end of a file that was cut off is no exception, but a signal that kills the process.
"""

import mmap
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sagitta.dataset.index import Index
from sagitta.dataset.pages import NOT_PLAIN, NULL, length_at
from sagitta.dataset.parquet import readable
from sagitta.errors import DatasetError

Ints = npt.NDArray[np.int64]

_PREFIX = np.arange(-4, 0)
"""Where the length before a value lies, from the value's first byte."""


class MappedImages:
    """The images of a split's files that lie there as they are; files are opened when they are needed.

    May be used by many threads.

    Args:
        files: in row order.
        index: where the images are.
    """

    def __init__(self, files: Sequence[Path], index: Index) -> None:
        self._files, self._index = files, index
        self._edges = np.cumsum(index.rows)
        self._ends = self._edges.tolist()
        self._views: list[memoryview | None] = [None] * len(files)

    def one(self, row: int) -> memoryview:
        """Return a row's encoded image, which has an offset.

        Raises:
            DatasetError: its file cannot be read, is shorter or was changed.
        """
        view, offset = self._view(bisect_right(self._ends, row)), self._index.offsets.item(row)
        length = self._index.lengths.item(row)
        if length_at(view, offset - 4)[0] != length:
            raise self._changed(row)
        return view[offset : offset + length]

    def many(self, rows: Ints) -> list[memoryview]:
        """Return the encoded images of (N,) rows, as :meth:`one` does.

        The lengths are compared for all at once: without the interpreter's lock, since that may wait for the disk.
        """
        offsets, lengths = self._index.offsets[rows], self._index.lengths[rows]
        files = np.searchsorted(self._edges, rows, side="right")
        order = np.argsort(files, kind="stable")
        places, stored = offsets[order, None] + _PREFIX, np.empty((len(order), 4), np.uint8)
        views = {}
        for file, start, end in _runs(files[order]):
            view = views[file] = self._view(file)
            np.frombuffer(view, np.uint8).take(places[start:end], out=stored[start:end], mode="clip")
        if (wrong := np.flatnonzero(stored.view("<u4")[:, 0] != lengths[order])).size:
            raise self._changed(int(rows[order[wrong[0]]]))
        bounds = zip(files.tolist(), offsets.tolist(), (offsets + lengths).tolist(), strict=True)
        return [views[file][start:end] for file, start, end in bounds]

    def release(self) -> None:
        """Take the pages of mapped files out of this process's memory; views stay valid, the page cache keeps them."""
        for view in self._views:
            if view is not None:
                assert isinstance(view.obj, mmap.mmap)
                view.obj.madvise(mmap.MADV_DONTNEED)

    def _view(self, file: int) -> memoryview:
        """Return a file's bytes, which are all there now."""
        view = self._views[file]
        if view is None:
            view = self._views[file] = self._map(file)
        assert isinstance(view.obj, mmap.mmap)
        if view.obj.size() < len(view):  # the former is that of the file, as it is now
            self._views[file] = None
            raise self._shorter(file)
        return view

    def _map(self, file: int) -> memoryview:
        with readable(self._files[file]), self._files[file].open("rb") as source:
            try:
                mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:  # there is nothing in it
                raise self._shorter(file) from None
        end = self._ends[file]
        start = end - self._index.rows[file]
        offsets, lengths = self._index.offsets[start:end], self._index.lengths[start:end]
        there = offsets >= 0
        if not ((offsets >= 4) | (offsets == NOT_PLAIN) | (offsets == NULL)).all():
            raise self._changed(start)
        if (lengths[there] > len(mapped) - offsets[there]).any():  # no sum, which might overflow
            raise self._shorter(file)
        return memoryview(mapped)

    def _shorter(self, file: int) -> DatasetError:
        return DatasetError(f"{self._files[file]}: shorter than when it was opened; fetch or convert it again")

    def _changed(self, row: int) -> DatasetError:
        """Return the error for a row that is not where the index says; the index is not used again."""
        self._index.forget()
        file = bisect_right(self._ends, row)
        return DatasetError(
            f"{self._files[file]}, row {row - self._ends[file] + self._index.rows[file]}: not as it was when the "
            "dataset was first opened (the file is damaged, or was written to); fetch or convert it again, and see "
            "what `sagitta verify` says"
        )


def _runs(values: Ints) -> Iterator[tuple[int, int, int]]:
    """Yield each of the values, which are sorted, with its first place and the one behind its last."""
    starts = np.flatnonzero(np.diff(values, prepend=-1)).tolist()
    yield from zip(values[starts].tolist(), starts, [*starts[1:], len(values)], strict=True)
