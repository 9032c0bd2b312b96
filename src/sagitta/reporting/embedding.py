"""A map of the images: what the network's head is given of them, made flat.

Principal components need nothing; where ``umap-learn`` is installed (``pip install 'sagitta[report]'``) and a person
asked for the page, UMAP (McInnes et al. 2018) keeps neighbours together. Features come from a probe's cache, else they
are computed of as many images as there is time for.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from sagitta.clock import Clock
from sagitta.dataset import ShardSet
from sagitta.errors import SagittaError
from sagitta.evaluation import Model, open_model
from sagitta.loading import Loader
from sagitta.models import Classifier, FeatureStore, Floats, prepare, split_head
from sagitta.reporting.gathering import Gathered
from sagitta.reporting.pictures import paced
from sagitta.terminal import show

MOST_POINTS = 1500
_MOST_COMPUTED = 1000
_BATCH = 32
_ENOUGH = 100  # images, of fewer neighbours say no more than components


@dataclass(frozen=True)
class Features:
    """Features of some rows.

    Attributes:
        splits: (N,) names.
        rows: (N,) of the splits.
        vectors: (N, D).
        origin: where they are from, in words.
    """

    splits: list[str]
    rows: list[int]
    vectors: Floats
    origin: str


def sample(sizes: Mapping[str, int], most: int, seed: int = 0) -> list[tuple[str, int]]:
    """Return rows of the splits in a random order: those of test and val first, at most a third of all places each."""
    random = np.random.default_rng(seed)
    names = [*(name for name in ("test", "val") if name in sizes), *(n for n in sizes if n not in ("test", "val"))]
    chosen: list[tuple[str, int]] = []
    for place, name in enumerate(names):
        left = most - len(chosen)
        share = left if place == len(names) - 1 else min(left, most // 3)
        rows = random.permutation(sizes[name])[:share]
        chosen += [(name, row) for row in rows.tolist()]
    order = random.permutation(len(chosen))
    return [chosen[place] for place in order.tolist()]


def features_of(
    run: Gathered, model: Callable[[], Model], shards: ShardSet, clock: Clock
) -> tuple[Features | None, str]:
    """Return features of a sample of a run's data; or None, and why there are none.

    Args:
        run: the run.
        model: opens what it predicts with, where that is needed.
        shards: its data.
        clock: when to end.
    """
    sizes = {name: len(split) for name, split in shards.splits.items() if len(split)}
    if (found := _cached(run, shards, sample(sizes, MOST_POINTS))) is not None:
        return found, ""
    late = f"no time was left for it: sagitta report {run.path} draws it"
    if clock.left < 1:
        return None, late
    try:
        found = _computed(run, model, shards, sample(sizes, _MOST_COMPUTED), clock)
    except (SagittaError, OSError, RuntimeError) as error:
        return None, " ".join(str(error).split())
    return found, "" if found is not None else late


def _cached(run: Gathered, shards: ShardSet, rows: Sequence[tuple[str, int]]) -> Features | None:
    """Return the features that a probe left in the cache, if all of these are there."""
    probed = run.record.get("probe")
    if not probed:
        return None
    store = FeatureStore.named(probed[0]["features"])
    hashes = {name: split.content_hashes for name, split in shards.splits.items()}
    wanted = pa.array([hashes[name][row].as_py() for name, row in rows], pa.string())
    try:
        if store.missing(wanted).size:
            return None
        return Features(*_columns(rows), store.read(wanted), "cached by the probe")
    except SagittaError:  # damaged; the next probe computes them again
        return None


def _columns(rows: Sequence[tuple[str, int]]) -> tuple[list[str], list[int]]:
    return [name for name, _ in rows], [row for _, row in rows]


def _computed(
    run: Gathered, model: Callable[[], Model], shards: ShardSet, rows: Sequence[tuple[str, int]], clock: Clock
) -> Features | None:
    """Return features of the rows that there is time for; None where there is none for a single one."""
    classifier, words = _one(run, model)
    assert classifier.network is not None
    body, _ = split_head(classifier.network, classifier.name)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    fast, how = prepare(body).to(device), classifier.preprocessing
    names = dict.fromkeys(name for name, _ in rows)
    loaders = {name: Loader(shards, name, _BATCH, train=False, preprocessing=how) for name in names}
    vectors: list[Floats] = []
    done: list[tuple[str, int]] = []
    for batch in paced(rows, _BATCH, clock):
        for name in dict.fromkeys(name for name, _ in batch):
            own = [row for other, row in batch if other == name]
            images, _ = loaders[name].take(np.array(own, np.int64))
            vectors.append(_forward(fast, images.to(device)))
            done += [(name, row) for row in own]
    return Features(*_columns(done), np.concatenate(vectors), words) if vectors else None


def _one(run: Gathered, model: Callable[[], Model]) -> tuple[Classifier, str]:
    """Return the classifier whose features are shown: the run's, or that of its first member."""
    if run.members or "members" in run.record:
        members = run.record.get("members") or [{"run": "members/1"}]
        return open_model(run.path / members[0]["run"]).first, "computed with the first member's weights"
    return model().first, "computed with the run's weights"


def _forward(body: torch.nn.Module, images: torch.Tensor) -> Floats:
    with torch.inference_mode():
        vectors: Floats = body(images.contiguous(memory_format=torch.channels_last)).float().cpu().numpy()
    return vectors.reshape(len(images), -1)


def flat(vectors: Floats, *, umap: bool) -> tuple[npt.NDArray[np.float64], str]:
    """Return places (N, 2) in 0..1 and the name of the method."""
    if umap and find_spec("umap") and len(vectors) >= _ENOUGH:
        show(f"map:   UMAP of {len(vectors):,} images, which takes up to a minute")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses Tensorflow, and says that a seed costs it threads
            from umap import UMAP

            places = UMAP(n_neighbors=15, min_dist=0.15, random_state=0).fit_transform(vectors)
        return _scaled(np.asarray(places, np.float64)), "UMAP"
    return _scaled(principal(vectors)), "the two principal components"


def principal(vectors: Floats) -> npt.NDArray[np.float64]:
    """Return (N, 2) scores on the two principal components; signs such that the largest entry of each is positive."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    if centred.shape[1] > centred.shape[0]:
        values, own = np.linalg.eigh(centred @ centred.T)
        scores = own[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0))
    else:
        scores = centred @ np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    if scores.shape[1] < 2:
        scores = np.column_stack([scores, np.zeros(len(scores))])
    largest = scores[np.abs(scores).argmax(axis=0), range(2)]
    turned: npt.NDArray[np.float64] = scores * np.where(largest < 0, -1.0, 1.0)
    return turned


def _scaled(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = places.min(axis=0), places.max(axis=0)
    scaled: npt.NDArray[np.float64] = (places - low) / np.where(high > low, high - low, 1)
    return scaled
