"""A range and bands keep the signal: compared with the samples that were written."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from sagitta.errors import ConfigError, ImageError
from sagitta.images import Reduction, find_range, reduce, verify

RNG = np.random.default_rng(0)


def tiff(samples: npt.NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def png(samples: npt.NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a sample, grey, RGB or RGBA, by hand: Pillow writes grey ones only."""
    height, width, bands = samples.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    body = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def pixels(data: bytes, how: Reduction) -> npt.NDArray[np.uint8]:
    found = reduce(data, how)
    header = verify(found.data)
    assert (header.format, header.reduced) == ("PNG", None) and header.mode in ("L", "RGB")
    array = np.asarray(Image.open(io.BytesIO(found.data)))
    return array.reshape(*array.shape[:2], -1)


def scaled(samples: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    return np.floor((samples.astype(float) - low).clip(0, high - low) * 255 / (high - low) + 0.5).astype(np.uint8)


DEEP = RNG.integers(300, 3000, (9, 7, 13), np.uint16)
CASES: dict[str, tuple[bytes, Reduction, npt.NDArray[np.uint8]]] = {
    "12 bits in PNG": (png(DEEP[..., :1]), Reduction((0, 4095)), scaled(DEEP[..., :1], 0, 4095)),
    "12 bits in TIFF": (tiff(DEEP[..., 0]), Reduction((300, 3000)), scaled(DEEP[..., :1], 300, 3000)),
    "48-bit PNG": (png(DEEP[..., :3]), Reduction((300, 3000)), scaled(DEEP[..., :3], 300, 3000)),
    "48-bit TIFF": (tiff(DEEP[..., :3], photometric="rgb"), Reduction((300, 3000)), scaled(DEEP[..., :3], 300, 3000)),
    "48-bit TIFF, big-endian": (
        tiff(DEEP[..., :3], photometric="rgb", byteorder=">"), Reduction((300, 3000)), scaled(DEEP[..., :3], 300, 3000)
    ),
    "packed": (
        tiff(DEEP[..., :3], photometric="rgb", compression="zlib", predictor=True),
        Reduction((300, 3000)), scaled(DEEP[..., :3], 300, 3000),
    ),
    "strips": (
        tiff(DEEP[..., :3], photometric="rgb", rowsperstrip=2), Reduction((300, 3000)), scaled(DEEP[..., :3], 300, 3000)
    ),
    "tiles": (
        tiff(np.tile(DEEP[..., :3], (4, 4, 1)), photometric="rgb", tile=(16, 16)),
        Reduction((300, 3000)), np.tile(scaled(DEEP[..., :3], 300, 3000), (4, 4, 1)),
    ),
    "three planes": (
        tiff(DEEP[..., :3].transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        Reduction((300, 3000)), scaled(DEEP[..., :3], 300, 3000),
    ),
    "signed bytes": (
        tiff((DEEP[..., 0] >> 4).astype("i1")), Reduction((-128, 127)),
        scaled((DEEP[..., :1] >> 4).astype("i1"), -128, 127),
    ),
    "above 2**31": (
        tiff(DEEP[..., 0].astype("u4") * 10**6), Reduction((0, 3e9)), scaled(DEEP[..., :1].astype("u4") * 10**6, 0, 3e9)
    ),
    "13 bands": (
        tiff(DEEP, photometric="minisblack", planarconfig="contig"),
        Reduction((300, 3000), (13, 2, 5)), scaled(DEEP[..., [12, 1, 4]], 300, 3000),
    ),
    "planes": (
        tiff(DEEP[..., :4].transpose(2, 0, 1), photometric="rgb", planarconfig="separate", extrasamples=[0]),
        Reduction((300, 3000), (4, 3, 2)), scaled(DEEP[..., [3, 2, 1]], 300, 3000),
    ),
    "one of two": (
        tiff(DEEP[..., :2], photometric="minisblack", planarconfig="contig"),
        Reduction((300, 3000), (2,)), scaled(DEEP[..., 1:2], 300, 3000),
    ),
    "8 bits, near infrared first": (
        tiff((DEEP[..., :4] >> 4).astype(np.uint8), photometric="rgb", extrasamples=["unspecified"]),
        Reduction(None, (4, 3, 2)), (DEEP[..., [3, 2, 1]] >> 4).astype(np.uint8),
    ),
    "floats": (
        tiff((DEEP[..., 0] / 10000).astype("f4")), Reduction((0, 1)),
        scaled((DEEP[..., :1] / 10000).astype("f4"), 0, 1),
    ),
    "floats in colour": (
        tiff((DEEP[..., :3] / 10000).astype("f4"), photometric="rgb"),
        Reduction((0, 0.3)), scaled((DEEP[..., :3] / 10000).astype("f4"), 0, 0.3),
    ),
    "below zero": (
        tiff(DEEP[..., 0].astype("i2") - 1024), Reduction((-1000, 400)),
        scaled(DEEP[..., :1].astype(int) - 1024, -1000, 400),
    ),
    "32 bits": (
        tiff(DEEP[..., 0].astype("i4") - 1024), Reduction((-1000, 400)),
        scaled(DEEP[..., :1].astype(int) - 1024, -1000, 400),
    ),
    "bands alone": (
        tiff(DEEP, photometric="minisblack", planarconfig="contig"), Reduction(None, (1, 2, 3)),
        ((DEEP[..., :3].astype(int) + 128) // 257).astype(np.uint8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_the_samples(name: str) -> None:
    data, how, expected = CASES[name]
    np.testing.assert_array_equal(pixels(data, how), expected)


def test_what_has_eight_bits_stays_what_it_is() -> None:
    for mode, kind in (("RGB", "JPEG"), ("L", "PNG"), ("RGBA", "PNG"), ("P", "GIF")):
        buffer = io.BytesIO()
        Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8)).convert(mode).save(buffer, kind)
        assert reduce(buffer.getvalue(), Reduction((0, 4095))) == (buffer.getvalue(), False, None, False)


def test_alpha_by_its_tag_is_composited_and_orientation_applied() -> None:
    samples = DEEP[..., :4].copy()
    samples[..., 3] = 65535
    samples[0, 0, 3] = 0
    found = pixels(png(samples), Reduction((300, 3000)))
    assert found[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(found[1:], scaled(samples[1:, :, :3], 300, 3000))
    for tag in (6, 3):
        turned = tiff(DEEP, photometric="minisblack", planarconfig="contig", extratags=[(274, 3, 1, tag, True)])
        plain = pixels(tiff(DEEP, photometric="minisblack", planarconfig="contig"), Reduction((0, 4095), (3, 2, 1)))
        expected = np.rot90(plain, -1) if tag == 6 else np.rot90(plain, 2)
        np.testing.assert_array_equal(pixels(turned, Reduction((0, 4095), (3, 2, 1))), expected)


def test_colours_multiplied_by_alpha_are_divided_before_the_range() -> None:
    alpha = np.linspace(6000, 65535, DEEP[..., 0].size).reshape(DEEP.shape[:2])
    colours = DEEP[..., :3] * (alpha / 65535)[..., None]
    samples = np.round(np.concatenate([colours, alpha[..., None]], 2)).astype(np.uint16)
    expected = (DEEP[..., :3] / 4095 * 255) * (alpha / 65535)[..., None] + 255 * (1 - alpha / 65535)[..., None]
    for options in ({}, {"rowsperstrip": 2}, {"compression": "zlib"}):
        data = tiff(samples, photometric="rgb", extrasamples=["assocalpha"], **options)
        assert np.abs(pixels(data, Reduction((0, 4095))) - expected).max() < 1.5


def test_what_is_lost_unasked_is_said() -> None:
    stack = tiff(np.stack([DEEP[..., 0]] * 3), photometric="minisblack")
    assert reduce(stack, Reduction((300, 3000))).lost == "only the first of several pages is used"
    four = tiff(DEEP[..., :4], photometric="rgb", extrasamples=["unspecified"])
    assert "band 4 of 4 dropped" in str(reduce(four, Reduction((300, 3000))).lost)
    assert reduce(four, Reduction((300, 3000), (1, 2, 3))).lost is None
    assert reduce(four, Reduction((0, 1), (1, 2, 3))).lost == "most pixels lie outside of --range 0,1 --bands 1,2,3"


@pytest.mark.parametrize(
    ("data", "how", "words"),
    [
        (CASES["13 bands"][0], Reduction((0, 1)), r"13 bands; choose three with --bands"),
        (CASES["13 bands"][0], Reduction((0, 1), (14,)), r"band 14 is asked for, but it has 13"),
        (CASES["floats in colour"][0], Reduction(None, (1, 2, 3)), r"floating-point pixels have no agreed range"),
        (CASES["below zero"][0], Reduction(None, (1,)), r"no agreed range"),
        (tiff(DEEP[..., 0].astype("c8")), Reduction((0, 1)), r"complex numbers are no pixels"),
        (tiff(DEEP[..., :3], photometric="cielab"), Reduction((0, 1)), r"neither grey nor RGB; choose one or three"),
        (png(DEEP[..., :2]), Reduction((0, 1)), r"16-bit grey with alpha"),
        (b"no image", Reduction((0, 1)), "not an image"),
    ],
)
def test_what_cannot_be_reduced_is_refused(data: bytes, how: Reduction, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        reduce(data, how)


def test_the_range_is_that_of_the_data() -> None:
    images = [data for data, how, _ in CASES.values() if "12 bits" in data.decode("latin1") or how.range == (300, 3000)]
    low, high = find_range([CASES["12 bits in PNG"][0], b"no image", CASES["48-bit TIFF"][0]], ()) or (0, 0)
    assert 300 <= low < 330 and 2950 < high <= 3000 and float(low).is_integer() and images
    low, high = find_range([CASES["floats"][0]], ()) or (0, 0)
    assert 0.03 <= low < 0.04 and 0.28 < high <= 0.3
    assert find_range([CASES["8 bits, near infrared first"][0], b""], ()) is None
    assert find_range([tiff(np.full((3, 3), 7, np.uint16))], ()) == (7, 8)
    bright_blue = RNG.integers(0, (100, 1000, 4000), (256, 256, 3)).astype(np.uint16)
    columns = np.zeros((256, 1024), np.uint16)
    columns[:, 1::2] = 4000
    for samples, options in ((bright_blue, {"photometric": "rgb"}), (columns, {})):
        low, high = find_range([tiff(samples, **options)], ()) or (0, 0)
        assert low == 0 and 3950 < high <= 4000


def test_sixteen_bits_of_ink_are_converted_as_eight_are() -> None:
    data = tiff(np.tile(DEEP[..., :4], (2, 2, 1)) * np.uint16(16), photometric="separated", rowsperstrip=2)
    assert reduce(data, Reduction((0, 4095))) == (data, False, None, False)


def test_options_are_read_and_written() -> None:
    for text, bands, how in (
        ("0,4095", "3,2,1", Reduction((0, 4095), (3, 2, 1))),
        ("-1000, 400", None, Reduction((-1000, 400))),
        ("0,0.1", "4", Reduction((0, 0.1), (4,))),
    ):
        assert Reduction.of(text, bands) == (how, False)
        assert Reduction.from_dict(how.to_dict()) == how
        assert Reduction.of(how.options().get("range"), how.options().get("bands")) == (how, False)
    assert Reduction.of("auto", None) == (Reduction(), True) and Reduction.of(None, None) == (Reduction(), False)
    for range, bands in (("4095,0", None), ("x", None), ("1", None), ("", None), ("0,nan", None), ("0,inf", None),
                         (None, "1,2"), (None, "0"), (None, "r,g,b"), (None, ""), (None, "-1,2,3")):  # fmt: skip
        with pytest.raises(ConfigError, match=r"--range|--bands"):
            Reduction.of(range, bands)
