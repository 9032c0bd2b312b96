"""Promises: by hand on tiny examples, by scipy's exact tests, and kept on rows that were not asked before."""

import numpy as np
import pytest
from scipy.stats import binomtest

from sagitta.errors import ConfigError
from sagitta.evaluation.conformal import abstain_below, at_least, set_level, sets_of


def test_a_level_by_hand() -> None:
    own = np.array([0.9, 0.2, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.95], np.float32)
    assert set_level(own, 0.8) == pytest.approx(0.3)  # the eighth largest of nine, since 0.8 * 10 = 8
    assert set_level(own, 0.9) == pytest.approx(0.2)
    with pytest.raises(ConfigError, match=r"--coverage 0.95: takes 19 images .* has 9; ask for 0.90 at most"):
        set_level(own, 0.95)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        set_level(own, 1.0)


def test_a_set_holds_what_reaches_the_level_and_the_most_probable_class_always() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.34, 0.33, 0.33]], np.float32)
    assert sets_of(probabilities, 0.3).tolist() == [[True, True, False], [False, True, True], [True, True, True]]
    assert sets_of(probabilities, 0.9).tolist() == [[True, False, False], [False, True, False], [True, False, False]]


def test_coverage_is_kept_over_twenty_divisions() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(10, 0.4), 1000).astype(np.float32)
    wrong = rng.dirichlet(np.full(10, 0.4), 1000)  # of a model that is badly calibrated
    labels = (rng.random((1000, 1)) > (0.7 * probabilities + 0.3 * wrong).cumsum(axis=1)).sum(axis=1).clip(max=9)
    held = []
    for seed in range(20):
        own, other = np.array_split(np.random.default_rng(seed).permutation(1000), 2)
        level = set_level(probabilities[own, labels[own]], 0.9)
        held.append(sets_of(probabilities[other], level)[np.arange(500), labels[other]].mean())
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_an_accuracy_takes_as_many_rows_as_could_show_it() -> None:
    sure = np.linspace(1, 0.5, 59, dtype=np.float32)
    found = abstain_below(sure, np.ones(59, np.bool_), 0.95)  # 0.95 ** 59 is below 0.05, 0.95 ** 58 is not
    assert (found.threshold, found.accuracy, found.share, found.answered) == (0.5, 1.0, 1.0, 59)
    with pytest.raises(ConfigError, match=r"takes 59 images .* the run has 58; ask for 0.950 at most"):
        abstain_below(sure[1:], np.ones(58, np.bool_), 0.95)
    right = np.ones(59, np.bool_)
    right[3] = False
    with pytest.raises(ConfigError, match=r"no probability surely reaches it: of the 59 images that .* 1 is wrong"):
        abstain_below(sure, right, 0.95)
    for wanted in (0.0, 1.0, 95.0):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            abstain_below(sure, right, wanted)


def test_a_threshold_is_the_lowest_that_the_exact_test_grants() -> None:
    rng = np.random.default_rng(1)
    sure = np.sort(rng.random(1000).astype(np.float32))[::-1]
    right = rng.random(1000) < 0.6 + 0.4 * sure
    found = abstain_below(sure, right, 0.85)
    above = sure >= found.threshold
    errors = int((~right[above]).sum())
    assert above.sum() == found.answered and found.accuracy == pytest.approx(right[above].mean())
    assert binomtest(errors, found.answered, 0.15, alternative="less").pvalue <= 0.05
    bound = binomtest(found.answered - errors, found.answered, alternative="greater").proportion_ci(0.95, "exact").low
    assert found.low == pytest.approx(bound) and found.low >= 0.85
    assert at_least(0, 10) == 0


def test_who_asks_for_more_is_not_answered_more_often() -> None:
    """A run of 179 rows, two of them wrong, had answered more at 0.975 than at 0.97."""
    sure = np.linspace(1, 0.3, 179, dtype=np.float32)
    right = np.ones(179, np.bool_)
    right[[176, 177]] = False
    asked = np.arange(0.9, 0.983, 0.0025)
    found = [abstain_below(sure, right, float(each)) for each in asked]
    answered = [each.answered for each in found]
    assert answered == sorted(answered, reverse=True) and answered[0] == 179 > answered[-1]
    assert all(each.low >= wanted for each, wanted in zip(found, asked, strict=True))


def test_the_promise_is_broken_in_one_of_twenty_at_most() -> None:
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(300):
        sure = rng.random(400).astype(np.float32)
        right = rng.random(400) < 0.7 + 0.3 * sure
        try:
            threshold = abstain_below(sure, right, 0.9).threshold
        except ConfigError:
            continue
        broken += (0.7 + 0.3 * (1 + threshold) / 2) < 0.9  # what is true of all above it
    assert broken <= 0.05 * 300


def test_rows_of_equal_certainty_are_answered_together() -> None:
    sure = np.repeat(np.array([0.9, 0.6], np.float32), 100)
    right = np.repeat(np.array([True, False]), 100)
    assert abstain_below(sure, right, 0.9).answered == 100
