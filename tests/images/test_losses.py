"""What decoding loses of an image is said; what no tag calls alpha is none."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sagitta.images import decode, read_header, reencode, tally, verify

GREY = np.arange(48, dtype=np.uint16).reshape(6, 8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def rgb16(kind: str) -> bytes:
    """A 48-bit image of values up to 12 bits, which Pillow reads and does not write."""
    samples = np.stack([GREY * 85] * 3, axis=-1)
    if kind == "TIFF":
        return tiff(samples, photometric="rgb")
    return b"P6 8 6 65535\n" + samples.astype(">u2").tobytes()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_twelve_bits_in_sixteen_leave_few_levels(kind: str) -> None:
    header = verify(saved(Image.fromarray(GREY * 87), kind))
    assert (header.reduced, header.lowest, header.highest) == ("16-bit grey to 8 bits", 0, 4089)
    assert tally(
        {"16-bit grey to 8 bits": (7, 0, 4089), "only the first of several pages is used": (2, None, None)}
    ) == {
        "16-bit grey to 8 bits (values 0 to 4,089: 17 grey levels left; --range auto, or LOW,HIGH, keeps more)": 7,
        "only the first of several pages is used": 2,
    }
    assert "keeps more" not in next(iter(tally({"16-bit grey to 8 bits": (7, 0, 65535)})))


def test_eight_bits_that_are_stored_in_sixteen_lose_nothing() -> None:
    assert verify(saved(Image.fromarray(GREY * 257), "PNG")).reduced is None


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
def test_deep_colours_are_said(kind: str) -> None:
    words = verify(rgb16(kind)).reduced or ""
    assert words.startswith("16-bit") and words.endswith("colours to 8 bits")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_fourth_band_without_a_tag_is_no_alpha(bits: int) -> None:
    colours = np.random.default_rng(0).integers(0, 200, (6, 8, 4)).astype(np.uint8)
    samples = colours if bits == 8 else colours.astype(np.uint16) * 256
    for extra in (["unspecified"], []):
        data = tiff(samples, photometric="rgb", extrasamples=extra) if extra else untagged(samples)
        assert "band 4 of 4 dropped" in str(verify(data).reduced)
        np.testing.assert_array_equal(decode(data), colours[..., :3])
    tagged = tiff(samples, photometric="rgb", extrasamples=["unassalpha"])
    assert "dropped" not in str(verify(tagged).reduced)
    assert not np.array_equal(decode(tagged), colours[..., :3])


def untagged(samples: np.ndarray) -> bytes:
    """A TIFF of four bands whose tag ExtraSamples has another number, as where it was never written."""
    data = bytearray(tiff(samples, photometric="rgb", extrasamples=["unspecified"]))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at = file.pages.first.tags[338].offset
    data[at : at + 2] = (65000).to_bytes(2, "little")
    return bytes(data)


def test_untagged_bands_of_other_formats() -> None:
    pixels = np.random.default_rng(1).integers(0, 200, (6, 8, 4), np.uint8)
    tga = bytearray(saved(Image.fromarray(pixels), "TGA"))
    assert verify(bytes(tga)).reduced is None
    tga[17] &= 0xF0  # no bits of a pixel are attributes
    assert verify(bytes(tga)).reduced == "the last band dropped, which nothing calls alpha (--bands chooses)"
    np.testing.assert_array_equal(decode(bytes(tga)), pixels[..., :3])


def test_animations_and_pages_are_said_but_not_what_phones_add() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "green")]
    more = {"save_all": True, "append_images": frames[1:]}
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        assert verify(saved(frames[0], kind, **more)).reduced == "only the first frame of an animation is used", kind
        assert verify(saved(frames[0], kind)).reduced is None
    assert verify(saved(frames[0], "TIFF", **more)).reduced == "only the first of several pages is used"
    assert verify(saved(frames[0], "MPO", **more)).reduced is None
    assert read_header(saved(frames[0], "GIF", **more)).reduced
    stack = tiff(np.stack([GREY * 80] * 3), photometric="minisblack")
    assert verify(stack).reduced == "16-bit grey to 8 bits; only the first of several pages is used"


def test_an_animation_that_is_damaged_behind_its_first_frame_is_read() -> None:
    data = saved(Image.new("RGB", (8, 6), "red"), "GIF")
    assert decode(data[:-1] + b"!\xf9\x04").shape == (6, 8, 3)
    assert verify(data[:-1] + b"!\xf9\x04").width == 8


def test_ordinary_images_lose_nothing() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))
    files = {
        "RGB": ("JPEG", "PNG", "BMP", "WEBP", "TIFF"), "L": ("JPEG", "PNG"), "RGBA": ("PNG", "TIFF"), "LA": ("PNG",),
        "P": ("PNG", "GIF"), "1": ("PNG", "TIFF"), "CMYK": ("JPEG", "TIFF"),
    }  # fmt: skip
    for mode, kinds in files.items():
        for kind in kinds:
            assert verify(saved(image.convert(mode), kind)).reduced is None, (mode, kind)
    assert read_header(reencode(saved(image, "PNG"), size=None, quality=90)).reduced is None
