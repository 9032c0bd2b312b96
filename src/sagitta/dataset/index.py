"""The byte-offset index of a split: file, offset and length of each image, found once and kept in a sidecar.

A sidecar is ``.sagitta-index/SPLIT.arrow`` beside the data, or in the user's cache where the data is read-only. It is
an Arrow file that is memory-mapped, and its metadata say what it describes: size and footer digest of every file. Where
these differ it is built anew. Of many processes that start together one builds, the others wait.
"""

import hashlib
import json
import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sagitta.dataset.pages import NOT_PLAIN, PageError, locate_values
from sagitta.dataset.parquet import as_array, identity, read_metadata, readable
from sagitta.errors import DatasetError
from sagitta.files import lock, user_cache, write_atomic

Ints = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.uint32]

_FOLDER = ".sagitta-index"
_VERSION = 1
_SPOT_CHECKS = 4  # rows a file whose lengths are compared: a footer does not change when rows change places


@dataclass(frozen=True)
class Index:
    """Where the images of one split lie.

    Attributes:
        rows: rows of each file.
        offsets: (N,) int64, of the image's first byte in its file, or ``NOT_PLAIN`` or ``NULL``.
        lengths: (N,) uint32, bytes.
    """

    rows: tuple[int, ...]
    offsets: Ints
    lengths: Lengths


def open_index(root: Path, cache: Path | None, split: str, files: Sequence[Path], column: str) -> Index:
    """Return the index of a split's files, from its sidecar where that is valid.

    Args:
        root: folder or file of the dataset.
        cache: folder for sidecars; by default beside the data, else the user's cache.
        split: name of the sidecar.
        files: Parquet files in row order.
        column: leaf column of the image bytes, as ``image.bytes``.

    Raises:
        DatasetError: a file cannot be read, or its pages are damaged; names the file and the row.
    """
    key = json.dumps([_VERSION, column, [[path.name, *identity(path)] for path in files]])
    sidecars = [folder / f"{split}.arrow" for folder in _folders(root, cache)]
    for sidecar in sidecars:
        if (index := _load(sidecar, key, files)) is not None:
            return index
    for sidecar in sidecars:
        # Read-only, or full: the next folder will do, or none.
        with suppress(OSError), lock(sidecar.with_suffix(".lock")):
            index = _load(sidecar, key, files)
            if index is None:
                index = _build(files, column)
                _save(sidecar, key, index)
            return index
    return _build(files, column)


def _folders(root: Path, cache: Path | None) -> list[Path]:
    """Return where sidecars may be, best first."""
    name = hashlib.blake2b(str(root.resolve()).encode(), digest_size=8).hexdigest()
    if cache is not None:
        return [cache / name]
    beside = root.parent / _FOLDER / root.name if root.is_file() else root / _FOLDER
    return [beside, user_cache() / "index" / name]


def _load(sidecar: Path, key: str, files: Sequence[Path]) -> Index | None:
    """Return the index in a sidecar, or None where it is missing, damaged or describes something else."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(sidecar))).read_all()
        metadata = table.schema.metadata
        if metadata[b"key"].decode() != key:
            return None
        rows = tuple(json.loads(metadata[b"rows"]))
        offsets, lengths = (as_array(table.column(name)) for name in ("offset", "length"))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    index = Index(rows, offsets, lengths)
    return index if len(offsets) == sum(rows) and _spot_check(index, files) else None


def _spot_check(index: Index, files: Sequence[Path]) -> bool:
    """Return whether some rows of each file still have their length before them."""
    start = 0
    for path, rows in zip(files, index.rows, strict=True):
        numbers = np.unique(np.linspace(start, start + rows - 1, min(rows, _SPOT_CHECKS)).astype(np.int64))
        start += rows
        with readable(path), path.open("rb") as file:
            for offset, length in zip(index.offsets[numbers].tolist(), index.lengths[numbers].tolist(), strict=True):
                if offset >= 0:
                    file.seek(offset - 4)
                    if int.from_bytes(file.read(4), "little") != length:
                        return False
    return True


def _save(sidecar: Path, key: str, index: Index) -> None:
    metadata = {"key": key, "rows": json.dumps(index.rows)}
    schema = pa.schema([("offset", pa.int64()), ("length", pa.uint32())], metadata=metadata)
    count = len(index.offsets)
    columns = [  # not by pa.array, which imports pandas
        pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(index.offsets)]),
        pa.Array.from_buffers(pa.uint32(), count, [None, pa.py_buffer(index.lengths)]),
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    write_atomic(sidecar, sink.getvalue().to_pybytes())


def _build(files: Sequence[Path], column: str) -> Index:
    parts = [_index_file(path, column) for path in files]
    rows = tuple(len(offsets) for offsets, _ in parts)
    offsets = np.concatenate([np.empty(0, np.int64), *(offsets for offsets, _ in parts)])
    lengths = np.concatenate([np.empty(0, np.uint32), *(lengths for _, lengths in parts)])
    return Index(rows, offsets, lengths)


def _index_file(path: Path, column: str) -> tuple[Ints, Lengths]:
    """Walk the pages of one file, through a memory map of its own: closed, it leaves no page in our memory."""
    metadata = read_metadata(path)
    number = _leaf_number(metadata.schema, path, column)
    max_level = metadata.schema.column(number).max_definition_level
    parts = [(np.empty(0, np.int64), np.empty(0, np.uint32))]
    with readable(path), path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        row = 0
        for group in range(metadata.num_row_groups):
            rows, chunk = metadata.row_group(group).num_rows, metadata.row_group(group).column(number)
            try:
                parts.append(_locate_chunk(data, chunk, rows, max_level))
            except PageError as error:
                message = f"{path}, row {row + error.value}: damaged ({error}); fetch or convert it again"
                raise DatasetError(message) from None
            row += rows
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _leaf_number(schema: pq.ParquetSchema, path: Path, column: str) -> int:
    for number in range(len(schema)):
        leaf = schema.column(number)
        if leaf.path == column:
            if leaf.physical_type != "BYTE_ARRAY" or leaf.max_repetition_level:
                raise DatasetError(f"{path}: column {column} holds no encoded images, one a row")
            return number
    raise DatasetError(f"{path}: no column {column}, which other files of the dataset have; convert the source again")


def _locate_chunk(data: mmap.mmap, chunk: pq.ColumnChunkMetaData, rows: int, max_level: int) -> tuple[Ints, Lengths]:
    start, size = chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size
    if chunk.num_values != rows or not 0 <= start <= start + size <= len(data):
        raise PageError(0, "the footer contradicts itself")
    if chunk.compression != "UNCOMPRESSED":
        return np.full(rows, NOT_PLAIN, np.int64), np.zeros(rows, np.uint32)
    return locate_values(data, start, size, rows, max_level)
