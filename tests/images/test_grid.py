"""Grids of images: everything in its place, whatever the number of tiles and the length of names."""

import numpy as np
import pytest
from PIL import Image

from sagitta.images.grid import Tile, grid, prediction_grid


def inked(sheet: Image.Image, box: tuple[int, int, int, int]) -> bool:
    return bool((np.asarray(sheet.crop(box)) < 255).any())


@pytest.mark.parametrize(("lines", "columns"), [(1, 8), (2, 8), (12, 8), (4, 4)])
def test_tiles_stand_in_lines_beside_their_heads(lines: int, columns: int) -> None:
    tiles = [Tile(Image.new("RGB", (64, 64), "black"))] * (lines * columns)
    sheet = grid(tiles, columns, heads=["an_extraordinarily_" * 9 + "\n7 in train"] * lines)
    assert sheet.size == (208 + columns * 136, 8 + lines * 136)
    pixels = np.asarray(sheet)[..., 0]
    across, down = np.flatnonzero((pixels == 0).any(axis=0)), np.flatnonzero((pixels == 0).any(axis=1))
    assert [len(across), len(down)] == [columns * 128, lines * 128]
    assert inked(sheet, (8, 8, 192, 136)) and not inked(sheet, (193, 0, 200, sheet.height))
    for line in range(lines + 1):  # nor does text reach the next line's
        assert not inked(sheet, (0, line * 136, sheet.width, line * 136 + 8))


def test_a_place_may_be_empty_and_an_image_is_shown_whole() -> None:
    wide = Image.new("RGB", (200, 100), "red")
    sheet = grid([Tile(wide), None], 2, side=100)
    assert inked(sheet, (8, 33, 108, 83)) and not inked(sheet, (8, 8, 108, 33)) and not inked(sheet, (108, 0, 216, 116))


@pytest.mark.parametrize("count", [1, 2, 12, 16])
def test_captions_of_predictions_stay_in_their_columns(count: int) -> None:
    rows = [(Image.new("L", (28, 28)), "truth " * 20, "W" * 80, 0.5)] * count
    sheet = prediction_grid(rows)
    columns = max(1, round(count**0.5))
    assert sheet.width == 8 + columns * 164
    for column in range(columns + 1):
        assert not inked(sheet, (column * 164, 0, column * 164 + 8, sheet.height))


def test_a_note_stands_above_everything_else() -> None:
    tiles = [Tile(Image.new("RGB", (64, 64), "black"))] * 2
    plain, noted = grid(tiles, 2), grid(tiles, 2, note="12 of 300 classes")
    assert noted.height == plain.height + 24 and inked(noted, (8, 8, noted.width, 28))
    assert not inked(noted, (0, 29, noted.width, 32))
    assert np.array_equal(np.asarray(noted)[32:], np.asarray(plain)[8:])


def test_a_name_in_two_lines_stays_in_one() -> None:
    image = Image.new("RGB", (28, 28))
    assert prediction_grid([(image, "a\nb", "a\tb", 0.5)]).size == prediction_grid([(image, "a", "b", 0.5)]).size


def test_a_long_caption_is_broken_where_lines_are_allowed_and_never_wider_than_its_image() -> None:
    tiles = [Tile(Image.new("RGB", (64, 64), "black"), ["Heliconius_charitonius_" * 2]), None]
    one, two = grid(tiles, 2, side=128), grid(tiles, 2, side=128, lines=2)
    assert two.height == one.height + 15 and inked(two, (8, 153, 136, 168))
    assert not inked(two, (136, 0, two.width, two.height))


def test_a_caption_takes_no_more_lines_than_it_needs() -> None:
    tiles = [Tile(Image.new("RGB", (64, 64), "black"), ["a.jpg", "train: a"])]
    assert grid(tiles, 1, lines=2).size == grid(tiles, 1).size
