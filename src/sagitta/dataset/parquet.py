"""Parquet files as they are met: their identity, schema, columns and row groups, with errors that name the file.

A damaged file is an error. Arrow tells almost all damage as an exception; but its Python binding ends the process when
it is asked for a column chunk of a row group whose footer is damaged (``RowGroupMetaData.column``: the C++ constructor
throws, and nobody catches). So :func:`read_chunks` reads that part of the footer itself, and nothing here asks Arrow.
"""

import io
import mmap
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sagitta.dataset.schema import DatasetInfo, features_of
from sagitta.dataset.thrift import Struct, ThriftError, read_struct
from sagitta.errors import DatasetError
from sagitta.files import content_hash, write_atomic

_ROW_GROUP_BYTES = 256 * 2**20
_SIGNATURE = 28  # bytes behind a signed footer: nonce and tag
_FREE_ROWS = 2**24  # rows beyond that must have a byte each, so that a lying count does not fill the memory


def identity(path: Path) -> tuple[int, str]:
    """Return size and footer digest of a Parquet file.

    Raises:
        DatasetError: the file is missing, cut off, encrypted or not Parquet.
    """
    size, footer = _read_footer(path)
    return size, content_hash(footer)


def footer_hash(file: Path | bytes) -> str:
    """Return :func:`identity` of a Parquet file, or of its bytes, in one word, as ``sagitta.json`` keeps it.

    Raises:
        DatasetError: as :func:`identity`.
    """
    if isinstance(file, Path):
        return "-".join(map(str, identity(file)))
    size, footer = _footer_of(io.BytesIO(file), "the file")
    return f"{size}-{content_hash(footer)}"


def _read_footer(path: Path) -> tuple[int, bytes]:
    """Return the file's size and its serialised footer."""
    with readable(path), path.open("rb") as file:
        return _footer_of(file, path)


def _footer_of(file: BinaryIO, name: object) -> tuple[int, bytes]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 8, 0))
    tail = file.read(8)
    if tail[4:] == b"PARE":
        raise _encrypted(name)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length + 12 > size:
        raise DatasetError(f"{name}: not a complete Parquet file (no footer); fetch or convert it again")
    file.seek(size - 8 - length)
    return size, file.read(length)


def _encrypted(name: object) -> DatasetError:
    return DatasetError(f"{name}: encrypted Parquet, which Sagitta does not read; decrypt it first")


def check_footers(root: Path, info: DatasetInfo) -> None:
    """Make sure that every shard has the size and the footer that were written, before Arrow reads it.

    Raises:
        DatasetError: one has not, or cannot be read.
    """
    for split in info.splits.values():
        for file, recorded in zip(split.files, split.footers, strict=False):  # none where nobody noted them
            if footer_hash(root / file) != recorded:
                raise DatasetError(
                    f"{root / file}: not the size or the footer that was written; fetch it again, or remove {root} and "
                    f"convert its source again (`sagitta verify {root}` names all that is damaged)"
                )


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


class Chunk(NamedTuple):
    """The values of one column in one row group, as the footer says.

    Attributes:
        rows: of the row group.
        values: nulls included; more than rows in a column of lists.
        start: offset of the first page.
        size: bytes, as stored.
        unpacked: bytes, without the compression.
        compressed: whether there is one.
    """

    rows: int
    values: int
    start: int
    size: int
    unpacked: int
    compressed: bool


def read_chunks(path: Path, leaf: str) -> list[Chunk]:
    """Return where one leaf column (``image.bytes``) of a file lies, one chunk a row group.

    Raises:
        DatasetError: as :func:`read_metadata`, or the footer contradicts itself or the file.
    """
    metadata = read_metadata(path)
    size, footer = _read_footer(path)
    try:
        fields, _ = read_struct(footer, 0, len(footer), len(footer))
        chunks = [_chunk(group, leaf, size) for group in fields.items_of(4, Struct)] if 4 in fields else []
    except ThriftError as error:
        raise DatasetError(f"{path}: its footer is damaged ({error}); fetch or convert it again") from None
    rows = sum(chunk.rows for chunk in chunks)
    if rows != metadata.num_rows or rows > max(size, _FREE_ROWS):
        raise DatasetError(
            f"{path}: its footer is damaged ({metadata.num_rows:,} rows, {rows:,} in row groups, {size:,} bytes); "
            "fetch or convert it again"
        )
    return chunks


def _chunk(group: Struct, leaf: str, size: int) -> Chunk:
    """Return the chunk of a leaf column in a row group of a file of so many bytes."""
    chunks = [column.struct(3) for column in group.items_of(1, Struct)]
    found = [chunk for chunk in chunks if b".".join(chunk.items_of(3, bytes)) == leaf.encode()]
    if len(found) != 1:
        raise ThriftError(f"a row group with {len(found)} columns {leaf}")
    fields, rows = found[0], group.integer(3)
    values, start, length = fields.integer(5), fields.integer(11, 0) or fields.integer(9), fields.integer(7)
    if not (rows >= 0 and values >= 0 and (start >= 4 or not length) and 0 <= length <= size - start):
        raise ThriftError("counts and places that contradict each other")
    return Chunk(rows, values, start, length, fields.integer(6), fields.integer(4) != 0)


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


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Yield a file's bytes through a memory map of its own: closed, it leaves no page in this process's memory.

    Raises:
        DatasetError: it cannot be read.
    """
    with readable(path), path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def read_column(files: Sequence[Path], name: str, *, any_text: bool = False) -> pa.ChunkedArray | None:
    """Return one column of all files, or a struct's leaf as ``image.path``; None where a file has no such column.

    Args:
        files: in row order.
        name: of the column or the leaf.
        any_text: also text that is not UTF-8, on which ``as_py`` fails.

    Raises:
        DatasetError: a file cannot be read, or its text is not UTF-8.
    """
    parts: list[pa.ChunkedArray] = []
    column, *leaf = name.split(".")
    for path in files:
        with readable(path):
            file = pq.ParquetFile(str(path), page_checksum_verification=True)
            if column not in file.schema_arrow.names:
                return None
            values = file.read(columns=[name], use_threads=False).column(0)
            if len(values) != file.metadata.num_rows:
                raise DatasetError(f"{path}: column {name} is damaged ({len(values)} rows); fetch or convert it again")
            if not any_text:
                values.validate(full=True)
            for part in leaf:
                values = pc.struct_field(values, part)
            parts.append(values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values)
    with readable(files[0]):
        tables = [pa.table({name: values}) for values in parts]
        return pa.concat_tables(tables, promote_options="permissive").column(0)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return some columns of a file, or all.

    Raises:
        DatasetError: it cannot be read.
    """
    with readable(path), pq.ParquetFile(str(path), page_checksum_verification=True) as file:
        return file.read(columns=None if columns is None else list(columns))


def write_table(path: Path, table: pa.Table, **how: Any) -> None:
    """Write a table with checksums, whole or not at all.

    Args:
        path: of the file.
        table: of it.
        how: further arguments of :func:`pyarrow.parquet.write_table`.

    Raises:
        OSError: it cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True, **how)
    write_atomic(path, sink.getvalue().to_pybytes())


def as_array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column as an array (N,); numbers without pyarrow's own conversion, which imports pandas (a second)."""
    kind = column.type
    if column.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.asarray(column.to_numpy())
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks]
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.empty(0, kind.to_pandas_dtype())


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
            path = self._files[file]
            with pq.ParquetFile(str(path), metadata=metadata, page_checksum_verification=True) as parquet:
                column = parquet.read_row_group(group, columns=[self._leaf], use_threads=False).column(0)
            if len(column) != metadata.row_group(group).num_rows:
                raise DatasetError(f"{path}: row group {group} is damaged; fetch or convert it again")
            self._kept[key] = column
        self._kept.move_to_end(key)
        return self._kept[key]
