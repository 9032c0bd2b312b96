"""The same batches, to the byte, whatever the threads, the engine and the number of ranks: one digest a profile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagitta.conversion.options import ConvertOptions
from sagitta.conversion.pipeline import convert
from sagitta.sources.detect import open_source

# Ranks are forked, so that torch is imported once for all world sizes.
WORKER = """
import hashlib, json, sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
import torch.distributed as dist
from sagitta import Loader
from sagitta.loading import Augmentation, Preprocessing
from sagitta.dataset import ShardSet

dataset, folder = sys.argv[1:]
augmentation = Augmentation(auto="trivial", erase=0.3, cutout=0.2)
kinds = list(product(("exact", "fast"), ("train", "val"), (0, 1, 2, 8)))

def epoch(rank, world):
    dist.init_process_group("gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world)
    shards = ShardSet.open(dataset)
    found = {}
    for profile, split, threads in kinds:
        preprocessing = Preprocessing.of_dataset(shards.info, 24, profile)
        loader = Loader(
            shards, split, 12 // world, preprocessing=preprocessing, augmentation=augmentation, balanced=True,
            threads=threads, normalize=False,
        )
        found[profile, split, threads] = [
            [(image.numpy().tobytes(), label.item()) for image, label in zip(*batch, strict=True)] for batch in loader
        ]
    dist.destroy_process_group()
    return found

def whole_digest(ranks, kind):
    digest = hashlib.sha256()
    for parts in zip(*(rank[kind] for rank in ranks), strict=True):
        for image, label in sum(parts, []):
            digest.update(image + bytes([label]))
    return digest.hexdigest()

cells = []
for world in (1, 2, 3, 4):
    with ProcessPoolExecutor(world, get_context("fork")) as pool:
        ranks = list(pool.map(epoch, range(world), [world] * world))
    cells += [[*kind, world, whole_digest(ranks, kind)] for kind in kinds]
print(json.dumps(cells))
"""


def cells(dataset: Path, folder: Path, native: str) -> list[list[str]]:
    """Return [profile, split, threads, world, digest of the epoch] for every combination."""
    folder.mkdir()
    command = [sys.executable, "-c", WORKER, str(dataset), str(folder)]
    env = {**os.environ, "SAGITTA_NATIVE": native}
    found: list[list[str]] = json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout)
    return found


@pytest.fixture
def dataset(photo_folder: Path, photos: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """JPEGs of several kinds and a PNG; 40 to train and 12 to validate with."""
    for name, pixels in photos.items():
        picture = Image.fromarray(pixels[:200, :300])
        picture.save(photo_folder / name / "progressive.jpg", progressive=True)
        picture.save(photo_folder / name / "marked.jpg", restart_marker_rows=1)
        picture.convert("L").save(photo_folder / name / "grey.jpg")
        picture.save(photo_folder / name / "lossless.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        for number in range(2):
            picture.save(photo_folder / name / f"turned-{number}.jpg", exif=exif, subsampling="4:4:4")
    source = open_source(str(photo_folder), cache=tmp_path / "cache")
    convert(source, tmp_path / "dataset", ConvertOptions(val=0.23, test=0))
    return tmp_path / "dataset"


def test_one_digest_a_profile_over_threads_engines_and_ranks(dataset: Path, tmp_path: Path) -> None:
    found = cells(dataset, tmp_path / "native", "1") + cells(dataset, tmp_path / "pillow", "0")
    assert len(found) == 2 * 2 * 2 * 4 * 4  # engines, profiles, splits, threads, world sizes
    digests = {(profile, split): set[str]() for profile, split, *_ in found}
    for profile, split, _, _, digest in found:
        digests[profile, split].add(digest)
    assert {kind: len(each) for kind, each in digests.items()} == dict.fromkeys(digests, 1)
    assert len(set.union(*digests.values())) == 4  # the fast profile does change pixels
