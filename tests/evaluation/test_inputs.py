"""What people name, as a list of encoded images."""

import codecs
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagitta.conversion import ConvertOptions, convert
from sagitta.dataset import ShardSet
from sagitta.errors import ConfigError, SagittaError, SourceError
from sagitta.evaluation.inputs import Inputs, open_inputs
from sagitta.sources import open_source

NAMES = ["a/1.png", "a/2.png", "b/3.png", "b/new\nline ü.png"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images in the working directory, below ``photos``, and what lies beside images."""
    for index, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(path)
    for name in ("labels.csv", ".hidden.png"):
        (tmp_path / "photos" / name).write_text("x")
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def names(inputs: Inputs) -> list[str]:
    found = [inputs.name(number) for number in range(len(inputs))]
    assert found == list(inputs.names())
    return found


def values(inputs: Inputs) -> list[int]:
    """Return the value of each image's pixels, which tells the images apart."""
    return [Image.open(io.BytesIO(inputs.read(number))).getpixel((0, 0)) for number in range(len(inputs))]  # type: ignore[misc]


@pytest.mark.usefixtures("folder")
def test_files_folders_and_patterns_in_the_order_given() -> None:
    inputs = open_inputs(["photos/b/3.png", "photos", "photos/*/[12].png", Path("photos/a")])
    assert names(inputs) == [
        "photos/b/3.png",
        *(f"photos/{name}" for name in NAMES),
        *("photos/a/1.png", "photos/a/2.png") * 2,
    ]
    assert values(inputs) == [2, 0, 1, 2, 3, 0, 1, 0, 1]
    assert inputs.file(0) == Path("photos/b/3.png") and not inputs.is_reduced(0)
    assert inputs.notes == ("skipped 1 file of text beside the images (.txt, .csv and the like)",)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_are_read_in_place(folder: Path, kind: str) -> None:
    archive = f"packed.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name in [*NAMES, "labels.csv"]:
                packed.write(folder / name, name)
    else:
        with tarfile.open(archive, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(folder, "")
    inputs = open_inputs([archive, "photos/a/2.png"])
    assert names(inputs) == [*(f"{archive}/{name}" for name in NAMES), "photos/a/2.png"]
    assert values(inputs) == [0, 1, 2, 3, 1] and inputs.file(0) is None
    assert "skipped 1 file of text" in inputs.notes[0]


@pytest.mark.usefixtures("folder")
def test_a_dataset_is_its_rows_by_split() -> None:
    convert(open_source("photos", cache=Path("cache")), Path("data"), ConvertOptions(val=0.5, test=0.0, workers=1))
    shards = ShardSet.open("data")
    train, val = (
        [shards.splits[each].path(row) for row in range(len(shards.splits[each]))] for each in ("train", "val")
    )
    assert names(open_inputs(["data"])) == train + val and sorted(train + val) == sorted(NAMES)
    inputs = open_inputs(["data"], split="val")
    assert names(inputs) == val and inputs.is_reduced(0) and inputs.file(0) is None
    assert values(inputs) == [NAMES.index(name) for name in val]
    with pytest.raises(ConfigError, match=r"no split 'test', only train and val"):
        open_inputs(["data"], split="test")
    with pytest.raises(ConfigError, match="only a dataset has splits"):
        open_inputs(["photos"], split="val")
    opened: list[str] = []

    def converted(name: str) -> ShardSet:
        opened.append(name)
        return shards

    assert len(open_inputs(["digits", "hf://a/b", "photos/labels.csv"], open_data=converted)) == 12
    assert opened == ["digits", "hf://a/b", "photos/labels.csv"]
    assert names(open_inputs(["photos"], split="val", open_data=converted)) == val and opened[3:] == ["photos"]


@pytest.mark.parametrize(("begin", "end"), [(b"", b"\n"), (b"", b"\r\n"), (codecs.BOM_UTF8, b"\r\n"), (b"", b"\0")])
@pytest.mark.usefixtures("folder")
def test_standard_input_is_a_list_of_paths(monkeypatch: pytest.MonkeyPatch, begin: bytes, end: bytes) -> None:
    lines = ["photos/a/2.png", "photos/b"] if end != b"\0" else [f"photos/{NAMES[3]}", "photos/a/2.png"]
    data = begin + end.join(os.fsencode(line) for line in lines) + end
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert values(open_inputs(["-"])) == ([1, 2, 3] if end != b"\0" else [3, 1])


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["photos/c.png"], r"photos/c\.png: no such file"),
        (["photos/*.jpg"], r"photos/\*\.jpg: no file matches"),
        (["https://example.org/a.png"], "nothing is fetched from the net"),
        ([], "no image files in an empty list"),
        (["empty"], "no image files in empty"),
        (["digits"], "digits: no image"),
        (["photos/labels.csv"], r"labels\.csv: no image"),
        (["broken.zip"], r"broken\.zip"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_is_refused_in_one_line(paths: list[str], words: str) -> None:
    Path("empty").mkdir()
    with zipfile.ZipFile("broken.zip", "w") as packed:
        packed.writestr("a.png", b"x" * 100)
    Path("broken.zip").write_bytes(Path("broken.zip").read_bytes()[:60])
    if paths == ["broken.zip"]:  # by its bytes no archive: a row with an error
        assert names(open_inputs(paths)) == paths
        return
    with pytest.raises(SourceError, match=words):
        open_inputs(paths)


@pytest.mark.usefixtures("folder")
def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read() -> None:
    Path("dead.png").symlink_to("nowhere")
    inputs = open_inputs(["dead.png"])
    with pytest.raises(OSError, match="No such file"):
        inputs.read(0)


@pytest.mark.usefixtures("folder")
def test_the_digest_tells_lists_apart() -> None:
    lists = [["photos"], ["photos/a"], ["photos/a", "photos/b"], ["photos/b", "photos/a"]]
    digests = [open_inputs(each).digest() for each in lists]
    assert digests[0] == digests[2] and len(set(digests)) == 3
    with pytest.raises(SagittaError):
        open_inputs([os.fsdecode(b"caf\xe9.png")])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.jpg")
    with pytest.raises(SourceError, match=r"1\.jpg: a pipe or a device, and no file"):
        open_inputs([tmp_path / "1.jpg"])
