"""Weights are those of lowest log loss where that is sure on other rows, and equal where it is not."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize

from sagitta.evaluation.weighing import weigh

RANDOM = np.random.default_rng(0)


def likelihoods(rows: int, *skills: float) -> npt.NDArray[np.float64]:
    """Return what models give to the truth that see it through noise of their own: (rows, 1, models)."""
    logits = np.array(skills) + RANDOM.normal(0, 2, (rows, len(skills)))
    return 1 / (1 + np.exp(-logits))[:, None]


def test_found_weights_have_the_lowest_log_loss_but_for_one_row_that_speaks_for_each_model() -> None:
    for found in (likelihoods(2000, 2.5, 0.0, 1.5), likelihoods(600, 2.0, 0.5, 1.0).reshape(200, 3, 3)):
        weighed = weigh(found)

        def loss(angles: npt.NDArray[np.float64], found: npt.NDArray[np.float64] = found) -> float:
            weights = np.exp(angles) / np.exp(angles).sum()
            return float(-np.log(found @ weights).sum() - found.shape[1] * np.log(weights).sum())

        best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9}).x
        np.testing.assert_allclose(weighed.weights, np.exp(best) / np.exp(best).sum(), atol=1e-4)
        assert weighed.found and weighed.gain is not None and weighed.gain > weighed.error > 0  # type: ignore[operator]


def test_models_that_are_equally_good_and_few_rows_have_equal_weights() -> None:
    one = likelihoods(100, 1.0, 1.0)
    alike = weigh(np.concatenate([one, one[..., ::-1]]))
    assert alike.weights == (0.5, 0.5) and not alike.found and alike.gain is not None and alike.gain < 0
    few = weigh(likelihoods(19, 3.0, -3.0))
    assert few.weights == (0.5, 0.5) and few.gain is None


def test_a_model_that_only_harms_weighs_as_little_as_rows_allow_and_certain_errors_are_finite() -> None:
    good = np.full((100, 1), 0.9)
    weighed = weigh(np.stack([good, np.zeros((100, 1))], axis=2))
    assert weighed.weights == pytest.approx((101 / 102, 1 / 102)) and weighed.found  # as if one row spoke for each
    many = weigh(np.stack([np.full((5000, 1), 0.9), np.zeros((5000, 1))], axis=2))
    assert many.weights == (1.0, 0.0)
    certain = weigh(np.zeros((30, 1, 2)))
    assert certain.weights == (0.5, 0.5)
