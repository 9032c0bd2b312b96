"""How unlike everything it was trained on an image is to a model: whether it may be none of the classes.

A softmax shares 100 % among the classes whatever the image is. The features before the last layer tell more: the
distance is one less the cosine to the fifth nearest of some training images (Sun et al. 2022, arXiv 2204.06507). It was
chosen by measurement over energy, highest logit, Mahalanobis distances and the residual outside of the principal space,
see ``bench/calibration.py``.

A distance says nothing to a person, so it is compared with those of images that are known and that the features have
not learned from: ``unfamiliar`` is the share of these that are less unusual. Beyond them all it goes on towards 1 as if
their largest distances were exponentially distributed (peaks over a threshold, Pickands 1975). From 0.99 on an image
counts as none of the classes, and with it about one of 100 that is one.

::

    RUN/familiar.safetensors    bank (N, D) float16: training images, as vectors of length one
                                known (M,) float32: distances of validation images, sorted
                                metadata: checkpoint, whose features these are
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sagitta.errors import ConfigError
from sagitta.files import write_atomic
from sagitta.models import Floats, unit_length

FAMILIAR_FILE = "familiar.safetensors"
FEWEST_KNOWN = 20
"""Known images below which nothing can be said of a share of them."""
UNUSUAL = 0.99
"""Share from which an image counts as none of the classes."""
_NEIGHBOURS = 5
_TAIL = 10  # part of the known images whose distances are the largest
_TINY = 1e-6  # distances are not told apart below
_BATCH = 512  # rows whose distances to the whole bank are computed at a time


@dataclass(frozen=True)
class Familiar:
    """What a model knows.

    Attributes:
        bank: (N, D) float16, features of training images, each of length one.
        known: (M,) float32, distances of images that it has not learned from, sorted.
    """

    bank: npt.NDArray[np.float16]
    known: Floats

    def unfamiliar(self, features: Floats) -> Floats:
        """Return for each row (B,) of features (B, D) the share of known images that are less unusual."""
        found, count = distances(self.bank, features).astype(np.float64), len(self.known)
        shares = np.searchsorted(self.known, found, side="left") / (count + 1)
        tail = max(2, count // _TAIL)
        excess = float((self.known[-tail:] - self.known[-tail - 1]).mean())
        beyond = np.maximum(found - self.known[-1], 0) / max(excess, _TINY)
        shares = np.where(beyond > 0, 1 - np.exp(-beyond) / (count + 1), shares)
        return shares.astype(np.float32)


def familiar_with(bank: Floats, known: Floats) -> Familiar:
    """Return what a model knows by its features of training images (N, D), and of others (M, D) of the same kind."""
    kept = unit_length(bank).astype(np.float16)
    return Familiar(kept, np.sort(distances(kept, known)))


def distances(bank: npt.NDArray[np.float16], features: Floats) -> Floats:
    """Return one less the cosine (B,) to the fifth nearest row of a bank (N, D), or to the last of fewer."""
    nearest, whole = min(_NEIGHBOURS, len(bank)), bank.astype(np.float32)
    found = [
        np.partition(unit_length(features[start : start + _BATCH]) @ whole.T, -nearest, axis=1)[:, -nearest]
        for start in range(0, len(features), _BATCH)
    ]
    return np.concatenate([np.empty(0, np.float32), *(1 - each for each in found)])


def write_familiar(run: Path, familiar: Familiar, checkpoint: str) -> None:
    """Write what the model of a run's checkpoint knows, by its name.

    Raises:
        OSError: it cannot be written.
    """
    tensors: dict[str, npt.NDArray[Any]] = {"bank": familiar.bank, "known": familiar.known}
    write_atomic(run / FAMILIAR_FILE, save(tensors, {"checkpoint": checkpoint}))


def read_familiar(run: Path, checkpoint: str) -> Familiar | None:
    """Return what the model of a checkpoint knows, by its name; None where nobody noted it, or of another one only.

    Raises:
        ConfigError: the file is damaged.
    """
    path = run / FAMILIAR_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("checkpoint") != checkpoint:
                return None
            return Familiar(file.get_tensor("bank"), file.get_tensor("known"))
    except SafetensorError as error:
        raise ConfigError(f"{path}: damaged ({error}); remove it, and predictions come without `unfamiliar`") from None
