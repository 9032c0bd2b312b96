"""Images stored as arrays of pixels: MNIST's idx files, CIFAR's batches, NumPy's. Each row is a PNG when it is read."""

import gzip
import io
import math
import pickle
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from sagitta.dataset import Reader, Source, class_order, split_of_file
from sagitta.errors import ImageError, SourceError
from sagitta.images import MAX_PIXELS
from sagitta.sources.base import IMAGE_SUFFIXES, SourceOptions, make_source, rows_table, suffix
from sagitta.sources.tree import Tree

Pixels = npt.NDArray[np.uint8]

_IDX_IMAGES = re.compile(r"(?P<before>.*?)images?(?P<between>[-.])idx3(?P<after>[-.]ubyte(?:\.gz)?)$", re.IGNORECASE)
_CIFAR10 = re.compile(r"(?:data_batch_\d+|test_batch)$")
_CIFAR100 = ("train", "test")
_NPY_IMAGES = re.compile(r"(?:(?P<split>[a-z]+)_)?images\.npy|x(?:_(?P<part>[a-z]+))?\.npy", re.IGNORECASE)
_GZIP = b"\x1f\x8b"
_IDX_START, _PART = 16, 2**20  # bytes of the header of images, and that are unpacked at a time
_MOST_PACKED = 1032  # bytes that deflate packs into one, at best
_NPY_START = 4096  # bytes that hold an array's header, which is of 128 or a little more
_NPY_WIDTHS = {b"\x93NUMPY\1\0": 2, b"\x93NUMPY\2\0": 4, b"\x93NUMPY\3\0": 4}  # of the header's length, in bytes
_NPY_HEADER = re.compile(  # {'descr': '|u1', 'fortran_order': False, 'shape': (11, 5, 4), }, in any order
    rb"""\s*\{(?:\s*['"](?:
        descr['"]\s*:\s*['"](?P<kind>[^'"]*)['"]
        |fortran_order['"]\s*:\s*(?P<fortran>True|False)
        |shape['"]\s*:\s*\((?P<shape>(?:\s*\d{1,15}L?\s*(?:,|(?=\))))*)\s*\)
    )\s*(?:,|(?=\}))){3}\s*\}\s*""",
    re.VERBOSE,
)
_NPY_NUMBER = re.compile(rb"[<>|=]?(?:b1|[iu][1248]|f[248]|c8|c16)")


class ArrayReader:
    """Reads ``PART/NUMBER.png``: image ``NUMBER`` of the array ``PART``, as PNG.

    One part at a time is held in memory, in each process anew.
    """

    def __init__(self, load: Callable[[str], Pixels]):
        """Take ``load``: part -> (N, H, W) or (N, H, W, 3) uint8; it must be picklable."""
        self._load = load
        self._held: tuple[str, Pixels] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_load": self._load, "_held": None}

    def read(self, path: str) -> bytes:
        """Return the image as PNG bytes, the same for the same pixels and Pillow; raises what ``load`` raises."""
        part, _, name = path.rpartition("/")
        held = self._held
        if held is None or held[0] != part:
            held = self._held = (part, self._load(part))
        encoded = io.BytesIO()
        Image.fromarray(held[1][int(name.removesuffix(".png"))]).save(encoded, "PNG", compress_level=6)
        return encoded.getvalue()


@dataclass(frozen=True)
class Part:
    """One array: its name, the label of each image, the bytes of one image and the split."""

    name: str
    labels: Sequence[str]
    image_bytes: int
    split: str | None


def array_source(
    location: str, layout: str, parts: Sequence[Part], load: Callable[[str], Pixels], class_names: Sequence[str]
) -> Source:
    """Return the source of all images of ``parts`` in natural order; ``load`` as for :class:`ArrayReader`."""
    tables = [_part_rows(location, part) for part in parts]
    source = make_source(location, layout, pa.concat_tables(tables), ArrayReader(load), class_names=class_names)
    return replace(source, encodes=True)


def _part_rows(location: str, part: Part) -> pa.Table:
    count = len(part.labels)
    digits = len(str(max(count - 1, 0)))
    paths = [f"{part.name}/{index:0{digits}d}.png" for index in range(count)]
    return rows_table(location, paths, part.labels, [part.image_bytes] * count, [part.split] * count)


def idx(tree: Tree, _options: SourceOptions) -> Source | None:
    """Return the images of MNIST's ``train-images-idx3-ubyte[.gz]`` and its like, or None where there are none.

    Raises:
        SourceError: labels are missing, a file is damaged, or the counts differ.
    """
    pairs = {found["before"]: found for name in sorted(tree.sizes) if (found := _IDX_IMAGES.fullmatch(name))}
    if not pairs:
        return None
    files: dict[str, str] = {}
    parts: list[Part] = []
    for before, found in sorted(pairs.items(), key=lambda pair: (_idx_split(pair[0]) != "train", pair[0])):
        split = _idx_split(before)
        name = split or before.strip("-_./") or "images"
        if name in files:
            raise SourceError(f"{tree.location}: {files[name]} and {found.string} are both {name}; keep one of them")
        files[name] = found.string
        count, *sides = _idx_shape(tree, found.string)
        labels = _idx_labels(tree, found)
        if len(labels) != count:
            raise SourceError(f"{tree.location}: {found.string} has {count} images but {len(labels)} labels")
        size = math.prod(sides) if count else 0
        parts.append(Part(name, [str(label) for label in labels.tolist()], size, split))
    names = class_order(label for part in parts for label in part.labels)
    return array_source(tree.location, "MNIST idx files", parts, partial(_load_idx, tree.reader, files), names)


def _idx_split(before: str) -> str | None:
    return split_of_file(before.lower().replace("t10k", "test"))


def _load_idx(reader: Reader, files: Mapping[str, str], part: str) -> Pixels:
    return _parse_idx(files[part], reader.read(files[part]), dimensions=3)


def _idx_labels(tree: Tree, images: re.Match[str]) -> Pixels:
    """Return the labels, (N,) uint8, of the file that belongs to an images file, packed or not."""
    stem = f"{images['before']}labels{images['between']}idx1{images['after']}"
    plain = stem.removesuffix(".gz")
    name = next((name for name in (stem, plain, f"{plain}.gz") if name in tree.sizes), None)
    if name is None:
        raise SourceError(f"{tree.location}: {images.string} is there but {stem} is not; put it beside")
    return _parse_idx(name, tree.reader.read(name), dimensions=1)


def _idx_shape(tree: Tree, name: str) -> list[int]:
    """Return the shape (images, height, width) of a file of images, which is whole, without keeping its pixels."""
    try:
        start = tree.reader.start(name, _IDX_START)
    except ImageError:  # it can only be unpacked whole
        start = tree.reader.read(name)[:_IDX_START]
    if start[:2] == _GZIP:
        data = tree.reader.read(name)
        with _unpacked(name, data) as file:
            shape = _idx_head(name, file.read(_IDX_START), dimensions=3)
            most, found = min(math.prod(shape) + 1, len(data) * _MOST_PACKED), 0
            while found < most and (part := file.read(min(_PART, most - found))):
                found += len(part)
    else:
        shape = _idx_head(name, start, dimensions=3)
        found = min(tree.sizes[name] - _IDX_START, math.prod(shape) + 1)
    _check_idx_size(name, shape, found)
    return shape


def _parse_idx(name: str, data: bytes, dimensions: int) -> Pixels:
    """Return the array of an idx file of unsigned bytes, packed with gzip or not."""
    with _unpacked(name, data) as file:
        shape = _idx_head(name, file.read(4 + 4 * dimensions), dimensions)
        # Not more than is asked for, however much is packed; and one byte, to see that there is no more.
        pixels = file.read(min(math.prod(shape) + 1, len(data) * _MOST_PACKED))
    _check_idx_size(name, shape, len(pixels))
    return np.frombuffer(pixels, np.uint8).reshape(shape)


@contextmanager
def _unpacked(name: str, data: bytes) -> Iterator[BinaryIO]:
    try:
        yield gzip.GzipFile(fileobj=io.BytesIO(data)) if data[:2] == _GZIP else io.BytesIO(data)  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{name}: damaged gzip file ({error}); get it again") from error


def _idx_head(name: str, head: bytes, dimensions: int) -> list[int]:
    """Return the shape that the first bytes of an idx file say."""
    if head[:4] != bytes((0, 0, 8, dimensions)) or len(head) < 4 + 4 * dimensions:
        raise SourceError(f"{name}: not an idx file of {dimensions} dimensions of bytes; get it again")
    return [int(length) for length in np.frombuffer(head, ">u4", dimensions, offset=4)]


def _check_idx_size(name: str, shape: Sequence[int], found: int) -> None:
    if found != math.prod(shape):
        more = " or more" if found > math.prod(shape) else ""
        raise SourceError(
            f"{name}: {found}{more} bytes of data where {list(shape)} needs {math.prod(shape)}; get it again"
        )


def npy(tree: Tree, options: SourceOptions) -> Source | None:
    """Return the images of NumPy's arrays, or None where there are none: those of an ``.npz``, or ``.npy`` in a folder.

    They are named ``train_images`` and ``train_labels``, as MedMNIST's, or ``x_train`` and ``y_train``, as Keras's,
    each also without the split; images are (N, H, W) or (N, H, W, 1 or 3) uint8, labels integers (N,) or (N, 1).

    Of images only the header is read, which has to agree with the file's size and with the labels before anything is
    unpacked: 4 MB of an ``.npz`` can be 4 GB.

    Raises:
        SourceError: labels are missing, a header is damaged or of another type, the counts differ, or two arrays are
            of one split.
    """
    found = [match for name in sorted(tree.sizes) if (match := _NPY_IMAGES.fullmatch(name))]
    beside = options.layout is None and any(suffix(name) in IMAGE_SUFFIXES for name in tree.sizes)
    if not found or beside:  # beside images, arrays are more often what somebody computed of them
        return None
    files: dict[str, str] = {}
    for images in found:
        word = _npy_word(images)
        name = split_of_file(word) or word or "images without a split"
        if name in files:
            raise SourceError(f"{tree.location}: {files[name]} and {images.string} are both {name}; keep one of them")
        files[name] = images.string
    parts = [_npy_part(tree, match) for match in found]
    names = class_order(label for part in parts for label in part.labels)
    return array_source(tree.location, "NumPy arrays", parts, partial(_load_npy, tree.reader), names)


def _npy_word(images: re.Match[str]) -> str:
    return (images["split"] or images["part"] or "").lower()


def _npy_part(tree: Tree, found: re.Match[str]) -> Part:
    images = found.string
    name = re.sub("images", "labels", images, flags=re.IGNORECASE) if "images" in images.lower() else f"y{images[1:]}"
    if name not in tree.sizes:
        raise SourceError(f"{tree.location}: {images} is there but {name} is not; put it beside")
    head, labels = _npy_head(tree, images), _npy_head(tree, name)
    _check_npy_images(images, head)
    if labels.kind.kind not in "iu" or not labels.shape or labels.shape[1:] not in ((), (1,)):
        raise SourceError(
            f"{name}: labels must be one integer an image, not {labels.shape} of {labels.kind.name}; convert them"
        )
    if labels.shape[0] != head.shape[0]:
        raise SourceError(
            f"{tree.location}: {images} has {head.shape[0]} images but {name} {labels.shape[0]} labels; make them agree"
        )
    given = [str(label) for label in _parse_npy(name, _whole(tree.reader, name)).reshape(-1).tolist()]
    return Part(images, given, math.prod(head.shape[1:]), split_of_file(_npy_word(found)))


def _load_npy(reader: Reader, name: str) -> Pixels:
    pixels = _parse_npy(name, _whole(reader, name), _check_npy_images)
    return pixels[..., 0] if pixels.ndim == 4 and pixels.shape[3] == 1 else pixels


def _whole(reader: Reader, name: str) -> bytes:
    """Return all bytes of an array; one that cannot be had is an error of the source, not of each image in it."""
    try:
        return reader.read(name)
    except ImageError as error:
        raise SourceError(f"{name}: {error}; get it again, or pack it anew") from error
    except MemoryError:
        raise SourceError(
            f"{name}: more than the memory that is free, and each worker takes all of it; give fewer workers, or save "
            "its images as files"
        ) from None


@dataclass(frozen=True)
class _NpyHead:
    """What an ``.npy`` file says that it holds: an array of numbers, and where in the file they begin."""

    shape: tuple[int, ...]
    kind: np.dtype[Any]
    order: Literal["C", "F"]
    offset: int


def _npy_head(tree: Tree, name: str) -> _NpyHead:
    """Return what an array is, from its beginning; raises as :func:`_parse_npy_head`."""
    try:
        start = tree.reader.start(name, _NPY_START)
    except ImageError as error:
        raise SourceError(f"{name}: {error}; get it again, or pack it anew") from error
    return _parse_npy_head(name, start, tree.sizes[name])


def _parse_npy_head(name: str, start: bytes, size: int) -> _NpyHead:
    """Return what the first bytes of an ``.npy`` file of ``size`` bytes say.

    NumPy's own reader evaluates the header as Python, and raises nearly anything for a damaged one.

    Raises:
        SourceError: it is no array, or not one of numbers, or the size is another than the array's.
    """
    width = _NPY_WIDTHS.get(start[:8])
    if width is None:
        raise SourceError(f"{name}: not a NumPy array, from its first bytes; get it again")
    offset = 8 + width + int.from_bytes(start[8 : 8 + width], "little")
    found = _NPY_HEADER.fullmatch(start, 8 + width, offset) if offset <= len(start) else None
    if found is None or None in found.groups():
        raise SourceError(f"{name}: not a NumPy array of numbers (its header is damaged or of records); get it again")
    if not _NPY_NUMBER.fullmatch(found["kind"]):
        what = "objects" if b"O" in found["kind"] else ascii(found["kind"].decode("latin1"))
        raise SourceError(f"{name}: not a NumPy array of numbers (it holds {what}); convert it to integers")
    kind = np.dtype(found["kind"].decode())
    shape = tuple(map(int, re.findall(rb"\d+", found["shape"])))
    wanted = math.prod(shape) * kind.itemsize
    if wanted != size - offset:
        raise SourceError(
            f"{name}: not a whole NumPy array of numbers ({wanted:,} bytes of data wanted, {size - offset:,} there); "
            "get it again"
        )
    return _NpyHead(shape, kind, "F" if found["fortran"] == b"True" else "C", offset)


def _check_npy_images(name: str, head: _NpyHead) -> None:
    """Check that an array may be images, as :func:`npy` says.

    Raises:
        SourceError: it may not, or a side of its images is nothing or too long.
    """
    if head.kind != np.uint8 or not (len(head.shape) == 3 or (len(head.shape) == 4 and head.shape[3] in (1, 3))):
        raise SourceError(
            f"{name}: images must be (N, height, width) or (N, height, width, 1 or 3) of uint8, not {head.shape} of "
            f"{head.kind.name}; convert them"
        )
    height, width = head.shape[1:3]
    if not 1 <= height * width <= MAX_PIXELS:
        raise SourceError(f"{name}: images of {width}x{height} pixels, not 1 to {MAX_PIXELS:,}; convert them anew")


def _parse_npy(
    name: str, data: bytes, check: Callable[[str, _NpyHead], None] = lambda _name, _head: None
) -> npt.NDArray[Any]:
    """Return the array of an ``.npy`` file whose header passes ``check``; raises as :func:`_parse_npy_head`."""
    head = _parse_npy_head(name, data[:_NPY_START], len(data))
    check(name, head)
    return np.frombuffer(data, head.kind, offset=head.offset).reshape(head.shape, order=head.order)


def cifar(tree: Tree, _options: SourceOptions) -> Source | None:
    """Return the images of CIFAR-10's or CIFAR-100's Python batches (fine labels), or None where there are none.

    The batches are pickles; nothing in them is executed.

    Raises:
        SourceError: a batch is damaged or is a pickle of anything else.
    """
    if "batches.meta" in tree.sizes:
        layout, meta, labels, names = "CIFAR-10 batches", "batches.meta", b"labels", b"label_names"
        batches = [name for name in tree.sizes if _CIFAR10.match(name)]
    elif "meta" in tree.sizes:
        layout, meta, labels, names = "CIFAR-100 batches", "meta", b"fine_labels", b"fine_label_names"
        batches = [name for name in _CIFAR100 if name in tree.sizes]
    else:
        return None
    if not batches:
        raise SourceError(f"{tree.location}: {meta} is there but no batch; put the batches beside it")
    class_names = [bytes(name).decode() for name in _entry(meta, read_pickle(meta, tree.reader.read(meta)), names)]
    parts = [_cifar_part(tree, batch, labels, class_names) for batch in batches]
    return array_source(tree.location, layout, parts, partial(_load_cifar, tree.reader), class_names)


def _cifar_part(tree: Tree, batch: str, key: bytes, class_names: Sequence[str]) -> Part:
    fields = read_pickle(batch, tree.reader.read(batch))
    labels = _entry(batch, fields, key)
    count = len(_cifar_pixels(batch, fields))
    if len(labels) != count:
        raise SourceError(f"{batch}: {count} images but {len(labels)} labels; get it again")
    if not all(isinstance(label, int) and 0 <= label < len(class_names) for label in labels):
        raise SourceError(f"{batch}: a label is outside the {len(class_names)} class names; get it again")
    split = "test" if batch.startswith("test") else "train"
    return Part(batch, [class_names[label] for label in labels], 32 * 32 * 3, split)


def _load_cifar(reader: Reader, batch: str) -> Pixels:
    return _cifar_pixels(batch, read_pickle(batch, reader.read(batch)))


def _cifar_pixels(batch: str, fields: Any) -> Pixels:
    """Return (N, 32, 32, 3) uint8 of a batch that holds (N, 3072) bytes, channel by channel."""
    data = _entry(batch, fields, b"data")
    raw = data.state[-1] if isinstance(data, _Inert) and data.state else None
    if not isinstance(raw, bytes) or len(raw) % 3072:
        raise SourceError(f"{batch}: its data are not rows of 3,072 bytes; get it again")
    return np.frombuffer(raw, np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _entry(name: str, fields: Any, key: bytes) -> Any:
    if not isinstance(fields, dict) or key not in fields:
        raise SourceError(f"{name}: not a CIFAR file, it has no {key.decode()!r}; get it again")
    return fields[key]


class _Inert:
    """Stands for whatever numpy name a pickle calls: keeps the state it is given and does nothing."""

    state: tuple[Any, ...] = ()

    def __init__(self, *_arguments: Any):
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _InertUnpickler(pickle._Unpickler):
    """In Python, not in C, which before 3.14 takes as much memory as a damaged memo index asks for."""

    _NAMES = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> type[_Inert]:
        if (module, name) not in self._NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        # A new class each time: a pickle can set attributes of what it is given.
        return type("_Inert", (_Inert,), {})


def read_pickle(name: str, data: bytes) -> Any:
    """Return what a pickle of plain values and numpy arrays holds, without running anything that it names.

    No name in it is ever looked up: numpy's become inert records that keep an array's state, others are refused.

    Raises:
        SourceError: the pickle is damaged or asks for anything that is not numpy's array.
    """
    try:
        return _InertUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = " ".join(str(error).split())
        raise SourceError(f"{name}: not a CIFAR batch, refused ({reason}); get it from the original source") from error
