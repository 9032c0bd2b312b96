import numpy as np

from sagitta.diagnosis.cues import cue_findings
from sagitta.diagnosis.looks import look
from sagitta.diagnosis.rows import Rows
from tests.diagnosis.conftest import Maker, picture, saved


def cues(rows: Rows) -> list[str]:
    every = np.arange(len(rows))
    return [row["evidence"].split(",")[0] for row in cue_findings(rows, look(rows, every), every)]


def test_a_size_that_gives_the_class_away_is_named(rows_of_files: Maker) -> None:
    files = {
        f"{name}/{number}.jpg": saved(picture(number + 50 * (name == "b"), 60 + number % 3 + 8 * (name == "b")))
        for name in "ab"
        for number in range(20)
    }
    assert "image size alone" in cues(rows_of_files(files))


def test_nothing_is_named_where_nothing_gives_it_away(rows_of_files: Maker) -> None:
    files = {
        f"{name}/{number}.jpg": saved(picture(number + 50 * (name == "b"), 60 + number % 7))
        for name in "ab"
        for number in range(20)
    }
    assert cues(rows_of_files(files)) == []


def test_files_that_differ_in_nothing_but_their_pixels_give_nothing_away(rows_of_files: Maker) -> None:
    files = {
        f"{name}/{number}.bmp": saved(picture(number + 50 * (name == "b")), "BMP")
        for name in "ab"
        for number in range(20)
    }
    assert cues(rows_of_files(files)) == []
