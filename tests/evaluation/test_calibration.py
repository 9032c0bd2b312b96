"""Temperatures: found where they are known, declined where rows cannot show one, and the same decisions after."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from sagitta.evaluation import calibration as module
from sagitta.evaluation import judge
from sagitta.evaluation.calibration import find_temperature, temper, tempered, tempered_thresholds
from sagitta.models import MULTI_LABEL, SINGLE_LABEL, Floats, Ints

NAMES = list("abcde")


def drawn(rows: int, temperature: float, seed: int = 0) -> tuple[Floats, Ints]:
    """Return probabilities of logits that are too large by a factor, and labels that are drawn from what is true."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (rows, len(NAMES))))
    true = logits.softmax(dim=1).cumsum(dim=1).numpy()
    labels = (rng.random((rows, 1)) > true).sum(axis=1).clip(max=len(NAMES) - 1)
    return SINGLE_LABEL.probabilities(logits * temperature).numpy(), labels.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_is_found_and_gives_the_probabilities_that_are_true(temperature: float) -> None:
    probabilities, labels = drawn(3000, temperature)
    found = find_temperature(SINGLE_LABEL, probabilities, labels)
    assert found.value == pytest.approx(temperature, rel=0.07) and found.rows == 3000
    true, _ = drawn(3000, 1.0)
    assert temper(SINGLE_LABEL, probabilities, temperature) == pytest.approx(true, abs=1e-5)


def test_several_labels_share_a_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2000, 4))
    labels = rng.random((2000, 4)) < 1 / (1 + np.exp(-logits))
    probabilities = MULTI_LABEL.probabilities(torch.from_numpy(3 * logits)).numpy()
    found = find_temperature(MULTI_LABEL, probabilities, labels)
    assert found.value == pytest.approx(3, rel=0.07)
    thresholds = [0.2, 0.5, 0.7, 0.9]
    before = MULTI_LABEL.decide(probabilities, thresholds)
    after = temper(MULTI_LABEL, probabilities, found.value)
    assert (MULTI_LABEL.decide(after, tempered_thresholds(thresholds, found.value)) == before).all()
    assert (
        MULTI_LABEL.losses(MULTI_LABEL.logits(after), labels).mean()
        < MULTI_LABEL.losses(MULTI_LABEL.logits(probabilities), labels).mean()
    )


def test_no_temperature_is_made_up() -> None:
    few = find_temperature(SINGLE_LABEL, *drawn(module.FEWEST - 1, 3.0))
    assert few.value == 1 and "only 49 rows" in few.reason
    right = find_temperature(SINGLE_LABEL, *drawn(300, 1.0))
    assert right.value == 1 and "no temperature surely lowers the log loss" in right.reason


def test_rows_that_are_all_right_do_not_ask_for_infinite_certainty() -> None:
    probabilities = np.tile(np.array([[0.8, 0.05, 0.05, 0.05, 0.05]], np.float32), (60, 1))
    assert 0.2 < find_temperature(SINGLE_LABEL, probabilities, np.zeros(60, np.int64)).value < 0.6


def test_losses_of_rows_have_the_mean_that_the_training_has() -> None:
    probabilities, labels = drawn(40, 1.5)
    several = np.eye(len(NAMES))[labels]
    for task, own in ((SINGLE_LABEL, labels), (MULTI_LABEL, several)):
        logits = task.logits(probabilities)
        whole = task.loss(logits, torch.from_numpy(own))
        assert float(task.losses(logits, own).mean()) == pytest.approx(float(whole), rel=1e-6)
        assert task.probabilities(logits).numpy() == pytest.approx(probabilities, abs=1e-6)


def test_figures_before_and_after_are_those_of_torchmetrics() -> None:
    probabilities, labels = drawn(800, 2.0)
    before = judge(SINGLE_LABEL, probabilities, labels, [""] * 800, NAMES, {}, "val_")
    after = tempered(before, SINGLE_LABEL, NAMES, 2.0, "val_", ())
    assert after.predictions["predicted"] == before.predictions["predicted"]
    measure = MulticlassCalibrationError(len(NAMES), n_bins=15, norm="l1")
    for name, every in (("val_ece_uncalibrated", probabilities), ("val_ece", temper(SINGLE_LABEL, probabilities, 2.0))):
        expected = float(measure(torch.from_numpy(every), torch.from_numpy(labels)))
        assert after.metrics[name] == pytest.approx(expected, abs=1e-6)
        assert after.scores[name].low <= after.metrics[name] <= after.scores[name].high
    assert after.metrics["val_log_loss"] < after.metrics["val_log_loss_uncalibrated"] == before.metrics["val_log_loss"]
    assert "before calibration" in after.text() and "_uncalibrated" not in after.text()
