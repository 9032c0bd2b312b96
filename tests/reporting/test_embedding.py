"""The map of the images: which rows, which features, and how they are made flat."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from sagitta.clock import Clock
from sagitta.reporting.embedding import Features, features_of, flat, principal, sample
from sagitta.reporting.gathering import gather
from sagitta.reporting.pictures import open_shelf
from tests.reporting import runs


def test_rows_that_are_judged_come_first_and_none_twice() -> None:
    rows = sample({"train": 1000, "val": 50, "test": 400}, 300)
    counts = {name: sum(own == name for own, _ in rows) for name in ("train", "val", "test")}
    assert counts == {"train": 150, "val": 50, "test": 100} and len(set(rows)) == 300
    assert sorted(sample({"train": 4}, 300)) == [("train", row) for row in range(4)]
    assert rows == sample({"train": 1000, "val": 50, "test": 400}, 300) != sample({"train": 1000}, 300, seed=1)


@pytest.mark.parametrize("shape", [(40, 6), (8, 50), (5, 1)])
def test_principal_components_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    own = principal(vectors)
    theirs = PCA(min(2, *shape)).fit_transform(vectors)
    assert np.abs(own[:, : theirs.shape[1]]) == pytest.approx(np.abs(theirs), abs=1e-4)
    assert (own.max(axis=0) >= -own.min(axis=0) - 1e-9).all()


def test_few_images_need_no_umap_and_places_lie_in_the_square() -> None:
    places, method = flat(np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32), umap=True)
    assert method == "the two principal components"
    assert places.min() == 0 and places.max() == 1
    same, _ = flat(np.ones((30, 4), np.float32), umap=False)
    assert np.isfinite(same).all()


@pytest.mark.slow  # what it compiles takes half a minute
def test_umap_keeps_groups_together_and_is_seeded() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 40)
    vectors = (8 * random.normal(size=(3, 20))[groups] + random.normal(size=(120, 20))).astype(np.float32)
    places, method = flat(vectors, umap=True)
    centres = np.stack([places[groups == group].mean(axis=0) for group in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1)
    assert method == "UMAP" and (nearest == groups).all() and (flat(vectors, umap=True)[0] == places).all()


def test_without_a_checkpoint_or_time_it_says_why(tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", runs.dataset(tmp_path / "data", ("a", "b")))
    shelf, _ = open_shelf(run, (run / "config.yaml").read_text(), None)
    assert shelf is not None

    def model() -> None:
        raise AssertionError("is not opened")

    found = features_of(gather(run), model, shelf.shards, Clock(0))  # type: ignore[arg-type]
    assert found == (None, f"no time was left for it: sagitta report {run} draws it")
    assert Features(["test"], [0], np.ones((1, 2), np.float32), "x").rows == [0]
