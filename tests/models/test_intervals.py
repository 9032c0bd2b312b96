"""Intervals hold the truth about as often as they say, also where a small test finds no error."""

import numpy as np
import pytest

from sagitta.models.intervals import Estimate, bootstrap, f1, mean_f1, mean_share, share, wilson_interval
from sagitta.models.metrics import multilabel_scores, single_label_scores

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(87, 88, 0.9384, 0.9980), (5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_intervals(right: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=1e-4)


def test_wilson_intervals_end_exactly_at_none_and_all() -> None:
    assert all(wilson_interval(0, n)[0] == 0.0 and wilson_interval(n, n)[1] == 1.0 for n in range(1, 500))


def near(estimate: Estimate, value: float, low: float, high: float) -> None:
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, low, high), abs=1e-3)


def test_the_f1_of_a_class_has_the_interval_of_its_jaccard_index() -> None:
    near(f1(9, 9, 9), 1.0, 0.8240, 1.0)  # Wilson of 9 of 9: 0.7009
    near(f1(0, 0, 9), 0.0, 0.0, 0.4603)
    near(f1(8, 9, 9), 0.8889, 0.6582, 0.9712)
    assert np.isnan(f1(0, 0, 0).value) and share(0, 0).low == 0 and share(0, 0).high == 1


def counted(confusion: np.ndarray) -> Estimate:
    """Return the mean F1 of a confusion matrix, label by prediction."""
    labels, predicted = (np.repeat(index.ravel(), confusion.ravel()) for index in np.indices(confusion.shape))
    right = labels == predicted
    counts = [np.bincount(of, minlength=len(confusion)) for of in (labels[right], predicted, labels)]
    return mean_f1(
        np.stack(counts).astype(float), lambda gain, cost: gain[labels] * right - cost[labels] - cost[predicted]
    )


def test_ninety_right_images_do_not_prove_a_perfect_model() -> None:
    """As many images as the butterflies' test: by accuracy's own interval (Wilson) 0.9591 is possible."""
    near(counted(np.diag([9] * 10)), 1.0, 0.960, 1.0)
    near(counted(np.diag([45, 45])), 1.0, 0.960, 1.0)
    near(counted(np.diag([100, 100, 1])), 1.0, 0.688, 1.0)  # a third of it hangs on one image
    near(counted(np.array([[90, 0], [0, 0]])), 1.0, 0.979, 1.0)  # one class alone: F1 counts an error half
    near(counted(np.array([[0, 5], [5, 0]])), 0.0, 0.0, 0.2775)  # of accuracy, too
    assert counted(np.array([[1]])).low < 0.5


@pytest.mark.parametrize(
    ("classes", "images", "accuracy"),
    [(2, 160, 0.975), (10, 90, 0.99), (10, 90, 0.97), (10, 90, 0.9), (10, 90, 0.6), (37, 300, 0.9), (3, 10, 0.9)],
)
def test_nine_of_ten_intervals_of_macro_f1_hold_the_truth(classes: int, images: int, accuracy: float) -> None:
    """Of 300 tests each; 0.91 to 0.96 of 1,000. Resampling has at most 0.60 at (10, 90, 0.99): 40 % have no error."""
    generator = np.random.default_rng(1)
    shares = np.full((classes, classes), (1 - accuracy) / (classes - 1) / classes)
    np.fill_diagonal(shares, accuracy / classes)
    held = held_each = 0.0
    for _ in range(300):
        confusion = generator.multinomial(images, shares.ravel()).reshape(classes, classes)
        found = counted(confusion)
        held += found.low <= accuracy <= found.high
        each = [f1(int(confusion[k, k]), int(confusion[:, k].sum()), int(confusion[k].sum())) for k in range(classes)]
        held_each += float(np.mean([one.low <= accuracy <= one.high for one in each]))
    assert 0.88 <= held / 300 <= 0.99 and 0.90 <= held_each / 300 <= 0.99


def confident(rows: int, classes: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too certain, and right 99.8 % of the time."""
    labels = generator.integers(classes, size=rows)
    logits = 3 * (generator.normal(size=(rows, classes)) + 5 * np.eye(classes)[labels])
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32), labels


def test_no_error_among_ninety_images_does_not_prove_a_small_log_loss() -> None:
    """Resampling alone holds the truth 57 of 100 times: most tests have none of the rows that it comes from."""
    generator = np.random.default_rng(2)
    probabilities, labels = confident(200_000, 10, generator)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    held = 0
    for _ in range(60):
        rows = generator.integers(len(labels), size=90)
        found = single_label_scores(probabilities[rows], labels[rows], list("abcdefghij"))[0]["log_loss"]
        held += found.low <= losses.mean() <= found.high
    assert held >= 57


def test_a_perfect_test_leaves_no_interval_closed() -> None:
    labels = np.arange(90) % 3
    certain = np.eye(3, dtype=np.float32)[labels]
    scores, classes = single_label_scores(certain, labels, list("abc"))
    assert all(score.low < score.high for score in scores.values())
    assert all(score.low < score.high for each in classes for score in (each.precision, each.recall, each.f1))
    scores, _ = multilabel_scores(certain, certain > 0, np.full(3, 0.5), list("abc"))
    assert all(score.low < score.high for score in scores.values()) and scores["map"].low == pytest.approx(
        0.9591, abs=1e-3
    )


def test_of_one_image_nothing_is_certain() -> None:
    scores, _ = single_label_scores(np.array([[0.9, 0.1]], np.float32), np.array([0]), ["a", "b"])
    assert scores["acc"].low < 0.3 and scores["f1"].low < 0.5
    assert (scores["log_loss"].low, scores["log_loss"].high) == (0.0, np.inf)


def test_a_mean_of_shares_is_as_sure_as_its_smallest_parts() -> None:
    near(mean_share(1.0, np.array([30.0, 30.0, 30.0]), 0.0), 1.0, wilson_interval(90, 90)[0], 1.0)
    assert mean_share(0.9, np.array([100.0, 2.0]), 0.0).low < mean_share(0.9, np.array([51.0, 51.0]), 0.0).low
    assert mean_share(0.9, np.array([50.0]), 0.01).low < mean_share(0.9, np.array([50.0]), 0.0).low


def test_bootstrap_intervals_cover_the_truth() -> None:
    """Of 200 samples from a known distribution, about 95 % of the intervals hold its mean."""
    inside = 0
    for _ in range(200):
        sample = RNG.exponential(size=60)
        (estimate,) = bootstrap(lambda weights, x=sample: np.array([weights @ x / weights.sum()]), 60)  # type: ignore[misc]
        inside += estimate.low <= 1.0 <= estimate.high
    assert 176 <= inside <= 198
    again = [bootstrap(lambda weights: np.array([weights[:3].sum()]), 10) for _ in range(2)]
    assert again[0] == again[1]
