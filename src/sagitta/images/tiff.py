"""What the first page of a TIFF holds, by its tags alone; and pages that Pillow does not read, through tifffile."""

import io
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy.typing as npt
from PIL import ImageFile, TiffImagePlugin

from sagitta.errors import ImageError
from sagitta.images.muting import mute_logger

_SUBFILE, _WIDTH, _LENGTH, _BITS, _PHOTOMETRIC, _SAMPLES = 254, 256, 257, 258, 262, 277
_PLANES, _EXTRA, _FORMAT, _DEPTH, _RAW = 284, 338, 339, 32997, 50706
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_ALPHA = (1, 2)  # values of ExtraSamples: associated and unassociated alpha
_GREY_OR_RGB = (0, 1, 2)  # values of PhotometricInterpretation
_COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}  # by PhotometricInterpretation: RGB, CMYK, YCbCr, CIELAB; else one
_MOST_PAGES = 1000
_MOST_BYTES = 2**29  # of a page's samples

NEEDS_TIFFFILE = "reading it needs tifffile: pip install 'sagitta[tiff]'"


@dataclass(frozen=True)
class Page:
    """The first page.

    Attributes:
        width: as stored, in pixels.
        height: likewise.
        bands: samples a pixel.
        bits: of the first sample.
        kind: of numbers.
        colours: bands that are colours by the photometric interpretation; the others are extra samples.
        plain: whether the colours are grey or RGB, so that bands are pixels as they are.
        alpha: whether an extra sample is alpha by its tag.
        multiplied: whether the colours are multiplied by it.
        planes: whether bands lie one after the other.
        more: whether there is another plane of a volume, or a later page that is neither a smaller copy nor a mask.
        preview: whether it is marked as a smaller copy of another one, or a camera's raw file holds it.
    """

    width: int
    height: int
    bands: int
    bits: int
    kind: str
    colours: int
    plain: bool
    alpha: bool
    multiplied: bool
    planes: bool
    more: bool
    preview: bool

    def words(self) -> str:
        """Return bands and depth, such as ``13 bands of 16 bits``."""
        numbers = {"float": "floating-point numbers", "complex": "complex numbers"}.get(self.kind)
        depth = f"{self.bits}-bit {numbers}" if numbers else f"{self.bits} bits"
        planes = " in separate planes" if self.planes and self.bands > 1 else ""
        return f"{self.bands} band{'s' if self.bands > 1 else ''} of {depth}{planes}"


def first_page(data: bytes | memoryview) -> Page | None:
    """Return what the tags of a TIFF's first page say; None for anything that is no TIFF or damaged."""
    if bytes(data[:4]) not in TiffImagePlugin.PREFIXES:
        return None
    try:
        file = io.BytesIO(data)
        tags = _directory(file, None)
        samples = int(tags.get(_SAMPLES, 1))
        formats = tags.get(_FORMAT, (1,))
        return Page(
            width=int(tags[_WIDTH]),
            height=int(tags[_LENGTH]),
            bands=samples,
            bits=int(tags.get(_BITS, (1,))[0]),
            kind={2: "signed", 3: "float", 5: "complex", 6: "complex"}.get(int(formats[0]), "unsigned"),
            colours=min(samples, _COLOURS.get(int(tags.get(_PHOTOMETRIC, 1)), 1)),
            plain=int(tags.get(_PHOTOMETRIC, 1)) in _GREY_OR_RGB,
            alpha=any(value in _ALPHA for value in tags.get(_EXTRA, ())),
            multiplied=_ALPHA[0] in tags.get(_EXTRA, ()),
            planes=int(tags.get(_PLANES, 1)) == 2,
            more=int(tags.get(_DEPTH, 1)) > 1 or _has_more(file, tags.next),
            preview=bool(int(tags.get(_SUBFILE, 0)) & _REDUCED) or _RAW in tags,
        )
    except Exception:  # damaged tags raise almost anything
        return None


def misread(image: ImageFile.ImageFile) -> bool:
    """Return whether Pillow takes an opened TIFF for something else, so that its pixels would be wrong.

    It reads uncompressed planes of 16 bits as if they had 8, and signed bytes as if they were unsigned.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    bits, tags = image.tag_v2.get(_BITS, (1,))[0], image.tag_v2
    planes = tags.get(_PLANES) == 2 and len(image.getbands()) > 1 and image.tile[0].codec_name == "raw"
    return bool(planes and bits > 8) or (bits == 8 and tags.get(_FORMAT, (1,))[0] == 2)


def _directory(file: io.BytesIO, at: int | None) -> Any:
    """Return the tags of the page whose directory lies there; None means the first."""
    file.seek(0)
    head = file.read(16)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head if head[2] == 43 or head[3] == 43 else head[:8])
    file.seek(tags.next if at is None else at)
    tags.load(file)
    return tags


def _has_more(file: io.BytesIO, at: int) -> bool:
    for _ in range(_MOST_PAGES):
        if not at:
            return False
        tags = _directory(file, at)
        if not int(tags.get(_SUBFILE, 0)) & (_REDUCED | _MASK):
            return True
        at = tags.next
    return False


def has_tifffile() -> bool:
    """Return whether :func:`read_samples` can read anything."""
    return find_spec("tifffile") is not None


def unread(data: bytes | memoryview) -> str | None:
    """Return bands and depth of a TIFF that Pillow does not read, and the remedy; None of anything else."""
    page = first_page(data)
    if page is None:
        return None
    needs = "" if has_tifffile() else f"; {NEEDS_TIFFFILE}"
    number = page.kind != "unsigned" or page.bits > 16
    scale = "a range with --range LOW,HIGH or --range auto"
    if page.kind == "complex":
        return f"{page.words()}, which are no pixels; store what shall be seen of them, such as their magnitude"
    if page.bands in (1, 3) and number:
        return f"{page.words()}, which have no agreed range; give {scale}{needs}"
    if page.bands == 3:
        return f"{page.words()}, which Pillow does not read; take all three with --bands 1,2,3{needs}"
    choice = "three with --bands, such as --bands 3,2,1" if page.bands > 2 else "one with --bands, such as --bands 1"
    return f"{page.words()}; choose {choice}{f', and give {scale}' if number else ''}{needs}"


def read_samples(data: bytes | memoryview) -> npt.NDArray[Any]:
    """Return the first page's samples by tifffile: (height, width, bands) of the stored type, upright.

    Raises:
        ImageError: tifffile is not there, the page is damaged, or takes too much memory.
    """
    page = first_page(data)
    if page is None:
        raise ImageError("a damaged TIFF")
    if not has_tifffile():
        raise ImageError(f"{page.words()}; {NEEDS_TIFFFILE}")
    if page.width * page.height * page.bands * max(page.bits // 8, 1) > _MOST_BYTES:
        raise ImageError(f"{page.width}x{page.height} pixels, {page.words()}: more than {_MOST_BYTES:,} bytes")
    import tifffile

    mute_logger("tifffile")  # it says what it finds odd
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        found = file.pages.first
        samples = found.asarray()
        orientation = int(found.tags[274].value) if 274 in found.tags else 1
    if samples.size != page.width * page.height * page.bands:
        raise ImageError(f"{page.words()}, but the samples are {samples.shape}")
    shape = (page.height, page.width)
    samples = samples.reshape(page.bands, *shape).transpose(1, 2, 0) if page.planes else samples.reshape(*shape, -1)
    return turned(samples, orientation)


def turned(samples: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return stored samples (H, W, bands) upright, by EXIF's orientation (1-8)."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    # What is mirrored afterwards: (down, across).
    down, across = {2: (0, 1), 3: (1, 1), 4: (1, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}.get(orientation, (0, 0))
    return samples[:: -1 if down else 1, :: -1 if across else 1]
