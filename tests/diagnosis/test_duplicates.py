from typing import Any

import numpy as np
import pytest

from sagitta.diagnosis.duplicates import Duplicates, Near, duplicate_findings, find_duplicates
from sagitta.diagnosis.looks import look
from sagitta.diagnosis.rows import Rows


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
    assert pairs(found, "label-conflict") == {("train/b/other.jpg", "train/a/03.jpg", "review")}
    (row,) = [row for row in found if row["kind"] == "label-conflict"]
    assert (row["label"], row["split"], row["other_split"]) == ("b", "train", "train") and "but equal to" in row[
        "evidence"
    ]


def test_equal_bytes_are_found_without_a_look(rows: Rows) -> None:
    copies = find_duplicates(rows, look(rows, np.arange(len(rows)), seconds=-1), pairs=10)
    assert [[rows.paths[row] for row in group] for group in copies.exact] == [["train/a/03.jpg", "train/b/other.jpg"]]
    assert copies.near == ()


def test_copies_of_copies_belong_together() -> None:
    units = Duplicates(((0, 4),), (Near(2, 4, 0.9), Near(1, 3, 0.95)), False).units(6)
    assert len({units[0], units[2], units[4]}) == 1 and len({units[1], units[3]}) == 1
    assert len(np.unique(units)) == 3
