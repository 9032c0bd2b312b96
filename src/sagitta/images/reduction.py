"""Deep or many samples to 8-bit grey or RGB, by a range and by bands that a person chose.

An image of 8 bits and at most three bands stays the bytes that it is, unless bands are chosen; every other becomes an
8-bit PNG, without loss from there on. What is read: whatever Pillow reads, 16-bit PNG and TIFF in full depth; and other
TIFFs through tifffile (13 bands, planes, floats in colour).
"""

import io
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from sagitta.errors import ConfigError, ImageError
from sagitta.images.decoding import MAX_PIXELS, opened, oriented, refusal
from sagitta.images.losses import UNTAGGED, lost_bands, lost_pages, rawmode
from sagitta.images.tiff import Page, first_page, read_samples, turned

Samples = npt.NDArray[Any]
Range = tuple[float, float]

_BLOCK = 2**20  # samples scaled at a time
_SAMPLED = 2**14  # of an image, for percentiles
_GOLDEN = (5**0.5 - 1) / 2  # whose multiples are spread evenly, and never repeat
_PERCENTILES = (0.1, 99.9)
_OUTSIDE = 0.5  # share of samples outside of the range that is worth a word


@dataclass(frozen=True)
class Reduction:
    """How deep samples become 8 bits, and which bands of many are kept; saved in datasets and checkpoints.

    Attributes:
        range: the values that become 0 and 255; what lies outside is clipped. It concerns samples of more than 8 bits;
            None scales unsigned ones by all that their bits can hold.
        bands: one or three of the stored bands, counted from 1, as they become grey, or red, green and blue; empty
            keeps the image's own.
    """

    range: Range | None = None
    bands: tuple[int, ...] = ()

    @classmethod
    def of(cls, range: str | None, bands: str | None) -> "tuple[Reduction, bool]":
        """Read what a person writes: ``LOW,HIGH`` or ``auto``, and ``3,2,1``; returns whether the range is to be found.

        Raises:
            ConfigError: it is something else.
        """
        numbers = _numbers(bands, int) if bands is not None else ()
        if numbers is None or (bands is not None and (len(numbers) not in (1, 3) or min(numbers) < 1)):
            raise ConfigError(f"--bands {bands}: give one band or three, counted from 1, such as 3,2,1")
        if range in (None, "auto"):
            return cls(None, numbers), range == "auto"
        ends = _numbers(range or "", float)
        if ends is None or len(ends) != 2 or not ends[0] < ends[1] or not np.isfinite(ends).all():
            raise ConfigError(f"--range {range}: give the values that become black and white, such as 0,4095, or auto")
        return cls((ends[0], ends[1]), numbers), False

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Reduction":
        """Rebuild from :meth:`to_dict`."""
        ends = fields.get("range")
        return cls(None if ends is None else (ends[0], ends[1]), tuple(fields.get("bands", ())))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {"range": None if self.range is None else list(self.range), "bands": list(self.bands)}

    def options(self) -> dict[str, str]:
        """Return what :meth:`of` reads, by the names of the options; only what is set."""
        ends = {"range": ",".join(repr(end).removesuffix(".0") for end in self.range)} if self.range else {}
        return ends | ({"bands": ",".join(map(str, self.bands))} if self.bands else {})

    def __str__(self) -> str:
        return " ".join(f"--{name} {value}" for name, value in self.options().items())


class Reduced(NamedTuple):
    """An image's bytes for decoding, whether they are other ones than before, what was lost unasked, and depth."""

    data: bytes
    changed: bool = False
    lost: str | None = None
    deep: bool = False


def reduce(data: bytes, how: Reduction) -> Reduced:
    """Return an image's bytes after a reduction: its own where there is nothing to reduce, else a PNG.

    Raises:
        ImageError: the image cannot be read, has other bands, or numbers that need a range.
    """
    with refusal(data):
        found = _read(data, how.bands)
        if found is None:
            return Reduced(data)
        grey, outside = _scaled(found.samples, how.range)
        if found.blank is not None:
            grey[found.blank] = 255
        image = Image.fromarray(grey.squeeze(2) if grey.shape[2] == 1 else grey)
        if found.alpha is not None:
            white = Image.new(image.mode, image.size, "white")
            white.paste(image, mask=Image.fromarray(found.alpha))
            image = white
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        lost = [*found.lost, *([f"most pixels lie outside of {how}"] if outside > _OUTSIDE else [])]
        return Reduced(buffer.getvalue(), True, "; ".join(lost) or None, found.samples.dtype != np.uint8)


def find_range(images: Iterable[bytes], bands: Sequence[int]) -> Range | None:
    """Return the range that holds nearly all values of some images; None where none has more than 8 bits.

    These are the percentiles 0.1 and 99.9 of at most 16,384 values of each image, whole numbers where the samples are.
    Images that cannot be read are passed over.
    """
    values, whole = [], True
    for data in images:
        try:
            with refusal(data):
                found = _read(data, tuple(bands))
        except ImageError:
            continue
        if found is None or found.samples.dtype == np.uint8:
            continue
        some = _sampled(found.samples)
        values.append(some[np.isfinite(some)])
        whole = whole and found.samples.dtype.kind in "iu"
    if not values or not sum(map(len, values)):
        return None
    low, high = (float(f"{end:.6g}") for end in np.percentile(np.concatenate(values), _PERCENTILES))
    if whole:
        low, high = float(np.floor(low)), float(np.ceil(high))
    return (low, high) if low < high else (low, low + 1)


def _sampled(samples: Samples) -> npt.NDArray[np.float64]:
    """Return some of an image's values, as many of every band, and not in columns as equal steps would take them."""
    height, width, bands = samples.shape
    if samples.size <= _SAMPLED:
        return samples.ravel().astype(np.float64)
    count = _SAMPLED // bands
    places = np.arange(count) * (height * width) // count
    across = (places % width + (np.arange(count) * _GOLDEN % 1 * width).astype(np.int64)) % width
    found: npt.NDArray[np.float64] = samples[places // width, across].ravel().astype(np.float64)
    return found


class _Found(NamedTuple):
    """Samples (H, W, 1 or 3), upright; alpha or None (H, W) uint8; pixels that are transparent by their value."""

    samples: Samples
    alpha: npt.NDArray[np.uint8] | None
    blank: npt.NDArray[np.bool_] | None
    lost: list[str]


def _read(data: bytes, bands: tuple[int, ...]) -> _Found | None:
    """Return the samples that become pixels; None where decoding keeps all of them and no bands are chosen."""
    page = first_page(data)
    try:
        image = opened(data)
    except UnidentifiedImageError:
        if page is None:
            raise
        image = None
    lost = [None if bands else lost_bands(page, image), lost_pages(page, image, data)]
    if page is not None and (image is None or _needs_tifffile(image, page, bands)):
        if not (bands or page.plain):
            raise ImageError(f"{page.words()}, which are neither grey nor RGB; choose one or three with --bands")
        samples = _straight(read_samples(data), page, bands)
        kept, alpha = _chosen(samples, bands, colours=page.colours, alpha=page.alpha)
        return _Found(kept, alpha, None, [words for words in lost if words])
    assert image is not None
    raw = rawmode(image)  # before anything loads the image
    deep = image.mode.startswith(("I", "F")) or ";16" in raw
    if not bands and (not deep or image.mode == "CMYK"):
        return None
    orientation = oriented(image)
    transparent = image.info.get("transparency")
    untagged = UNTAGGED in image.info
    samples = turned(_deep(image, raw, data) if ";16" in raw else _shallow(image), orientation)
    samples = _straight(samples, page, bands) if raw.startswith("RGBa;16") else samples
    if page is not None and (page.bits, page.kind) == (32, "unsigned"):
        samples = samples.view(np.uint32)
    blank = samples[..., 0] == transparent if samples.shape[2] == 1 and isinstance(transparent, int) and deep else None
    has_alpha = samples.shape[2] in (2, 4) and not untagged
    kept, alpha = _chosen(samples, bands, colours=3 if samples.shape[2] >= 3 else 1, alpha=has_alpha)
    return _Found(kept, alpha, blank, [words for words in lost if words])


def _needs_tifffile(image: Image.Image, page: Page, bands: tuple[int, ...]) -> bool:
    """Say whether Pillow opens a TIFF, but does not read its planes or gives fewer bands than are asked for."""
    if page.planes and page.bands > 1 and page.bits > 8:
        return True
    return max(bands, default=1) > len(image.getbands())


def _shallow(image: Image.Image) -> Samples:
    """Return the samples of an image as Pillow loads them, (H, W, bands)."""
    if image.mode in ("1", "P", "PA", "YCbCr", "LAB", "HSV", "La", "RGBa", "RGBX"):
        image.load()
        image = image.convert("L" if image.mode == "1" else "RGB")
    samples = np.asarray(image)
    return samples.reshape(image.height, image.width, -1)


def _deep(image: ImageFile.ImageFile, raw: str, data: bytes) -> Samples:
    """Return 16-bit samples in full, (H, W, bands) uint16.

    Of more than one band Pillow keeps the byte that it takes for the high one, by the order that the file states; told
    the other order it keeps the low one.
    """
    if image.mode.startswith("I"):
        return _shallow(image)
    if raw.startswith("LA"):
        raise ImageError("16-bit grey with alpha cannot be read in full; store it without alpha")
    other = opened(data)
    order = raw[-1].replace("N", "L" if sys.byteorder == "little" else "B")
    asked = raw.replace("RGBa", "RGBA")[
        :-1
    ]  # colours that are multiplied by alpha are divided once both bytes are there
    for each, last in ((image, order), (other, {"L": "B", "B": "L"}[order])):
        each.tile = [
            tile._replace(args=(asked + last, *tile.args[1:]) if isinstance(tile.args, tuple) else asked + last)
            for tile in each.tile
        ]
    high, low = (np.asarray(each).astype(np.uint16) for each in (image, other))
    return high * np.uint16(256) + low


def _straight(samples: Samples, page: Page | None, bands: tuple[int, ...]) -> Samples:
    """Return samples whose colours are multiplied by alpha without that, unless bands are chosen as they are."""
    if page is None or not page.multiplied or bands or samples.dtype.kind != "u" or samples.shape[2] <= page.colours:
        return samples
    most = np.iinfo(samples.dtype).max
    colours, alpha = samples[..., : page.colours], samples[..., page.colours, None]
    whole = np.round(colours * (float(most) / np.maximum(alpha, 1)))
    return np.concatenate([np.minimum(whole, most).astype(samples.dtype), samples[..., page.colours :]], axis=2)


def _chosen(
    samples: Samples, bands: tuple[int, ...], *, colours: int, alpha: bool
) -> tuple[Samples, npt.NDArray[np.uint8] | None]:
    """Return the bands that become pixels, and alpha where there is one and no bands were chosen."""
    count = samples.shape[2]
    if samples.shape[0] * samples.shape[1] > MAX_PIXELS:
        raise ImageError(f"{samples.shape[1]}x{samples.shape[0]} pixels, more than {MAX_PIXELS}")
    if bands:
        if max(bands) > count:
            raise ImageError(f"band {max(bands)} is asked for, but it has {count}")
        return samples[..., [band - 1 for band in bands]], None
    if colours == 3 or count == 1 or (alpha and count == 2):
        covers = samples[..., min(colours, count - 1)] if alpha and count > 1 else None
        return samples[..., :colours], None if covers is None else _scaled(covers[..., None], None)[0][..., 0]
    choice = "three with --bands, such as --bands 3,2,1" if count > 2 else "one with --bands, such as --bands 1"
    raise ImageError(f"{count} bands; choose {choice}")


def _scaled(samples: Samples, range: Range | None) -> tuple[npt.NDArray[np.uint8], float]:
    """Return samples as 8 bits, and the share that lay outside of the range; not-a-number becomes 0.

    Raises:
        ImageError: they have no agreed range, and none is given.
    """
    if samples.dtype == np.uint8:
        return np.ascontiguousarray(samples), 0.0
    if samples.dtype.kind == "c":
        raise ImageError("complex numbers are no pixels; store what shall be seen of them, such as their magnitude")
    if range is None and samples.dtype not in (np.uint16, np.int32, np.uint32):
        kind = "floating-point pixels" if samples.dtype.kind == "f" else f"{samples.dtype} pixels"
        raise ImageError(f"{kind} have no agreed range; give one with --range LOW,HIGH or --range auto")
    low, high = range or (0.0, 65535.0)
    if range is None and samples.size and (samples.min() < low or samples.max() > high):
        raise ImageError("pixels outside 0..65535 have no agreed range; give one with --range LOW,HIGH or --range auto")
    flat, outside = samples.reshape(-1), 0
    grey = np.empty(flat.size, np.uint8)
    for start in np.arange(0, flat.size, _BLOCK):
        values = flat[start : start + _BLOCK].astype(np.float64)
        outside += int(((values < low) | (values > high)).sum())
        levels = np.floor((values - low) * (255 / (high - low)) + 0.5)
        grey[start : start + _BLOCK] = np.nan_to_num(np.clip(levels, 0, 255), nan=0.0)
    return grey.reshape(samples.shape), outside / max(1, flat.size)


def _numbers(text: str, kind: type[int] | type[float]) -> tuple[Any, ...] | None:
    """Return numbers between commas; None for anything else."""
    try:
        return tuple(kind(part) for part in re.split(r"\s*,\s*", text.strip()))
    except ValueError:
        return None
