"""Small trees, and which of their folders are splits; a path in braces is written out: ``{a,b}/x``."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from sagitta.dataset.schema import Source
from sagitta.errors import SourceError
from sagitta.sources.base import SourceOptions
from sagitta.sources.detect import open_source

Open = Callable[..., Source]
PETS = "{cat,dog}/{1,2}.png"
SETS = [("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")]
"""Split and class of two images each."""


def files(*patterns: str) -> dict[str, None]:
    """Return the names that patterns such as ``train/{cat,dog}/1.png`` stand for."""
    names = []
    for pattern in patterns:
        parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
        parts = [
            [part] if index % 2 == 0 else choices for index, choices in enumerate(parts) for part in [",".join(choices)]
        ]
        names += ["".join(choice) for choice in product(*parts)]
    return dict.fromkeys(names)


def rows(source: Source) -> Counter[tuple[str | None, str]]:
    return Counter(zip(source.rows["split"].to_pylist(), source.rows["label"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ("training_set", "test_set", "training_set -> train, test_set -> test"),
        ("train", "eval", "train -> train, eval -> test"),
        ("Training", "holdout", "Training -> train, holdout -> test"),
        ("partial-train", "partial-test", "partial-train -> train, partial-test -> test"),
        ("split=train", "split=test", "split=train -> train, split=test -> test"),
        ("birds-train", "birds-test", "birds-train -> train, birds-test -> test"),
        ("trainImages", "testImages", "trainImages -> train, testImages -> test"),
        ("trn", "tst", "trn -> train, tst -> test"),
        ("train", "test", None),
    ],
)
@pytest.mark.parametrize("images", [PETS, "{cat,dog}.{1,2}.png"])
def test_two_folders_of_splits(open_folder: Open, train: str, test: str, said: str | None, images: str) -> None:
    source = open_folder(files(f"{train}/{images}", f"{test}/{images}"))
    assert rows(source) == dict.fromkeys(SETS, 2)
    assert source.notes == ((f"splits: {said}",) if said else ())


def test_a_folder_in_the_folder_of_each_split_is_no_class(open_folder: Open) -> None:
    assert rows(open_folder(files("{train/train,test/test}/" + PETS))) == dict.fromkeys(SETS, 2)


def test_a_folder_that_is_the_same_in_each_split_is_no_class(open_folder: Open) -> None:
    assert rows(open_folder(files("{train,test}/images/" + PETS))) == dict.fromkeys(SETS, 2)


@pytest.mark.parametrize(
    ("patterns", "classes"),
    [
        (["{bullet-train,bus}/{1,2}.png"], "bullet-train bus"),
        (["{bullet-train,test-tube}/{1,2}.png"], "bullet-train test-tube"),
        (["{cat,dog}/images/{1,2}.png"], "cat dog"),
        (["{train,bus,car}/{1,2}.png"], "bus car train"),
        (["{valid,invalid}/{1,2}.png"], "invalid valid"),
        (["{train_cats,train_dogs}/{1,2}.png"], "train_cats train_dogs"),
        (["{mask,no_mask}/{1,2}.png"], "mask no_mask"),
    ],
)
def test_folders_that_are_classes(open_folder: Open, patterns: list[str], classes: str) -> None:
    source = open_folder(files(*patterns))
    assert " ".join(source.class_names) == classes
    assert source.rows["split"].null_count == source.rows.num_rows
    assert source.warnings == ()


def test_folders_in_each_class_are_told(open_folder: Open) -> None:
    source = open_folder(files("{robin,wren}/{male,female}/{1,2}.png"))
    assert source.class_names == ("robin", "wren")
    assert source.warnings == (
        "robin, wren count as classes, though each of them holds female, male; if those are the classes, move them to "
        "the top",
    )


def test_a_class_whose_name_and_folders_look_like_a_split_is_told(open_folder: Open) -> None:
    source = open_folder(files("{bullet-train,bus}/{front,side}/1.png"))
    assert source.class_names == ("bullet-train", "bus")
    assert source.warnings[0] == "bullet-train: counted as a class, though the name holds a word for a split"
    assert source.warnings[1].startswith("bullet-train, bus count as classes, though each of them holds front, side;")


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["{train,extra}/" + PETS], "train seems to be a split, but extra beside it has the same folders"),
        (["{test_set,bus,car}/{1,2}.png"], "test_set seems to be a split, but bus, car beside it are none"),
        (["{train,test}_{cats,dogs}/{1,2}.png"], "test_cats and train_cats look like test and train"),
        (["{a,b}/{train,test}/{good,bad}/1.png"], r"a, b have splits and classes below \(a/test/...\); give one"),
        (["cat/{train,test}/1.png", "dog/{1,2}.png"], r"cat is divided \(cat/test\), but dog not"),
    ],
)
def test_what_may_be_either_is_refused(open_folder: Open, patterns: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_folder(files(*patterns))


def test_other_folders_beside_two_splits_are_left_out_and_named(open_folder: Open) -> None:
    source = open_folder(files("{training_set,test_set}/" + PETS, "single_prediction/{1,2}.png"))
    assert rows(source) == dict.fromkeys(SETS, 2)
    assert source.warnings == ("skipped 2 files outside the split folders: single_prediction",)


@pytest.mark.parametrize("tops", ["fold{1,2,3}", "site_{a,b}", "{color,segmented}"])
def test_folders_of_the_same_folders_are_refused_unless_insisted(open_folder: Open, tops: str) -> None:
    with pytest.raises(SourceError, match=r"cat, dog in each of (fold1|site_a|color), .* seem to be the classes"):
        open_folder(files(f"{tops}/{PETS}"))
    insisted = open_folder(files(f"{tops}/{PETS}"), SourceOptions(layout="folders"))
    assert len(insisted.class_names) == tops.count(",") + 1 and insisted.warnings == ()


def test_splits_in_the_names_of_files_are_told_or_refused(open_folder: Open, tmp_path: Path) -> None:
    source = open_folder(files("{cat,dog}/{train,test}_{1,2}.png"))
    assert source.warnings == (
        "the files' names hold words for splits (cat/test_1.png), which are not used; put the files into folders",
    )
    (tmp_path / "flat").mkdir()
    for name in files("{cat,dog}_{train,test}_{1,2}.png"):
        (tmp_path / "flat" / name).touch()
    with pytest.raises(SourceError, match="cat_test and cat_train look like test and train, not like two classes"):
        open_source(str(tmp_path / "flat"), cache=tmp_path)


def test_splits_in_each_class(open_folder: Open) -> None:
    source = open_folder(files("{cat,dog}/{Training,test}/{1,2}.png", "cat/extra/1.png"))
    assert rows(source) == dict.fromkeys(SETS, 2)
    assert source.warnings == ("skipped 1 file outside the split folders: cat/extra",)


def test_one_product_of_mvtec(open_folder: Open) -> None:
    source = open_folder(
        files("bottle/train/good/{1,2,3}.png", "bottle/test/{good,cut}/1.png", "bottle/ground_truth/cut/1_mask.png")
    )
    assert rows(source) == {("train", "good"): 3, ("test", "good"): 1, ("test", "cut"): 1}
    assert source.notes == ("left out 1 mask (ground_truth)",)
    assert len(source.warnings) == 1
    assert re.search("train has the class 'good' only, .* can be trained on .*/bottle/test by", source.warnings[0])


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["{cat,dog}/{images,masks}/{1,2}.png"], "left out 4 masks (cat/masks, dog/masks)"),
        (["{cat,dog}/x ({1,2}){,_mask,_mask_1}.png"], "left out 8 masks (cat, dog)"),
        (["{cat,dog}/x{1,2}{,_label}.png"], "left out 4 masks (cat, dog)"),
        (["{images,masks}/" + PETS], "left out 4 masks (masks)"),
    ],
)
def test_masks_are_no_images_of_a_class(open_folder: Open, patterns: list[str], said: str) -> None:
    source = open_folder(files(*patterns))
    assert rows(source) == {(None, "cat"): 2, (None, "dog"): 2}
    assert source.notes == (said,)
