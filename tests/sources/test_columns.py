from collections.abc import Mapping, Sequence

import pyarrow as pa
import pytest

from sagitta.sources.columns import Columns
from sagitta.sources.matching import Finder
from sagitta.sources.tree import FolderReader, Tree

NAMES = [f"{number}.jpg" for number in range(8)]
FILES = Finder(Tree("given", lambda: dict.fromkeys(NAMES, 1), FolderReader("/nowhere")))
AB = ["a", "b"] * 4


def columns(table: Mapping[str, Sequence[object]]) -> Columns:
    return Columns("t.csv", pa.table(dict(table)), FILES)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"what": NAMES, "label": AB}, "what"),
        ({"id": range(8), "label": AB}, "id"),
        ({"label": range(8), "photo_file": NAMES}, "photo_file"),
        ({"id": [*range(1, 8), 0], "filename": range(8), "label": AB}, "filename"),  # id numbers the rows
        ({"id": range(8), "image_id": range(90, 98), "label": AB}, "id"),
        ({"epoch": range(8), "lr": AB}, None),  # numbers in a column of no such name
        ({"id": range(90, 98), "label": AB}, None),
        ({"name": AB, "x": AB}, None),
    ],
)
def test_the_column_of_files(table: Mapping[str, Sequence[object]], expected: str | None) -> None:
    assert columns(table).path() == expected


@pytest.mark.parametrize(
    ("table", "path", "rival"),
    [
        ({"before": NAMES, "after": NAMES[::-1]}, "before", "after"),
        ({"image1": NAMES, "image2": NAMES[::-1]}, "image1", "image2"),
        ({"mask_path": NAMES[::-1], "photo_path": NAMES}, "photo_path", None),
        ({"thumbnail": NAMES[::-1], "image": NAMES}, "image", None),
        ({"what": NAMES[::-1], "image": NAMES}, "image", None),
        ({"image": NAMES, "url": [f"http://h/{name}" for name in NAMES]}, "image", None),
        ({"id": [*range(1, 8), 0], "filename": range(8)}, "filename", None),
        ({"id": [*range(1, 8), 0], "scan": range(8)}, "id", "scan"),  # which of them numbers the rows?
        ({"id": [*range(1, 8), 0], "index": range(8), "column 3": range(8)}, "id", None),
        ({"id": [*range(1, 8), 0], "age": range(4, 12)}, "id", None),
    ],
)
def test_columns_of_other_files(table: Mapping[str, Sequence[object]], path: str, rival: str | None) -> None:
    found = columns({"label": AB, **table})
    assert (found.path(), found.rival(path)) == (path, rival)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"label": AB}, "class in 'label'"),
        ({"Finding Labels": AB, "Patient ID": AB, "View": AB}, "class in 'Finding Labels'"),
        ({"whatever": AB, "width": AB, "fold": AB, "sex": AB}, "class in 'whatever'"),
        ({"label": [0, 1] * 4, "class_name": AB}, "class in 'class_name'"),
        ({"level": [0, 1] * 4}, "class in 'level'"),
        ({"cat": [0.0, 1.0] * 4, "bat": [1.0, 0.0] * 4}, "2 classes by 0 and 1 in 'cat', 'bat'"),
        ({"old": [-1, 1] * 4, "bald": [1, 1] * 4}, "2 classes by 0 and 1 in 'old', 'bald'"),
        ({"score": [0.1, 0.2] * 4, "split": ["train", "test"] * 4, "n": range(8)}, ""),
        ({"label": [None] * 8}, ""),
        ({"top": [0] * 8, "left": [0] * 8}, ""),  # 0 everywhere is no class
        ({"y": AB}, "class in 'y'"),
        ({"y": [0, 1] * 4, "place": ["sea", "sea", "land", "land"] * 2}, "class in 'y'"),  # WILDS' Waterbirds
        ({"y": [0, 1] * 4, "species": AB}, "class in 'species'"),
        ({"x": [3, 4] * 4, "y": [0, 1] * 4, "place": AB}, "class in 'place'"),
        ({"y": [0.5, 1.25] * 4, "place": AB}, "class in 'place'"),
        ({"a": [1, 1] * 4, "b": [0, 1] * 4, "c": [0, 0, 1, 1] * 2}, "3 classes by 0 and 1 in 'a', 'b', 'c'"),
        ({"animal": AB, "blur": ["0.2", "0.3"] * 4, "light": ["0.9", "0.9"] * 4}, "class in 'animal'"),
    ],
)
def test_the_column_of_classes(table: Mapping[str, Sequence[object]], expected: str) -> None:
    found = columns({"id": NAMES, **table}).labels("id", ())
    assert (str(found) if found else "") == expected and found.doubt is None


@pytest.mark.parametrize(
    ("table", "doubt"),
    [
        ({"one": AB, "two": ["a", "a", "b", "b"] * 2}, "'one', 'two' may each be the class"),
        ({"label": AB, "target": ["a", "a", "b", "b"] * 2}, "'label', 'target' may each"),
        ({"edema": ["1", "", "0", "-1"] * 2, "mass": ["1", "0"] * 4}, "also -1 or nothing"),
        ({"xmin": range(8), "what": AB}, "xmin say where objects are"),
        ({"column 2": [0, 1] * 4, "column 3": [1, 0] * 4}, "columns of 0 and 1 have no names"),
        (
            {"smoker": [0, 1, 1, 0] * 2, "a": [1, 0, 0, 0] * 2, "b": [0, 1, 0, 0] * 2, "c": [0, 0, 1, 1] * 2},
            "each row has exactly one of a, b, c, so 'smoker' may be no class of theirs",
        ),
        (
            {"a": [0.75, 0.25] * 4, "b": [0.25, 0.75] * 4, "seen": AB},
            "a, b are shares of each row, and 'seen' may be the class",
        ),
    ],
)
def test_what_may_be_the_class_is_in_doubt(table: Mapping[str, Sequence[object]], doubt: str) -> None:
    assert doubt in str(columns({"id": NAMES, **table}).labels("id", ()).doubt)


def test_a_column_that_says_what_belongs_together() -> None:
    assert columns({"id": NAMES, "Lesion-ID": AB, "label": AB}).group("id", "label") == "Lesion-ID"
    assert columns({"id": NAMES, "animal": AB}).group("id", None) is None
    assert columns({"id": NAMES, "patient_id": range(8)}).group("id", None) is None
