"""The byte-offset index of a split: file, offset and length of each image, found once and kept in a sidecar.

A sidecar is ``.sagitta-index/SPLIT.index`` beside the data, or in the user's cache where the data is read-only::

    digest of all that follows, as 32 hexadecimal digits; end of line
    JSON: what it describes (size and footer digest of every file), rows of each file; spaces; end of line
    offsets, 8 bytes each | lengths, 4 bytes each

Where it describes something else, or is damaged, it is built anew and replaced. Of many processes that start together
one builds, the others wait.
"""

import hashlib
import json
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sagitta.dataset.pages import NOT_PLAIN, PageError, locate_values
from sagitta.dataset.parquet import Chunk, identity, mapped, read_chunks, read_metadata, readable
from sagitta.errors import DatasetError
from sagitta.files import content_hash, lock, user_cache, write_atomic

Ints = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.uint32]

_FOLDER = ".sagitta-index"
_VERSION = 2
_DIGEST = 32  # hexadecimal digits
_SPOT_CHECKS = 4  # rows a file whose lengths are compared: a footer does not change when rows change places


@dataclass(frozen=True)
class Index:
    """Where the images of one split lie.

    Attributes:
        rows: rows of each file.
        offsets: (N,) int64, of the image's first byte in its file, or ``NOT_PLAIN`` or ``NULL``.
        lengths: (N,) uint32, bytes.
        sidecar: where it is kept, if anywhere.
    """

    rows: tuple[int, ...]
    offsets: Ints
    lengths: Lengths
    sidecar: Path | None = None

    def forget(self) -> None:
        """Remove the sidecar, which the files no longer bear out, so that it is made anew at the next opening."""
        if self.sidecar is not None:
            with suppress(OSError):
                self.sidecar.unlink()


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
    sidecars = [folder / f"{split}.index" for folder in _folders(root, cache)]
    for sidecar in sidecars:
        if (index := _load(sidecar, key, files)) is not None:
            return index
    for sidecar in sidecars:
        # Read-only, or full: the next folder will do, or none.
        with suppress(OSError), _alone(sidecar):
            index = _load(sidecar, key, files)
            if index is None:
                index = _build(files, column)
                _save(sidecar, key, index)
            return replace(index, sidecar=sidecar)
    return _build(files, column)


@contextmanager
def _alone(sidecar: Path) -> Iterator[None]:
    """Be the only one who makes a sidecar; its folder goes again where none comes of it."""
    try:
        with lock(sidecar.with_suffix(".lock")):
            yield
    finally:
        with suppress(OSError):  # there is one, or somebody else is about to make one
            sidecar.parent.rmdir()


def _folders(root: Path, cache: Path | None) -> list[Path]:
    """Return where sidecars may be, best first."""
    name = hashlib.blake2b(str(root.resolve()).encode(), digest_size=8).hexdigest()
    if cache is not None:
        return [cache / name]
    beside = root.parent / _FOLDER / root.name if root.is_file() else root / _FOLDER
    return [beside, user_cache() / "index" / name]


def _load(sidecar: Path, key: str, files: Sequence[Path]) -> Index | None:
    """Return the index in a sidecar, or None where it is missing, damaged or describes something else.

    It is read, not mapped: a mapped file that somebody cuts off kills the process.
    """
    try:
        data = sidecar.read_bytes()
    except OSError:
        return None
    start = data.find(b"\n", _DIGEST + 1) + 1
    if not data[_DIGEST + 1 : start].startswith(_head(key)):  # before the digest, which takes longer
        return None
    if data[: _DIGEST + 1] != _digest(memoryview(data)[_DIGEST + 1 :]):
        return None
    rows = tuple(json.loads(data[_DIGEST + 1 : start])[1])
    count = sum(rows)
    index = Index(
        rows,
        np.frombuffer(data, "<i8", count, start),
        np.frombuffer(data, "<u4", count, start + 8 * count),
        sidecar,
    )
    return index if _spot_check(index, files) else None


def _head(key: str) -> bytes:
    """Return how the second line of a sidecar begins."""
    return f"[{json.dumps(key)}, ".encode()


def _digest(data: bytes | memoryview) -> bytes:
    return f"{content_hash(data)}\n".encode()


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
    head = _head(key) + f"{json.dumps(index.rows)}]".encode()
    head += b" " * (-(_DIGEST + 1 + len(head) + 1) % 8) + b"\n"
    data = head + index.offsets.astype("<i8").tobytes() + index.lengths.astype("<u4").tobytes()
    write_atomic(sidecar, _digest(data) + data)


def _build(files: Sequence[Path], column: str) -> Index:
    parts = [index_file(path, column) for path in files]
    rows = tuple(len(offsets) for offsets, _ in parts)
    offsets = np.concatenate([np.empty(0, np.int64), *(offsets for offsets, _ in parts)])
    lengths = np.concatenate([np.empty(0, np.uint32), *(lengths for _, lengths in parts)])
    return Index(rows, offsets, lengths)


def index_file(path: Path, column: str) -> tuple[Ints, Lengths]:
    """Walk the pages of one file; returns offsets and lengths, as an :class:`Index` has them.

    Raises:
        DatasetError: as :func:`open_index`.
    """
    max_level = _max_level(path, column)
    parts = [(np.empty(0, np.int64), np.empty(0, np.uint32))]
    chunks = read_chunks(path, column)
    with mapped(path) as data:
        row = 0
        for chunk in chunks:
            try:
                parts.append(_locate_chunk(data, chunk, max_level))
            except PageError as error:
                message = f"{path}, row {row + error.value}: damaged ({error}); fetch or convert it again"
                raise DatasetError(message) from None
            row += chunk.rows
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _max_level(path: Path, column: str) -> int:
    """Return the definition level of a value that is there."""
    schema = read_metadata(path).schema
    for number in range(len(schema)):
        leaf = schema.column(number)
        if leaf.path == column:
            if leaf.physical_type != "BYTE_ARRAY" or leaf.max_repetition_level:
                raise DatasetError(f"{path}: column {column} holds no encoded images, one a row")
            return int(leaf.max_definition_level)
    raise DatasetError(f"{path}: no column {column}, which other files of the dataset have; convert the source again")


def _locate_chunk(data: mmap.mmap, chunk: Chunk, max_level: int) -> tuple[Ints, Lengths]:
    if chunk.values != chunk.rows or chunk.size > len(data) - chunk.start:
        raise PageError(0, "the footer contradicts the file")
    if chunk.compressed:
        return np.full(chunk.rows, NOT_PLAIN, np.int64), np.zeros(chunk.rows, np.uint32)
    return locate_values(data, chunk.start, chunk.size, chunk.rows, max_level)
