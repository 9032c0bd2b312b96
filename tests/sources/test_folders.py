from collections.abc import Callable
from pathlib import Path

import pytest

from sagitta.dataset.schema import ROWS, Source
from sagitta.errors import SourceError
from sagitta.sources.base import SourceOptions
from sagitta.sources.detect import open_source
from sagitta.sources.folders import image_files

from .conftest import image, write_files

Open = Callable[..., Source]


def columns(source: Source, *names: str) -> list[tuple[str | None, ...]]:
    return list(zip(*(source.rows[name].to_pylist() for name in names), strict=True))


def test_class_folders_are_labels_and_every_reader_returns_the_bytes(open_files: Open) -> None:
    source = open_files({"dog/b.png": None, "cat/deep/a.JPG": None, "cat/c.webp": None})
    assert source.rows.schema == ROWS
    assert columns(source, "path", "label", "split", "group") == [
        ("cat/c.webp", "cat", None, None),
        ("cat/deep/a.JPG", "cat", None, None),
        ("dog/b.png", "dog", None, None),
    ]
    assert source.class_names == ("cat", "dog")
    assert [source.reader.read(path) for path in source.rows["path"].to_pylist()] == [image(2), image(1), image(0)]
    assert source.rows["size"].to_pylist() == [len(image(2)), len(image(1)), len(image(0))]


def test_split_folders_in_any_case(open_files: Open) -> None:
    files = {"Train/cat/1.png": None, "train/dog/1.png": None, "VALID/cat/2.png": None, "testing/dog/3.png": None}
    source = open_files(files)
    assert columns(source, "path", "label", "split") == [
        ("Train/cat/1.png", "cat", "train"),
        ("VALID/cat/2.png", "cat", "val"),
        ("testing/dog/3.png", "dog", "test"),
        ("train/dog/1.png", "dog", "train"),
    ]


def test_kaggle_file_names_in_one_folder_and_in_two(open_files: Open) -> None:
    source = open_files(
        {"train/cat.0.jpg": None, "train/cat.1.jpg": None, "train/dog.0.jpg": None, "test/dog.1.jpg": None}
    )
    assert columns(source, "label", "split") == [("dog", "test"), ("cat", "train"), ("cat", "train"), ("dog", "train")]


def test_what_kaggle_leaves_without_a_label_is_counted(open_folder: Open) -> None:
    files = {f"train/{name}.{index}.jpg": None for name in ("cat", "dog") for index in range(2)}
    source = open_folder(files | {f"test1/{index}.jpg": None for index in range(9)})
    assert source.rows.num_rows == 4
    assert source.notes == ("splits: train -> train, test1 -> test", "skipped 9 files without a label")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat.0.jpg", "cat"),
        ("dog-12.jpeg", "dog"),
        ("great_pyrenees_3.png", "great_pyrenees"),
        ("n01440764_10026.JPEG", "n01440764"),
        ("cat (1).jpg", "cat"),
        ("blaues_auge_2.jpg", "blaues_auge"),
    ],
)
def test_label_in_a_file_name(open_folder: Open, name: str, label: str) -> None:
    stem, dot, suffix = name.rpartition(".")
    source = open_folder({name: None, f"{stem}1{dot}{suffix}": None, "zebra.1.png": None, "zebra.2.png": None})
    assert source.class_names == (label, "zebra")


@pytest.mark.parametrize("names", [["a.jpg", "b.jpg"], ["IMG_1.jpg", "IMG_2.jpg"], ["2019-01.jpg", "2019-02.jpg"]])
def test_file_names_that_are_no_labels_are_refused(open_folder: Open, names: list[str]) -> None:
    with pytest.raises(SourceError, match=r"no images with labels found among .*; understood are class folders"):
        open_folder(dict.fromkeys(names))


def test_what_cameras_call_their_files_is_no_class(open_folder: Open) -> None:
    files = {f"{name}_{i:04}.jpg": None for name in ("DSC", "IMG", "WhatsApp Image") for i in range(3)}
    with pytest.raises(SourceError, match="no images with labels found"):
        open_folder(files)
    assert open_folder(files, SourceOptions(layout="filenames")).class_names == ("DSC", "IMG", "WhatsApp Image")
    assert open_folder(files | {"owl_1.jpg": None, "owl_2.jpg": None}).class_names[-1] == "owl"


def test_a_split_folder_without_a_class_is_warned_of(open_folder: Open) -> None:
    """ImageNet's val, whose classes are elsewhere: val is made of train then."""
    files = {f"train/{name}/{i}.jpg": None for name in ("cat", "dog") for i in range(3)}
    source = open_folder(files | {"val/1.jpg": None, "val/2.jpg": None})
    assert source.warnings == ("val: none of its 2 files has a class, so it is no val",)
    assert not open_folder(files | {"val/cat/1.jpg": None, "val/2.jpg": None}).warnings


def test_integer_classes_are_in_numeric_order(open_folder: Open) -> None:
    assert open_folder({f"{label}/x.png": None for label in (10, 9, 0, 2)}).class_names == ("0", "2", "9", "10")


def test_every_file_in_a_class_folder_is_a_row_but_side_files_and_junk(open_files: Open) -> None:
    source = open_files(
        {"cat/a": None, "cat/b.tar": "no image", "cat/c.jpg": "", "dog/d.png": None}
        | dict.fromkeys(
            ["cat/notes.txt", "cat/.DS_Store", "__MACOSX/cat/._a", "dog/Thumbs.db", ".git/config", "README.md"], "x"
        )
    )
    assert columns(source, "path") == [("cat/a",), ("cat/b.tar",), ("cat/c.jpg",), ("dog/d.png",)]
    assert source.notes == ("skipped 2 files of text beside the images (.txt, .csv and the like)",)


def test_one_folder_called_train_among_others_is_a_class(open_folder: Open) -> None:
    source = open_folder({"train/1.png": None, "car/1.png": None, "bus/1.png": None})
    assert source.class_names == ("bus", "car", "train")


def test_folders_beside_the_splits_are_counted(open_folder: Open) -> None:
    source = open_folder({"train/a/1.png": None, "val/b/1.png": None, "extra/c/1.png": None})
    assert source.class_names == ("a", "b")
    assert source.warnings == ("skipped 1 file outside the split folders: extra",)


def test_a_lone_split_folder_beside_as_many_images_is_refused(open_folder: Open) -> None:
    files = {f"{folder}{name}.{index}.jpg": None for folder in ("", "test/") for name in ("a", "b") for index in "12"}
    with pytest.raises(SourceError, match="test is a split, but 4 files beside it are in none; give them a folder"):
        open_folder(files)


@pytest.mark.parametrize("wrapper", ["test", "data/Validation_set/images"])
def test_a_wrapper_that_names_a_split_is_kept(open_files: Open, wrapper: str) -> None:
    source = open_files({f"{wrapper}/cat/1.png": None, f"{wrapper}/dog/1.png": None})
    assert set(source.rows["split"].to_pylist()) == {"test" if wrapper == "test" else "val"}


def test_folders_in_a_class_and_files_beside_the_only_folder_are_said(open_folder: Open) -> None:
    names = [f"labeled/{kind}/{place}/{index}.png" for kind in ("cat", "dog") for place in "ab" for index in range(2)]
    source = open_folder(dict.fromkeys([*names, "unlabeled/1.png", "unlabeled/2.png"]))
    assert source.notes == ("folders in a class count for it (cat: a, b)", "skipped 2 files beside labeled")


@pytest.mark.parametrize("unlabelled", ["_unlabeled", "unlabelled", "train/unlabeled"])
def test_folders_of_what_nobody_labelled_are_no_class(open_folder: Open, unlabelled: str) -> None:
    files = {f"{split}/{label}/1.png": None for split in ("train", "test") for label in ("cat", "dog")}
    source = open_folder(files | {f"{unlabelled}/{index}.png": None for index in range(9)})
    assert (source.class_names, source.rows.num_rows) == (("cat", "dog"), 4)
    assert source.notes == ("skipped 9 files without a label",)


def test_empty_folders_of_classes_are_named(open_files: Open, tmp_path: Path) -> None:
    for folder in ("train/emu", "test/cat/sub", "test/dog"):
        (tmp_path / "given" / folder).mkdir(parents=True)
    (tmp_path / "given/test/dog/.DS_Store").touch()
    source = open_files({f"{split}/{label}/1.png": None for split in ("train", "test") for label in ("cat", "owl")})
    assert source.warnings == ("no image in 2 folders: test/dog, train/emu",)
    assert source.class_names == ("cat", "owl")


def test_a_single_top_folder_is_a_wrapper_unless_it_is_the_only_class(open_files: Open) -> None:
    assert open_files({"wrapper/cat/1.png": None, "wrapper/dog/1.png": None, "README.md": "x"}).class_names == (
        "cat",
        "dog",
    )


def test_one_class_is_left_to_conversion(open_folder: Open) -> None:
    assert open_folder({"cat/1.png": None, "cat/2.png": None}).class_names == ("cat",)


def test_a_forced_layout_wins_over_detection(open_folder: Open) -> None:
    files = {f"pets/{name}.{index}.jpg": None for name in ("cat", "dog") for index in range(2)}
    assert open_folder(files).class_names == ("cat", "dog")
    assert open_folder(files, SourceOptions(layout="folders")).class_names == ("pets",)


def test_dogs_vs_cats_as_kaggle_has_it(data_dir: Path, tmp_path: Path) -> None:
    source = open_source(str(data_dir / "dogs-vs-cats"), cache=tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.rows["split"].to_pylist().count("train") == 320
    assert source.rows["split"].to_pylist().count("test") == 160
    assert source.layout == "test/train folders of file names (cat.0.jpg)"
    assert "480 images in 2 classes (train 320, test 160)" in source.describe()


def test_butterflies(data_dir: Path, tmp_path: Path) -> None:
    source = open_source(str(data_dir / "butterflies"), cache=tmp_path)
    assert (source.rows.num_rows, len(source.class_names), source.layout) == (440, 10, "class folders")


def test_file_names_of_one_class_are_read_where_it_may_be_one(open_folder: Open) -> None:
    files = {f"cat.{index}.jpg": None for index in range(3)}
    with pytest.raises(SourceError, match="no images with labels found"):
        open_folder(files)
    assert open_folder(files, SourceOptions(one_class=True)).class_names == ("cat",)
    folders = {f"dog/img_{index}.jpg": None for index in range(3)}
    assert open_folder(folders, SourceOptions(one_class=True)).class_names == ("dog",)


def test_pictures_of_a_run_are_no_images_to_predict(tmp_path: Path) -> None:
    run = {"run.json": "{}", "config.yaml": "", "predictions/epoch=00.png": None}
    write_files(tmp_path / "photos", {f"runs/a-1/{name}": data for name, data in run.items()})
    assert image_files(tmp_path / "photos") == (["runs/a-1/predictions/epoch=00.png"], 2)  # asked for by itself
    write_files(tmp_path / "photos", {"cat/1.png": None, "notes.txt": "x"})
    assert image_files(tmp_path / "photos") == (["cat/1.png"], 1)
