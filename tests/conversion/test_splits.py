from contextlib import suppress
from random import Random

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagitta.conversion.splits import SplitRule, as_given, assign, check_splits, deal, for_training
from sagitta.dataset.schema import ROWS
from sagitta.errors import ConfigError, SourceError
from sagitta.files import content_hash

Row = tuple[int, int, int | None]  # class, content, group

NEITHER = SplitRule((), {"test": 0.2, "val": 0.1}, seed=0)


def listing(splits: list[str | None]) -> pa.Table:
    count = len(splits)
    columns = [[f"{index}.png" for index in range(count)], ["a"] * count, splits, [None] * count, [1] * count]
    return pa.table(columns, schema=ROWS)


def split(rows: list[Row], rule: SplitRule = NEITHER) -> npt.NDArray[np.str_]:
    labels = np.array([label for label, _, _ in rows])
    hashes = [content_hash(str(content).encode()) for _, content, _ in rows]
    groups = [None if group is None else str(group) for _, _, group in rows]
    return assign(rule, labels, [None] * len(rows), hashes, groups)


def test_given_splits_are_kept_and_the_missing_ones_made() -> None:
    assert for_training(listing([None] * 3), None, None, 0) == SplitRule((), {"test": 0.1, "val": 0.1}, 0)
    assert for_training(listing(["train", "test"]), None, None, 0) == SplitRule(("train", "test"), {"val": 0.1}, 0)
    assert for_training(listing(["train", "val"]), None, None, 0) == SplitRule(("train", "val"), {}, 0)
    assert for_training(listing(["train", "val"]), None, 0.2, 0).made == {"test": 0.2}
    assert for_training(listing(["train", "val"]), 0.0, 0.2, 0).given == ("train", "val")
    assert for_training(listing([None] * 3), 0.0, 0.3, 0).made == {"test": 0.3}
    assert for_training(listing(["train", "test"]), 0.0, None, 0).made == {}


def test_the_rule_says_itself_in_words() -> None:
    words = str(for_training(listing(["train", "test"]), 0.25, None, 7))
    assert words.startswith("train, test as the source gives them; made from train: val 0.25 of each class")
    assert "seed 7" in words


@pytest.mark.parametrize(("val", "test"), [(1.0, None), (-0.1, None), (0.5, 0.5), (None, 0.95)])
def test_shares_that_do_not_fit_are_refused(val: float | None, test: float | None) -> None:
    with pytest.raises(ConfigError, match=r"val|test"):
        for_training(listing([None] * 3), val, test, 0)


@pytest.mark.parametrize(
    ("val", "test", "words"), [(0.5, 0.2, "val 0.5: the source has a val"), (None, 0.2, "test 0.2")]
)
def test_a_share_of_what_is_given_is_refused(val: float | None, test: float | None, words: str) -> None:
    """It would change nothing, in silence."""
    with pytest.raises(ConfigError, match=f"{words}.*kept; leave it out"):
        for_training(listing(["train", "val", "test"]), val, test, 0)


def test_splits_for_some_rows_or_without_train_are_refused() -> None:
    with pytest.raises(SourceError, match=r"1\.png \(row 1\) has no split"):
        for_training(listing(["train", None]), None, None, 0)
    with pytest.raises(SourceError, match="only val and test"):
        for_training(listing(["val", "test"]), None, None, 0)


def test_a_lone_split_is_divided_for_training_and_said_where_it_is_not_train() -> None:
    rule = for_training(listing(["test"] * 30), None, None, 0)
    assert (rule.given, rule.made) == ((), {"test": 0.1, "val": 0.1})
    assert rule.warning == "all of it is test, so it counts as not split"
    assert for_training(listing(["train"] * 30), None, None, 0).warning is None
    hashes = [content_hash(str(row).encode()) for row in range(30)]
    splits = assign(rule, np.zeros(30, np.int64), ["test"] * 30, hashes, [None] * 30)
    assert [int((splits == name).sum()) for name in ("train", "val", "test")] == [24, 3, 3]


@pytest.mark.parametrize(
    ("given", "expected"), [(["test", None, "train"], ["test", "val", "train"]), ([None], ["val"])]
)
def test_to_test_or_validate_nothing_is_divided(given: list[str | None], expected: list[str]) -> None:
    rule = as_given(listing(given), "val")
    count = len(given)
    hashes = [content_hash(str(row).encode()) for row in range(count)]
    assert assign(rule, np.zeros(count, np.int64), given, hashes, [None] * count).tolist() == expected
    assert "the others are val, undivided" in str(rule)


def test_shares_hold_within_each_class() -> None:
    splits = split([(row % 2, row, None) for row in range(200)])
    counts = [[int((splits[label::2] == name).sum()) for name in ("train", "val", "test")] for label in (0, 1)]
    assert counts == [[70, 10, 20], [70, 10, 20]]


def test_small_classes_give_one_row_to_each_split_from_three_rows_on() -> None:
    three = split([(0, row, None) for row in range(3)])
    two = split([(0, row, None) for row in range(2)])
    assert sorted(three) == ["test", "train", "val"]
    assert list(two) == ["train", "train"]


@st.composite
def datasets(draw: st.DrawFn) -> list[Row]:
    row = st.tuples(st.integers(0, 3), st.integers(0, 60), st.none() | st.integers(0, 12))
    return draw(st.lists(row, min_size=1, max_size=80))


@settings(max_examples=60, deadline=None)
@given(datasets())
def test_identical_images_and_groups_stay_together_and_training_keeps_some(rows: list[Row]) -> None:
    splits = split(rows)
    for column in (1, 2):
        values = {row[column] for row in rows} - {None}
        for value in values:
            assert len({splits[index] for index, row in enumerate(rows) if row[column] == value}) == 1
    assert (splits == "train").any()


@settings(max_examples=40, deadline=None)
@given(datasets(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[Row], random: Random) -> None:
    # A class of a unit with a tie is that of its first row, so only rows whose class follows from their content.
    rows = [(content % 3, content, None) for _, content, _ in rows]
    order = list(range(len(rows)))
    random.shuffle(order)
    assert list(split([rows[index] for index in order])) == list(split(rows)[order])


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 150), st.integers(1, 10))
def test_adding_rows_moves_only_those_at_the_edge(count: int, added: int) -> None:
    before = split([(0, row, None) for row in range(count)])
    after = split([(0, row, None) for row in range(count + added)])[:count]
    # Each edge (test to val, val to train) moves by at most the rows that joined, or left with them.
    assert int((before != after).sum()) <= 2 * added


def test_the_seed_decides() -> None:
    rows: list[Row] = [(0, row, None) for row in range(100)]
    one, other = (split(rows, SplitRule((), {"val": 0.5}, seed)) for seed in (0, 1))
    assert 20 < int((one != other).sum()) < 80


def test_a_unit_belongs_to_the_class_of_most_of_its_rows() -> None:
    """The group of ten, nine of them of class 1, uses up test's share of class 1 and none of class 0."""
    rows: list[Row] = [(0, row, None) for row in range(50)]
    rows += [*((1, 100 + row, 5) for row in range(9)), (0, 109, 5)]
    splits = split(rows, SplitRule((), {"test": 0.2}, 0))
    assert set(splits[50:]) == {"train"}  # class 1 is this one unit, and training keeps it
    assert (splits[:50] == "test").sum() == 10


def check(labels: list[int], splits: list[str], rule: SplitRule = NEITHER) -> None:
    check_splits(rule, ("ant", "bee", "cow"), np.array(labels), np.array(splits))


def test_a_class_that_training_lacks_is_named() -> None:
    with pytest.raises(SourceError, match="'cow' is in test but has no image in train"):
        check([0, 1, 2], ["train", "train", "test"], SplitRule(("train", "test"), {}, 0))
    with pytest.raises(SourceError, match=r"'cow' is in test .* mend the labels"):
        check([0, 0, 1, 1, 2, 2], ["train"] * 4 + ["test"] * 2)


def test_one_class_is_named() -> None:
    with pytest.raises(SourceError, match=r"one class only \('bee'\)"):
        check([1, 1], ["train", "train"])


def dealt(folds: int, rows: list[Row], seed: int = 0) -> npt.NDArray[np.int64]:
    hashes = [content_hash(str(content).encode()) for _, content, _ in rows]
    groups = [None if group is None else str(group) for _, _, group in rows]
    return deal(folds, seed, np.array([label for label, _, _ in rows]), hashes, groups)


def test_each_fold_has_its_share_of_every_class_and_a_rare_one_is_dealt_out() -> None:
    rows: list[Row] = [(label, number, None) for number, label in enumerate([0] * 50 + [1] * 23 + [2] * 3 + [3])]
    folds = dealt(5, rows)
    counts = np.array([np.bincount(folds[[row[0] == label for row in rows]], minlength=5) for label in range(4)])
    assert counts[0].tolist() == [10] * 5 and sorted(counts[1]) == [4, 4, 5, 5, 5]
    assert sorted(counts[2]) == [0, 0, 1, 1, 1] and sorted(counts[3]) == [0, 0, 0, 0, 1]
    assert np.ptp(np.bincount(folds)) <= 1
    order = list(range(len(rows)))
    Random(1).shuffle(order)
    assert dealt(5, [rows[row] for row in order]).tolist() == folds[order].tolist()  # of content alone, not of order
    assert (dealt(5, rows, seed=1) != folds).any()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.none() | st.integers(0, 8)), min_size=1, max_size=60),
    st.integers(2, 4),
)
@settings(max_examples=50, deadline=None)
def test_no_image_and_no_group_is_in_two_folds(rows: list[Row], folds: int) -> None:
    with suppress(ConfigError):  # fewer rows that differ than folds
        check_dealt(rows, folds)


def check_dealt(rows: list[Row], folds: int) -> None:
    found = dealt(folds, rows)
    assert set(found) == set(range(folds))
    for column in (1, 2):
        for value in {row[column] for row in rows} - {None}:
            assert len({fold for fold, row in zip(found, rows, strict=True) if row[column] == value}) == 1


def test_groups_of_several_classes_are_dealt_by_the_shares_of_all_of_them() -> None:
    rows: list[Row] = [(row % 2, row, row // 4) for row in range(48)]  # twelve groups of two rows of each class
    folds = dealt(3, rows)
    assert [np.bincount(folds[[row[0] == label for row in rows]]).tolist() for label in (0, 1)] == [[8] * 3] * 2


def test_of_several_labels_each_is_dealt() -> None:
    targets = np.random.default_rng(0).random((120, 4)) < (0.5, 0.3, 0.2, 0.05)
    hashes = [content_hash(str(row).encode()) for row in range(120)]
    folds = deal(4, 0, targets, hashes, [None] * 120)
    counts = np.stack([targets[folds == fold].sum(axis=0) for fold in range(4)])
    assert np.bincount(folds).tolist() == [30] * 4 or np.ptp(np.bincount(folds)) <= 4
    assert (np.ptp(counts, axis=0) <= 3).all()


def test_more_folds_than_rows_that_differ_are_refused() -> None:
    with pytest.raises(ConfigError, match="--folds 4: only 3 rows or groups"):
        dealt(4, [(0, 1, None), (0, 1, None), (1, 2, None), (1, 3, None)])
