import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from sagitta.training import head as module
from sagitta.training.head import Head, estimate, fit_head


def clouds(classes: int, rows: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Points around one centre a class, far from zero and of unequal scale."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    centres = rng.normal(size=(classes, 20)) * 2
    points = (centres[labels] + spread * rng.normal(size=(rows, 20))) * np.geomspace(0.01, 100, 20) + 50
    points[:, 3] = 7.0  # a feature that says nothing
    return points.astype(np.float32), labels


def logits(head: Head, features: np.ndarray) -> np.ndarray:
    return features.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("rows", "folds"), [(200, 5), (6000, 1)])
def test_head_works_on_features_as_they_are(classes: int, rows: int, folds: int) -> None:
    features, labels = clouds(classes, rows)
    head = fit_head(features.copy(), labels, classes)
    assert head.folds == folds and len(head.judged) == (rows if folds == 5 else rows / 5)
    assert head.weight.shape == (classes, 20) and head.weight.dtype == head.bias.dtype == np.float32
    right = (logits(head, features).argmax(axis=1) == labels).mean()
    accuracy, loss = estimate(head.logits, labels[head.judged])
    assert right > 0.97 and accuracy.low < accuracy.value and abs(accuracy.value - right) < 0.03 and loss < 0.1


def test_what_is_judged_was_not_seen() -> None:
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(200, 400)).astype(np.float32), rng.integers(0, 2, 200)
    head = fit_head(noise, labels, 2)
    accuracy, loss = estimate(head.logits, labels[head.judged])
    assert accuracy.low < 0.5 < accuracy.high  # the head itself knows all of them by heart
    assert abs(loss - np.log(2)) < 0.05  # and claims to know nothing of others


def test_rare_classes_take_no_folds_away_and_raise_no_warning() -> None:
    features, labels = clouds(3, 61)
    labels[:] = 0
    labels[:10], labels[10] = 1, 2
    head = fit_head(features, labels, 4)  # the fourth class has no image
    assert head.folds == 5 and sorted(head.judged.tolist()) == [row for row in range(61) if row != 10]
    assert np.isfinite(head.weight).all() and np.isfinite(head.bias).all()


def test_the_length_of_a_single_row_does_not_move_the_boundary() -> None:
    """Directions tell two classes apart; the one row of the second is three times as long as that of the first."""
    rng = np.random.default_rng(0)
    directions = rng.uniform(0, 1, (2, 200))
    labels = np.arange(400) % 2
    rows = directions[labels] + 0.3 * rng.uniform(0, 1, (400, 200))
    known = rows[:2] * np.array([[1.0], [3.0]])
    head = fit_head(known.astype(np.float32), labels[:2], 2)
    assert (logits(head, rows[2:]).argmax(axis=1) == labels[2:]).mean() > 0.95


def test_rows_that_belong_together_do_not_judge_each_other() -> None:
    """Forty patients with five images each that hardly differ; their classes are drawn by lot."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 5)
    features = (rng.normal(size=(40, 60))[patients] + 0.01 * rng.normal(size=(200, 60))).astype(np.float32)
    labels = rng.integers(0, 2, 40)[patients]
    alone = fit_head(features.copy(), labels, 2)
    together = fit_head(features.copy(), labels, 2, units=patients)
    assert estimate(alone.logits, labels[alone.judged])[0].value > 0.95
    accuracy, loss = estimate(together.logits, labels[together.judged])
    assert len(together.judged) == 200 and accuracy.value < 0.7 and loss < 0.8


def test_the_only_unit_of_a_class_is_not_judged() -> None:
    features, labels = clouds(3, 60)
    labels[:] = np.arange(60) % 2
    labels[:4] = 2
    units = np.arange(60)
    units[:5] = 0  # the whole of the third class, and a row of another one
    head = fit_head(features, labels, 3, units=units)
    assert sorted(head.judged.tolist()) == list(range(5, 60))


def test_one_image_a_class_is_no_error() -> None:
    features, labels = clouds(6, 6)
    head = fit_head(features.copy(), labels, 6)
    assert head.folds == 0 and head.logits.shape == (0, 6)
    assert (logits(head, features).argmax(axis=1) == labels).all()


def test_rows_that_are_all_right_do_not_make_it_infinitely_sure() -> None:
    features, labels = clouds(2, 40, spread=0.01)
    head = fit_head(features, labels, 2)
    _, loss = estimate(head.logits, labels[head.judged])
    assert 1e-5 < loss < 0.1


@pytest.mark.parametrize(("distance", "least", "most"), [(0.05, 1.55, 1.64), (0.12, 1.4, 1.57)])
def test_two_rows_a_class_are_neither_ignored_nor_believed(distance: float, least: float, most: float) -> None:
    """Of five classes equal probabilities have a loss of 1.609; the first distance tells hardly more than that."""
    losses = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        centres, labels = distance * rng.normal(size=(5, 1000)), np.arange(1000) % 5
        points = (centres[labels] + rng.normal(size=(1000, 1000))).astype(np.float32)
        head = fit_head(points[:10].copy(), labels[:10], 5)
        losses.append(estimate(logits(head, points[500:]).astype(np.float32), labels[500:])[1])
    assert least < np.mean(losses) < most


def test_both_kinds_are_what_their_names_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logistic regression and shrunk discriminant analysis as of scikit-learn, on features that need no scaling."""
    features, labels = clouds(4, 300, spread=3.0)
    features = ((features - features.mean(axis=0)) / (features.std(axis=0) + 1e-3)).astype(np.float32)
    monkeypatch.setattr(module, "_soften", lambda _: (np.zeros(20), np.ones(20)))
    monkeypatch.setattr(module, "_temper", lambda logits, _, spread: (1.0, -float(logits.std()) * (1 + min(spread, 1))))
    monkeypatch.setattr(module, "_CLOSER", 1e-9)
    monkeypatch.setattr(module._Discriminant, "strengths", (0.3,))
    monkeypatch.setattr(module, "_MOST", 0)
    head = fit_head(features.copy(), labels, 4)
    theirs = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.3).fit(features, labels)
    assert head.method == "linear discriminant analysis, shrinkage 0.3"
    ours = logits(head, features)
    assert (ours.argmax(axis=1) == theirs.predict(features)).mean() > 0.98  # they divide by N, we by N - classes

    monkeypatch.setattr(module, "_MOST", np.inf)
    monkeypatch.setattr(module._Discriminant, "judge", lambda *_: [torch.zeros(300, 4)])
    monkeypatch.setattr(module, "STRENGTHS", (0.1,))
    head = fit_head(features.copy(), labels, 4)
    likely = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(features, labels)
    difference = logits(head, features) - likely.decision_function(features)
    assert head.method == "logistic regression, C 0.1"
    assert np.abs(difference - difference.mean(axis=1, keepdims=True)).max() < 0.01


def test_nearly_dead_features_are_not_blown_up() -> None:
    """On the few rows that are fitted a column hardly differs from zero; on later ones it does."""
    rng = np.random.default_rng(1)
    features, labels = clouds(2, 40)
    features = ((features - features.mean(axis=0)) / (features.std(axis=0) + 1e-3)).astype(np.float32)
    features[:, 5] = 1e-4 * rng.normal(size=40)
    head = fit_head(features.copy(), labels, 2)
    features[:, 5] = rng.normal(size=40)
    assert (logits(head, features).argmax(axis=1) == labels).all() and np.abs(head.weight).max() < 20
