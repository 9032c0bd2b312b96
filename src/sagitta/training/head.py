"""A linear head on features: multinomial logistic regression, folded into the weight and bias of a linear layer.

Features are standardised; which regularisation is best is decided by log loss

- on ``val`` where that has 1,000 rows or there are many to train on; the head is then fitted on ``train``;
- else by cross-validation over ``train`` and ``val`` together, since a few rows choose badly. The head is then the mean
  of the folds' heads (bagging, Breiman 1996); each row judges only heads that have not seen it.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from sagitta.models import Estimate, wilson_interval

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

STRENGTHS = tuple(10.0**exponent for exponent in np.arange(-5, 2.1, 0.5))
"""Values of scikit-learn's C that are tried; the larger, the weaker the regularisation."""

_ENOUGH_VAL, _MANY = 1000, 20_000  # rows of val that choose well; rows of train that make cross-validation slow
_FOLDS = 5


@dataclass(frozen=True)
class Head:
    """A linear head: logits are ``features @ weight.T + bias``.

    Attributes:
        weight: (classes, D) float32.
        bias: (classes,) float32.
        strength: scikit-learn's C that was best.
        val: accuracy on rows that the judged heads have not seen, with its 95 % interval (Wilson 1927).
        val_loss: mean log loss of the same, nats.
        folds: of the cross-validation; 0 where ``val`` decided.
    """

    weight: Floats
    bias: Floats
    strength: float
    val: Estimate
    val_loss: float
    folds: int


def fit_head(features: Floats, labels: Ints, train: int) -> Head:
    """Choose the regularisation and fit the head; ``features`` are standardised in place.

    Args:
        features: (N, D) float32, rows of train before those of val.
        labels: (N,) int64 from 0, each class at least twice.
        train: number of rows of train.
    """
    mean, scale = _standardise(features)
    classes = int(labels.max()) + 1
    if len(labels) - train >= _ENOUGH_VAL or train > _MANY:
        parts, folds = [(np.arange(train), np.arange(train, len(labels)))], 0
    else:
        folds = int(min(_FOLDS, np.bincount(labels, minlength=classes).min()))
        parts = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(features, labels))
    # On so few rows several threads spend their time waiting: ten times as long here, a hundred beside other work.
    with threadpool_limits(1 if folds else None):
        paths = [_path(features, labels, classes, *part) for part in parts]
    judged = np.concatenate([rows for _, rows in parts])
    # Log-probabilities (strengths, judged rows, classes).
    outputs = np.concatenate([path.outputs for path in paths], axis=1)
    losses = -np.take_along_axis(outputs, labels[judged][None, :, None], axis=2).mean(axis=(1, 2))
    best = int(losses.argmin())
    right = int((outputs[best].argmax(axis=1) == labels[judged]).sum())
    weight = np.mean([path.weights[best] for path in paths], axis=0) / scale
    bias = np.mean([path.biases[best] for path in paths], axis=0) - weight @ mean
    val = Estimate(right / len(judged), *wilson_interval(right, len(judged)))
    return Head(weight.astype(np.float32), bias.astype(np.float32), STRENGTHS[best], val, float(losses[best]), folds)


def _standardise(features: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Shift and scale each column in place, without a second array of that size; returns mean and scale (D,)."""
    mean = features.mean(axis=0, dtype=np.float64)
    features -= mean.astype(np.float32)
    scale = np.sqrt(np.einsum("nd,nd->d", features, features, dtype=np.float64) / len(features))
    scale[scale < 1e-6] = 1.0
    features /= scale.astype(np.float32)
    return mean, scale


@dataclass(frozen=True)
class _Path:
    """Heads of every strength, (strengths, classes, D) and (strengths, classes), and what they say of judged rows."""

    weights: npt.NDArray[np.float64]
    biases: npt.NDArray[np.float64]
    outputs: npt.NDArray[np.float64]


def _path(features: Floats, labels: Ints, classes: int, fitted: Ints, judged: Ints) -> _Path:
    """Fit heads from the strongest regularisation to the weakest, each beginning with the last one's solution."""
    whole = len(fitted) == fitted[-1] + 1  # a slice needs no copy
    x, y = features[: len(fitted)] if whole else features[fitted], labels[fitted]
    solver = LogisticRegression(warm_start=True, max_iter=300)
    weights, biases, outputs = [], [], []
    for strength in STRENGTHS:
        solver.C = strength
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest ones; then they are not the best either
            solver.fit(x, y)
        weight, bias = solver.coef_, solver.intercept_
        if classes == 2:  # one row of log-odds
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        logits = torch.from_numpy(features[judged] @ weight.T + bias)
        outputs.append(logits.double().log_softmax(dim=1).numpy())
        weights.append(weight)
        biases.append(bias)
    return _Path(np.stack(weights), np.stack(biases), np.stack(outputs))
