import numpy as np
import pyarrow as pa

from sagitta.conversion.doubts import doubts, group_overlap, lost
from sagitta.conversion.splits import SplitRule

NAMES = ("ant", "bee", "cow")
GIVEN = SplitRule(("train", "test"), {}, 0)


def said(labels: list[int], splits: list[str], hashes: str | None = None, rule: SplitRule = GIVEN) -> list[str]:
    count = len(labels)
    content = list(hashes or "abcdefghijklmnopqrstuvwxyz"[:count])
    paths = [f"{row}.png" for row in range(count)]
    return list(doubts(rule, NAMES, np.array(labels), np.array(splits), content, paths))


def test_nothing_is_said_where_all_is_well() -> None:
    assert said([0, 0, 1, 1, 2, 2], ["train", "test"] * 3) == []


def test_a_class_with_one_image_and_a_class_that_test_lacks_are_named() -> None:
    single, lacking = said([0, 0, 1, 1, 2], ["train", "test", "train", "test", "train"])
    assert single.startswith("1 class has a single readable image, kept in train: cow (--min-images 2")
    assert lacking == "test has no image of 1 class of 3: cow; its figures say nothing about them"


def test_shares_that_small_classes_make_larger_are_said() -> None:
    """Three images a class asked for a tenth each become a third each."""
    labels, splits = [0, 0, 0, 1, 1, 1, 2, 2, 2], ["train", "val", "test"] * 3
    rule = SplitRule((), {"test": 0.1, "val": 0.1}, 0)
    assert said(labels, splits, rule=rule) == [
        f"{name} has 33% of all images where 10% was asked for: each class gives at least one image, and groups "
        "and copies stay together"
        for name in ("test", "val")
    ]


def test_a_split_that_got_no_image_is_missed() -> None:
    rule = SplitRule((), {"val": 0.1}, 0)
    assert said([0, 0, 1, 1], ["train"] * 4, rule=rule) == [
        "there is no val: no class has three different images; add some to each class"
    ]


def test_identical_images_under_two_labels_or_in_two_splits_are_named() -> None:
    labels, splits = [0, 0, 1, 1, 2, 2], ["train", "test"] * 3
    relabelled, crossing = said(labels, splits, hashes="abbdef"), said(labels, splits, hashes="aacdef")
    assert relabelled == [
        "1 image is there twice under different labels, the first: 1.png (ant, test) = 2.png (bee, train)",
        "1 image is there twice in different splits, the first: 1.png (ant, test) = 2.png (bee, train)",
    ]
    assert crossing == ["1 image is there twice in different splits, the first: 0.png (ant, train) = 1.png (ant, test)"]


def test_groups_in_several_splits_are_counted() -> None:
    splits = np.array(["train", "train", "test", "test"])
    assert group_overlap(["p1", "p2", "p3", None], splits) is None
    found = group_overlap(["p1", "p2", "p2", "p1"], splits)
    assert found == "2 of 2 groups are in several splits: 'p1' is in train and test"


def test_a_large_quarantine_is_said_loudly_and_a_small_one_not() -> None:
    bad = pa.table({"reason": ["a web page"] * 2 + ["the file is empty"]})
    (line,) = lost(bad, 30)
    assert line.startswith("3 OF 30 IMAGES (10%) WERE LEFT OUT: a web page (2); the file is empty (1)")
    assert list(lost(bad, 100)) == []
