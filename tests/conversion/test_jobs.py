import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagitta.conversion.jobs import cut
from sagitta.errors import ImageError
from sagitta.images.decoding import ImageHeader, read_header
from sagitta.images.encoding import reencode


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_blocks_end_at_so_many_bytes_or_rows() -> None:
    sizes = np.array([4, 4, 4, 9, 1, 1, 1, 1])
    #        bytes before: 0  4  8  12 21 22 23 24; a block spans ten bytes of them
    assert cut(sizes, 10, 100) == [slice(0, 3), slice(3, 4), slice(4, 8)]
    assert cut(sizes, 100, 3) == [slice(0, 3), slice(3, 6), slice(6, 8)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 100), st.integers(1, 20))
def test_blocks_cover_all_rows_and_keep_their_bounds(sizes: list[int], most_bytes: int, most_rows: int) -> None:
    blocks = cut(np.array(sizes), most_bytes, most_rows)
    assert [row for block in blocks for row in range(len(sizes))[block]] == list(range(len(sizes)))
    for block in blocks:
        assert len(sizes[block]) <= most_rows
        assert sum(sizes[block][:-1]) <= most_bytes


def test_reencode(photos: dict[str, np.ndarray]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(photos["china"]), "JPEG", exif=exif)
    small = reencode(data, size=100, quality=80)
    assert read_header(small) == ImageHeader(100, 150, 1, "JPEG", "RGB")
    assert small == reencode(data, size=100, quality=80)
    assert read_header(reencode(data, size=5000, quality=80)).height == 640
    with pytest.raises(ImageError):
        reencode(data[:900], size=None, quality=80)


def test_reencode_keeps_grey_grey(photos: dict[str, np.ndarray]) -> None:
    grey = Image.fromarray(photos["china"]).convert("L")
    for mode in ("1", "L", "LA", "I;16"):
        assert read_header(reencode(encoded(grey.convert(mode), "PNG"), size=None, quality=80)).mode == "L"
    assert reencode(encoded(grey, "PNG"), size=None, quality=80) == encoded(grey, "JPEG", quality=80, optimize=True)
