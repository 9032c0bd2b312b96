import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagitta.dataset.splitwords import (
    mapping_note,
    may_be_a_class,
    read_split_column,
    split_columns,
    split_in,
    split_of,
    split_of_file,
    splits_of_files,
    without_split,
)

HUB = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The words that the Hugging Face Hub documents."""
WORDS = [(word, split) for split, words in HUB.items() for word in words]
NO_LETTERS = st.text("-_. =0123456789/", max_size=4)


@given(st.sampled_from(WORDS), NO_LETTERS, NO_LETTERS, st.sampled_from([str.lower, str.upper, str.title]))
def test_every_word_of_the_hub_is_known_between_what_are_no_letters(word, before, after, case) -> None:  # type: ignore[no-untyped-def]
    name = before.replace("/", "_") + case(word[0]) + after.replace("/", "_")
    assert split_of(name) == split_in(name) == word[1]
    assert split_of_file(f"data/{name}/0.parquet") == word[1]


@given(st.sampled_from(WORDS), st.text("abcxyzé", min_size=1, max_size=3), st.booleans())
def test_no_word_is_known_within_another(word, letters, first) -> None:  # type: ignore[no-untyped-def]
    assert split_in(letters + word[0] if first else word[0] + letters) is None


@pytest.mark.parametrize(
    ("text", "split", "only"),
    [
        ("training_set", "train", True),
        ("test_set", "test", True),
        ("TrainingSet", "train", True),
        ("valset", "val", True),
        ("partial-train", "train", True),
        ("split=test", "test", True),
        ("x-train", "train", True),
        ("val2017", "val", True),
        ("test1", "test", True),
        ("holdout", "test", True),
        ("Hold-out", "test", True),
        ("held_out", "test", True),
        ("private", "test", True),
        ("PublicTest", "test", False),
        ("bullet-train", "train", False),
        ("seg_train", "train", True),
        ("train_val", "train", True),
        ("train_test_split", None, False),
        ("non-test", None, False),
        ("public", None, False),
        ("e\u0301val", None, False),
        ("trains", None, False),
        ("", None, False),
    ],
)
def test_a_name_and_whether_it_says_anything_else(text: str, split: str | None, only: bool) -> None:
    assert (split_in(text), split_of(text)) == (split, split if only else None)


def test_words_that_name_classes_as_well() -> None:
    assert [name for name in ("train", "Valid", "test", "training_set", "private") if may_be_a_class(name)] == [
        "train",
        "Valid",
        "private",
    ]
    assert [without_split(name) for name in ("train_cats", "CatsTest", "test")] == ["cats", "cats", ""]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("data/test.parquet", "test"),
        ("validation/0.parquet", "val"),
        ("my_dev_set.parquet", "val"),
        ("imagenet-train-000003.tar", "train"),
        ("trainLabels.csv", "train"),
        ("XTest.csv", "test"),
        ("TRAIN/x.csv", "train"),
        ("testing", "test"),
        ("val/train.parquet", "train"),
        ("train/fold/0.parquet", "train"),
        ("train_val.csv", "train"),
        ("latest/0.parquet", None),
        ("contest.parquet", None),
        ("retrain/devices.csv", None),
    ],
)
def test_words_of_splits(name: str, split: str | None) -> None:
    assert split_of_file(name) == split


def test_folders_that_hold_all_files_tell_only_where_nothing_else_does() -> None:
    assert splits_of_files(["test/a/train.parquet", "test/a/b.parquet"]) == ["train", "train"]
    assert splits_of_files(["test/a.parquet", "test/b.parquet"]) == ["test", "test"]
    assert splits_of_files(["test/a.parquet", "testing/b.parquet", "c.parquet"]) == ["test", "test", "train"]
    assert splits_of_files(["a.parquet", "b/c.parquet"]) == [None, None]


def test_what_was_mapped_is_said_unless_it_is_the_splits_own_name() -> None:
    assert mapping_note([("train", "train"), ("test", "test"), ("extra", None)]) is None
    assert mapping_note([("training_set", "train"), ("test", "test")]) == "training_set -> train, test -> test"


def test_columns_that_may_hold_splits() -> None:
    names = ["id", "is_test", "Usage", "Split", "valid", "Train", "test result", "label", "fold"]
    assert split_columns(names) == ["Split", "Usage", "is_test", "valid", "Train"]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("split", ["train", "dev", "holdout", "private", None], ["train", "val", "test", "test", None]),
        ("Usage", ["Training", "PublicTest", "PrivateTest"], ["train", "test", "test"]),
        ("is_valid", ["True", "False"], ["val", "train"]),
        ("is_test", ["0", "1"], ["train", "test"]),
        ("is_train", ["true", "false"], ["train", "test"]),
        ("valid", ["TRUE", "FALSE", ""], ["val", "train", None]),
        ("ml_use", ["TRAINING", "UNASSIGNED"], ["train", None]),
    ],
)
def test_values_of_a_column(name: str, values: list[str | None], expected: list[str | None]) -> None:
    column = read_split_column(name, values, asked=False)
    assert column is not None
    assert ([column.splits[value] for value in values], column.unknown) == (expected, ())


@pytest.mark.parametrize(
    ("name", "values", "unknown"),
    [
        ("split", ["0", "1", "2"], ("0", "1", "2")),
        ("split", ["train", "fold3", "public"], ("fold3", "public")),
        ("dataset", ["train", "extra"], ("extra",)),
    ],
)
def test_values_that_tell_nothing(name: str, values: list[str], unknown: tuple[str, ...]) -> None:
    column = read_split_column(name, values, asked=False)
    assert column is not None and column.unknown == unknown


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("test", ["0", "1"]),
        ("valid", ["yes it is"]),
        ("usage", ["private", "commercial"]),
        ("dataset", ["ham", "isic"]),
    ],
)
def test_columns_of_something_else(name: str, values: list[str]) -> None:
    assert read_split_column(name, values, asked=False) is None
