"""What predictions say beyond their scores, on arrays small enough to count by hand."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from sagitta.models import single_label_scores
from sagitta.reporting.analysis import (
    Pair,
    alike_first,
    calibration_error,
    confused_classes,
    confusion,
    coverage,
    reliability,
    telling,
    thinned,
    uncalibrated,
    worst_pairs,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
DECIDED = np.array([0, 1, 1, 1, 0, 2])


def test_confusions_are_counted_rows_true() -> None:
    assert confusion(LABELS, DECIDED, 3).tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 1]]


def test_the_worst_pairs_come_first_and_all_are_counted() -> None:
    pairs, total = worst_pairs(LABELS, DECIDED, 3, most=1)
    assert pairs == [Pair(0, 1, 2, 2 / 3)] and total == 2
    assert worst_pairs(LABELS, LABELS, 3, most=5) == ([], 0)


def test_a_thousand_classes_need_no_matrix() -> None:
    labels = np.arange(100_000) % 1000
    decided = np.where(labels == 7, 8, labels)
    assert worst_pairs(labels, decided, 1000, 5) == ([Pair(7, 8, 100, 1.0)], 1)
    assert confused_classes(labels, decided, 1000, 20) == [7, 8]


def test_classes_that_are_mixed_up_stand_side_by_side() -> None:
    counts = np.eye(6, dtype=np.int64) * 9
    for a, b in ((0, 3), (1, 4), (2, 5)):
        counts[a, b] = counts[b, a] = 5
    order = alike_first(counts, counts.sum(axis=1))
    assert sorted(order) == list(range(6))
    assert all(abs(order.index(a) - order.index(b)) == 1 for a, b in ((0, 3), (1, 4), (2, 5)))


def test_reliability_bins_hold_means_and_shares() -> None:
    bins = reliability(np.array([0.31, 0.33, 0.95, 1.0]), np.array([True, False, True, True]))
    assert [(each.low, each.count) for each in bins] == [(4 / 15, 2), (14 / 15, 2)]
    assert bins[0].mean == pytest.approx(0.32) and bins[0].right[0] == 0.5
    assert bins[0].right[1] < 0.5 < bins[0].right[2]
    assert calibration_error(bins) == pytest.approx((2 * 0.18 + 2 * 0.025) / 4)


def test_the_diagrams_calibration_error_is_the_metric_and_torchmetrics() -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.full(4, 0.4), 300).astype(np.float32)
    labels = rng.integers(4, size=300)
    own = calibration_error(reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels))
    scores, _ = single_label_scores(probabilities, labels, list("abcd"))
    measure = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=4, n_bins=15
    )
    assert own == pytest.approx(scores["ece"].value, abs=1e-6) == pytest.approx(float(measure), abs=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_a_temperature_can_be_taken_back(several: bool) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3)) * 3

    def chances(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if several:
            return np.asarray(1 / (1 + np.exp(-values)))
        return np.asarray(np.exp(values) / np.exp(values).sum(axis=1, keepdims=True))

    assert uncalibrated(chances(logits / 1.7), 1.7, several=several) == pytest.approx(chances(logits))


def test_coverage_answers_rows_of_equal_certainty_together() -> None:
    curve = coverage(np.array([0.9, 0.8, 0.8, 0.4]), np.array([True, True, False, False]))
    assert curve.share.tolist() == [0.25, 0.75, 1.0]
    assert curve.accuracy.tolist() == pytest.approx([1.0, 2 / 3, 0.5])
    assert curve.at(0.6) == (0.75, 0.8) and curve.at(1.0) == (0.25, 0.9)
    assert coverage(np.array([0.9]), np.array([False])).at(0.5) is None


def test_a_peak_of_one_step_stays_in_a_long_course() -> None:
    course = np.linspace(1, 0.1, 5000)
    course[3217], course[4001] = 9.0, -1.0
    kept = telling(course.tolist(), 240)
    assert {0, 3217, 4001, 4999} <= set(kept.tolist()) and len(kept) <= 240 and (np.diff(kept) > 0).all()
    assert telling([math.nan] * 1000, 10).size <= 10 and telling([1.0, 2.0], 10).tolist() == [0, 1]


def test_thinned_keeps_both_ends() -> None:
    assert thinned(5, 3).tolist() == [0, 2, 4] and thinned(2, 9).tolist() == [0, 1] and thinned(0, 3).size <= 1
