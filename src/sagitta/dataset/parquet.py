"""Parquet files as they are met: their identity, schema, columns and row groups, with errors that name the file."""

import hashlib
import json
import os
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sagitta.dataset.schema import INFO_FILE, QUARANTINE_FILE, SPLITS, is_list
from sagitta.errors import DatasetError

_SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLIT_WORDS |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
_ROW_GROUP_BYTES = 256 * 2**20
_SIGNATURE = 28  # bytes behind a signed footer: nonce and tag


def identity(path: Path) -> tuple[int, str]:
    """Return size and footer digest of a Parquet file.

    Raises:
        DatasetError: the file is missing, cut off, encrypted or not Parquet.
    """
    size, footer = _read_footer(path)
    return size, hashlib.blake2b(footer, digest_size=16).hexdigest()


def _read_footer(path: Path) -> tuple[int, bytes]:
    """Return the file's size and its serialised footer."""
    with readable(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 8, 0))
        tail = file.read(8)
        if tail[4:] == b"PARE":
            raise _encrypted(path)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length + 12 > size:
            raise DatasetError(f"{path}: not a complete Parquet file (no footer); fetch or convert it again")
        file.seek(size - 8 - length)
        return size, file.read(length)


def _encrypted(path: Path) -> DatasetError:
    return DatasetError(f"{path}: encrypted Parquet, which Sagitta does not read; decrypt it first")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what reading a Parquet file raises into a DatasetError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DatasetError(f"{path}: the file is missing; fetch or convert it again") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DatasetError(f"{path}: cannot be read ({reason}); fetch or convert it again") from None


def find_files(root: Path) -> dict[str, list[Path]]:
    """Return the Parquet files under ``root`` by split, sorted by path; hidden ones and the quarantine left out.

    Raises:
        DatasetError: there are none.
    """
    if root.is_file():
        found = [Path(root.name)]
    else:
        found = sorted(path.relative_to(root) for path in root.rglob("*.parquet") if path.name != QUARANTINE_FILE)
    splits: dict[str, list[Path]] = {}
    for path in found:
        if not any(part.startswith(".") for part in path.parts):
            splits.setdefault(_split_of(path), []).append(root if root.is_file() else root / path)
    if not splits:
        raise DatasetError(
            f"{root}: neither {INFO_FILE} nor any Parquet file; make a dataset with `sagitta convert SOURCE {root}`"
        )
    return {name: splits[name] for name in SPLITS if name in splits}


def _split_of(path: Path) -> str:
    """Return the split that a file's name tells, else its nearest folder that does, else ``train``."""
    for part in reversed(path.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_WORDS:
                return _SPLIT_WORDS[word]
    return "train"


def read_metadata(path: Path) -> pq.FileMetaData:
    """Return what the footer says.

    Raises:
        DatasetError: the file is missing, cut off, encrypted or not Parquet.
    """
    _, footer = _read_footer(path)
    with readable(path):
        metadata = pq.read_metadata(str(path))
    # Encrypted columns under a plain, signed footer: Arrow would end the process when asked for such a column.
    if len(footer) - metadata.serialized_size == _SIGNATURE:
        raise _encrypted(path)
    return metadata


def read_column(files: Sequence[Path], name: str) -> pa.ChunkedArray | None:
    """Return one column of all files, or a struct's leaf as ``image.path``; None where a file has no such column.

    Raises:
        DatasetError: a file cannot be read.
    """
    chunks: list[pa.Array] = []
    kind = None
    column, *leaf = name.split(".")
    for path in files:
        with readable(path):
            file = pq.ParquetFile(str(path))
            if column not in file.schema_arrow.names:
                return None
            values = file.read(columns=[name], use_threads=False).column(0)
            for part in leaf:
                values = pc.struct_field(values, part)
            kind = kind or values.type
            chunks += values.cast(kind).chunks
    return pa.chunked_array(chunks, kind)


def as_array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column as an array (N,); numbers without pyarrow's own conversion, which imports pandas (a second)."""
    kind = column.type
    if column.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.asarray(column.to_numpy())
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks]
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.empty(0, kind.to_pandas_dtype())


def label_numbers(column: pa.ChunkedArray, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return labels as numbers; -1 where one is null or not among the names."""
    if not pa.types.is_integer(column.type):
        column = pc.index_in(column.cast(pa.string()), pa.array(names, pa.string()))
    column = column.cast(pa.int64())
    return as_array(column.fill_null(-1) if column.null_count else column)


def list_lengths(lists: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return how many items each list of a column has, (N,); none where it is null."""
    return as_array(pc.list_value_length(lists).fill_null(0).cast(pa.int64()))


def multi_hot(lengths: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.bool_]:
    """Return which labels each row has, (N, classes).

    Args:
        lengths: (N,) how many labels each row has.
        labels: all of them, one row after the other, each below ``classes``.
        classes: how many there are.
    """
    hot = np.zeros((len(lengths), classes), np.bool_)
    hot[np.repeat(np.arange(len(lengths)), lengths), labels] = True
    return hot


class RowGroups:
    """Images of rows that cannot be viewed, read by row group; the latest ones are kept, up to 256 MiB."""

    def __init__(self, files: Sequence[Path], leaf: str) -> None:
        self._files = files
        self._leaf = leaf
        self._open: dict[int, tuple[pq.ParquetFile, list[int]]] = {}
        self._kept: OrderedDict[tuple[int, int], pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, file: int, row: int) -> bytes | None:
        """Return the image in a row of a file, or None where it is null.

        Raises:
            DatasetError: the file cannot be read.
        """
        with self._lock, readable(self._files[file]):
            parquet, ends = self._file(file)
            group = bisect_right(ends, row)
            column = self._group(parquet, file, group)
        value = column[row - (ends[group - 1] if group else 0)].as_py()
        for name in self._leaf.split(".")[1:]:
            value = None if value is None else value[name]
        image: bytes | None = value  # a copy: a view would keep the whole row group in memory
        return image

    def _file(self, file: int) -> tuple[pq.ParquetFile, list[int]]:
        if file not in self._open:
            parquet = pq.ParquetFile(str(self._files[file]))
            sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
            self._open[file] = parquet, np.cumsum(sizes).tolist()
        return self._open[file]

    def _group(self, parquet: pq.ParquetFile, file: int, group: int) -> pa.ChunkedArray:
        key = file, group
        if key not in self._kept:
            column = parquet.read_row_group(group, columns=[self._leaf], use_threads=False).column(0)
            self._kept[key] = column
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _ROW_GROUP_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


_MOST_CLASSES = 2**20  # more are damage, or a column of something else


class Layout(NamedTuple):
    """Names of the columns: leaves of the image's bytes (``image.bytes``) and of its path, if any, and label."""

    image: str
    path: str | None
    label: str


def layout_of(schema: pa.Schema, path: Path) -> Layout:
    """Find the image and label columns by Hugging Face's features, then by type and name."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = metadata.get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        raise DatasetError(f"{path}: the features in its schema are not JSON; fetch the file again") from None
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    images = [name for name in schema.names if kinds.get(name) == "Image"]
    images += [field.name for field in schema if _holds_images(field.type)]
    labels = [name for name in ("label", "labels", "class") if name in schema.names]
    labels += [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    for wanted, found in (("image", images), ("label", labels)):
        if not found:
            columns = ", ".join(schema.names)
            raise DatasetError(f"{path}: no {wanted} column among {columns}; convert its source with `sagitta convert`")
    kind = schema.field(images[0]).type
    if not pa.types.is_struct(kind):
        return Layout(images[0], None, labels[0])
    has_path = kind.get_field_index("path") >= 0
    return Layout(f"{images[0]}.bytes", f"{images[0]}.path" if has_path else None, labels[0])


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def names_in(files: Mapping[str, Sequence[Path]], label: str) -> tuple[str, ...]:
    """Return the class names of labels without ClassLabel: the sorted strings, or the numbers from 0."""
    names: set[str] = set()
    largest = -1
    for paths in files.values():
        column = read_column(paths, label)
        if column is None:
            raise DatasetError(f"{paths[0].parent}: not every file has the column {label!r}; remove those without")
        if is_list(column.type):
            column = pc.list_flatten(column)
        if pa.types.is_integer(column.type):
            largest = max(largest, pc.max(column).as_py() or 0)
        else:
            names.update(str(value) for value in pc.unique(column).to_pylist() if value is not None)
    if largest >= _MOST_CLASSES:
        raise DatasetError(f"{paths[0].parent}: label {largest} is no class number; convert the files' source again")
    return tuple(sorted(names)) or tuple(map(str, range(largest + 1)))
