"""Weights of an average of probabilities, from rows that none of the models was trained on.

The log loss of a mean is convex in its weights, and expectation maximisation for the weights of a mixture (Dempster,
Laird and Rubin 1977) leads to its minimum without ever leaving the simplex. Few rows make any weights look good where
they were found: so one row more for each model counts, which only that model explains, and draws them towards equal
ones; and they are judged on rows that they were not found on, where equal weights stay unless the found ones are better
by more than one standard error.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FEWEST_ROWS = 20
_PARTS = 10  # of the rows, each judged by the weights found on the others
_STEPS = 1000
_NEGLIGIBLE = 1e-3
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Weighed:
    """The weights of an average, and why they are so.

    Attributes:
        weights: of each model, with the sum 1.
        found: they were found on the rows; else they are equal.
        gain: by how much found weights lower the log loss a row, on rows that they were not found on; negative where
            they raise it. None where there are too few rows to find any.
        error: standard error of ``gain``.
    """

    weights: tuple[float, ...]
    found: bool = False
    gain: float | None = None
    error: float | None = None


def equal(models: int) -> Weighed:
    """Return equal weights."""
    return Weighed((1 / models,) * models)


def weigh(likelihoods: Floats) -> Weighed:
    """Return the weights by which the mean of some models has the lowest log loss; equal ones where that is not sure.

    Args:
        likelihoods: (rows, k, models), the probability that each model gives to what is true of a row: of its label,
            k = 1; or of each of k labels, that it is there or that it is not.
    """
    rows, _, models = likelihoods.shape
    if rows < _FEWEST_ROWS:
        return equal(models)
    part = np.random.default_rng(0).permutation(rows) % _PARTS
    losses = np.empty(rows)
    for number in range(_PARTS):
        own = part == number
        losses[own] = _losses(likelihoods[own], _lowest(likelihoods[~own]))
    gains = _losses(likelihoods, np.full(models, 1 / models)) - losses
    gain, error = float(gains.mean()), float(gains.std(ddof=1) / rows**0.5)
    if gain <= error:
        return Weighed((1 / models,) * models, False, gain, error)
    return Weighed(tuple(_lowest(likelihoods).tolist()), True, gain, error)


def _losses(likelihoods: Floats, weights: Floats) -> Floats:
    """Return the log loss (rows,) of a mean."""
    found: Floats = -np.log(np.maximum(likelihoods @ weights, _TINY)).mean(axis=1)
    return found


def _lowest(likelihoods: Floats) -> Floats:
    """Return the weights (models,) of lowest log loss; those of no consequence are 0."""
    flat = np.maximum(likelihoods.reshape(-1, likelihoods.shape[2]), _TINY)
    weights = np.full(flat.shape[1], 1 / flat.shape[1])
    for _ in range(_STEPS):
        shares = flat * weights
        own = (shares / shares.sum(axis=1, keepdims=True)).sum(axis=0) + likelihoods.shape[1]
        better = own / own.sum()
        done, weights = np.abs(better - weights).max() < 1e-7, better
        if done:
            break
    weights = np.where(weights < _NEGLIGIBLE, 0.0, weights)
    found: Floats = weights / weights.sum()
    return found
