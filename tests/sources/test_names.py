from collections.abc import Callable
from typing import Any

import pytest

from sagitta.dataset.schema import Source
from sagitta.sources.base import SourceOptions

Open = Callable[..., Source]
NUMBERS = dict.fromkeys(["0/a.jpg", "1/b.jpg", "1/c.jpg", "2/d.jpg"])
COUNTED = dict.fromkeys(["1/a.jpg", "2/b.jpg"])
SYNSETS = dict.fromkeys(["n01440764/a.jpg", "n01443537/b.jpg"])
CODES = dict.fromkeys(["cat/a.jpg", "dog/b.jpg"])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (NUMBERS | {"classes.txt": "z\ny\nx\n"}, ("z", "y", "x")),
        (COUNTED | {"classes.txt": "z\ny\n"}, ("z", "y")),
        (COUNTED | {"classes.txt": "1 z\n2 y\n3 x\n"}, ("z", "y")),
        (NUMBERS | {"label_map.json": '{"z": 0, "y": 1, "x": 2}'}, ("z", "y", "x")),
        (NUMBERS | {"class_index.json": '{"0": ["n1", "z"], "1": ["n2", "y"], "2": ["n3", "x"]}'}, ("z", "y", "x")),
        (SYNSETS | {"LOC_synset_mapping.txt": "n01440764 tench, Tin\nn01443537 fish\n"}, ("tench, Tin", "fish")),
        (SYNSETS | {"words.txt": "n01440764\ttench\nn01443537\tgoldfish\nn00000001\tthing\n"}, ("tench", "goldfish")),
        (NUMBERS | {"classes.txt": "z\ny\n"}, ("0", "1", "2")),  # too few
        (NUMBERS | {"classes.txt": "z\ny\ny\n"}, ("0", "1", "2")),  # two of one name
        (CODES | {"classes.txt": "z\ny\n"}, ("cat", "dog")),
        (NUMBERS | {"class_names.csv": "name\nz\ny\nx\n"}, ("z", "y", "x")),  # not "name", z, y
        (COUNTED | {"class_names.csv": "Class Name\nz\ny\n"}, ("z", "y")),
        (COUNTED | {"classes.json": '["z", "y"]'}, ("z", "y")),
    ],
)  # fmt: skip
def test_classes_take_the_names_beside_them(
    open_folder: Open, files: dict[str, Any], expected: tuple[str, ...]
) -> None:
    source = open_folder(files)
    assert source.class_names == expected
    assert set(source.rows["label"].to_pylist()) == set(expected)


@pytest.mark.parametrize(("name", "text"), [("classes.txt", "z\ny\nx\n"), ("classes.json", '["z", "y", "x"]')])
def test_names_that_may_count_from_0_or_from_1_are_not_taken(open_folder: Open, name: str, text: str) -> None:
    source = open_folder(COUNTED | {name: text})
    assert source.class_names == ("1", "2")
    assert source.warnings == (
        f"{name}: counts from 0 or from 1, which no label tells (none is 0 or 3), so classes keep their numbers; "
        "write NUMBER NAME in each line",
    )
    assert open_folder(COUNTED | {name: text, "labels.txt": "1 z\n2 y\n"}).class_names == ("z", "y")


def test_lists_that_differ_name_nothing(open_folder: Open) -> None:
    source = open_folder(NUMBERS | {"classes.txt": "z\ny\nx\n", "names.txt": "x\ny\nz\n"})
    assert source.class_names == ("0", "1", "2")
    assert source.warnings == (
        "classes.txt and names.txt name the classes differently, so they keep their numbers; keep one",
    )
    same = NUMBERS | {"classes.txt": "z\ny\nx\n", "names.txt": "z, Zed\ny\nx\n"}
    assert open_folder(same).class_names == ("z", "y", "x")


def test_several_labels_take_names_too(open_folder: Open) -> None:
    files = dict.fromkeys(["a.jpg", "b.jpg"]) | {"t.csv": "path,label\na.jpg,0 1\nb.jpg,1\n", "classes.txt": "z\ny\n"}
    source = open_folder(files, SourceOptions(label_separator=" "))
    assert source.rows["label"].to_pylist() == [["z", "y"], ["y"]] and source.class_names == ("z", "y")
