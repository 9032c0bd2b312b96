"""Parquet files as they are met: their identity, schema, columns and row groups, with errors that name the file."""

import hashlib
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

from sagitta.dataset.schema import INFO_FILE, SPLITS, class_names_of, features_of, is_list
from sagitta.errors import DatasetError

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
    """Return the Parquet files with images under ``root`` by split, sorted by path; hidden ones left out.

    Where no file tells a split, all are ``train``. Where none holds images, the first file is returned.

    Raises:
        DatasetError: there are none, or one cannot be read.
    """
    base, found = (root.parent, [root]) if root.is_file() else (root, sorted(root.rglob("*")))
    names = {path: path.relative_to(base).as_posix() for path in found if path.suffix.lower() == ".parquet"}
    visible = [path for path, name in names.items() if "/." not in f"/{name}"]
    if not visible:
        raise DatasetError(
            f"{root}: neither {INFO_FILE} nor any Parquet file; make a dataset with `sagitta convert SOURCE {root}`"
        )
    files = [path for path in visible if image_leaves(read_schema(path))] or visible[:1]
    splits: dict[str, list[Path]] = {}
    for path, split in zip(files, splits_of_files([names[path] for path in files]), strict=True):
        splits.setdefault(split or "train", []).append(path)
    return {name: splits[name] for name in SPLITS if name in splits}


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


def read_schema(path: Path) -> pa.Schema:
    """Return the columns of a Parquet file.

    Raises:
        DatasetError: as :func:`read_metadata`, or the features that it carries for Hugging Face are not JSON.
    """
    metadata = read_metadata(path)
    with readable(path):
        schema = metadata.schema.to_arrow_schema()
    try:
        features_of(schema)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    return schema


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
    """Images of rows that cannot be viewed, read by row group; the latest ones are kept.

    No file stays open, and its footer is parsed once. May be used by many threads.
    """

    def __init__(self, files: Sequence[Path], leaf: str, most_bytes: int | None = None) -> None:
        """Take the files, the leaf column (``image.bytes``) and what is kept beside the group in use: 256 MiB."""
        self._files = files
        self._leaf = leaf
        self._most_bytes = _ROW_GROUP_BYTES if most_bytes is None else most_bytes
        self._footers: dict[int, tuple[pq.FileMetaData, list[int]]] = {}
        self._kept: OrderedDict[tuple[int, int], pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, file: int, row: int) -> bytes | None:
        """Return the image in a row of a file, or None where it is null.

        Raises:
            DatasetError: the file cannot be read.
        """
        with self._lock, readable(self._files[file]):
            metadata, ends = self._footer(file)
            group = bisect_right(ends, row)
            column = self._group(metadata, file, group)
        value = column[row - (ends[group - 1] if group else 0)].as_py()
        for name in self._leaf.split(".")[1:]:
            value = None if value is None else value[name]
        image: bytes | None = value  # a copy: a view would keep the whole row group in memory
        return image

    def _footer(self, file: int) -> tuple[pq.FileMetaData, list[int]]:
        if file not in self._footers:
            metadata = read_metadata(self._files[file])
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            self._footers[file] = metadata, np.cumsum(sizes).tolist()
        return self._footers[file]

    def _group(self, metadata: pq.FileMetaData, file: int, group: int) -> pa.ChunkedArray:
        key = file, group
        if key not in self._kept:
            room = self._most_bytes - metadata.row_group(group).total_byte_size
            while self._kept and sum(kept.nbytes for kept in self._kept.values()) > room:  # before the next is read
                self._kept.popitem(last=False)
            with pq.ParquetFile(str(self._files[file]), metadata=metadata) as parquet:
                self._kept[key] = parquet.read_row_group(group, columns=[self._leaf], use_threads=False).column(0)
        self._kept.move_to_end(key)
        return self._kept[key]


# Which columns and splits: the one place that decides, for files that are opened and for those that are converted.

_MOST_CLASSES = 2**20  # more are damage, or a column of something else
_LABEL_COLUMNS = ("fine_label", "label", "labels", "class", "class_name", "category", "target")
_SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLIT_WORDS |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")


class Layout(NamedTuple):
    """Names of the columns: leaves of the image's bytes (``image.bytes``) and of its path, if any, and label."""

    image: str
    path: str | None
    label: str


def layout_of(schema: pa.Schema, path: Path) -> Layout:
    """Find the image and label columns of a file.

    Raises:
        DatasetError: it lacks one of them; names the file.
    """
    leaves, label = image_leaves(schema), label_column(schema)
    if leaves is None or label is None:
        wanted, columns = "label" if leaves else "image", ", ".join(schema.names)
        raise DatasetError(f"{path}: no {wanted} column among {columns}; convert its source with `sagitta convert`")
    return Layout(*leaves, label)


def image_leaves(schema: pa.Schema) -> tuple[str, str | None] | None:
    """Return the leaves of the image's bytes and of its path, if any; None where no column holds images.

    The column that Hugging Face's features call an Image comes first, since a file may hold sounds, masks or hashes
    as bytes, too; else the first that is binary, or a struct with binary ``bytes``.

    Raises:
        DatasetError: the schema's features are not JSON.
    """
    features = features_of(schema)
    images = [field for field in schema if _holds_images(field.type)]
    images.sort(key=lambda field: _kind(features.get(field.name)) != "Image")
    if not images:
        return None
    name, kind = images[0].name, images[0].type
    if not pa.types.is_struct(kind):
        return name, None
    return f"{name}.bytes", f"{name}.path" if kind.get_field_index("path") >= 0 else None


def _kind(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def label_column(schema: pa.Schema) -> str | None:
    """Return the column of the labels, or None.

    A ClassLabel comes first: its author says that it holds classes, and what they are called, while a plain column
    called ``label`` or ``class`` beside it may hold anything. Of several the one with a known name is taken
    (CIFAR-100's ``fine_label`` before its ``coarse_label``). Where there is none, a known name decides, in any case.

    Raises:
        DatasetError: the schema's features are not JSON.
    """
    known = [name for word in _LABEL_COLUMNS for name in schema.names if name.lower() == word]
    declared = [name for name in schema.names if class_names_of(schema, name)]
    ranked = [*(name for name in known if name in declared), *declared, *known]
    return ranked[0] if ranked else None


def class_names_in(files: Mapping[str, Sequence[Path]], label: str) -> tuple[str, ...]:
    """Return the class names: ClassLabel's, else the sorted texts, or the numbers from 0.

    Raises:
        DatasetError: two files name different classes, a file lacks the column, or its numbers are no classes.
    """
    paths = [path for split in files.values() for path in split]
    declared = {found: path for path in paths if (found := class_names_of(read_schema(path), label))}
    if len(declared) > 1:
        first, second = list(declared.values())[:2]
        raise DatasetError(f"{first}: names other classes than {second}; convert them one by one")
    if declared:
        return next(iter(declared))
    names: set[str] = set()
    largest = -1
    for path in paths:
        column = read_column([path], label)
        if column is None:
            raise DatasetError(f"{path}: no column {label!r}, which other files have; remove those without")
        values = pc.unique(pc.list_flatten(column) if is_list(column.type) else column)
        if pa.types.is_integer(values.type):
            largest = max(largest, pc.max(values).as_py() or 0)
        else:
            names.update(text for text in values.cast(pa.string()).to_pylist() if text is not None)
    if largest >= _MOST_CLASSES:
        raise DatasetError(f"{paths[0].parent}: label {largest} is no class number; convert the files' source again")
    return tuple(sorted(names)) or tuple(map(str, range(largest + 1)))


def split_of(text: str | None) -> str | None:
    """Return the split that ``text`` as a whole names, in any case, or None: ``Validation`` and ``dev`` are val."""
    return _SPLIT_WORDS.get(text.strip().lower()) if text else None


def split_of_file(name: str) -> str | None:
    """Return the split that a word in a file's name tells, else in its nearest folder that does, or None.

    As on the Hugging Face Hub a word may stand anywhere between what are no letters, and also begins with a capital:
    ``data/train-00000-of-00001.parquet``, ``imagenet-val-003.tar``, ``my_dev_set.csv``, ``trainLabels.csv``, but
    neither ``latest`` nor ``contest.parquet``. Of several words the first counts.
    """
    for part in reversed(name.split("/")):
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)
        if split := next((split for word in words if (split := split_of(word))), None):
            return split
    return None


def splits_of_files(names: Sequence[str]) -> list[str | None]:
    """Return each file's split; all None where no name tells any.

    Folders that hold all of the files (``test-of-time/data/``) are asked only where nothing else tells, and what tells
    nothing beside files that do is ``train``.
    """
    shared = os.path.commonpath([f"/{name}".rpartition("/")[0] or "/" for name in names])
    own = [split_of_file(f"/{name}".removeprefix(shared)) for name in names]
    if any(own):
        return [split or "train" for split in own]
    return [split_of_file(name) for name in names]
