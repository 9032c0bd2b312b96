"""Damage what Sagitta keeps, at random, and look what comes of it: nothing may be silently wrong, or end the process.

    python bench/damage.py                          # 3,000 mutants a fault; results/damage.json
    python bench/damage.py --mutants 100 --faults index verify

Each mutant is looked at in a forked process of its own. What it may end as:

    right          everything that was read is what was written
    refused        one of our errors: one line that names the file
    made anew      an index, or features: the damaged ones are not used
    wrong          something else was read, and nothing was said; or ``verify`` did not name the damaged file
    traceback      an error that is not ours
    killed         the process died, or took more than 20 seconds
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process cannot use its parent's threads

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import nn

import sagitta
from sagitta.dataset import ShardSet, verify
from sagitta.errors import ImageError, SagittaError
from sagitta.loading import Preprocessing
from sagitta.models import FeatureStore
from sagitta.sources import SourceOptions, open_source

RESULTS = Path(__file__).parent / "results" / "damage.json"
ENDS = ("right", "refused", "made anew", "wrong", "traceback")
HOW = Preprocessing((32, 32), 1.0, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
Trial = Callable[[random.Random], str]


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def said(root: Path, *, images: bool) -> list[Any]:
    """Return all that reading a dataset gives, with the bytes inside of images or without."""
    with ShardSet.open(root) as shards:
        answers: list[Any] = [shards.info]
        for split in shards.splits.values():
            columns = [split.column(name) for name in ("width", "height", "orientation", "format", "mode")]
            answers += [None if column is None else column.tolist() for column in columns]
            answers += [split.labels.tolist(), split.content_hashes.to_pylist(), split.source_hashes.to_pylist()]
            rows = range(len(split))
            answers += [split.path(row) for row in rows]
            answers += [bytes(split.image(row)) if images else len(split.image(row)) for row in rows]
            answers += [bytes(image) if images else len(image) for image in split.images(rows)]
    return answers


def make_dataset(work: Path) -> Path:
    """Convert 60 small images, and one that is none."""
    rng = np.random.default_rng(0)
    for number in range(60):
        path = work / "photos" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
    (work / "photos" / "a" / "bad.png").write_bytes(b"none")
    sagitta.convert(work / "photos", work / "data", workers=1)
    shutil.rmtree(work / "photos")
    return work / "data"


def faults(work: Path) -> dict[str, Trial]:
    """Return what is tried, by name; a trial damages what it finds and is restored afterwards."""
    root = make_dataset(work)
    truth, bare = said(root, images=True), said(root, images=False)
    index = next((root / ".sagitta-index").glob("train.[!l]*"))
    whole = index.read_bytes()
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.parent.name != ".sagitta-index"]
    store = FeatureStore("bench", nn.Linear(2, 2), HOW)
    hashes, vectors = pa.array([f"{row:032x}" for row in range(20)]), np.random.default_rng(0).random((20, 8), "f4")
    store.add(hashes, vectors)
    foreign = make_foreign()

    def damaged_index(rng: random.Random) -> str:
        flip(index, rng)
        if said(root, images=True) != truth:
            return "wrong"
        return "made anew" if index.read_bytes() == whole else "right"

    def damaged_dataset(rng: random.Random) -> str:
        flip(rng.choice(files), rng)
        return "right" if said(root, images=False) == bare else "wrong"

    def verified(rng: random.Random) -> str:
        path = rng.choice(files)
        flip(path, rng)
        return "refused" if any(str(path) in line for line in verify(root).damage) else "wrong"

    def damaged_features(rng: random.Random) -> str:
        flip(next(store.folder.glob("*.parquet")), rng)
        store.__dict__.pop("_parts", None)
        if store.missing(hashes).size:
            return "made anew"
        return "right" if (store.read(hashes) == vectors).all() else "wrong"

    def cut_off(rng: random.Random) -> str:
        shards = ShardSet.open(root)
        rows = range(len(shards.splits["train"]))
        before = list(map(bytes, shards.splits["train"].images(rows)))
        path = rng.choice(shards.splits["train"].files)
        os.truncate(path, rng.randrange(path.stat().st_size))
        return "right" if list(map(bytes, shards.splits["train"].images(rows))) == before else "wrong"

    def others_parquet(rng: random.Random) -> str:
        data = bytearray(rng.choice(foreign))
        footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.randrange(footer if rng.random() < 0.7 else 0, len(data))
            data[place] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
        folder = work / "foreign"
        folder.mkdir(exist_ok=True)
        (folder / "x.parquet").write_bytes(data)
        ends = [opened(folder), as_source(folder)]
        return "refused" if "refused" in ends else "right"  # what it says cannot be compared with anything

    return {
        "index": damaged_index, "dataset read": damaged_dataset, "verify": verified, "features": damaged_features,
        "cut off while mapped": cut_off, "Parquet of others": others_parquet,
    }  # fmt: skip


def make_foreign() -> list[bytes]:
    """Return Parquet as other programs write it: labels of all kinds, all encodings."""
    rng = np.random.default_rng(0)
    images = [{"bytes": rng.bytes(50), "path": f"{row}.jpg"} for row in range(12)]
    labels = (["x", "y"] * 6, [0, 1] * 6, [["x"], ["y", "x"]] * 6, [0.0, 1.0] * 6)
    plain = {"compression": "none", "use_dictionary": False}
    kinds: tuple[dict[str, Any], ...] = ({}, {"compression": "zstd", "write_page_index": True})
    kinds += tuple(plain | {"data_page_version": version} for version in ("1.0", "2.0"))
    files = []
    for label in labels:
        for kind in kinds:
            pq.write_table(pa.table({"image": images, "label": label}), sink := io.BytesIO(), row_group_size=5, **kind)
            files.append(sink.getvalue())
    return files


def opened(folder: Path) -> str:
    """Read all of Parquet as a dataset."""
    try:
        for split in ShardSet.open(folder).splits.values():
            _ = split.labels
            for row in range(len(split)):
                split.path(row)
                split.image(row)
            split.images(range(len(split)))
    except SagittaError:
        return "refused"
    return "right"


def as_source(folder: Path) -> str:
    """Read all of Parquet as a source."""
    try:
        source = open_source(str(folder), SourceOptions(), cache=folder)
    except SagittaError:
        return "refused"
    for path in source.rows["path"].to_pylist():
        with suppress(ImageError):
            source.reader.read(path)
    return "right"


def end_of(trial: Trial, seed: int) -> str:
    """Return how a trial ends in a process of its own."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(20)
        try:
            end = trial(random.Random(seed))
        except SagittaError:
            end = "refused"
        except BaseException:
            end = "traceback"
        os._exit(ENDS.index(end))
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else ENDS[os.WEXITSTATUS(status)]


def main() -> None:
    """Run the trials, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=3000)
    parser.add_argument("--faults", nargs="*")
    a = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as place:
        os.environ["SAGITTA_CACHE"] = f"{place}/work/cache"
        work, kept = Path(place, "work"), Path(place, "kept")
        trials = faults(work)
        shutil.copytree(work, kept)
        for name in a.faults or trials:
            ends: Counter[str] = Counter()
            for seed in range(a.mutants):
                ends[end_of(trials[name], seed)] += 1
                shutil.rmtree(work)
                shutil.copytree(kept, work)
            found[name] = dict(ends)
            print(
                f"{name}: {a.mutants:,} mutants: {', '.join(f'{end} {count:,}' for end, count in ends.most_common())}"
            )
    if not a.faults:
        RESULTS.write_text(json.dumps({"mutants": a.mutants, "faults": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
