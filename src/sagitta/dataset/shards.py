"""Open a dataset and get any row's encoded image as a view into a memory map.

Images lie uncompressed in standard Parquet, so a row needs no more than file, offset and length
(:mod:`sagitta.dataset.index`). Rows whose pages are compressed or dictionary-encoded are read by row group instead:
the same bytes, more slowly.
"""

import hashlib
import importlib
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sagitta.dataset.columns import (
    Layout,
    class_names_in,
    find_files,
    label_numbers,
    layout_of,
    list_lengths,
    multi_hot,
)
from sagitta.dataset.index import Index, open_index
from sagitta.dataset.mapping import MappedImages
from sagitta.dataset.pages import NOT_PLAIN, NULL
from sagitta.dataset.parquet import (
    RowGroups,
    as_array,
    check_footers,
    identity,
    read_column,
    read_metadata,
    read_schema,
)
from sagitta.dataset.schema import INFO_FILE, DatasetInfo, SplitInfo, is_list, plural
from sagitta.errors import DatasetError
from sagitta.files import content_hash

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Split:
    """The rows of one split, in the order of its files.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        files: the Parquet files.
        zero_copy: every row is a view into a memory map; otherwise some are read by row group.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        layout: Layout,
        index: Index,
        class_names: Sequence[str],
        origin: tuple[Path, Path | None],
    ) -> None:
        self.name = name
        self.files = tuple(files)
        self.zero_copy = bool((index.offsets != NOT_PLAIN).all())
        self._class_names = class_names
        self._origin = origin  # not the ShardSet: without a cycle, files are let go as soon as nobody needs them
        self._layout = layout
        self._index = index
        self._ends = np.cumsum(index.rows).tolist()
        self._starts = [0, *self._ends]
        self._images = MappedImages(self.files, index)
        self._row_groups = RowGroups(self.files, layout.image)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._index.offsets)

    def __reduce__(self) -> tuple[Callable[..., "Split"], tuple[Any, ...]]:
        return _reopen_split, (*self._origin, self.name)

    def image(self, row: int) -> memoryview:
        """Return a row's encoded image: read-only bytes, valid as long as the view lives.

        Raises:
            IndexError: no such row.
            DatasetError: the row has no image, or its file cannot be read.
        """
        if row < 0:
            raise IndexError(f"row {row}")
        offset = self._index.offsets.item(row)
        if offset >= 0:
            return self._images.one(row)
        file = bisect_right(self._ends, row)
        image = None if offset == NULL else self._row_groups.read(file, row - self._starts[file])
        if image is None:
            path = self._given_path(row)
            only = f", only its path {path!r} is there" if path else ""
            raise DatasetError(f"{self.where(row)}: the image is null{only}; remove the row, or convert again")
        return memoryview(image)

    def images(self, rows: npt.ArrayLike) -> list[memoryview]:
        """Return the encoded images of (N,) rows; see :meth:`image`."""
        numbers = np.asarray(rows, np.int64)
        if numbers.size and numbers.min() < 0:
            raise IndexError(f"row {numbers.min()}")
        if (self._index.offsets[numbers] >= 0).all():
            return self._images.many(numbers)
        found = {row: self.image(row) for row in np.unique(numbers).tolist()}  # in order: each row group is read once
        return [found[row] for row in numbers.tolist()]

    def release(self) -> None:
        """Take the pages of mapped files out of this process's memory; views stay valid, the page cache keeps them."""
        self._images.release()

    def where(self, row: int) -> str:
        """Return file and row for an error message."""
        file = bisect_right(self._ends, row)
        return f"{self.files[file]}, row {row - self._starts[file]}"

    def path(self, row: int) -> str:
        """Return the path that a row's image had at its source; where the file has none, its file and row."""
        return self._given_path(row) or self.where(row)

    def _given_path(self, row: int) -> str | None:
        try:
            path: str | None = None if self._paths is None else self._paths[row].as_py()
        except UnicodeDecodeError:
            return None
        return path

    @cached_property
    def _paths(self) -> pa.ChunkedArray | None:
        return None if self._layout.path is None else self._read(self._layout.path, any_text=True)

    @cached_property
    def labels(self) -> Ints | Bools:
        """(N,) int64 class indices; bool (N, classes) where rows have several labels.

        Raises:
            DatasetError: a label is null or not one of the classes; names the row.
        """
        column = self._read(self._layout.label)
        assert column is not None  # the layout names a column that is there
        names = self._class_names
        lengths = list_lengths(column) if is_list(column.type) else None
        values = column if lengths is None else pc.list_flatten(column)
        labels = label_numbers(values, names, numbered=self._layout.numbered)
        wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if wrong.size:
            row = int(wrong[0] if lengths is None else np.repeat(np.arange(len(lengths)), lengths)[wrong[0]])
            value = column[row].as_py()
            none = value in (None, "", -1) or value != value
            advice = "; `sagitta convert` leaves rows without a label out" if none else ""
            raise DatasetError(f"{self.where(row)}: label {value!r} is none of the {len(names)} classes{advice}")
        return labels if lengths is None else multi_hot(lengths, labels, len(names))

    @cached_property
    def content_hashes(self) -> pa.Array:
        """(N,) strings: :func:`sagitta.files.content_hash` of every image, computed where the files do not hold them.

        Raises:
            DatasetError: an image or a file cannot be read.
        """
        column = self._read("content_hash")
        hashes = [content_hash(self.image(row)) for row in range(len(self))] if column is None else column.to_pylist()
        return pa.array(hashes, pa.string())

    @cached_property
    def source_hashes(self) -> pa.Array:
        """(N,) strings that name the images people gave: ``source_hash``, or :attr:`content_hashes` without it.

        Raises:
            DatasetError: as :attr:`content_hashes`.
        """
        column = self._read("source_hash")
        return self.content_hashes if column is None else pa.array(column.to_pylist(), pa.string())

    def column(self, name: str) -> npt.NDArray[Any] | None:
        """Return a column of the files as an array (N,), or None where they have no such column.

        Raises:
            DatasetError: a file cannot be read.
        """
        column = self._read(name)
        return None if column is None else as_array(column)

    def _read(self, name: str, *, any_text: bool = False) -> pa.ChunkedArray | None:
        column = read_column(self.files, name, any_text=any_text)
        if column is not None and len(column) != len(self):  # else a row would get another one's value
            raise DatasetError(f"{self.files[0]}: {len(column)} rows in column {name}, but {len(self)} images")
        return column

    def as_dataset(self, transform: Callable[..., Any] | None = None) -> Any:
        """Return the split as a map-style torch ``Dataset`` of ``(image, label)``: :class:`sagitta.SplitDataset`.

        That class stands further down, since it needs torch; so it is looked up when it is asked for.
        """
        root, cache = self._origin
        return importlib.import_module("sagitta").SplitDataset(ShardSet.open(root, cache=cache), self.name, transform)

    def close(self) -> None:
        """Let go of files and memory maps, as soon as no view is left; the next access opens them again."""
        self._images = MappedImages(self.files, self._index)
        self._row_groups = RowGroups(self.files, self._layout.image)


class ShardSet:
    """A dataset that is open for reading; can be pickled, and used by many threads.

    Attributes:
        root: folder or file that was opened.
        cache: folder for sidecars, where one was given.
        info: what the dataset says about itself. For Parquet of others: classes from the schema or the
            labels, three channels, ImageNet's mean and std, sizes (0, 0) for unknown, and a fingerprint of
            the files' footers and sizes.
        splits: the splits by name.
    """

    def __init__(
        self,
        root: Path,
        cache: Path | None,
        info: DatasetInfo,
        files: Mapping[str, Sequence[Path]],
        layout: Layout,
    ) -> None:
        self.root = root
        self.cache = cache
        self.info = info
        self.splits: dict[str, Split] = {}
        for name, paths in files.items():
            index = open_index(root, cache, name, paths, layout.image)
            self.splits[name] = Split(name, paths, layout, index, info.class_names, (root, cache))

    @classmethod
    def open(cls, root: str | Path, *, cache: Path | None = None) -> "ShardSet":
        """Open a converted dataset, or a folder or file of Hugging Face image Parquet.

        Args:
            root: folder or Parquet file. Files of others belong to the split that their names or folders
                tell, else ``train``.
            cache: folder for the sidecars; by default beside the data, or in the user's cache where that is
                read-only.

        Raises:
            DatasetError: there is no dataset, or a file of it is missing or damaged; names the file and,
                where known, the row.
        """
        root = Path(root)
        if not root.exists():
            raise DatasetError(f"{root}: no such file or folder")
        if root.is_file() or not (root / INFO_FILE).exists():
            return cls._open_foreign(root, cache)
        info = DatasetInfo.read(root)
        files = {name: [root / file for file in split.files] for name, split in info.splits.items()}
        check_footers(root, info)
        first = next((paths[0] for paths in files.values() if paths), None)
        if first is None:
            raise DatasetError(f"{root}: the dataset has no shards; convert the source again")
        shards = cls(root, cache, info, files, layout_of([first]))
        for name, split in shards.splits.items():
            if len(split) != info.splits[name].rows:
                raise DatasetError(
                    f"{root / name}: {len(split)} rows, but {INFO_FILE} says {info.splits[name].rows}; convert again"
                )
        return shards

    @classmethod
    def _open_foreign(cls, root: Path, cache: Path | None) -> "ShardSet":
        files = find_files(root)
        layout = layout_of(path for paths in files.values() for path in paths)
        schema = read_schema(next(iter(files.values()))[0])
        base = root.parent if root.is_file() else root
        splits, digest = {}, hashlib.blake2b(digest_size=16)
        for name, paths in files.items():
            names = tuple(path.relative_to(base).as_posix() for path in paths)
            splits[name] = SplitInfo(sum(read_metadata(path).num_rows for path in paths), names)
            digest.update(json.dumps([name, names, [identity(path) for path in paths]]).encode())
        info = DatasetInfo(
            class_names=class_names_in(files, layout.label),
            channels=3,
            splits=splits,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            min_size=(0, 0),
            max_size=(0, 0),
            fingerprint=digest.hexdigest(),
            provenance={"source": str(root), "layout": "Parquet, not written by Sagitta"},
            multilabel=is_list(schema.field(layout.label).type),
        )
        return cls(root, cache, info, files, layout)

    def __repr__(self) -> str:
        rows = plural(sum(map(len, self.splits.values())), "row")
        return f"ShardSet({str(self.root)!r}: {rows}, {plural(len(self.info.class_names), 'class', 'classes')})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: counts and samples."""
        from sagitta.dataset import as_html  # through the face: it stands above this module

        return as_html(self)

    def __reduce__(self) -> tuple[Callable[..., "ShardSet"], tuple[Any, ...]]:
        return _reopen, (self.root, self.cache)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of files and memory maps, as soon as no view is left; the next access opens them again."""
        for split in self.splits.values():
            split.close()


def _reopen(root: Path, cache: Path | None) -> ShardSet:
    return ShardSet.open(root, cache=cache)


def _reopen_split(root: Path, cache: Path | None, name: str) -> Split:
    return _reopen(root, cache).splits[name]
