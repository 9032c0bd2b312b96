"""Pictures of pictures: images with captions in rows and columns."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from sagitta.images.lettering import Font, lettering
from sagitta.terminal import printable

Colour = tuple[int, int, int]

_GAP, _LINE, _FRAME = 8, 15, 3  # pixels between tiles, of a line of text, of a frame
_HEAD, _HEAD_SIZE, _HEAD_LINE = 192, 15, 22  # pixels across, of a letter, and of a line
_NOTE = 24  # pixels of a line above all tiles
_INK: Colour = (40, 40, 40)
_RIGHT, _WRONG = (34, 139, 34), (200, 30, 30)


class Tile(NamedTuple):
    """One image of a grid, whole; lines of text under it; the colour of its frame and of the first line, if any."""

    image: Image.Image
    lines: Sequence[str] = ()
    colour: Colour | None = None


def grid(
    tiles: Sequence[Tile | None],
    columns: int,
    *,
    side: int = 128,
    heads: Sequence[str] = (),
    note: str = "",
    lines: int = 1,
) -> Image.Image:
    """Draw tiles line by line.

    Args:
        tiles: the images; None leaves a place empty.
        columns: tiles in a line.
        side: of the square that holds an image, in pixels.
        heads: what stands left of each line, if anything; long ones are broken, and their last line of text stays.
        note: what stands above everything, if anything.
        lines: in which a line of text under an image is broken at most, where it is too long; the rest is cut off.
    """
    tiles = [tile if tile is None else tile._replace(lines=_captions(tile.lines, side, lines)) for tile in tiles]
    left, right = (_HEAD + _GAP, _GAP) if heads else (_GAP, 0)
    text = max((len(tile.lines) for tile in tiles if tile), default=0)
    across, down = side + _GAP, side + _GAP + (text * _LINE + 6 if text else 0)
    top = _GAP + (_NOTE if note else 0)
    sheet = Image.new("RGB", (left + columns * across + right, top + -(-len(tiles) // columns) * down), "white")
    draw = ImageDraw.Draw(sheet)
    if note:
        shown, font = lettering(note, _HEAD_SIZE)
        draw.text((_GAP, _GAP), _shortened(draw, font, shown, sheet.width - 2 * _GAP), _INK, font)
    most = max(3, side // _HEAD_LINE)
    for number, head in enumerate(heads):
        shown, font = lettering(head.replace("_", " "), _HEAD_SIZE)
        middle = top + number * down + side // 2
        draw.multiline_text((_GAP, middle), _broken(draw, font, shown, most), _INK, font, "lm", spacing=5)
    for index, tile in enumerate(tiles):
        if tile is not None:
            _place(sheet, draw, tile, (left + index % columns * across, top + index // columns * down), side)
    return sheet


def prediction_grid(rows: Sequence[tuple[Image.Image, str, str, float]]) -> Image.Image:
    """Draw ``(image, truth, prediction, probability)``, about square: right ones framed green, wrong ones red."""
    tiles = [
        Tile(
            image,
            (f"{probability:.0%} {prediction}", "" if truth == prediction else f"is {truth}"),
            _RIGHT if truth == prediction else _WRONG,
        )
        for image, truth, prediction, probability in rows
    ]
    return grid(tiles, max(1, round(len(rows) ** 0.5)), side=156)


def _place(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], side: int) -> None:
    left, top = corner
    room = side - 2 * _FRAME if tile.colour else side
    small = fitted(tile.image, room)
    if tile.colour:
        draw.rectangle((left, top, left + side - 1, top + side - 1), "gainsboro", tile.colour, _FRAME)
    sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
    for number, line in enumerate(tile.lines):
        text, font = lettering(printable(line), 12)
        colour = tile.colour if tile.colour and number == 0 else _INK
        draw.text((left, top + side + 2 + number * _LINE), _shortened(draw, font, text, side), colour, font)


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Return the whole image, as large as a square of ``side`` holds; the pixels of tiny images stay sharp."""
    scale = side / max(image.size)
    size = [max(1, round(length * scale)) for length in image.size]
    return image.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC)


def _captions(texts: Sequence[str], side: int, most: int) -> list[str]:
    """Return each text in lines that are no wider than ``side``, at most so many each."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    found: list[str] = []
    for text in texts:
        shown, font = lettering(printable(text), 12)
        whole = _wrapped(draw, font, shown, side)
        whole = [*whole[: most - 1], "".join(whole[most - 1 :])] if len(whole) > most else whole
        found += [line.rstrip() for line in whole]
    return found


def _broken(draw: ImageDraw.ImageDraw, font: Font, head: str, most: int) -> str:
    """Return the text in at most so many lines; its last line always stays."""
    *first, last = head.split("\n")
    lines = [line.rstrip() for part in first for line in _wrapped(draw, font, part, _HEAD - _GAP)]
    if len(lines) >= most:
        lines = [*lines[: most - 2], f"{lines[most - 2]}…"]
    return "\n".join(_shortened(draw, font, line, _HEAD - _GAP) for line in [*lines, last])


def _wrapped(draw: ImageDraw.ImageDraw, font: Font, text: str, width: int) -> list[str]:
    """Return ``text`` in lines no wider than ``width`` pixels, broken after words, and in those that are too long."""
    lines = [""]
    for word in re.findall(r"[^\s_/.-]*[\s_/.-]?", text):
        for part in [word] if draw.textlength(word.rstrip(), font=font) <= width else word:
            if lines[-1] and draw.textlength((lines[-1] + part).rstrip(), font=font) > width:
                lines.append("")
            lines[-1] += part
    return lines


def _shortened(draw: ImageDraw.ImageDraw, font: Font, text: str, width: int) -> str:
    """Shorten ``text`` until it is no wider than ``width`` pixels."""
    while draw.textlength(text, font=font) > width and len(text) > 2:
        text = text[:-2] + "…"
    return text
