"""Images in folders of their classes: safe names, nothing replaced, nothing twice."""

import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from sagitta.errors import ConfigError
from sagitta.evaluation.inputs import open_inputs
from sagitta.evaluation.predictor import Predicted
from sagitta.evaluation.sorting import Sorter, check_apart, folder_names


def test_a_class_never_names_a_place_outside() -> None:
    names = ["../x", "a/b", "a\\b", "..", "", "Cat", "cat", "none", ".hidden", "x" * 300, "nul\0\n", "ä" * 150]
    found = folder_names(names)
    assert found[:9] == ["_x", "a_b", "a_b-2", "_", "_-2", "Cat", "cat-2", "none-2", "hidden"]
    assert found[9] == "x" * 200 and found[10] == "nul__" and found[11] == "ä" * 100
    assert len({name.casefold() for name in found}) == len(names)


def found(classes: dict[int, list[int]]) -> Predicted:
    return Predicted(pa.record_batch({}), range(9), classes, {}, Counter(), Counter())


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("copy", [False, True])
def test_nothing_is_replaced_and_a_second_time_changes_nothing(tmp_path: Path, copy: bool) -> None:
    for name, text in {"a/1.jpg": "one", "b/1.jpg": "two", "b/2.jpg": "three"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("c/1.jpg", "four")
    (out := tmp_path / "out" / "cat").mkdir(parents=True)
    (out / "2.jpg").write_text("mine")
    inputs = open_inputs([tmp_path / "a", tmp_path / "b", tmp_path / "packed.zip"])
    for _ in range(2):
        sorter = Sorter(tmp_path / "out", inputs, ["cat", "dog/wolf"], copy=copy)
        sorter.put(found({0: [0], 1: [0, 1], 2: [0], 3: [0]}))
        assert sorter.sorted == 4
        assert tree(tmp_path / "out") == {
            "cat/1.jpg": "one", "cat/1-2.jpg": "two", "cat/2.jpg": "mine", "cat/2-2.jpg": "three",
            "cat/1-3.jpg": "four", "dog_wolf/1.jpg": "two",
        }  # fmt: skip
    assert (out / "1.jpg").samefile(tmp_path / "a" / "1.jpg") is not copy


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_text("one")
    (folder := tmp_path / "out" / "cat").mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        for name in (f".{gone.pid}.tmp", f".{os.getpid()}.tmp", f".{other.pid}.tmp", ".mine.tmp"):
            (folder / name).write_text("half")
        Sorter(tmp_path / "out", open_inputs([tmp_path / "1.jpg"]), ["cat"], copy=True).put(found({0: [0]}))
        assert tree(tmp_path / "out") == {
            f"cat/.{other.pid}.tmp": "half",  # which is still at it
            "cat/.mine.tmp": "half",
            "cat/1.jpg": "one",
        }
        other.communicate(b"\n")


def test_several_labels_and_none(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_text("one")
    Sorter(tmp_path / "out", open_inputs([tmp_path / "1.jpg"]), ["cat", "dog"]).put(found({0: []}))
    assert tree(tmp_path / "out") == {"none/1.jpg": "one"}


def test_folders_within_what_is_predicted_are_refused(tmp_path: Path) -> None:
    for root in (tmp_path / "photos" / "sorted", tmp_path / "photos"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="would be found again"):
            check_apart(root, [tmp_path / "photos"])
    check_apart(tmp_path / "sorted", [tmp_path / "photos", "-"])
