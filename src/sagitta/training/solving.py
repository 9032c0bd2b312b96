"""A network's last linear layer, solved on the features of a dataset's images: where a probe ends and a fit begins.

The layer may see every stage of the network, see :mod:`sagitta.models.stages`. Where nobody has decided that, both
heads are solved on the same features, and the rows that neither has seen decide: the one of the last features stays
unless the other one is better by more than one standard error. It gains much where images or classes are unlike those
of the weights, and loses where there are many classes of few images.
"""

import copy
import itertools
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from sagitta.conversion import units_of
from sagitta.errors import ConfigError
from sagitta.evaluation import quiet_trainer
from sagitta.loading import ImageData, Preprocessing, identities
from sagitta.models import (
    Classifier,
    FeatureStore,
    Floats,
    Ints,
    balanced_weights,
    check_head,
    extract,
    prepare,
    see_stages,
    split_head,
    stage_widths,
)
from sagitta.pool import follow
from sagitta.training.head import ENOUGH, Head, fit_head, log_losses, surely_better

_MANY = 200_000  # features * classes from which a second head takes too long beside the features
_MUCH = 200_000_000  # rows * features from which vectors of every stage are too large for memory
_ALIKE = 1e-9  # variance of vectors of length one, below which they are the same but for rounding
_SHARE = 0.5  # of the spread of the last features, for each stage


@dataclass(frozen=True)
class Solved:
    """What was solved, and what it took.

    Attributes:
        head: as it stands in the network now.
        layer: the network's last linear layer.
        store: the features, and before them those of the stages where these were looked at.
        fitted: the splits whose rows the head was fitted to.
        labels: (M,) int64 of the rows that ``head.logits`` judge.
        paths: (M,) of these rows.
        alone: rows that no head may judge, since a class has no others.
        computed: images whose features were not in the cache.
        feature_seconds: for decoding and computing these.
        head_seconds: for choosing and fitting the head.
    """

    head: Head
    layer: nn.Linear
    store: FeatureStore
    fitted: tuple[str, ...]
    labels: Ints
    paths: list[str]
    alone: int
    computed: int
    feature_seconds: float
    head_seconds: float

    def logits(self, data: ImageData, split: str) -> Floats:
        """Return what the head says of a split whose features are there, (N, classes) float32."""
        with torch.inference_mode():
            logits: Floats = self.layer(torch.from_numpy(self.read(data.shards.splits[split].content_hashes))).numpy()
        return logits

    def read(self, hashes: pa.Array) -> Floats:
        """Return what the layer is given of (N,) images, (N, D) float32."""
        return self.store.read(hashes)[:, -self.layer.in_features :]


def fit_either(
    vectors: Floats,
    labels: Ints,
    widths: Sequence[int],
    classes: int,
    *,
    units: Ints | None = None,
    seed: int = 0,
    undecided: bool = True,
) -> Head:
    """Return the head of vectors, or that of the last features at their end where these are not surely worse.

    Args:
        vectors: (N, D) float32, changed in place.
        labels: (N,) int64.
        widths: of the stages before the last features; where there are none, there is nothing to decide.
        classes: as for :func:`sagitta.training.fit_head`.
        units: likewise.
        seed: likewise.
        undecided: whether the last features alone are tried, too.
    """
    how: Any = {"classes": classes, "units": units, "seed": seed}
    if not widths:
        return fit_head(vectors, labels, **how)
    plain = fit_head(vectors[:, sum(widths) :].copy(), labels, **how) if undecided else None
    if plain is not None and not np.isfinite(vectors[:, : sum(widths)]).all():
        return plain
    scale = _scale(vectors, widths)
    vectors *= scale
    wide = fit_head(vectors, labels, **how)
    if plain is not None:
        losses = [log_losses(head.logits, labels[head.judged]) for head in (wide, plain)]
        if not surely_better(*losses):
            return plain
    return replace(wide, weight=wide.weight * scale, method=f"{wide.method}, on every stage")


def worth_a_look(rows: int, features: int, classes: int) -> bool:
    """Return whether a second head, that of every stage, can be judged, and is in proportion to the features' time."""
    return rows >= ENOUGH * classes and features * classes <= _MANY and features * rows <= _MUCH


def features_for(
    classifier: Classifier, data: ImageData, preprocessing: Preprocessing, fitted: Sequence[str]
) -> tuple[nn.Module, FeatureStore]:
    """Return what makes the vectors that a head is solved on, on the CPU, and where they are kept.

    They are those of every stage where the head sees these, or where it is worth a look whether it should; the last
    features stand at their end.

    Args:
        classifier: built, on the CPU.
        data: set up, with one label an image.
        preprocessing: what images become before the network.
        fitted: splits whose rows count.

    Raises:
        ConfigError: the network does not end in one linear layer.
    """
    assert classifier.network is not None
    network, name, classes = classifier.network, classifier.name, data.num_classes
    rows, (_, layer) = sum(len(data.shards.splits[each]) for each in fitted), check_head(network, name)
    if worth_a_look(rows, layer.in_features, classes) and classifier.may_see_stages:
        network = see_stages(copy.deepcopy(network), name, preprocessing.size, preprocessing.channels)
    body, _ = split_head(network, name)
    return body, FeatureStore(name, body, preprocessing)


def solve(
    classifier: Classifier,
    data: ImageData,
    preprocessing: Preprocessing,
    *,
    fitted: Sequence[str],
    others: Sequence[str],
    batch_size: int | None = None,
    verbose: bool = False,
) -> Solved:
    """Fit the classifier's last linear layer to the rows of some splits, the rest of it as it is.

    Args:
        classifier: built, on the CPU.
        data: set up, with one label an image.
        preprocessing: what images become before the network.
        fitted: splits whose rows count; train first.
        others: further splits whose features are wanted.
        batch_size: images at a time; by default what is fast on the device.
        verbose: show progress.

    Raises:
        ConfigError: the network does not end in one linear layer, or its features are not finite.
        DatasetError: an image cannot be decoded.
    """
    assert classifier.network is not None
    body, store = features_for(classifier, data, preprocessing, fitted)
    began = time.perf_counter()
    splits = [*fitted, *others]
    total = store.lacking(data.shards.splits[name].content_hashes for name in splits)
    fast = prepare(body) if total else body
    computed = 0  # by this process; another one may be faster

    def every() -> Generator[int, None, None]:
        nonlocal computed
        for name in splits:
            for count in extract(store, fast, data.shards, name, preprocessing, batch_size):
                computed += count
                yield count

    with closing(every()) as counts:  # whatever happens, what is computed is saved
        follow(classifier.name, counts, total, show=verbose)
    extracted = time.perf_counter()
    rows = [data.shards.splits[name] for name in fitted]
    labels = np.concatenate([split.labels for split in rows])
    features = store.read(pa.concat_arrays([split.content_hashes for split in rows]))
    undecided, widths = not stage_widths(classifier.network), stage_widths(body)
    if not np.isfinite(features[:, sum(widths) if undecided else 0 :]).all():
        raise ConfigError(
            f"model {classifier.name!r}: its features are not finite numbers, so its weights are damaged, or not made "
            "for such input; take other weights"
        )
    how: Any = {"units": units_of(*identities(rows)), "seed": data.seed, "undecided": undecided}
    head = fit_either(features, labels, widths, data.num_classes, **how)
    if undecided:
        classifier.decide_stages(bool(widths) and head.weight.shape[1] == features.shape[1])
    if classifier.class_weights:
        head = _weighed(head, labels)
    _, layer = check_head(classifier.network, classifier.name)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight))
        layer.bias.copy_(torch.from_numpy(head.bias))
    classifier.temperature = 1.0  # that of the head before
    paths = [split.path(row) for split in rows for row in range(len(split))]
    return Solved(
        head,
        layer,
        store,
        tuple(fitted),
        labels[head.judged],
        [paths[row] for row in head.judged.tolist()],
        0 if head.folds == 1 else len(labels) - len(head.judged),
        computed,
        extracted - began,
        time.perf_counter() - extracted,
    )


def _scale(vectors: Floats, widths: Sequence[int]) -> Floats:
    """Return factors (D,) by which each stage has a quarter of the variance of the last features."""
    scale = np.ones(vectors.shape[1], np.float32)
    ends = np.cumsum([0, *widths])
    whole = vectors[:, ends[-1] :].var(axis=0).sum() or 1.0  # 0 where the last features are always the same
    for start, end in itertools.pairwise(ends):
        own = vectors[:, start:end].var(axis=0).sum()  # of vectors of length one
        scale[start:end] = _SHARE * np.sqrt(whole / own) if own > _ALIKE else 0.0
    return scale


def _weighed(head: Head, labels: Ints) -> Head:
    """Return a head for classes that count alike: biases change by the logarithm of the weights of a balanced loss.

    That makes probabilities what they would be if the classes were equally frequent (Menon et al. 2021).
    """
    change = balanced_weights(np.bincount(labels, minlength=len(head.bias))).log().numpy()
    return replace(head, bias=head.bias + change, logits=head.logits + change)


def rows_to_fit(data: ImageData, *, refit: bool) -> tuple[str, ...]:
    """Return the splits that the final head is fitted to; a fold is never among them, since it judges."""
    if data.fold is not None:
        return ("train",)
    val = len(data.shards.splits.get("val", ())) > 0
    return ("train", "val") if val and (refit or "val" in data.info.made_splits) else ("train",)


def check_labelled(data: ImageData, fitted: Sequence[str]) -> None:
    """Refuse rows that no head can be solved on.

    Raises:
        ConfigError: an image has several labels, there is no ``train``, there is one class only, or no class has two
            images.
    """
    if data.multilabel:
        raise ConfigError(f"{data.source}: several labels an image; a probe takes one: use sagitta fit --tune head")
    if not len(data.shards.splits.get("train", ())):
        raise ConfigError(f"{data.source}: no train split to learn from; convert the source again")
    labels = np.concatenate([data.shards.splits[name].labels for name in fitted])
    counts = np.bincount(labels, minlength=data.num_classes)
    if len(counts) < 2 or (counts > 0).sum() < 2:
        raise ConfigError(f"{data.source}: one class only; a classifier needs at least two")
    if counts.max() < 2:
        raise ConfigError(
            f"{data.source}: one image a class in {' and '.join(fitted)}; nothing is left to judge a head by"
        )


def write_checkpoint(classifier: Classifier, path: Path) -> None:
    """Write a classifier that no Trainer trained as a checkpoint of weights, like those of a fit."""
    trainer = quiet_trainer(accelerator="cpu")
    trainer.strategy.connect(classifier)
    trainer.save_checkpoint(path, weights_only=True)
