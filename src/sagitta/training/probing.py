"""`sagitta probe`: a linear head on frozen features, solved in seconds; the best of several networks becomes a run.

The head is that of :mod:`sagitta.training.head`, put into the network's last linear layer.
"""

import itertools
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from sagitta.dataset import ShardSet
from sagitta.errors import ConfigError
from sagitta.evaluation import (
    Evaluation,
    Seen,
    choose_split,
    describe,
    judge,
    keep_seen,
    quiet,
    quiet_trainer,
    record_test,
    seen_of,
)
from sagitta.files import new_file
from sagitta.loading import ImageData, Preprocessing
from sagitta.models import (
    SINGLE_LABEL,
    Classifier,
    FeatureStore,
    Floats,
    Ints,
    extract,
    open_weights,
    prepare,
    pretrained_preprocessing,
    split_head,
    vectors_array,
)
from sagitta.pool import follow
from sagitta.run import CONFIG_FILE, check_free, new_run_directory, save_config, write_record
from sagitta.settings import Settings
from sagitta.terminal import show, table
from sagitta.training.head import Head, fit_head

_CHUNK = 16_384  # rows that an export holds at a time


@dataclass(frozen=True)
class Candidate:
    """A network to probe.

    Attributes:
        name: see :func:`sagitta.models.networks.build_network`.
        weights: file, checkpoint or run; None takes what timm or torchvision publishes.
    """

    name: str
    weights: str | None = None


@dataclass(frozen=True)
class Probed:
    """What a probe found out about one network.

    Attributes:
        candidate: what was asked for.
        classifier: the network with its new head, on the CPU, in evaluation mode.
        head: the same head by itself, and how it was chosen.
        computed: images whose features were not in the cache.
        feature_seconds: for decoding and computing these.
        head_seconds: for choosing and fitting the head.
        test: every score of ``test``; None where the dataset has no such split.
        store: the features.
    """

    candidate: Candidate
    classifier: Classifier
    head: Head
    computed: int
    feature_seconds: float
    head_seconds: float
    test: Evaluation | None
    store: FeatureStore


def probe(
    data: ImageData,
    candidates: Sequence[Candidate],
    *,
    image_size: int | None = None,
    batch_size: int | None = None,
    verbose: bool = False,
) -> list[Probed]:
    """Probe each candidate; returns the best by validation first: by accuracy, then by log loss.

    Args:
        data: set up, with one label an image.
        candidates: at least one.
        image_size: other height and width of the input than the weights were trained with.
        batch_size: images at a time; by default what is fast on the device.
        verbose: print what the weights files were, and show progress.

    Raises:
        ConfigError: there is no ``val``, or a class with fewer than two images; a network without one last linear
            layer; weights that cannot be had or do not fit.
        DatasetError: an image cannot be decoded.
    """
    _check(data)
    results = [_probe_one(data, candidate, image_size, batch_size, verbose) for candidate in candidates]
    return sorted(results, key=lambda result: (-result.head.val.value, result.head.val_loss))


def _check(data: ImageData) -> None:
    if data.multilabel:
        raise ConfigError(f"{data.source}: several labels an image; a probe takes one: use sagitta fit --tune head")
    if not len(data.shards.splits.get("val", ())):
        raise ConfigError(f"{data.source}: no val split to choose by; convert with --val 0.1")
    if not len(data.shards.splits.get("train", ())):
        raise ConfigError(f"{data.source}: no train split to learn from; convert the source again")
    labels = np.concatenate([data.shards.splits[name].labels for name in ("train", "val")])
    counts = np.bincount(labels, minlength=data.num_classes)
    if len(counts) < 2:
        raise ConfigError(f"{data.source}: one class only; a classifier needs at least two")
    if counts.min() < 2:
        name = data.class_names[int(counts.argmin())]
        raise ConfigError(f"{data.source}: class {name!r} has {counts.min()} images in train and val; a probe needs 2")


def _probe_one(
    data: ImageData, candidate: Candidate, image_size: int | None, batch_size: int | None, verbose: bool
) -> Probed:
    classifier, preprocessing = _build(data, candidate, image_size)
    if verbose and classifier.weights_report:
        show(classifier.weights_report)
    assert classifier.network is not None
    body, head_name = split_head(classifier.network, candidate.name)
    store = FeatureStore(candidate.name, body, preprocessing)
    start = time.perf_counter()
    computed = _extract(store, prepare(body), data.shards, preprocessing, batch_size, candidate.name, verbose)
    extracted = time.perf_counter()
    head = fit_head(*_features(store, data.shards))
    layer = classifier.network.get_submodule(head_name)
    assert isinstance(layer, nn.Linear)
    layer.weight.data, layer.bias.data = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    solved = time.perf_counter()
    test = _test(store, data, layer) if len(data.shards.splits.get("test", ())) else None
    return Probed(candidate, classifier, head, computed, extracted - start, solved - extracted, test, store)


def _build(data: ImageData, candidate: Candidate, image_size: int | None) -> tuple[Classifier, Preprocessing]:
    """Return the network with a new head, and the preprocessing that its weights were trained with."""
    weights = None if candidate.weights is None else open_weights(candidate.weights)
    found = weights.preprocessing(candidate.name) if weights else pretrained_preprocessing(candidate.name)
    preprocessing = replace(found or data.preprocessing, reduction=data.preprocessing.reduction)
    if image_size is not None:
        preprocessing = replace(preprocessing, size=(image_size, image_size))
    classifier = Classifier(
        candidate.name,
        pretrained=weights is None,
        weights=candidate.weights,
        tune="head",
        class_names=data.class_names,
        preprocessing=preprocessing.to_dict(),
    )
    return classifier.eval(), preprocessing


def _extract(
    store: FeatureStore,
    body: nn.Module,
    shards: ShardSet,
    preprocessing: Preprocessing,
    batch_size: int | None,
    title: str,
    verbose: bool,
) -> int:
    """Compute what the store lacks, with progress; returns the number of images."""
    total = sum(len(store.missing(split.content_hashes)) for split in shards.splits.values())

    def every() -> Generator[int, None, None]:
        for name in shards.splits:
            yield from extract(store, body, shards, name, preprocessing, batch_size)

    with closing(every()) as counts:  # whatever happens, what is computed is saved
        follow(title, counts, total, show=verbose)
    return total


def _features(store: FeatureStore, shards: ShardSet) -> tuple[Floats, Ints, int]:
    """Return features (N, D) and labels (N,) of train and then val, in one array, and the number of rows of train."""
    splits = [shards.splits[name] for name in ("train", "val")]
    hashes = pa.concat_arrays([split.content_hashes for split in splits])
    return store.read(hashes), np.concatenate([split.labels for split in splits]), len(splits[0])


def _test(store: FeatureStore, data: ImageData, head: nn.Linear) -> Evaluation:
    split = data.shards.splits["test"]
    with torch.inference_mode():
        logits = head(torch.from_numpy(store.read(split.content_hashes)))
        probabilities = logits.softmax(dim=1).numpy()
    rows, names = np.arange(len(split)), data.class_names
    paths = [split.path(row) for row in range(len(split))]
    judged = judge(SINGLE_LABEL, probabilities, split.labels, paths, names, {}, "test_")
    tested = describe(data, choose_split(data, "test", own=True), rows, split.labels, names, _seen(data))
    return replace(judged, metrics={"test_loss": judged.metrics["test_log_loss"]} | judged.metrics, tested=tested)


def _seen(data: ImageData) -> Seen:
    """Return what a head has seen: it is fitted on both splits."""
    return seen_of(data.shards.splits, trained=("train", "val"), chose=())


def probe_run(
    settings: Settings,
    candidates: Sequence[Candidate],
    out: Path | None = None,
    *,
    batch_size: int | None = None,
    embed: bool = False,
) -> Path:
    """Probe each candidate and make the best an ordinary run; returns its directory.

    Args:
        settings: of the data, and ``data.image_size``; those of the model are the candidates'.
        candidates: see :func:`probe`.
        out: run directory to make; by default the first free ``runs/NAME-1``, ``-2`` and so on.
        batch_size: see :func:`probe`.
        embed: keep all features as Parquet in the run directory.

    Raises:
        SagittaError: as :func:`probe` does; there is no run directory then.
    """
    check_free(out)
    with quiet():
        data = settings.image_data(verbose=True)
        data.prepare_data()
        data.setup()
        image_size = settings.data["image_size"]
        results = probe(data, candidates, image_size=image_size, batch_size=batch_size, verbose=True)
        run = new_run_directory(out, settings.source)
        best = results[0].candidate
        weights = {"model.weights": best.weights, "model.pretrained": best.weights is None}
        chosen = settings.changed({"model.name": best.name, "model.tune": "head", **weights})
        save_config(run / CONFIG_FILE, chosen.to_yaml())
        write_run(run, data, results, embed=embed)
    return run


def write_run(run: Path, data: ImageData, results: Sequence[Probed], *, embed: bool = False) -> None:
    """Make the first of ``results`` an ordinary run: checkpoint, record and test; with ``embed`` all their features.

    Raises:
        OSError: a file cannot be written.
    """
    best = results[0]
    checkpoint = run / "checkpoints" / f"image-classifier-probe-val_loss={best.head.val_loss:.2f}.ckpt"
    trainer = quiet_trainer(accelerator="cpu")
    trainer.strategy.connect(best.classifier)
    trainer.save_checkpoint(checkpoint, weights_only=True)
    keep_seen(run, _seen(data), best.candidate.weights)
    result = {"val_acc": best.head.val.value, "val_loss": best.head.val_loss}
    if best.test is not None:
        record_test(run, data.source, checkpoint.name, best.test)
        result |= best.test.metrics
    write_record(
        run,
        seed=0,
        dataset=data.answers() | {"preprocessing": best.classifier.hparams["preprocessing"]},
        best_checkpoint=os.path.relpath(checkpoint, run),
        result=result,
        probe=[_summary(each) for each in results],
    )
    for each in results if embed else ():
        write_features(run / f"features-{each.store.folder.name}.parquet", each.store, data)


def _summary(each: Probed) -> dict[str, Any]:
    """Return what ``run.json`` keeps of each network."""
    test = each.test.scores["test_acc"] if each.test else None
    return {
        "model": each.candidate.name,
        "weights": each.candidate.weights,
        "parameters": sum(parameter.numel() for parameter in each.classifier.parameters()),
        "features": each.store.folder.name,
        "computed": each.computed,
        "feature_seconds": round(each.feature_seconds, 3),
        "head_seconds": round(each.head_seconds, 3),
        "strength": each.head.strength,
        "folds": each.head.folds,
        "val_acc": each.head.val.value,
        "val_interval": [each.head.val.low, each.head.val.high],
        "val_loss": each.head.val_loss,
        "test_acc": test and test.value,
        "test_interval": test and [test.low, test.high],
    }


def write_features(path: Path, store: FeatureStore, data: ImageData) -> None:
    """Write the features of every image as Parquet: ``path``, ``split``, ``label`` (name), ``vector`` (list<float>)."""

    def tables() -> Iterator[pa.Table]:
        for name, split in data.shards.splits.items():
            hashes, labels = split.content_hashes, split.labels
            for start in range(0, len(split), _CHUNK):
                rows = range(start, min(start + _CHUNK, len(split)))
                yield pa.table(
                    {
                        "path": pa.array([split.path(row) for row in rows]),
                        "split": pa.array([name] * len(rows)),
                        "label": pa.array([data.class_names[label] for label in labels[rows.start : rows.stop]]),
                        "vector": vectors_array(store.read(hashes.slice(start, len(rows)))),
                    }
                )

    first = next(written := tables())
    with new_file(path) as temporary, pq.ParquetWriter(temporary, first.schema) as writer:
        for table in itertools.chain([first], written):
            writer.write_table(table)


def probe_text(record: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the networks, the best first, with 95 % intervals of the accuracies; weights below their model.

    Args:
        record: ``probe`` of ``run.json``.
    """
    folds = record[0]["folds"]
    rows = []
    for each in record:
        seconds, computed = each["feature_seconds"], each["computed"]
        named = each["model"] if each["weights"] is None else f"{each['model']}\n{each['weights']}"
        rows.append(
            [
                named,
                f"{each['parameters'] / 1e6:.2f} M",
                f"{computed / max(seconds, 1e-3):,.0f} images/s" if computed else "cached",
                f"{seconds + each['head_seconds']:.1f} s",
                _percent(each["val_acc"], each["val_interval"]),
                "-" if each["test_acc"] is None else _percent(each["test_acc"], each["test_interval"]),
            ]
        )
    heads = ["model", "size", "features", "time", f"val, {folds} folds" if folds else "val", "test"]
    return "\n".join(table(heads, rows))


def _percent(accuracy: float, interval: Sequence[float]) -> str:
    return f"{accuracy:.1%} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
