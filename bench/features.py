"""The sets that heads are compared on: features of two networks with ImageNet weights, and generated ones.

Every set is first laid out as class folders in ``$SAGITTA_BENCH/quality/images``; its features are computed once, by
what ``sagitta probe`` uses, and kept as ``$SAGITTA_BENCH/quality/features/SET-NETWORK.npz``.

Sets are divided, and that was written down before anything was tuned: heads and recipes are developed on ``DEVELOP``;
``JUDGE`` are run once, at the end.
"""

import gzip
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import data
import environments

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

DEVELOP = ("birds", "cat-breeds", "digits", "generated")
JUDGE = ("butterflies", "dogs-vs-cats", "cifar", "mnist")
SETS = (*DEVELOP, *JUDGE)
NETWORKS = ("mobilenetv2_100", "tf_efficientnet_lite0")
PART = 160
"""Images a class of cifar, mnist and digits: 100 to learn from at most, 60 to test on."""

CLASSES, DIMENSIONS, EACH = 1000, 128, 6  # of the generated set


@dataclass(frozen=True)
class Labelled:
    """Features (N, D) and labels (N,), every class of 0 to the largest label at least once.

    Attributes:
        features: the last of a network.
        labels: numbers of classes.
        stages: (N, S) numbers of its stages; S is 0 where they are not known.
        widths: of each stage.
    """

    features: Floats
    labels: Ints
    stages: Floats
    widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Computed:
    """Features as they were computed.

    Attributes:
        labelled: features and labels of all splits, in order.
        splits: (N,) the name of each row's split.
        seconds: for decoding and network.
        cpu: likewise, of all cores together.
    """

    labelled: Labelled
    splits: npt.NDArray[np.str_]
    seconds: float
    cpu: float


def networks_of(name: str) -> tuple[str, ...]:
    """Return what has seen a set's images; the generated set has none."""
    return ("none",) if name == "generated" else NETWORKS


def root() -> Path:
    """Return the folder of what these benchmarks make."""
    return environments.cache() / "quality"


def weights_file(network: str) -> Path:
    """Return a network's weights."""
    return data.source() / "weights" / f"{network}.imagenet1k.safetensors"


def labelled(name: str, network: str) -> Labelled:
    """Return a set's features by a network, computed where they are not kept yet."""
    if name == "generated":
        return generated(CLASSES, DIMENSIONS, EACH, seed=0)
    path = root() / "features" / f"{name}-{network}-stages.npz"
    if not path.exists():
        found = compute(images(name), network).labelled
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **vars(found))
    with np.load(path) as kept:
        return Labelled(kept["features"], kept["labels"], kept["stages"], tuple(kept["widths"].tolist()))


def compute(folder: Path, network: str) -> Computed:
    """Return the features of all images of a folder, by what ``sagitta probe`` uses."""
    import pyarrow as pa

    from sagitta import ImageData
    from sagitta.models import (
        Classifier,
        FeatureStore,
        extract,
        open_weights,
        prepare,
        see_stages,
        split_head,
        stage_widths,
    )

    photos = ImageData(folder)
    photos.prepare_data()
    photos.setup()
    weights = str(weights_file(network))
    preprocessing = open_weights(weights).preprocessing(network) or photos.preprocessing
    preprocessing = replace(preprocessing, reduction=photos.preprocessing.reduction)
    classifier = Classifier(
        network,
        weights=weights,
        tune="head",
        class_names=photos.class_names,
        preprocessing=preprocessing.to_dict(),
    )
    network_module: Any = classifier.eval().network
    body, _head = split_head(see_stages(network_module, network, preprocessing.size, 3), network)
    store, faster = FeatureStore(network, body, preprocessing), prepare(body)
    splits = photos.shards.splits
    began, cpu = time.perf_counter(), time.process_time()
    for split in splits:
        for _count in extract(store, faster, photos.shards, split, preprocessing):
            pass
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    hashes = pa.concat_arrays([split.content_hashes for split in splits.values()])
    labels = np.concatenate([split.labels for split in splits.values()]).astype(np.int64)
    names = np.repeat(list(splits), [len(split) for split in splits.values()])
    vectors, widths = store.read(hashes), stage_widths(body)
    last, stages = vectors[:, sum(widths) :], vectors[:, : sum(widths)]
    return Computed(Labelled(last, labels, stages, widths), names, seconds, cpu)


def generated(classes: int, dimensions: int, each: int, seed: int) -> Labelled:
    """Return features like a network's: few directions tell classes apart, noise is uneven, nothing is negative.

    A class is a point in 48 dimensions; its rows scatter around it within the class, most of all along 16 directions
    that mean nothing. What comes out is rectified, as after a network's last activation.
    """
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(48, dimensions)) / np.sqrt(48)
    nuisance = rng.normal(size=(16, dimensions)) / np.sqrt(16)
    labels = np.repeat(np.arange(classes), each)
    points = rng.normal(size=(classes, 48))[labels] + 0.9 * rng.normal(size=(len(labels), 48))
    rows = points @ signal + 0.5 * rng.normal(size=(len(labels), 16)) @ nuisance
    rows += rng.normal(size=rows.shape) * rng.uniform(0.2, 1.0, dimensions)
    return Labelled(np.maximum(rows, 0).astype(np.float32), labels, np.empty((len(labels), 0), np.float32))


def images(name: str) -> Path:
    """Return a set as class folders, laid out where they are not yet: links to the photos, or PNG files of pixels."""
    folder = root() / "images" / name
    if (folder / "complete").exists():
        return folder / "files"
    if name in ("digits", "mnist", "cifar"):
        _write_pixels(name, folder / "files")
    else:
        for label, file in _photos(name):
            link = folder / "files" / label / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(file.resolve())
    (folder / "complete").touch()
    return folder / "files"


def _photos(name: str) -> list[tuple[str, Path]]:
    """Return class and file of every photo: class folders, or for dogs and cats the first word of the file's name."""
    files = sorted(file for file in (data.source() / name).rglob("*") if file.suffix.lower() in (".jpg", ".png"))
    return [(file.name.split(".")[0] if name == "dogs-vs-cats" else file.parent.name, file) for file in files]


def _write_pixels(name: str, folder: Path) -> None:
    """Write the first images of each class as PNG."""
    from PIL import Image

    pixels, labels = _pixels(name)
    counts: dict[int, int] = defaultdict(int)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        if counts[label] < PART:
            file = folder / str(label) / f"{counts[label]:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
            counts[label] += 1


def _pixels(name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """Return uint8 images and their labels; of CIFAR-10 and MNIST those of the test set."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        return (digits.images * 15.9375).astype(np.uint8), digits.target
    if name == "cifar":
        return data.cifar()
    folder = data.source() / "mnist"
    raw = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    truth = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(truth, np.uint8, offset=8)
