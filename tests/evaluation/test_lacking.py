"""Whether rows may lack classes by chance, against draws."""

import numpy as np
import pytest

from sagitta.evaluation.lacking import lacking_beyond_chance, lacking_text

NAMES = tuple("abcdefghij")
EVEN = np.full(10, 0.1)


def test_a_class_that_was_kept_from_the_rows_is_found() -> None:
    labels = np.arange(63) % 9  # a chance of 1.3 %
    assert lacking_beyond_chance(EVEN, labels, NAMES) == ("j",)
    assert lacking_beyond_chance(EVEN, np.zeros(19, np.int64), NAMES) == tuple("bcdefghij")
    assert lacking_beyond_chance(EVEN, np.arange(10), NAMES) == ()
    assert lacking_text(("j",)) == "no image of 1 class (j), and that is no chance"


def test_rare_classes_and_few_rows_lack_some_by_chance() -> None:
    rare = np.array([*[1 / 9 - 0.0005] * 9, 0.0045])  # one image of 226
    assert lacking_beyond_chance(rare, np.arange(63) % 9, NAMES) == ()
    assert lacking_beyond_chance(EVEN, np.array([0, 1, 2]), NAMES) == ()
    never = np.array([*[1 / 9] * 9, 0.0])  # nothing was learned of it either
    assert lacking_beyond_chance(never, np.arange(63) % 9, NAMES) == ()


def test_a_frequent_class_is_missed_however_many_rare_ones_lack_too() -> None:
    generator, names = np.random.default_rng(0), [str(label) for label in range(101)]
    shares = np.array([0.3, *[0.007] * 100])
    for rows in (60, 100, 500, 1000):
        assert lacking_beyond_chance(shares, generator.choice(np.arange(1, 101), rows), names) == ("0",)
    zipf = 1 / np.arange(1, 1001)
    zipf /= zipf.sum()
    drawn = generator.choice(np.arange(1, 1000), 2000, p=zipf[1:] / zipf[1:].sum())
    assert "0" in lacking_beyond_chance(zipf, drawn, [str(label) for label in range(1000)])


@pytest.mark.parametrize(("classes", "rows"), [(10, 30), (195, 80), (1000, 5000)])
def test_rows_that_are_drawn_are_seldom_taken_for_others(classes: int, rows: int) -> None:
    generator, names = np.random.default_rng(0), [str(label) for label in range(classes)]
    shares = generator.dirichlet(np.ones(classes))
    draws = [generator.choice(classes, rows, p=shares) for _ in range(200)]
    assert sum(lacking_beyond_chance(shares, labels, names) != () for labels in draws) <= 20


def test_of_several_labels_each_is_a_question_of_its_own() -> None:
    targets = np.zeros((40, 3), np.int64)
    targets[:, 0] = targets[::2, 1] = 1
    assert lacking_beyond_chance(np.array([0.9, 0.5, 0.4]), targets, ["a", "b", "c"]) == ("c",)
    assert lacking_beyond_chance(np.array([0.9, 0.5, 0.01]), targets, ["a", "b", "c"]) == ()
