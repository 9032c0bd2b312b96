"""What can be promised of predictions, by rows that the model has not learned from: answers, and sets of classes.

Both promises hold for images like those rows: what the model has never seen the like of is another question, see
:mod:`sagitta.evaluation.novelty`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, betaincinv

from sagitta.dataset import plural
from sagitta.errors import ConfigError
from sagitta.evaluation.asked import check_share
from sagitta.models import Floats

Bools = npt.NDArray[np.bool_]

_RISK = 0.05  # that what is promised of the accuracy does not hold
_FORGIVEN, _MANY = 2, 2  # wrong rows of the first test that do not end it, where there are so many times its rows
_STEP = 20  # each step of the sequence answers a twentieth more


@dataclass(frozen=True)
class Abstention:
    """From which probability on a prediction is an answer.

    Attributes:
        threshold: of the highest probability.
        accuracy: share of right answers among the rows that are answered.
        low: what it is at least, with a confidence of 95 %: not below what was asked for.
        share: of the rows that are answered.
        answered: how many rows these are.
    """

    threshold: float
    accuracy: float
    low: float
    share: float
    answered: int

    def __str__(self) -> str:
        right = f"{self.accuracy:.2%} of them right, at least {self.low:.2%} with 95 % confidence"
        return f"answers from a probability of {self.threshold:.4f} on: {self.share:.1%} of known images, {right}"


def abstain_below(certainty: Floats, right: Bools, accuracy: float) -> Abstention:
    """Return from which certainty on answers have an accuracy, which fails to hold in at most one of 20 such cases.

    Thresholds are tested from the highest one on, each by an exact binomial test of the rows above it, until one
    fails: in such a fixed sequence each test may use the whole risk (learn then test, Angelopoulos et al. 2021,
    arXiv 2110.01052). The first has as few rows as could show the accuracy, if all of them are right; or, of many rows,
    if two are wrong, since some labels always are. The numbers of rows are the same whatever is asked for, so that who
    asks for more is not answered more often. The bound is the one-sided one of Clopper and Pearson (1934), by which the
    tests decide.

    Args:
        certainty: (N,) highest probabilities.
        right: (N,) whether that class is the label.
        accuracy: to be reached, above 0 and below 1.

    Raises:
        ConfigError: it cannot be reached, or there are too few rows to show it.
    """
    check_share("--accuracy", accuracy, 0.99)
    rows, fewest = len(right), math.ceil(math.log(_RISK) / math.log(accuracy))
    if rows < fewest:
        raise ConfigError(
            f"--accuracy {accuracy:g}: takes {fewest} images that the model has not learned from to show it, even if "
            f"all are right, and the run has {rows}; ask for {_RISK ** (1 / rows) if rows else 0:.3f} at most"
        )
    order = np.argsort(-certainty, kind="stable")
    sure, wrong = certainty[order], np.cumsum(~right[order])
    counts, last = _sequence(sure, _first(rows, fewest, accuracy)), 0
    for count in counts:
        if bdtr(float(wrong[count - 1]), count, 1 - accuracy) > _RISK:
            break
        last = count
    if not last:
        errors, asked = int(wrong[counts[0] - 1]), plural(counts[0], "image")
        raise ConfigError(
            f"--accuracy {accuracy:g}: no probability surely reaches it: of the {asked} that the model is most certain "
            f"of, {errors} {'is' if errors == 1 else 'are'} wrong; ask for less, or give more validation images"
        )
    answered = last - int(wrong[last - 1])
    return Abstention(float(sure[last - 1]), answered / last, at_least(answered, last), last / rows, last)


def at_least(right: int, total: int) -> float:
    """Return what a share of independent trials reaches with 95 % confidence (Clopper and Pearson 1934)."""
    return float(betaincinv(right, total - right + 1, _RISK)) if right else 0.0


def set_level(own: Floats, coverage: float) -> float:
    """Return from which probability on a class belongs to the set that holds the label of a share of images.

    Split conformal prediction by the probability of the label (Sadinle, Lei and Wasserman 2019): the share holds on
    average over such rows and images, whatever the model, and no sets that keep it are smaller on average.

    Args:
        own: (N,) probabilities of the labels.
        coverage: the share, above 0 and below 1.

    Raises:
        ConfigError: it is out of range, or there are too few rows.
    """
    check_share("--coverage", coverage, 0.9)
    rows = len(own)
    rank = math.ceil((rows + 1) * coverage - 1e-9)  # 10 * 0.9 is more than 9 only by rounding
    if rank > rows:
        fewest = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise ConfigError(
            f"--coverage {coverage:g}: takes {fewest} images that the model has not learned from, and the run has "
            f"{rows}; ask for {rows / (rows + 1):.2f} at most"
        )
    return float(np.sort(own)[rows - rank])


def sets_of(probabilities: Floats, level: float) -> Bools:
    """Return which classes (N, classes) belong to each row's set; the most probable one always does."""
    chosen: Bools = probabilities >= level
    chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
    return chosen


def _first(rows: int, fewest: int, accuracy: float) -> int:
    """Return how many rows the first test has."""
    count = fewest
    while bdtr(float(_FORGIVEN), count, 1 - accuracy) > _RISK:
        count += 1
    return count if rows >= _MANY * count else fewest


def _sequence(sure: npt.NDArray[Any], fewest: int) -> list[int]:
    """Return numbers of rows from ``fewest`` to all; rows of equal certainty are answered together."""
    counts, count = [], 1
    while count < len(sure):
        counts += [count] * (count >= fewest)
        count += max(1, count // _STEP)
    ends = np.searchsorted(-sure, -sure[np.array([*counts, len(sure)]) - 1], side="right")
    return list(dict.fromkeys(ends.tolist()))
