"""Encoded images in other bytes: smaller ones, and JPEGs of which a crop decodes only its tiles."""

import io

from PIL import Image

from sagitta.errors import ConfigError, ImageError
from sagitta.images import native
from sagitta.images.decoding import Bytes, decode, engine, read_header

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes that hold no colour."""


DEFAULT_QUALITY = 90
_LONGEST = 65500  # pixels, libjpeg's own limit


def reencode(data: bytes, *, size: int | None, quality: int) -> bytes:
    """Return the image as an upright JPEG without metadata: grey stays grey, everything else becomes RGB.

    Args:
        data: the encoded file.
        size: the shorter side in pixels, reached by antialiased bicubic reduction; smaller images keep their
            size, and None keeps every size.
        quality: JPEG quality, 1-100.

    Raises:
        ImageError: the image cannot be decoded, or is too long for a JPEG.
    """
    grey = read_header(data).mode in GREY_MODES
    pixels = decode(data, channels=1 if grey else 3)
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    shorter = min(image.size)
    if size is not None and size < shorter:
        width, height = (max(1, round(side * size / shorter)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if max(image.size) > _LONGEST:
        raise ImageError(f"{image.width}x{image.height} pixels, and a JPEG holds at most {_LONGEST:,} a side")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def add_restart_markers(data: Bytes) -> bytes:
    """Return a JPEG cut by restart markers into tiles about 32 pixels wide, so that a crop decodes only its tiles.

    Tiles are as narrow as an even division of each row of blocks allows; the file grows by about 1 %.

    Lossless: the coefficients are read back and compared, and metadata is kept, byte for byte and in its order. A
    progressive file becomes sequential, which also decodes faster. What is no grey, YCbCr or RGB JPEG, is damaged,
    holds a second picture, or anything behind the end of the first, is returned as it is.

    Raises:
        ConfigError: the native core is not there.
    """
    if (core := native.library()) is None:
        raise ConfigError(f"restart markers need the native core, and this is {engine()}")
    return native.add_restart_markers(core, data) or bytes(data)
