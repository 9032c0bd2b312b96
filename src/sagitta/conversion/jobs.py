"""The jobs of a conversion, as worker processes run them: scan a part, write a shard, measure some images.

Each is a function of (task, job) that leaves its result in a file, or returns it where it is small. A file gets its
name only when it is whole and on the disk, so what is there need not be made again, unless it was damaged meanwhile.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sagitta.conversion.workspace import RESULT, digest_of, is_made, new_part
from sagitta.dataset import Reader, footer_hash, image_schema, is_list
from sagitta.errors import ImageError, SagittaError, SourceError
from sagitta.files import content_hash
from sagitta.images import (
    DEFAULT_QUALITY,
    MAX_BYTES,
    ImageHeader,
    Reduced,
    Reduction,
    add_restart_markers,
    decode,
    pixel_hash,
    read_header,
    reduce,
    reencode,
    verify,
)

SCAN = pa.schema(
    [
        ("reason", pa.string()),  # why the image is left out; null where it is kept
        ("source_hash", pa.string()),  # of the source's bytes: decides the split
        ("content_hash", pa.string()),  # of the bytes to store, as is what follows
        ("size", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("orientation", pa.int8()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("reduced", pa.string()),  # what decoding leaves out of the source; null where nothing is lost
        ("lowest", pa.int64()),  # value of its deep pixels, where these are reduced unasked
        ("highest", pa.int64()),
        ("deep", pa.bool_()),  # whether the source has more than 8 bits a sample
        ("pixels", pa.string()),  # digest of the pixels to store; null where nobody asks for it
        ("stored", pa.binary()),  # the rewritten or encoded image; null where it is read from the source again
    ]
)
"""What a scan finds out about each row."""


_GONE = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ETIMEDOUT,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ESHUTDOWN,
})  # fmt: skip
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_LOSS = ("reduced", "lowest", "highest")
_GROUP_BYTES, _GROUP_ROWS = 12 * 2**20, 4096  # about 100 photos, or thousands of thumbnails


@dataclass(frozen=True)
class Task:
    """What every process of a conversion knows.

    Attributes:
        reader: of the source's bytes.
        folder: where the conversion works.
        resize: length of the shorter side, or None.
        quality: JPEG quality of every image, or None.
        restart_markers: whether JPEGs are cut into tiles by restart markers.
        reduction: what becomes of deep samples and of bands, if anything was asked for.
        encodes: see :class:`sagitta.dataset.Source`.
        compares: whether the pixels are hashed, too.
    """

    reader: Reader
    folder: Path
    resize: int | None
    quality: int | None
    restart_markers: bool
    reduction: Reduction | None = None
    encodes: bool = False
    compares: bool = False

    @property
    def keeps(self) -> bool:
        """Whether a scan may have kept the bytes to store."""
        rewrites = (self.resize, self.quality, self.reduction) != (None, None, None) or self.restart_markers
        return rewrites or self.encodes


@dataclass(frozen=True)
class ScanJob:
    """A part of the source: its number, its rows' paths and their sizes in bytes."""

    number: int
    paths: list[str]
    sizes: list[int]


@dataclass(frozen=True)
class ShardJob:
    """A shard: its path in the dataset, the class names, and its rows.

    ``rows`` has the columns of ``SCAN`` but for ``stored``, and ``path``, ``label`` (int64, or lists of them), ``part``
    (number), ``place`` (of the row in the part), and ``group`` where some row has one.
    """

    name: str
    class_names: tuple[str, ...]
    rows: pa.Table


@dataclass(frozen=True)
class MeasureJob:
    """Images to measure: rows as of :class:`ShardJob`, in one channel or three."""

    channels: int
    rows: pa.Table


def cut(sizes: npt.NDArray[np.int64], most_bytes: int, most_rows: int) -> list[slice]:
    """Cut consecutive rows into blocks of at most so many rows, and so many bytes give or take one row."""
    before = np.cumsum(sizes) - sizes
    blocks = before // most_bytes + np.arange(len(sizes)) // most_rows  # neither ever falls
    starts = np.flatnonzero(np.diff(blocks, prepend=-1)).tolist()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True)]


def scan(task: Task, job: ScanJob) -> int:
    """Verify, hash and if asked rewrite the images of a part; returns how many there are."""
    if not is_made(task.folder, name := _part(job.number)):
        found = [_examine(task, path, size) for path, size in zip(job.paths, job.sizes, strict=True)]
        table = pa.Table.from_pylist(found, schema=SCAN)
        with new_part(task.folder, name) as temporary, pa.ipc.new_file(str(temporary), SCAN) as file:
            file.write_table(table)
    return len(job.paths)


def _examine(task: Task, path: str, size: int) -> dict[str, Any]:
    """Return the row of ``SCAN`` for one image.

    Raises:
        SagittaError: the source or the machine fails, which says nothing about the image.
    """
    if size > MAX_BYTES:
        return {"reason": f"{size:,} bytes, more than {MAX_BYTES:,}"}
    try:
        data = task.reader.read(path)
        chosen = Reduced(data) if task.reduction is None else reduce(data, task.reduction)
        stored = _prepared(task, chosen.data)
        header = verify(stored)
        lost = _lost(header, data, stored, chosen) | {"pixels": pixel_hash(stored) if task.compares else None}
    except ImageError as error:
        return {"reason": str(error)}
    except OSError as error:
        if error.errno in _SHORT or (error.errno in _GONE and size):  # a link that leads nowhere has no size
            raise _failed(path, error) from None
        return {"reason": f"cannot be read: {error.strerror or error}"}
    except MemoryError:
        raise SagittaError(f"{path}: out of memory; run the same command again, with fewer workers") from None
    source_hash, kept = content_hash(data), stored is data
    row = {"source_hash": source_hash, "content_hash": source_hash if kept else content_hash(stored)}
    return {**row, "size": len(stored), **vars(header), **lost, "stored": None if kept and not task.encodes else stored}


def _lost(header: ImageHeader, data: bytes, stored: bytes, chosen: Reduced) -> dict[str, Any]:
    """Return what was lost of the source's image, whatever was stored of it."""
    if chosen.changed:
        return {"reduced": chosen.lost, "lowest": None, "highest": None, "deep": chosen.deep}
    if stored is not data:
        header = read_header(data)
        header = header if header.reduced is None else verify(data)
    return {**{name: getattr(header, name) for name in _LOSS}, "deep": header.lowest is not None}


def _prepared(task: Task, data: bytes) -> bytes:
    """Return the bytes to store: ``data`` itself unless something else was asked for and changes anything."""
    if _is_reencoded(task, data):
        data = reencode(data, size=task.resize, quality=task.quality or DEFAULT_QUALITY)
    return add_restart_markers(data) if task.restart_markers else data


def _is_reencoded(task: Task, data: bytes) -> bool:
    if task.quality is not None or task.resize is None:
        return task.quality is not None
    header = read_header(data)
    return min(header.width, header.height) > task.resize


def write_shard(task: Task, job: ShardJob) -> int:
    """Write a shard; returns its number of rows.

    Image bytes are uncompressed, PLAIN and without statistics, so that a byte offset leads to each image.

    Raises:
        SourceError: an image is not what it was when scanned.
    """
    if not is_made(task.folder, name := f"{RESULT}/{job.name}"):
        several, grouped = is_list(job.rows["label"].type), "group" in job.rows.column_names
        schema = image_schema(job.class_names, multilabel=several, grouped=grouped)
        statistics = [name for name in schema.names if name != "image"]
        options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_page_index": True}
        options["write_page_checksum"] = True  # so that a damaged label is an error when it is read
        with (
            new_part(task.folder, name) as temporary,
            pq.ParquetWriter(str(temporary), schema, write_statistics=statistics, **options) as file,
        ):
            for block in cut(job.rows["size"].to_numpy(), _GROUP_BYTES, _GROUP_ROWS):
                file.write_table(_with_images(task, job.rows[block], schema))
    return len(job.rows)


def checksum(task: Task, name: str) -> tuple[str, str]:
    """Return of a finished shard :func:`sagitta.files.file_hash`, and its size and its footer's digest."""
    name = f"{RESULT}/{name}"
    return digest_of(task.folder, name), footer_hash(task.folder / name)


def _with_images(task: Task, rows: pa.Table, schema: pa.Schema) -> pa.Table:
    images = pa.array(_stored(task, rows), pa.binary())
    paths = rows["path"].combine_chunks()
    image = pa.StructArray.from_arrays([images, paths], fields=list(schema.field("image").type))
    return pa.table([image if name == "image" else rows[name] for name in schema.names], schema=schema)


def measure(task: Task, job: MeasureJob) -> npt.NDArray[np.float64]:
    """Return mean and mean square of each image's pixels, scaled to 0..1: (rows, 2, channels) float64."""
    levels = np.arange(256) / 255
    moments = []
    for data in _stored(task, job.rows):
        pixels = decode(data, job.channels)
        counts = [np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(job.channels)]
        shares = np.array(counts) / pixels[..., 0].size
        moments.append([shares @ levels, shares @ levels**2])
    return np.array(moments)


def _stored(task: Task, rows: pa.Table) -> Iterator[bytes]:
    """Yield the bytes to store of scanned rows.

    Raises:
        SourceError: a file is not what it was when scanned.
    """
    number, part = -1, None
    for path, wanted, row_part, place in zip(
        *(rows[name].to_pylist() for name in ("path", "content_hash", "part", "place")), strict=True
    ):
        if task.keeps and row_part != number:
            number, part = row_part, read_part(task.folder, row_part)
        stored = part["stored"][place].as_py() if part else None
        yield _unchanged(path, stored or _read_again(task.reader, path), wanted)


def _read_again(reader: Reader, path: str) -> bytes:
    try:
        return reader.read(path)
    except OSError as error:
        raise _failed(path, error) from None
    except ImageError as error:
        raise SourceError(f"{path} has changed since it was scanned ({error}); run the same command again") from None


def _failed(path: str, error: OSError) -> SagittaError:
    """Return what to say of a file that was listed, perhaps scanned, and cannot be read now."""
    reason = error.strerror or error
    return SagittaError(
        f"{path}: listed, but it cannot be read now ({reason}); is its disk there? What is finished is kept: run the "
        "same command again"
    )


def _unchanged(path: str, data: bytes, wanted: str) -> bytes:
    if content_hash(data) != wanted:
        raise SourceError(f"{path} has changed since it was scanned; run the same command again")
    return data


def read_part(folder: Path, number: int) -> pa.Table:
    """Return what the scan found about a part, of schema ``SCAN``; a memory map, so images take no memory."""
    return pa.ipc.open_file(pa.memory_map(str(folder / _part(number)))).read_all()


def _part(number: int) -> str:
    return f"scan/{number:05d}.arrow"
