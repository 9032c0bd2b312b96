"""What is unfamiliar: distances as scikit-learn has them, shares by hand, files that are whole."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from sagitta.errors import ConfigError
from sagitta.evaluation.novelty import (
    FAMILIAR_FILE,
    UNUSUAL,
    Familiar,
    distances,
    familiar_with,
    read_familiar,
    write_familiar,
)
from sagitta.models import Floats


def vectors(rows: int, middle: int, seed: int) -> Floats:
    """Return noisy vectors (rows, 16) around one of the axes."""
    found = np.random.default_rng(seed).normal(0, 0.3, (rows, 16))
    found[:, middle] += 3
    return found.astype(np.float32)


def test_distances_are_those_to_the_fifth_nearest_of_scikit_learn() -> None:
    bank, others = vectors(50, 0, 0), vectors(20, 1, 1)
    kept = familiar_with(bank, others)
    nearest = NearestNeighbors(n_neighbors=5, metric="cosine").fit(bank)
    assert distances(kept.bank, others) == pytest.approx(nearest.kneighbors(others)[0][:, -1], abs=2e-3)  # float16
    assert len(distances(kept.bank, others[:0])) == 0
    assert len(distances(kept.bank[:2], others)) == 20


def test_a_share_is_that_of_the_known_images_that_are_less_unusual() -> None:
    bank = np.tile(np.eye(4, dtype=np.float16)[:1], (5, 1))
    familiar = Familiar(bank, np.array([0.1, 0.2, 0.3, 0.4], np.float32))  # the larger half is 0.15 beyond the rest
    turned = np.array([[1 - each, (1 - (1 - each) ** 2) ** 0.5, 0, 0] for each in (0.0, 0.25, 0.55, 0.9)], np.float32)
    beyond = [1 - np.exp(-each / 0.15) / 5 for each in (0.15, 0.5)]
    assert familiar.unfamiliar(turned) == pytest.approx([0, 2 / 5, *beyond], abs=1e-5)
    alike = Familiar(bank, np.zeros(30, np.float32))
    assert alike.unfamiliar(turned)[[0, 3]].tolist() == [0, 1]


def test_other_images_are_told_from_known_ones() -> None:
    familiar = familiar_with(vectors(200, 0, 0), vectors(150, 0, 1))
    own, other = (familiar.unfamiliar(vectors(100, middle, 2)) for middle in (0, 5))
    assert roc_auc_score([0] * 100 + [1] * 100, np.r_[own, other]) > 0.99
    assert (other >= UNUSUAL).mean() > 0.95 and (own >= UNUSUAL).mean() < 0.06


def test_a_file_is_of_one_checkpoint_and_whole(tmp_path: Path) -> None:
    familiar = familiar_with(vectors(30, 0, 0), vectors(25, 0, 1))
    assert read_familiar(tmp_path, "a.ckpt") is None
    write_familiar(tmp_path, familiar, "a.ckpt")
    again = read_familiar(tmp_path, "a.ckpt")
    assert again is not None and (again.bank == familiar.bank).all() and (again.known == familiar.known).all()
    assert read_familiar(tmp_path, "b.ckpt") is None
    path = tmp_path / FAMILIAR_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"familiar.safetensors: damaged"):
        read_familiar(tmp_path, "a.ckpt")
