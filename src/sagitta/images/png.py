"""PNGs whose metadata behind the pixels are damaged: the only images that decode here and not in plain Pillow.

Pillow decodes the pixels, then reads what follows them, and raises ``SyntaxError`` where that is damaged, whether the
pixels were whole or not. A damaged comment is no reason to lose an image; damaged pixels are.
"""

import io

from PIL import Image, ImageFile

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"


def load(image: ImageFile.ImageFile, data: bytes | memoryview) -> None:
    """Load an opened image as ``image.load()`` does, but for a PNG's metadata behind whole pixels.

    Raises:
        Exception: whatever Pillow raises for pixels that are damaged or cut off.
    """
    try:
        image.load()
    except SyntaxError:
        if image.format != "PNG":
            raise
        with io.BytesIO(_without_metadata(data)) as file, Image.open(file, formats=("PNG",)) as alone:
            alone.load()
        image.load()  # what was decoded: Pillow does not begin again


def _without_metadata(data: bytes | memoryview) -> bytes:
    """Return a PNG up to the end of the last chunk of pixels that follows the first."""
    view, at, end = memoryview(data), len(_SIGNATURE), 0
    while at + 12 <= len(view):
        length, name = int.from_bytes(view[at : at + 4]), bytes(view[at + 4 : at + 8])
        if end and name != b"IDAT":
            break
        at += length + 12
        if name == b"IDAT":
            end = at
    return bytes(view[:end]) + _END
