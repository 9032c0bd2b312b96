from collections.abc import Sequence

import pytest

from sagitta.sources.matching import Finder
from sagitta.sources.tree import FolderReader, Tree


def tree(*names: str) -> Tree:
    return Tree("given", lambda: dict.fromkeys(names, 1), FolderReader("/nowhere"))


def find(names: Sequence[str], values: Sequence[str], table: str = "labels.csv") -> list[list[str]]:
    return Finder(tree(*names)).find(table, values)


@pytest.mark.parametrize(
    "value",
    [
        "img/a.JPG",
        "./img/a.JPG",
        "img\\a.JPG",
        "a.JPG",
        "a.jpg",
        "a",
        "C:/photos/img/a.jpg",
        "gs://bucket/x/img/a.jpg",
        "https://host/a.jpg?width=1&d=2",
        "https://host/img/a%2Ejpg",
        "/data/upload/7/a.jpg",
        "/data/upload/7/0123abcd-a.jpg",
        "/data/local-files/?d=img/a.jpg",
    ],
)
def test_ways_to_name_a_file(value: str) -> None:
    assert find(["img/a.JPG", "img/b.jpg", "img/a.xml"], [value]) == [["img/a.JPG"]]


def test_a_name_in_another_form_of_unicode() -> None:
    assert find(["img/e\u0301.jpg"], ["\xe9.jpg"]) == [["img/e\u0301.jpg"]]


def test_names_with_dots_and_without_an_extension() -> None:
    assert find(["t/ID_1.5.jpg", "t/ID_1.jpg"], ["ID_1.5", "ID_1"]) == [["t/ID_1.5.jpg"], ["t/ID_1.jpg"]]
    assert find(["t/a1", "t/b.dcm"], ["a1", "b"]) == [["t/a1"], ["t/b.dcm"]]


def test_folders_are_dropped_only_where_all_values_share_them() -> None:
    names = ["cat/1.jpg", "cat/2.jpg", "dog/3.jpg"]
    assert find(names, ["set/cat/1.jpg", "set/dog/3.jpg"]) == [["cat/1.jpg"], ["dog/3.jpg"]]
    assert find(names, ["dog/1.jpg", "cat/2.jpg"]) == [[], ["cat/2.jpg"]]  # not the cat of that number
    assert find(["test/1.jpg"], ["x/train/1.jpg", "x/train/2.jpg"]) == [[], []]
    assert find(["flat/1.jpg", "flat/2.jpg"], ["a/1.jpg", "b/2.jpg"]) == [["flat/1.jpg"], ["flat/2.jpg"]]
    assert find(["flat/1.jpg", "flat/2.jpg"], ["a/1.jpg", "b/1.jpg"]) == [[], []]


def test_of_several_the_likelier_is_taken() -> None:
    assert find(["train/1.jpg", "test/1.jpg"], ["1"], "test.csv") == [["test/1.jpg"]]
    assert find(["a/1.jpg", "b/1.jpg"], ["1"], "b/labels.csv") == [["b/1.jpg"]]
    assert find(["images/1.png", "masks/1.png"], ["1"]) == [["images/1.png"]]
    assert find(["a/1.jpg", "b/1.jpg"], ["1"]) == [["a/1.jpg", "b/1.jpg"]]


def test_what_is_near_is_named() -> None:
    finder = Finder(tree("img/0007.png", "img/b.tif"))
    assert [finder.near(value) for value in ("7", "b.jpg", "9")] == ["img/0007.png", "img/b.tif", None]
