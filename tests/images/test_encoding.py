"""Smaller images in other bytes."""

import io

import pytest
from PIL import Image

from sagitta.errors import ImageError
from sagitta.images import reencode


def test_what_is_too_long_for_a_jpeg_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("L", (70_000, 4)).save(buffer, "PNG")
    with pytest.raises(ImageError, match="70000x4 pixels, and a JPEG holds at most 65,500 a side"):
        reencode(buffer.getvalue(), size=None, quality=90)
    small = Image.open(io.BytesIO(reencode(buffer.getvalue(), size=2, quality=90)))
    assert small.size == (35_000, 2)
