"""Every value as scikit-learn or torchmetrics has it; intervals against literals and against what they promise."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_calibration_error

from sagitta.models.metrics import (
    Predictions,
    best_thresholds,
    classification_metrics,
    multilabel_metrics,
    multilabel_scores,
    multilabel_values,
    single_label_scores,
    single_label_values,
)

RNG = np.random.default_rng(0)


def outputs(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know something of the labels."""
    labels = RNG.integers(classes, size=rows)
    logits = RNG.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels


def test_scores_equal_scikit_learns() -> None:
    probabilities, labels = outputs(500, 12)
    names = [f"class {index}" for index in range(12)]
    scores, classes = single_label_scores(probabilities, labels, names)
    predicted = probabilities.argmax(axis=1)
    assert list(scores) == ["acc", "top5", "f1", "ece", "log_loss"]
    assert scores["acc"].value == (predicted == labels).mean()
    assert scores["f1"].value == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert scores["log_loss"].value == pytest.approx(log_loss(labels, probabilities), rel=1e-5)
    ranks = (-probabilities).argsort(axis=1)[:, :5]
    assert scores["top5"].value == (ranks == labels[:, None]).any(axis=1).mean()
    tensors = torch.from_numpy(probabilities), torch.from_numpy(labels)
    calibration = multiclass_calibration_error(*tensors, num_classes=12, n_bins=15)
    assert scores["ece"].value == pytest.approx(float(calibration), abs=1e-5)
    assert all(each.low < each.value < each.high for each in scores.values())
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted)
    assert [each.name for each in classes] == names
    assert [each.support for each in classes] == support.tolist()
    for mine, theirs in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert [getattr(each, mine).value for each in classes] == pytest.approx(theirs.tolist())
    logged = classification_metrics(12, "test_")
    logged.update(*tensors)
    for name in ("acc", "f1", "top5"):
        assert float(logged.compute()[f"test_{name}"]) == pytest.approx(scores[name].value, abs=1e-6)


def test_classes_without_rows_have_no_scores() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], np.float32)
    scores, classes = single_label_scores(probabilities, np.array([0, 1]), ["a", "b", "c"])
    assert list(scores) == ["acc", "f1", "ece", "log_loss"]
    assert (scores["acc"].value, scores["f1"].value) == (1.0, 1.0)
    assert classes[2].support == 0 and np.isnan([classes[2].recall.value, classes[2].f1.value]).all()
    assert (classes[2].recall.low, classes[2].recall.high) == (0.0, 1.0)


def test_macro_f1_is_that_of_scikit_learn_where_a_class_has_no_image() -> None:
    """One image of class a is taken for c, which no image has: c counts as 0; d, which does not occur, not at all."""
    probabilities = np.array([[9, 1, 0, 0], [9, 1, 0, 0], [2, 1, 7, 0], [2, 8, 0, 0]], np.float32) / 10
    labels = np.array([0, 0, 0, 1])
    expected = f1_score(labels, probabilities.argmax(axis=1), average="macro")
    scores, classes = single_label_scores(probabilities, labels, ["a", "b", "c", "d"])
    assert scores["f1"].value == pytest.approx(expected) == single_label_values(probabilities, labels)["f1"]
    assert (classes[2].support, classes[2].f1.value) == (0, 0.0)
    logged = classification_metrics(4, "val_")
    logged.update(torch.from_numpy(probabilities), torch.from_numpy(labels))
    assert float(logged.compute()["val_f1"]) == pytest.approx(expected)


def test_labels_that_no_image_has_leave_no_value() -> None:
    probabilities, none = np.full((4, 2), 0.2, np.float32), np.zeros((4, 2), bool)
    scores, _ = multilabel_scores(probabilities, none, np.full(2, 0.5), ["a", "b"])
    assert np.isnan([scores["map"].value, scores["f1"].value]).all() and scores["log_loss"].value > 0
    assert multilabel_values(probabilities, none, np.full(2, 0.5)) == {}


def test_a_certain_and_wrong_prediction_costs_much_but_not_infinitely_much() -> None:
    scores, _ = single_label_scores(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), np.array([1, 1]), ["a", "b"])
    assert 40 < scores["log_loss"].value < 50


def test_intervals_stay_where_values_are_possible() -> None:
    labels = RNG.integers(0, 3, 60)
    probabilities = np.eye(3, dtype=np.float32)[np.where(np.arange(60) < 2, (labels + 1) % 3, labels)]
    scores, classes = single_label_scores(probabilities, labels, ["a", "b", "c"])
    shares = [scores["acc"], scores["f1"], scores["ece"], *(each.f1 for each in classes)]
    assert all(0 <= share.low <= share.value <= share.high <= 1 for share in shares)
    assert scores["f1"].value > 0.95 and scores["log_loss"].high > 1


@pytest.mark.parametrize("decimals", [1, 7])  # 1: many rows of equal probability
def test_multilabel_scores_equal_scikit_learns(decimals: int) -> None:
    targets = RNG.random((300, 4)) < (0.5, 0.3, 0.1, 0.02)
    probabilities = np.clip((RNG.random((300, 4)) + 0.5 * targets) / 1.5, 0.01, 0.99).round(decimals).astype(np.float32)
    thresholds = np.array([0.5, 0.4, 0.3, 0.6])
    scores, classes = multilabel_scores(probabilities, targets, thresholds, list("abcd"))
    decided = probabilities >= thresholds
    assert list(scores) == ["map", "f1", "f1_micro", "log_loss"]
    assert scores["map"].value == pytest.approx(average_precision_score(targets, probabilities, average="macro"))
    assert scores["f1"].value == pytest.approx(f1_score(targets, decided, average="macro"))
    assert scores["f1_micro"].value == pytest.approx(f1_score(targets, decided, average="micro"))
    losses = [log_loss(targets[:, label], probabilities[:, label].astype(np.float64)) for label in range(4)]
    assert scores["log_loss"].value == pytest.approx(np.mean(losses), rel=1e-4)
    assert [each.support for each in classes] == targets.sum(axis=0).tolist()
    logged = multilabel_metrics(4, "train_")
    logged.update(torch.from_numpy(probabilities), torch.from_numpy(targets).long())
    expected = f1_score(targets, probabilities > 0.5, average="macro")
    assert float(logged.compute()["train_f1"]) == pytest.approx(expected, abs=1e-5)


def test_thresholds_have_the_highest_f1_of_all() -> None:
    targets = RNG.random((120, 3)) < (0.4, 0.1, 0.0)
    probabilities = ((RNG.random((120, 3)) + 0.4 * targets) / 1.4).round(2)
    thresholds = best_thresholds(probabilities, targets)
    assert thresholds[2] == 0.5  # nobody has this label
    for label in range(2):
        tried = [f1_score(targets[:, label], probabilities[:, label] >= at) for at in np.linspace(0, 1, 201)]
        mine = f1_score(targets[:, label], probabilities[:, label] >= thresholds[label])
        assert mine == pytest.approx(max(tried))
    assert best_thresholds(np.array([[0.9], [0.6], [0.2]]), np.array([[True], [True], [False]])) == pytest.approx([0.4])


def test_predictions_are_kept_in_order() -> None:
    store = Predictions()
    for start in (0, 3):
        store.update(torch.full((3, 2), start, dtype=torch.float16), torch.arange(start, start + 3))
    probabilities, labels = store.compute()
    assert probabilities.dtype == torch.float32 and probabilities[:, 0].tolist() == [0, 0, 0, 3, 3, 3]
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
