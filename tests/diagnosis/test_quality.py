import numpy as np
import pytest
from PIL import Image, ImageFilter

from sagitta.diagnosis.looks import look
from sagitta.diagnosis.quality import quality_findings
from sagitta.diagnosis.rows import Rows
from tests.diagnosis.conftest import Maker, picture, saved


def named(rows: Rows, side: int | None = None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in quality_findings(rows, look(rows, np.arange(len(rows))), side):
        found.setdefault(row["kind"], []).append(row["path"])
    return found


def test_odd_images_are_named_and_no_others(rows: Rows) -> None:
    assert named(rows) == {
        "blank": ["train/a/blank.jpg"], "dark": ["train/b/dark.jpg"], "odd-aspect": ["train/a/wide.jpg"],
    }  # fmt: skip


def test_blurred_bright_tiny_and_small_images_are_named(rows_of_files: Maker) -> None:
    files = {
        f"{name}/{number}.jpg": saved(picture(number + 50 * (name == "b"), 200))
        for name in "ab"
        for number in range(15)
    }
    files["a/soft.jpg"] = saved(picture(90, 200).filter(ImageFilter.GaussianBlur(8)))
    files["a/light.jpg"] = saved(Image.fromarray(np.uint8(223 + np.asarray(picture(91, 200)) // 8)))
    files["b/tiny.jpg"] = saved(picture(92, 20))
    rows = rows_of_files(files)
    found = named(rows, 100)
    assert found == {
        "blurred": ["a/soft.jpg"], "bright": ["a/light.jpg"], "tiny": ["b/tiny.jpg"], "small-for-model": ["b/tiny.jpg"],
    }  # fmt: skip


def test_what_is_usual_in_a_dataset_is_not_odd(rows_of_files: Maker) -> None:
    files = {
        f"{name}/{number}.png": saved(picture(number + 50 * (name == "b"), 24), "PNG")
        for name in "ab"
        for number in range(5)
    }
    dark = {
        f"{name}/dark{number}.png": saved(Image.fromarray(np.uint8(np.asarray(picture(number, 24)) // 8)), "PNG")
        for name in "ab"
        for number in (7, 8)
    }
    assert named(rows_of_files(files | dark)) == {}


@pytest.mark.parametrize(("side", "count"), [(None, 0), (100, 1), (1000, 50)])
def test_sizes_are_judged_by_the_input_of_the_model(rows: Rows, side: int | None, count: int) -> None:
    assert len(named(rows, side).get("small-for-model", [])) == count


def test_scores_are_what_was_measured_never_below_zero(rows: Rows) -> None:
    found = {row["kind"]: row["score"] for row in quality_findings(rows, look(rows, np.arange(len(rows))), 1000)}
    assert str(found["blank"]) == "0.0" and 0 < found["dark"] < 40 and found["small-for-model"] >= 60
