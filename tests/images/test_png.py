"""Which damaged PNGs decode: those of which Pillow has decoded every pixel, and no others."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from sagitta.errors import ImageError
from sagitta.images.decoding import decode, verify

NO_SUCH_COMPRESSION = b"k\0\7..."


def chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def with_bad_comment(data: bytes) -> bytes:
    """Return the PNG with a comment behind its pixels that Pillow cannot read."""
    end = data.index(b"IEND") - 4
    return data[:end] + chunk(b"zTXt", NO_SUCH_COMPRESSION) + data[end:]


def refused_by_pillow(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).load()
    except Exception:  # Pillow raises nearly anything
        return True
    return False


def test_whole_pixels_before_damaged_metadata_decode_though_pillow_refuses_them() -> None:
    data = with_bad_comment(picture())
    assert refused_by_pillow(data)
    np.testing.assert_array_equal(decode(data), decode(picture()))
    assert verify(data) == verify(picture())


def test_damaged_pixels_are_refused_whatever_follows_them() -> None:
    """Pillow reads what follows before it says that the pixels are damaged, and says only that."""
    data, rng = picture(), np.random.default_rng(1)
    first, end = data.index(b"IDAT") + 6, data.index(b"IEND") - 8
    refused = 0
    for at, bit in zip(rng.integers(first, end, 60), rng.integers(0, 8, 60), strict=True):
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        if refused_by_pillow(bytes(changed)):
            refused += 1
            for read in (decode, verify):
                with pytest.raises(ImageError):
                    read(with_bad_comment(bytes(changed)))
    assert refused > 50
    short = data[: first + 100] + data[end + 4 :]
    for read in (decode, verify):
        with pytest.raises(ImageError):
            read(with_bad_comment(short))
