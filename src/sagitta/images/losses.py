"""What decoding to 8-bit grey or RGB loses of an image, in words that many files share.

What is not counted as a loss: alpha, since compositing over white is what a viewer does; ICC profiles, which no trainer
in this field applies; the second picture of a phone's JPEG (a gain map, a depth map, a preview); the smaller sizes in
an icon; overviews and masks in a TIFF.
"""

import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from sagitta.images.tiff import Page, first_page

UNTAGGED = "sagitta: a band that no tag calls alpha"
"""Key in ``Image.info`` of an image whose last band Pillow takes for alpha, though nothing in the file says so."""

SCALED = "-bit (scaled)"
"""In the words on bits of images that Pillow reads in no more than 8."""

_DEEP = "16-bit"
_FEW_LEVELS = 128
_STEP = 257  # between two of 256 grey levels in 16 bits
_SINGLE = {"MPO", "PSD", "ICO", "ICNS"}  # what follows their first picture is no other image
_UNTIL = 2**16  # bytes among which the boxes of JPEG 2000 and AVIF lie


class Loss(NamedTuple):
    """What is lost, None where nothing is; and of deep grey pixels the lowest and highest value, once decoded."""

    words: str | None
    lowest: int | None = None
    highest: int | None = None


def is_untagged(image: ImageFile.ImageFile, data: bytes | memoryview) -> bool:
    """Return whether the band that Pillow takes for alpha is not called so by the file."""
    if image.mode not in ("LA", "PA", "RGBA", "RGBa", "La"):
        return False
    if image.format == "TIFF":
        page = first_page(data)
        return page is not None and not page.alpha
    if image.format == "TGA":
        return not data[17] & 15  # how many bits of a pixel are attributes
    if image.format == "JPEG2000":
        return b"cdef" not in bytes(data[:_UNTIL])
    return False


def losses(image: ImageFile.ImageFile, data: bytes | memoryview) -> list[str]:
    """Return what decoding loses of an image that is opened and not yet loaded: bits, bands, pages."""
    page = first_page(data) if image.format == "TIFF" else None
    found = (_bits(image, data), lost_bands(page, image), lost_pages(page, image, data))
    return [words for words in found if words]


def seen(image: ImageFile.ImageFile, words: list[str]) -> Loss:
    """Return the losses of an image that is loaded by now, with the values of its deep pixels."""
    if not (words and words[0].startswith(_DEEP)):
        return Loss("; ".join(words) or None)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if not (values % _STEP).any():
            return Loss("; ".join(words[1:]) or None)  # 8 bits, stored in 16
        lowest, highest = int(values.min()), int(values.max())
    else:  # Pillow has kept the high bytes
        extremes = np.array(image.getextrema())[:3]
        lowest, highest = 256 * int(extremes.min()), 256 * int(extremes.max()) + 255
    return Loss("; ".join(words), lowest, highest)


def tally(found: Mapping[str, tuple[int, int | None, int | None]]) -> dict[str, int]:
    """Return what was lost, in how many files, for people.

    Args:
        found: how many files lose what :class:`Loss` says, and the lowest and highest value of all of them.
    """
    return {_with_values(words, low, high): count for words, (count, low, high) in found.items()}


def _with_values(words: str, low: int | None, high: int | None) -> str:
    if low is None or high is None:
        return words
    levels = (high + _STEP // 2) // _STEP - (low + _STEP // 2) // _STEP + 1
    advice = "; --range auto, or LOW,HIGH, keeps more" if levels < _FEW_LEVELS else ""
    return f"{words} (values {low:,} to {high:,}: {levels} grey levels left{advice})"


def _bits(image: ImageFile.ImageFile, data: bytes | memoryview) -> str | None:
    if image.mode.startswith("I"):
        return f"{_DEEP} grey to 8 bits"
    raw, depth = rawmode(image), 8
    if ";16" in raw:
        depth = 16
    elif image.format == "PPM" and isinstance(image.tile[0].args, tuple) and int(image.tile[0].args[1]) > 255:
        depth = int(image.tile[0].args[1]).bit_length()
    elif image.format == "JPEG2000":
        size = bytes(data[:_UNTIL]).find(b"\xff\x4f\xff\x51")  # the first two markers of a codestream: SOC, SIZ
        depth = (data[size + 42] & 127) + 1 if size >= 0 and len(data) > size + 42 else 8
    elif image.format == "AVIF":
        depth = _avif_depth(bytes(data[:_UNTIL]))
    grey = image.mode in ("L", "LA") or raw.startswith("L")
    deep = _DEEP if depth == 16 and ";16" in raw else f"{depth}{SCALED}"
    return f"{deep} {'grey' if grey else 'colours'} to 8 bits" if depth > 8 else None


def rawmode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's word for the samples in the file of an image that is not yet loaded; empty where it has none."""
    args = image.tile[0].args if image.tile else None
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _avif_depth(head: bytes) -> int:
    """Return bits a sample by the AV1 configuration box."""
    at = head.find(b"av1C")
    flags = head[at + 6] if 0 <= at < len(head) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def lost_bands(page: Page | None, image: ImageFile.ImageFile | None) -> str | None:
    """Return which bands are neither colour nor alpha; either of the arguments may be missing."""
    if page is not None and (image is None or image.mode != "P"):
        kept = page.colours + (1 if page.alpha else 0)
        if page.bands > kept:
            which = f"band {page.bands}" if page.bands == kept + 1 else f"bands {kept + 1} to {page.bands}"
            return f"{which} of {page.bands} dropped, which no tag calls alpha (--bands chooses)"
    if image is not None and UNTAGGED in image.info:
        return "the last band dropped, which nothing calls alpha (--bands chooses)"
    return None


def lost_pages(page: Page | None, image: ImageFile.ImageFile | None, data: bytes | memoryview) -> str | None:
    """Return whether there are further pages or frames; of a TIFF ``page`` says it, of others ``image``."""
    if page is not None:
        if page.preview:
            return "only a preview: the first page of the TIFF is marked as a reduced image"
        return "only the first of several pages is used" if page.more else None
    if image is None or image.format in _SINGLE:
        return None
    if image.format == "GIF":  # which looks for a second frame, and must not lose its place in the first
        image = Image.open(io.BytesIO(data), formats=("GIF",))
    try:
        animated = getattr(image, "is_animated", False)
    except Exception:  # what follows the first frame is damaged, and not asked for
        return None
    return "only the first frame of an animation is used" if animated else None
