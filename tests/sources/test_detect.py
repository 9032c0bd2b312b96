import subprocess
import sys
from pathlib import Path

import pytest

import sagitta
from sagitta.errors import SourceError
from sagitta.sources.base import SourceOptions
from sagitta.sources.detect import LAYOUTS, open_source
from sagitta.sources.words import LAYOUT_NAMES

from .conftest import write_files


def test_a_missing_path_gets_near_matches(tmp_path: Path) -> None:
    write_files(tmp_path, {"butterflies/a.png": None})
    with pytest.raises(SourceError, match=r"butterfly: no such file or folder; did you mean butterflies"):
        open_source(str(tmp_path / "butterfly"), cache=tmp_path)
    with pytest.raises(SourceError, match=r"minst: no such file or folder; did you mean mnist"):
        open_source("minst", cache=tmp_path)
    with pytest.raises(SourceError, match=r"give a path or a built-in: digits, mnist, fashion-mnist, cifar10"):
        open_source("zzz/qqq", cache=tmp_path)


def test_empty_folders_and_files_of_another_kind(tmp_path: Path) -> None:
    write_files(tmp_path, {"empty/.DS_Store": "x", "photo.jpg": None})
    with pytest.raises(SourceError, match=r"empty: empty, no file in it; give the folder that holds the images"):
        open_source(str(tmp_path / "empty"), cache=tmp_path)
    with pytest.raises(SourceError, match=r"photo\.jpg: neither a folder, a whole tar or zip, nor a table"):
        open_source(str(tmp_path / "photo.jpg"), cache=tmp_path)


def test_layouts_by_name(tmp_path: Path) -> None:
    write_files(tmp_path, {"given/cat/1.png": None, "given/dog/1.png": None})
    with pytest.raises(SourceError, match=r"no layout 'folder'; choose one of cifar, idx, .*folders, filenames"):
        open_source(str(tmp_path / "given"), SourceOptions(layout="folder"), cache=tmp_path)
    with pytest.raises(SourceError, match=r"given: not readable as 'cifar'; leave --layout out"):
        open_source(str(tmp_path / "given"), SourceOptions(layout="cifar"), cache=tmp_path)


def test_columns_of_something_that_has_none(tmp_path: Path) -> None:
    write_files(tmp_path, {"given/cat/1.png": None, "given/dog/1.png": None})
    with pytest.raises(SourceError, match=r"class folders have no columns"):
        open_source(str(tmp_path / "given"), SourceOptions(group_column="patient"), cache=tmp_path)


def test_runs_and_datasets_in_the_folder_are_no_classes(tmp_path: Path) -> None:
    """As ``cd photos; sagitta fit .`` leaves them there, for the next time."""
    write_files(tmp_path / "photos", {"cat/1.png": None, "cat/2.png": None, "dog/1.png": None, "dog/2.png": None})
    expected = open_source(str(tmp_path / "photos"), cache=tmp_path)
    sagitta.convert(str(tmp_path / "photos"), str(tmp_path / "photos/parquet"), val=0, test=0, workers=1)
    run = {"run.json": "{}", "config.yaml": "", "predictions/epoch=00.png": None, "tests/1/predictions.parquet": "PAR1"}
    write_files(tmp_path / "photos", {f"runs/photos-1/{name}": data for name, data in run.items()})
    found = open_source(str(tmp_path / "photos"), cache=tmp_path)
    assert found.rows == expected.rows and found.layout == "class folders"
    assert found.notes == (*expected.notes, "left out parquet, runs/photos-1, made by Sagitta")
    (tmp_path / "photos/parquet").rename(tmp_path / "only-this")
    assert open_source(str(tmp_path / "only-this"), cache=tmp_path).layout.startswith("Parquet")


def test_the_printed_line(tmp_path: Path) -> None:
    write_files(tmp_path, {"given/cat/1.png": None, "given/dog/1.png": None, "given/cat/notes.txt": "x"})
    assert open_source(str(tmp_path / "given"), cache=tmp_path).describe() == (
        f"{tmp_path}/given: class folders, 2 images in 2 classes; "
        "skipped 1 file of text beside the images (.txt, .csv and the like); to read it otherwise: --layout NAME"
    )
    assert "--layout" not in open_source("digits", cache=tmp_path).describe()  # nothing was guessed
    with pytest.raises(SourceError, match="digits: built-in, so its layout is known"):
        open_source("digits", SourceOptions(layout="folders"), cache=tmp_path)


def test_what_is_understood_is_said_without_arrow() -> None:
    code = "import sys; from sagitta.sources import UNDERSTOOD; print(UNDERSTOOD); assert 'pyarrow' not in sys.modules"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(word in said for word in ("class folders", "WebDataset", "idx", "CIFAR", "Parquet"))


def test_help_names_every_layout() -> None:
    assert tuple(LAYOUTS) == LAYOUT_NAMES


def test_an_empty_location_is_not_the_working_directory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no DATA given"):
        open_source("", cache=tmp_path)


def test_the_folder_of_one_class_points_to_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"photos/cat/IMG_1.jpg": None, "photos/cat/b.jpg": None, "photos/dog/IMG_2.jpg": None})
    write_files(tmp_path, {"alone/new/a.jpg": None, "alone/.hidden/b.jpg": None, "alone/notes/c.txt": "x"})
    write_files(tmp_path, {"deep/new/a.jpg": None, "deep/photos/cat/b.jpg": None, "deep/c.jpg": None})
    monkeypatch.chdir(tmp_path)
    advice = r"among 2 \.jpg; give the folder above, {}, if its folders are the classes; understood are"
    for given, above in {
        "photos/cat": "photos",
        "photos/cat/": "photos",
        f"{tmp_path}/photos/cat": ".*/photos",
    }.items():
        with pytest.raises(SourceError, match=advice.format(above)):
            open_source(given, cache=tmp_path)
    for given in ("alone/new", "deep/new"):
        with pytest.raises(SourceError, match=r"no images with labels found among 1 \.jpg; understood are"):
            open_source(given, cache=tmp_path)
    monkeypatch.chdir(tmp_path / "photos" / "cat")
    with pytest.raises(SourceError, match=advice.format(r"\.\.")):
        open_source(".", cache=tmp_path)


def test_no_folder_above_is_named_where_no_image_lies_in_the_one_given(tmp_path: Path) -> None:
    write_files(tmp_path, {"photos/cat/a.jpg": None, "photos/dog/b.jpg": None, "photos/notes/c.txt": "x"})
    with pytest.raises(SourceError, match=r"notes: no images with labels found among 1 \.txt; understood are"):
        open_source(str(tmp_path / "photos" / "notes"), cache=tmp_path)
