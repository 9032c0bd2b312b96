"""Classes of which rows hold no image, where that is no chance: what is found on the rows says nothing of them.

A temperature, a probability from which on answers are right and a set that holds the class are true of images like
those they were found on. Rows that were drawn from all classes may lack rare ones by chance, and are a sample of them
all the same. Rows from which a class was kept are none, however many they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import pdtrc

from sagitta.dataset import plural

_CHANCE = 0.05  # of as many lacking classes, below which the rows are no sample


def lacking_beyond_chance(
    shares: npt.NDArray[np.floating[Any]], labels: npt.NDArray[Any], names: Sequence[str]
) -> tuple[str, ...]:
    """Return the classes that were learned and that no row has; none where as many may lack by chance.

    Of N rows that are drawn like the training rows, a class of the share p lacks with the probability (1 - p)^N. How
    many classes do is at most as spread as a Poisson distribution of the sum of these; and a single one is no chance
    where its own probability, times the number of classes (Bonferroni), is small, however many rare ones lack, too.

    Args:
        shares: (classes,) of the training rows that have each.
        labels: of other rows (N,), or (N, classes) of 0 and 1.
        names: of the classes.
    """
    there = np.bincount(labels, minlength=len(names)) if labels.ndim == 1 else (labels > 0).sum(axis=0)
    lacking = (shares > 0) & (there == 0)
    chances = (1 - shares) ** len(labels)
    many = float(pdtrc(int(lacking.sum()) - 1, float(chances[shares > 0].sum()))) < _CHANCE
    found = lacking if lacking.any() and many else lacking & (chances * int((shares > 0).sum()) < _CHANCE)
    return tuple(names[label] for label in np.flatnonzero(found).tolist())


def lacking_text(names: Sequence[str]) -> str:
    """Return what the rows lack, in words that follow ``the rows have``."""
    some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"no image of {plural(len(names), 'class', 'classes')} ({some}), and that is no chance"
