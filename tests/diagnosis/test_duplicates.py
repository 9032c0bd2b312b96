from typing import Any

import numpy as np
import pytest
from PIL import Image

from sagitta.diagnosis.duplicates import Duplicates, Near, duplicate_findings, find_duplicates
from sagitta.diagnosis.looks import look
from sagitta.diagnosis.rows import Rows
from tests.diagnosis.conftest import Maker, picture, saved


@pytest.fixture
def found(rows: Rows) -> list[dict[str, Any]]:
    copies = find_duplicates(rows, look(rows, np.arange(len(rows))), pairs=1000)
    assert not copies.skipped
    return list(duplicate_findings(rows, copies))


def pairs(found: list[dict[str, Any]], kind: str) -> set[tuple[str, str, str]]:
    return {(row["path"], row["other_path"], row["action"]) for row in found if row["kind"] == kind}


def test_copies_by_pixels_are_found_whatever_their_files_are(found: list[dict[str, Any]]) -> None:
    assert pairs(found, "exact-leak") == {
        ("train/a/00.jpg", "test/a/same.jpg", "drop"),
        ("train/a/02.jpg", "val/a/turned.png", "drop"),
    }
    assert pairs(found, "exact-duplicate") == {
        ("train/a/saved.png", "train/a/01.jpg", "drop"),
        ("train/b/other.jpg", "train/a/03.jpg", "review"),  # of two labels, which of them is right?
    }


def test_near_copies_are_found_and_nothing_else(found: list[dict[str, Any]]) -> None:
    assert pairs(found, "near-leak") == {("train/b/01.jpg", "test/b/crop.jpg", "review")}
    near = {frozenset(pair[:2]) for pair in pairs(found, "near-duplicate")}
    assert near == {
        frozenset(("train/b/00.jpg", "train/b/small.jpg")),
        frozenset(("train/b/02.jpg", "train/b/bright.jpg")),
    }


def test_one_image_under_two_labels_is_a_conflict(found: list[dict[str, Any]]) -> None:
    assert pairs(found, "label-conflict") == {
        ("train/b/other.jpg", "train/a/03.jpg", "review"),
        ("train/a/03.jpg", "train/b/other.jpg", "none"),  # either may be the wrong one; a review of all keeps one
    }
    other, third = (row for row in found if row["kind"] == "label-conflict")
    assert other["evidence"] == "b, but equal to train/a/03.jpg (a, train)"
    assert third["evidence"] == "a, but equal to train/b/other.jpg (b, train)"
    assert [(row["label"], row["proposed_label"]) for row in (other, third)] == [("b", "a"), ("a", "b")]


def test_equal_bytes_are_found_without_a_look(rows: Rows) -> None:
    copies = find_duplicates(rows, look(rows, np.arange(len(rows)), seconds=-1), pairs=10)
    assert [[rows.paths[row] for row in group] for group in copies.exact] == [["train/a/03.jpg", "train/b/other.jpg"]]
    assert copies.near == ()


def test_copies_of_copies_belong_together() -> None:
    units = Duplicates(((0, 4),), (Near(2, 4, 0.9), Near(1, 3, 0.95)), False).units(6)
    assert len({units[0], units[2], units[4]}) == 1 and len({units[1], units[3]}) == 1
    assert len(np.unique(units)) == 3


def turned_files() -> dict[str, bytes]:
    """Two splits of sound images; copies that are mirrored and turned, exactly and recompressed, of train/a/0 to 4."""
    images = {
        f"{split}/{name}/{n}": picture(n + 20 * (name == "b") + 40 * (split == "test"))
        for split in ("train", "test")
        for name in "ab"
        for n in range(6)
    }
    image = {n: images[f"train/a/{n}"] for n in range(5)}
    mirrored, quarter = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90
    return {f"{name}.png": saved(each, "PNG") for name, each in images.items()} | {
        "test/a/mirrored.png": saved(image[0].transpose(mirrored), "PNG"),
        "train/a/quarter.png": saved(image[1].transpose(quarter), "PNG"),
        "train/a/recompressed.jpg": saved(image[2].transpose(mirrored), quality=50),
        "test/b/turned.jpg": saved(image[3].transpose(quarter), quality=50),
        "train/a/symmetric.png": saved(symmetric := Image.fromarray(np.hstack([half, half[:, ::-1]])), "PNG"),
        "train/a/lighter.jpg": saved(symmetric, quality=60),
    }


half = np.asarray(picture(90))[:, :60]


def test_mirrored_and_turned_copies_are_near_ones_in_words_of_their_own(rows_of_files: Maker) -> None:
    rows = rows_of_files(turned_files())
    looks = look(rows, np.arange(len(rows)))
    copies = find_duplicates(rows, looks, pairs=1000)
    found = {row["path"]: row for row in duplicate_findings(rows, copies)}
    assert {path: (row["kind"], row["other_path"], row["action"]) for path, row in found.items()} == {
        "train/a/0.png": ("near-leak", "test/a/mirrored.png", "review"),
        "train/a/quarter.png": ("near-duplicate", "train/a/1.png", "none"),
        "train/a/recompressed.jpg": ("near-duplicate", "train/a/2.png", "none"),
        "train/a/3.png": ("near-leak", "test/b/turned.jpg", "review"),  # and no conflict: mirrored, it may be another
        "train/a/symmetric.png": ("near-duplicate", "train/a/lighter.jpg", "none"),
    }
    words = {path: row["evidence"] for path, row in found.items()}
    assert words["train/a/0.png"] == (
        "mirrored, it has the same pixels as test/a/mirrored.png (test); "
        "drop takes this one, of train; that of test stays"
    )
    assert words["train/a/quarter.png"].startswith(
        "turned by 90 degrees, it has the same pixels as train/a/1.png (train)"
    )
    assert words["train/a/recompressed.jpg"].startswith("mirrored, 9")
    assert words["train/a/3.png"].startswith("turned by 90 degrees, 9") and "(test, there b)" in words["train/a/3.png"]
    assert "mirrored" not in words["train/a/symmetric.png"]  # it is like its own mirror image, but alike as it is
    upright = find_duplicates(rows, looks, pairs=1000, turned=False)
    assert [rows.paths[pair.one] for pair in upright.near] == ["train/a/lighter.jpg"]
    assert len(np.unique(copies.units(len(rows)))) == len(rows) - 5  # judged by none that has seen the mirror image


def test_of_a_leak_the_copy_in_train_goes_and_that_is_said(found: list[dict[str, Any]]) -> None:
    leaks = [row for row in found if row["kind"].endswith("leak")]
    assert leaks and all(row["split"] == "train" for row in leaks)
    for row in leaks:
        assert row["evidence"].endswith(f"; drop takes this one, of train; that of {row['other_split']} stays")


def test_a_mirrored_copy_of_a_nearly_symmetric_picture_is_called_one(rows_of_files: Maker) -> None:
    files = {f"{name}/{n}.png": saved(picture(n + 20 * (name == "b")), "PNG") for name in "ab" for n in range(6)}
    pixels = np.hstack([half, half[:, ::-1]]).astype(np.float32)
    own = Image.fromarray(np.uint8(0.8 * pixels + 0.2 * np.asarray(picture(91))))
    files["a/own.png"] = saved(own, "PNG")
    files["a/mirrored.jpg"] = saved(own.transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=70)
    rows = rows_of_files(files)
    copies = find_duplicates(rows, look(rows, np.arange(len(rows))), pairs=1000)
    upright = find_duplicates(rows, look(rows, np.arange(len(rows))), pairs=1000, turned=False)
    assert len(upright.near) == 1 and upright.near[0].score < 0.94  # it looks like its mirror image
    assert [pair.symmetry for pair in copies.near] == [1]
