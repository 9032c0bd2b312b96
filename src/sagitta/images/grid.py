"""Pictures of pictures: images with captions in rows and columns."""

from typing import Any

from PIL import Image, ImageDraw, ImageFont

_TILE = 160  # pixels a side of one image in the grid
_CAPTION = 36
_RIGHT, _WRONG = (34, 139, 34), (200, 30, 30)


def prediction_grid(rows: list[tuple[Image.Image, str, str, float]]) -> Image.Image:
    """Draw ``(image, truth, prediction, probability)`` as a grid with captions, about square."""
    columns = max(1, round(len(rows) ** 0.5))
    lines = -(-len(rows) // columns)
    grid = Image.new("RGB", (columns * (_TILE + 8), lines * (_TILE + _CAPTION + 8)), "white")
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(12)
    for index, (image, truth, prediction, probability) in enumerate(rows):
        left, top = index % columns * (_TILE + 8) + 4, index // columns * (_TILE + _CAPTION + 8) + 4
        colour = _RIGHT if truth == prediction else _WRONG
        scale = (_TILE - 6) / max(image.size)
        small = image.resize(
            [max(1, round(side * scale)) for side in image.size],
            Image.Resampling.NEAREST if scale > 1 else None,
        )
        draw.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), fill="gainsboro", outline=colour, width=3)
        grid.paste(small, (left + (_TILE - small.width) // 2, top + (_TILE - small.height) // 2))
        draw.text(
            (left, top + _TILE + 2),
            _fit(draw, font, f"{prediction} {probability:.0%}"),
            fill=colour,
            font=font,
        )
        if truth != prediction:
            draw.text((left, top + _TILE + 17), _fit(draw, font, f"is {truth}"), fill="black", font=font)
    return grid


def _fit(draw: ImageDraw.ImageDraw, font: Any, text: str) -> str:
    """Shorten ``text`` until it is no wider than a tile."""
    while draw.textlength(text, font=font) > _TILE and len(text) > 2:
        text = text[:-2] + "…"
    return text
