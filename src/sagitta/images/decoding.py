"""Encoded bytes to upright uint8 pixels: the one seam for conversion, training, evaluation and prediction.

What becomes of every kind of image (the only place that says so):

==============================  ====================================================================
animation, several pages        the first frame; said (``ImageHeader.reduced``)
EXIF orientation                applied exactly once; a missing or invalid value means upright
alpha, palette alpha, tRNS      composited over white
a last band of no tag           dropped, never taken for alpha (TIFF, TGA, JPEG 2000); said
1, L, P                         as their grey or palette colours
I;16, I (16 bits a sample)      scaled linearly, 0..65535 to 0..255; values outside are refused; said. A TIFF's are
                                not inverted where white is zero, as those of 8 bits are
16-bit RGB, 10- or 12-bit AVIF  the high bits; said
CMYK, YCCK                      Pillow's conversion, with Adobe's inversion where Adobe's marker says so
LAB, YCbCr, HSV                 converted to RGB
F, two or more than four bands  refused; :mod:`sagitta.images.reduction` reads them by a range and bands
ICC profiles                    ignored, as by every trainer in this field; so are gain maps
truncated or damaged            refused exactly where Pillow refuses, but for a PNG of which only metadata behind
                                the pixels are damaged: what follows whole pixels is not asked for
more than MAX_PIXELS            refused before memory is taken
==============================  ====================================================================

One channel means Pillow's ``convert("L")`` of that result, which leaves grey images as they are.
"""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import ceil, floor
from typing import Literal

import numpy as np
import numpy.typing as npt
import PIL
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from sagitta.errors import ImageError
from sagitta.files import content_hash
from sagitta.images import native
from sagitta.images.foreign import foreign
from sagitta.images.losses import UNTAGGED, Loss, is_untagged, losses, seen
from sagitta.images.muting import mute_pillow, muted
from sagitta.images.png import load
from sagitta.images.resizing import resize_window
from sagitta.images.tiff import misread, unread

Bytes = bytes | memoryview
Pixels = npt.NDArray[np.uint8]
Filter = Literal["bilinear", "bicubic"]
Profile = Literal["exact", "fast"]
Box = tuple[float, float, float, float]

MAX_PIXELS = 89_478_485
"""Pillow's own threshold for decompression bombs, about 358 MB of decoded pixels."""

MAX_BYTES = 2**30
"""Of a file: it is held in memory, and more is hardly an image."""

JOB = np.dtype(
    [("box", "<i4", 4), ("resized", "<i4", 2), ("window", "<i4", 2), ("flip", "u1"), ("orientation", "u1")],
    align=True,
)
"""What to do with one image: take ``box`` (left, top, right, bottom; pixels of the upright image), resize it to
``resized`` (height, width), take the window of the output's size at ``window`` (top, left), mirror it if ``flip``.
``orientation`` is the EXIF orientation (1-8) that decoding has to apply."""

_MOST_RESIZED = 2**22
"""Pixels up to which Pillow makes a whole resized image of which only a window is wanted."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_GREY_OF_16_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)
_JPEG_FORMATS = {"JPEG", "MPO"}
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# EPS starts Ghostscript, WMF asks the system, the others are stubs that only an application's plugin fills.
_REFUSED_FORMATS = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its first image.

    Attributes:
        width: of the upright image, in pixels.
        height: likewise.
        orientation: EXIF orientation (1-8) that decoding still has to apply; 1 when absent or invalid.
        format: Pillow's word, such as ``JPEG``.
        mode: Pillow's word for the stored pixels, such as ``RGB`` or ``L``.
        reduced: what decoding loses (bits, bands, pages), in words that many files share; None where nothing is.
        lowest: where 16-bit pixels are reduced and :func:`verify` has decoded them, their lowest value; else None.
        highest: likewise.
    """

    width: int
    height: int
    orientation: int
    format: str
    mode: str
    reduced: str | None = None
    lowest: int | None = None
    highest: int | None = None


class BatchError(ImageError):
    """Images of a batch cannot be decoded: ``failures`` tells which, and why; ``index``, ``reason`` of the first."""

    def __init__(self, failures: dict[int, str]) -> None:
        self.failures = failures
        self.index, self.reason = next(iter(failures.items()))
        super().__init__(f"image {self.index} of the batch: {self.reason}")


def read_header(data: Bytes) -> ImageHeader:
    """Return size, orientation, format and mode without decoding pixels where the format allows it.

    Raises:
        ImageError: the bytes are no image that can be identified, or it has more than ``MAX_PIXELS``.
    """
    with refusal(data):
        image = opened(data)
        return _header(image, image.size, image.mode, Loss("; ".join(losses(image, data)) or None))


def verify(data: Bytes) -> ImageHeader:
    """Return what :func:`read_header` does after making sure that :func:`decode` would succeed, at less cost.

    Of 16-bit pixels it knows the lowest and highest, too, and whether they are 8-bit ones in truth.

    All of a JPEG's Huffman codes are read, which is where it can fail, but of its pixels only one in 64 is made.

    Raises:
        ImageError: the image cannot be decoded; the message is the reason.
    """
    with refusal(data):
        image = opened(data)
        size, mode, lost = image.size, image.mode, losses(image, data)
        if image.format in _JPEG_FORMATS:
            image.draft("L", (1, 1))
        load(image, data)
        _flatten(image)
        return _header(image, size, mode, seen(image, lost))


def decode(data: Bytes, channels: int = 3, orientation: int | None = None) -> Pixels:
    """Decode a whole image.

    Args:
        data: the encoded file.
        channels: 3 for RGB, 1 for grey.
        orientation: EXIF orientation (1-8) to apply; None reads it from the file.

    Returns:
        (height, width, channels) uint8, upright, writable.

    Raises:
        ImageError: the image cannot be decoded; the message is the reason.
    """
    with refusal(data):
        image = opened(data)
        load(image, data)
        upright = _upright(image, oriented(image) if orientation is None else orientation)
        return _array(upright, channels).copy()


def pixel_hash(data: Bytes) -> str:
    """Return a digest of an image's upright pixels in RGB and of its size: the same for every lossless copy.

    Raises:
        ImageError: it cannot be decoded.
    """
    pixels = decode(data)
    return f"{pixels.shape[1]}x{pixels.shape[0]}-{content_hash(pixels.tobytes())}"


def decode_batch(
    images: Sequence[Bytes],
    jobs: npt.NDArray[np.void],
    out: Pixels,
    *,
    filter: Filter = "bilinear",
    profile: Profile = "exact",
    threads: int = 1,
) -> None:
    """Decode, crop, resize and mirror a batch into ``out``; the pixels do not depend on threads or engine.

    ``exact`` equals Pillow bit for bit: ``upright.crop(box).resize((width, height), filter)``, then the window, then
    the mirror. ``fast`` decodes a JPEG at 1/2, 1/4 or 1/8, the smallest at which the box still has the pixels that
    are wanted, and resizes from there. Where that is done, a value of 0..255 changes by 0.4 on average and 19 at most
    on photos of 12 megapixels, by 1.3 and 51 on photos of 0.2 megapixels (whole photos to 224x224).

    Args:
        images: the encoded files.
        jobs: (B,) of ``JOB``, what to do with each.
        out: (B, H, W, C) uint8, C-contiguous, C 1 or 3; every pixel is written.
        filter: Pillow's antialiased filter.
        profile: exact, or pixels for speed on large photos.
        threads: how many threads share the batch.

    Raises:
        BatchError: images cannot be decoded, or their boxes or windows do not fit; the others are written.
        ValueError: the arguments' shapes or types do not fit together.
    """
    _check_batch(images, jobs, out)
    done = np.zeros(len(images), np.bool_)
    if core := native.library():
        bicubic, fast = filter == "bicubic", profile == "fast"
        done = native.decode_batch(core, images, jobs, out, bicubic=bicubic, fast=fast, threads=threads)

    def run(index: int) -> str | None:
        try:
            out[index] = _decode_job(images[index], jobs[index], out.shape[1:], filter, profile)
        except ImageError as error:
            return str(error)
        return None

    left = np.flatnonzero(~done).tolist()
    with ThreadPoolExecutor(threads) as pool:  # starts a thread only when there is something left to do
        reasons = list(pool.map(run, left))
    if failures := {index: reason for index, reason in zip(left, reasons, strict=True) if reason is not None}:
        raise BatchError(failures)


def engine() -> str:
    """Return one line: which decoder is used, and how to get the fast one where it is not."""
    if core := native.library():
        return f"native core with libjpeg-turbo {native.libjpeg(core)}; Pillow {PIL.__version__} for other formats"
    return f"Pillow {PIL.__version__}; {native.missing_core()}"


def _check_batch(images: Sequence[Bytes], jobs: npt.NDArray[np.void], out: Pixels) -> None:
    if jobs.dtype != JOB or jobs.shape != (len(images),):
        raise ValueError(f"jobs must be ({len(images)},) of decode.JOB, not {jobs.shape} of {jobs.dtype}")
    if out.dtype != np.uint8 or out.ndim != 4 or len(out) != len(images) or out.shape[3] not in (1, 3):
        raise ValueError(f"out must be ({len(images)}, H, W, 1 or 3) uint8, not {out.shape} {out.dtype}")
    if not ((jobs["orientation"] >= 1) & (jobs["orientation"] <= 8)).all():
        raise ValueError("orientations must be 1 to 8; `read_header` gives an image's")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be C-contiguous and writable")


def _decode_job(data: Bytes, job: np.void, shape: tuple[int, ...], filter: Filter, profile: Profile) -> Pixels:
    """Do one job with Pillow; returns (H, W, C) uint8 of ``shape``."""
    (height, width), (top, left) = ((int(first), int(second)) for first, second in (job["resized"], job["window"]))
    if not (0 <= top <= height - shape[0] and 0 <= left <= width - shape[1]):
        raise ImageError(f"a window of {shape[1]}x{shape[0]} at {left, top} is not inside {width}x{height}")
    with refusal(data):
        image = opened(data)
        orientation = int(job["orientation"])
        box = _checked_box(job, image.size[::-1] if orientation >= 5 else image.size)
        if profile == "fast" and image.format in _JPEG_FORMATS:
            box = _reduce(image, box, orientation, (width, height))
        region = (floor(box[0]), floor(box[1]), ceil(box[2]), ceil(box[3]))
        load(image, data)
        crop = _upright(image, orientation).crop(region)
        within = (box[0] - region[0], box[1] - region[1], box[2] - region[0], box[3] - region[1])
        if height * width > _MOST_RESIZED:
            few = np.asarray(crop).reshape(crop.height, crop.width, -1)
            wanted = (top, left, shape[0], shape[1])
            few = resize_window(few, within, (height, width), wanted, bicubic=filter == "bicubic")
            window = _array(Image.fromarray(few.squeeze(2) if few.shape[2] == 1 else few), shape[2])
        else:
            pixels = _array(crop.resize((width, height), _FILTERS[filter], box=within), shape[2])
            window = pixels[top : top + shape[0], left : left + shape[1]]
    return window[:, ::-1] if job["flip"] else window


def _checked_box(job: np.void, size: tuple[int, int]) -> Box:
    left, top, right, bottom = (int(edge) for edge in job["box"])
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise ImageError(f"box {left, top, right, bottom} is not inside {size[0]}x{size[1]} pixels")
    return left, top, right, bottom


def _reduce(image: Image.Image, box: Box, orientation: int, wanted: tuple[int, int]) -> Box:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 where ``box`` stays at least as large as ``wanted``; returns it there.

    Reduced pixels are counted from the stored image's corner, so a mirrored axis is shifted by the last one's rest.
    """
    wide, high = (box[2] - box[0]) / wanted[0], (box[3] - box[1]) / wanted[1]
    scale = next((scale for scale in (8, 4, 2) if min(wide, high) >= scale), 1)
    width, height = image.size[::-1] if orientation >= 5 else image.size
    shift_x = -(-width // scale) - width / scale if orientation in (2, 3, 6, 7) else 0.0
    shift_y = -(-height // scale) - height / scale if orientation in (3, 4, 7, 8) else 0.0
    image.draft(None, (image.width // scale, image.height // scale))
    left, top, right, bottom = (edge / scale for edge in box)
    return left + shift_x, top + shift_y, right + shift_x, bottom + shift_y


def _array(image: Image.Image, channels: int) -> Pixels:
    pixels: Pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(image.height, image.width, channels)


def opened(data: Bytes) -> ImageFile.ImageFile:
    """Read the header; refuse too many pixels before any is decoded."""
    image = Image.open(io.BytesIO(data), formats=_formats())
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
    if misread(image):
        raise UnidentifiedImageError
    if is_untagged(image, data):
        image.info[UNTAGGED] = True
    return image


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    mute_pillow()
    return tuple(name for name in Image.ID if name not in _REFUSED_FORMATS)


def _header(image: Image.Image, size: tuple[int, int], mode: str, lost: Loss) -> ImageHeader:
    """Return the header of an image that had this size and mode when it was opened."""
    orientation = oriented(image)
    width, height = size[::-1] if orientation >= 5 else size
    return ImageHeader(width, height, orientation, image.format or "", mode, lost.words, lost.lowest, lost.highest)


def oriented(image: Image.Image) -> int:
    """Return the EXIF orientation (1-8) that is still to be applied after ``image.load()``."""
    if image.format == "TIFF":  # Pillow applies a TIFF's orientation itself
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF raises almost anything, and says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the loaded first frame as upright RGB or L."""
    flat = _flatten(image)
    return flat.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else flat


def _flatten(image: Image.Image) -> Image.Image:
    """Return the first frame as RGB or L by the rules in the module's docstring."""
    if image.mode == "F":
        raise ImageError("floating-point pixels have no agreed range; give one with --range LOW,HIGH or --range auto")
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if UNTAGGED in image.info:
        return image.convert("L" if image.mode in ("LA", "La") else "RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return image.convert("L" if image.mode == "1" else "RGB") if image.mode not in ("L", "RGB") else image


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            "integer pixels outside 0..65535 have no agreed range; give one with --range LOW,HIGH or --range auto"
        )
    grey = _GREY_OF_16_BITS[values]
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


@contextmanager
def refusal(data: Bytes) -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError with a one-line reason."""
    with muted():
        try:
            yield
        except (ImageError, MemoryError):  # of the machine: it says nothing about the image
            raise
        except Exception as error:
            raise ImageError(_reason(data, error)) from error


def _reason(data: Bytes, error: Exception) -> str:
    if not len(data):
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError) or "raw mode" in str(error):
        return foreign(data) or unread(data) or "not an image in a format that Pillow reads"
    return " ".join(str(error).split())[:200] or type(error).__name__
