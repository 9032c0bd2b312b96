"""Several labels a row: lists and separated text are told from class names with a semicolon in them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.dataset.schema import Source
from sagitta.errors import SourceError
from sagitta.sources.base import SourceOptions, several_labels
from sagitta.sources.detect import open_source

from .conftest import image, write_files

Open = Callable[..., Source]
PHOTOS = dict.fromkeys(["a.jpg", "b.png", "c.webp", "d.png"])
COMBINED = "path,label\na.jpg,red;round\nb.png,round;blue\nc.webp,\nd.png,blue; red ;red\n"


def test_separated_labels_are_detected(open_files: Open) -> None:
    source = open_files(PHOTOS | {"labels.csv": COMBINED})
    assert source.multilabel and source.class_names == ("blue", "red", "round")
    assert source.rows["label"].to_pylist() == [["red", "round"], ["round", "blue"], [], ["blue", "red"]]
    assert "several labels a row, separated by ';'" in source.describe()


def test_one_label_a_row_can_be_asked_for(open_folder: Open) -> None:
    table = COMBINED.replace("c.webp,\n", "c.webp,red\n")
    source = open_folder(PHOTOS | {"labels.csv": table}, SourceOptions(label_separator=""))
    assert not source.multilabel and len(source.class_names) == 4


@pytest.mark.parametrize(
    ("cells", "separator", "expected"),
    [
        (["tench; Tinca tinca", "goldfish; Carassius", "tench; Tinca tinca"], None, None),
        (["animal;dog", "animal;cat", "plant;rose", "plant;oak"], None, None),
        (["cat", "dog"], None, None),
        (["a|b", "b|c", "c|a", None], None, [["a", "b"], ["b", "c"], ["c", "a"], []]),
        (["haze primary", "clear", None], " ", [["haze", "primary"], ["clear"], []]),
        (["a,b", "c"], ",", [["a", "b"], ["c"]]),
        ([["a", "b"], []], None, [["a", "b"], []]),
    ],
)
def test_only_recurring_parts_are_labels(
    cells: list[str | list[str] | None], separator: str | None, expected: list[list[str]] | None
) -> None:
    found, note = several_labels(cells, separator)
    assert found == expected
    assert (note is not None) == (expected is not None or ";" in str(cells))


def test_names_with_a_semicolon_are_mentioned(open_folder: Open) -> None:
    table = "path,label\na.jpg,tench; Tinca\nb.png,tench; Tinca\nc.webp,cat\nd.png,cat\n"
    source = open_folder(PHOTOS | {"labels.csv": table})
    assert source.class_names == ("cat", "tench; Tinca") and "--label-separator ';'" in source.describe()


def test_lists_in_a_parquet_manifest(tmp_path: Path) -> None:
    write_files(tmp_path, PHOTOS)
    labels = pa.array([["x", "y"], [], None, ["y", " y", None]], pa.list_(pa.string()))
    pq.write_table(pa.table({"path": list(PHOTOS), "labels": labels}), tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"), cache=tmp_path)
    assert source.rows["label"].to_pylist() == [["x", "y"], [], [], ["y"]]
    numbers = pa.array([[1, 10], [2], [], [10]])
    pq.write_table(pa.table({"path": list(PHOTOS), "labels": numbers}), tmp_path / "t.parquet")
    assert open_source(str(tmp_path / "t.parquet"), cache=tmp_path).class_names == ("1", "2", "10")
    pq.write_table(pa.table({"path": list(PHOTOS), "labels": [[{"a": 1}]] * 4}), tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="column 'labels' holds no lists of text or numbers"):
        open_source(str(tmp_path / "t.parquet"), cache=tmp_path)


def test_lists_beside_images_in_parquet(tmp_path: Path) -> None:
    images = [image(index) for index in range(4)]
    labels = pa.array([["x", "y"], [], None, ["y"]], pa.list_(pa.string()))
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train.parquet")
    source = open_source(str(tmp_path), cache=tmp_path / "cache")
    assert source.rows["label"].to_pylist() == [["x", "y"], [], ["y"]]
    assert "skipped 1 row without a label" in source.describe()
    pq.write_table(pa.table({"image": images, "label": ["x y", "y", "x", None]}), tmp_path / "train.parquet")
    source = open_source(str(tmp_path), SourceOptions(label_separator=" "), cache=tmp_path / "cache")
    assert source.rows["label"].to_pylist() == [["x", "y"], ["y"], ["x"]]


def test_a_separator_is_for_tables_only(open_folder: Open) -> None:
    with pytest.raises(SourceError, match="a column can only be named for a table"):
        open_folder({"a/1.png": None, "b/2.png": None}, SourceOptions(label_separator=";", layout="folders"))


def test_names_that_may_be_one_are_warned_of(open_folder: Open) -> None:
    names = ["A", "a", "caf\u00e9", "cafe\u0301", "b"]
    table = "path,label\n" + "".join(f"{path},{name}\n" for path, name in zip([*PHOTOS, "e.png"], names, strict=True))
    (warning,) = open_folder(PHOTOS | {"e.png": None, "labels.csv": table}).warnings
    assert "'A' and 'a', 'cafe\\u0301' and 'caf\\xe9'" in warning


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        ("Great Dane,great_dane,great  dane,Great-Dane", True),
        ("cat,cat\u200b", True),
        ("7,07", True),
        ("1.0,x,1", True),
        ("1,-1", False),
        ("cat,cats", False),
        ("a1,a-1", False),
    ],
)
def test_what_is_written_for_a_blank_or_not_seen_makes_no_other_name(
    open_folder: Open, names: str, alike: bool
) -> None:
    files: dict[str, Any] = {f"{number}.jpg": None for number in range(names.count(",") + 1)}
    table = "path,label\n" + "".join(f"{path},{name}\n" for path, name in zip(files, names.split(","), strict=True))
    warnings = open_folder(files | {"labels.csv": table}).warnings
    assert [warning.partition(":")[0] for warning in warnings] == ["classes that may be one"] * alike


def test_class_names_are_one_line(open_folder: Open) -> None:
    with pytest.raises(SourceError, match=r"class name 'd\\no' is blank or holds a line break"):
        open_folder({"cat/1.png": None, "d\no/2.png": None}, SourceOptions(layout="folders"))


@pytest.mark.parametrize(
    ("texts", "column", "asked"),
    [
        (["horse person", "car", "chair person"], "labels", "' '"),
        (["a b", "b c", "c a"], "label", "' '"),
        (["golden retriever", "labrador retriever", "cat"], "label", None),
        (["a,b", "b,c", "b"], "kind", "','"),
        (["Mass", "Mass|Nodule"], "Finding Labels", "'|'"),
        (["great white shark", "tench, Tinca tinca"], "labels", None),
        (["cat", "dog", "cat, dog"], "label", "','"),  # not ' ', which would make a class "cat,"
        (["cat", "dog", "cat & dog"], "label", "'&'"),
        (["cat", "dog", "cat and dog"], "label", "' and '"),
        (["cat", "dog", "cat_dog", "owl_x"], "label", None),
        (["cat", "dog", "cat+dog"], "label", "'+'"),
        (["cat", "dog", "cat/dog", "dog/cat"], "labels", "'/'"),
        (["apple_scab", "apple_rot", "apple"], "label", None),
        (["1", "2", "1-2"], "grade", None),
    ],
)
def test_parts_that_may_be_labels_are_asked_about(texts: list[str], column: str, asked: str | None) -> None:
    if asked is None:
        assert several_labels(texts, None, column)[0] is None
    else:
        with pytest.raises(SourceError, match=f"--label-separator {re.escape(asked)}; if that is one class"):
            several_labels(texts, None, column)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["['a', 'b']", "['b']", "[]", None], [["a", "b"], ["b"], [], []]),
        (['["a", "\\u00e9"]', '["it\'s"]'], [["a", "\u00e9"], ["it's"]]),
        (["""["it's", 'b', 'b']"""], [["it's", "b"]]),
        (["[0, 2]", "[1]"], [["0", "2"], ["1"]]),
        (["('a', 'b')", "('c',)"], [["a", "b"], ["c"]]),
        (["(wild)", "(tame)"], None),
        (["[a]", "b"], None),
    ],
)
@pytest.mark.parametrize("separator", [None, ","])
def test_lists_written_as_text_are_lists(
    cells: list[str | None], separator: str | None, expected: list[list[str]] | None
) -> None:
    found, _ = several_labels(cells, separator)
    assert found == (expected or (separator and [[str(cell)] for cell in cells]))
    assert several_labels(cells, "") == (None, None)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["['a' 'b']", "['a']"], "holds \"['a' 'b']\", which is no list"),  # NumPy's; Python joins the two
        (["{a,b}", "{a}"], "holds '{a,b}', which is no list"),  # PostgreSQL's
        (["[1, 0, 0]", "[0, 1, 1]"], "holds 0 and 1 at 3 places"),
        (["[True, False]", "[False, False]"], "holds 0 and 1 at 2 places"),
    ],
)
def test_lists_that_tell_no_labels_are_refused(cells: list[str | None], message: str) -> None:
    with pytest.raises(SourceError, match=re.escape(f"t.csv: column 'labels' {message}")):
        several_labels(cells, None, "labels", "t.csv")


def test_flags_at_the_places_of_classes_are_no_labels(tmp_path: Path) -> None:
    """A list column of a multi-hot vector would be rows of the two classes 0 and 1."""
    write_files(tmp_path / "photos", PHOTOS)
    images = [image(index) for index in range(4)]
    flagged: list[tuple[int, list[Any]]] = [
        (3, [[1, 0, 0], [0, 1, 1]] * 2),
        (2, [[0.0, 1.0], [1.0, 0.0]] * 2),
        (2, [[True, False], None] * 2),
    ]
    for places, flags in flagged:
        pq.write_table(pa.table({"path": list(PHOTOS), "labels": flags}), tmp_path / "photos/t.parquet")
        pq.write_table(pa.table({"image": images, "labels": flags}), tmp_path / "train.parquet")
        for where in ("photos/t.parquet", "train.parquet"):
            with pytest.raises(SourceError, match=rf"'labels' holds 0 and 1 at {places} places"):
                open_source(str(tmp_path / where), cache=tmp_path)


def test_whole_numbers_of_two_spellings_are_one_class(open_folder: Open) -> None:
    """A table that was joined of two, of which one had empty cells, has 1 and 1.0."""
    table = "path,label\na.jpg,0\nb.png,0.0\nc.webp,1\nd.png,1.0\n"
    source = open_folder(PHOTOS | {"labels.csv": table})
    assert source.class_names == ("0", "1") and source.rows["label"].to_pylist() == ["0", "0", "1", "1"]
    assert open_folder(PHOTOS | {"labels.csv": table.replace("1.0", "x")}).class_names == ("0", "0.0", "1", "x")
