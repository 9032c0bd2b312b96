"""A TIFF's first page by its tags, and what to do with one that Pillow does not read."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile

from sagitta.errors import ImageError
from sagitta.images import decode, verify
from sagitta.images.tiff import first_page, read_samples, turned


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def stored(bands: int, kind: str, **options: Any) -> bytes:
    samples = np.arange(8 * 6 * bands).reshape(8, 6, bands)
    options = {"photometric": "rgb" if bands in (3, 4) else "minisblack", "planarconfig": "contig"} | options
    if options["planarconfig"] == "separate":
        samples = samples.transpose(2, 0, 1)
    return tiff(samples.astype(kind), **options)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (stored(13, "u2"), r"13 bands of 16 bits; choose three with --bands, such as --bands 3,2,1$"),
        (stored(5, "u1"), r"5 bands of 8 bits; choose three with --bands"),
        (stored(2, "u2"), r"2 bands of 16 bits; choose one with --bands, such as --bands 1$"),
        (stored(3, "f4"), r"3 bands of 32-bit floating-point numbers, which have no agreed range; give a range"),
        (stored(6, "f4"), r"6 bands of 32-bit floating.*choose three with --bands.*and give a range with --range"),
        (
            stored(4, "u2", planarconfig="separate", extrasamples=["unspecified"]),
            r"4 bands of 16 bits in separate planes; choose three with --bands",
        ),
        (
            tiff(np.zeros((8, 6), np.float32)),
            r"floating-point pixels have no agreed range; give one with --range LOW,HIGH or --range auto",
        ),
        (
            stored(3, "u2", planarconfig="separate"),
            r"3 bands of 16 bits in separate planes, which Pillow does not read; take all three with --bands 1,2,3$",
        ),
        (tiff(np.zeros((8, 6), "i1")), r"1 band of 8 bits, which have no agreed range; give a range"),
        (tiff(np.zeros((8, 6), "c8")), r"1 band of 64-bit complex numbers, which are no pixels"),
        (tiff((np.arange(12).reshape(3, 4) - 1024).astype("i2")), r"outside 0\.\.65535 .* --range LOW,HIGH"),
    ],
)
def test_what_is_not_read_is_refused_by_name_count_and_remedy(data: bytes, words: str) -> None:
    for read in (verify, decode):
        with pytest.raises(ImageError, match=words):
            read(data)


def test_overviews_and_masks_are_no_further_pages() -> None:
    def pages(*subfiles: int) -> bytes:
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as file:
            for subfile in subfiles:
                kind = np.bool_ if subfile == 4 else np.uint8
                file.write(np.zeros((4, 4), kind), subfiletype=subfile, photometric="minisblack")
        return buffer.getvalue()

    found = {subfiles: first_page(pages(*subfiles)) for subfiles in ((0,), (0, 1, 1), (0, 4), (0, 1, 0), (1, 0))}
    assert {subfiles: (page.more, page.preview) for subfiles, page in found.items() if page} == {
        (0,): (False, False),
        (0, 1, 1): (False, False),
        (0, 4): (False, False),
        (0, 1, 0): (True, False),
        (1, 0): (True, True),
    }
    assert verify(pages(1, 0)).reduced == "only a preview: the first page of the TIFF is marked as a reduced image"
    assert first_page(b"no TIFF") is first_page(pages(0)[:9]) is None


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_samples_are_those_that_were_written(planarconfig: str) -> None:
    samples = read_samples(stored(7, "f4", planarconfig=planarconfig))
    np.testing.assert_array_equal(samples, np.arange(8 * 6 * 7).reshape(8, 6, 7))


def test_without_tifffile_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagitta.images.tiff.find_spec", lambda _: None)
    with pytest.raises(ImageError, match=r"^13 bands of 16 bits; .* pip install 'sagitta\[tiff\]'$"):
        read_samples(stored(13, "u2"))


def test_samples_are_turned_as_decode_turns_pixels() -> None:
    samples = np.arange(2 * 3 * 1).reshape(2, 3, 1)
    assert [turned(samples, way)[..., 0].tolist() for way in range(1, 9)] == [
        [[0, 1, 2], [3, 4, 5]],
        [[2, 1, 0], [5, 4, 3]],
        [[5, 4, 3], [2, 1, 0]],
        [[3, 4, 5], [0, 1, 2]],
        [[0, 3], [1, 4], [2, 5]],
        [[3, 0], [4, 1], [5, 2]],
        [[5, 2], [4, 1], [3, 0]],
        [[2, 5], [1, 4], [0, 3]],
    ]
