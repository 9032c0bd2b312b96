"""What `sagitta doctor` finds of faults that were planted, and what it takes at 100,000 images.

    python bench/doctor.py                              # writes bench/results/doctor.json; about 20 minutes
    python bench/doctor.py --data cat-breeds --seeds 1  # one set; the rest of the JSON stays

Into 400 images of a set are planted, anew for each seed: 30 exact copies (the same bytes, saved as PNG, tagged anew,
turned and tagged with the orientation that turns them back); 30 near copies (half or one and a half times the size,
JPEG quality 40, a crop of 95 % of each side, at a random place, brightness 0.75 or 1.3); 20 labels swapped for a random
other one; 20 copies that are mirrored or turned by a quarter, as PNG and as JPEG of quality 40. No image has two
faults. The sets have near copies of their own: pairs whose details agree by ``OWN_LIKENESS`` count as right, since
all of those that were looked at were. Butterflies were there while the limits were chosen, the others were not.

The 100,000 images are generated: blurred noise of 96x96 pixels as JPEG in 100 classes, 1,000 of them copies of others,
500 of these recompressed. Conversion is not timed.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from measure import machine

RESULTS = Path(__file__).parent / "results" / "doctor.json"
IMAGES, EXACT, NEAR, SWAPPED, TURNED, SHOWN = 400, 30, 30, 20, 20, 40
MANY = 100_000
OWN_LIKENESS = 0.98
"""Details of an image's own near copies agree by so much or more, in all that were looked at; see ``own``."""

Variant = Callable[[Image.Image, np.random.Generator], bytes]


def saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return an encoded image."""
    sink = io.BytesIO()
    image.save(sink, kind, **({"quality": 85} | options if kind == "JPEG" else options))
    return sink.getvalue()


def turned(image: Image.Image, _: np.random.Generator) -> bytes:
    """Return an image turned by a quarter, with the orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def scaled(image: Image.Image, factor: float) -> bytes:
    """Return an image of other size."""
    return saved(image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS))


def cropped(image: Image.Image, random: np.random.Generator) -> bytes:
    """Return 95 % of each side at a random place."""
    width, height = round(image.width * 0.95), round(image.height * 0.95)
    left, top = random.integers(0, image.width - width + 1), random.integers(0, image.height - height + 1)
    return saved(image.crop((int(left), int(top), int(left) + width, int(top) + height)))


NEARLY: dict[str, Variant] = {
    "smaller": lambda image, _: scaled(image, 0.5),
    "larger": lambda image, _: scaled(image, 1.5),
    "recompressed": lambda image, _: saved(image, quality=40),
    "cropped": cropped,
    "darker": lambda image, _: saved(ImageEnhance.Brightness(image).enhance(0.75)),
    "brighter": lambda image, _: saved(ImageEnhance.Brightness(image).enhance(1.3)),
}
_MIRROR, _QUARTER = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90
AROUND: dict[str, Variant] = {
    "mirrored": lambda image, _: saved(image.transpose(_MIRROR), "PNG"),
    "quarter": lambda image, _: saved(image.transpose(_QUARTER), "PNG"),
    "mirrored, recompressed": lambda image, _: saved(image.transpose(_MIRROR), quality=40),
    "quarter, recompressed": lambda image, _: saved(image.transpose(_QUARTER), quality=40),
}
RE_ENCODED = ("smaller", "larger", "recompressed")


def exact_copies(data: bytes, image: Image.Image, random: np.random.Generator) -> dict[str, Callable[[], bytes]]:
    """Return what makes each kind of exact copy."""
    return {
        "bytes": lambda: data,
        "png": lambda: saved(image, "PNG"),
        "tagged": lambda: data[:2] + b"\xff\xfe\x00\x08tagged" + data[2:] if data[:2] == b"\xff\xd8" else data,
        "turned": lambda: turned(image, random),
    }


def label_of(path: Path) -> str:
    """Return an image's class: its folder, or where that is a split the beginning of its name."""
    return path.name.partition(".")[0] if path.parent.name in ("train", "test") else path.parent.name


def plant(source: Path, out: Path, seed: int) -> dict[str, Any]:
    """Lay out a folder with planted faults; returns which."""
    random = np.random.default_rng(seed)
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    counts: dict[str, int] = {}
    for path in files:
        counts[label_of(path)] = counts.get(label_of(path), 0) + 1
    files = [path for path in files if counts[label_of(path)] >= 8]
    assert len(files) >= IMAGES, f"{source}: {len(files)} images in classes of 8, {IMAGES} are needed"
    chosen = [files[place] for place in random.permutation(len(files))[:IMAGES]]
    names = sorted({label_of(path) for path in chosen})
    truth: dict[str, Any] = {"exact": {}, "near": {}, "turned": {}, "swapped": {}}
    for number, path in enumerate(chosen):
        label, data, stem = label_of(path), path.read_bytes(), f"{path.stem}"
        image = Image.open(io.BytesIO(data)).convert("RGB")
        where = label
        if number < EXACT:
            copies = exact_copies(data, image, random)
            kind = list(copies)[number % len(copies)]
            copy = f"{label}/{stem}-copy.{'png' if kind in ('png', 'turned') else 'jpg'}"
            write(out / copy, copies[kind]())
            truth["exact"][copy] = (f"{label}/{path.name}", kind)
        elif number < EXACT + NEAR:
            kind = list(NEARLY)[number % len(NEARLY)]
            copy = f"{label}/{stem}-near.jpg"
            write(out / copy, NEARLY[kind](image, random))
            truth["near"][copy] = (f"{label}/{path.name}", kind)
        elif number < EXACT + NEAR + SWAPPED:
            others = [name for name in names if name != label]
            where = others[random.integers(len(others))]
            truth["swapped"][f"{where}/{path.name}"] = label
        elif number < EXACT + NEAR + SWAPPED + TURNED:
            kind = list(AROUND)[number % len(AROUND)]
            copy = f"{label}/{stem}-around.{'jpg' if 'recompressed' in kind else 'png'}"
            write(out / copy, AROUND[kind](image, random))
            truth["turned"][copy] = (f"{label}/{path.name}", kind)
        write(out / where / path.name, data)
    return truth


def write(path: Path, data: bytes) -> None:
    """Write a file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def components(pairs: Iterable[frozenset[str]]) -> dict[str, str]:
    """Return for each path of pairs one of all paths that it is joined with: a set's own copies are copied, too."""
    found: dict[str, str] = {}
    for one, other in (sorted(pair) for pair in pairs):
        old, new = found.get(one, one), found.get(other, other)
        found |= {one: new, other: new} | {path: new for path, first in found.items() if first == old}
    return found


def copies_judged(rows: list[dict[str, Any]], truth: dict[str, Any]) -> dict[str, Any]:
    """Return how many of the planted copies are found, and what else; near ones apart where they are turned."""
    pairs: dict[str, list[tuple[frozenset[str], float]]] = {"exact": [], "near": [], "turned": []}
    for row in rows:
        kind = row["kind"].split("-")[0]
        if kind in pairs and row["kind"].endswith(("leak", "duplicate")):
            kind = "turned" if row["evidence"].startswith(("mirrored", "turned")) else kind
            pairs[kind].append((frozenset((row["path"], row["other_path"])), row["score"]))
    found: dict[str, Any] = {}
    for kind, all_found in pairs.items():
        planted = {frozenset((copy, original)): how for copy, (original, how) in truth[kind].items()}
        together = components(pair for pair, _ in all_found)
        right = [pair for pair in planted if len({together.get(path, path) for path in pair}) == 1]
        wrong = [(sorted(pair), score) for pair, score in all_found if pair not in planted]
        own = [pair for pair, score in wrong if score >= OWN_LIKENESS]
        found[kind] = {
            "recall": len(set(right)) / len(planted),
            "precision": 1 - (len(wrong) - len(own)) / max(1, len(all_found)),
            "own": own,
            "wrong": [pair for pair in wrong if pair[0] not in own],
            "missed": [how for pair, how in planted.items() if pair not in right],
        }
        if kind == "near":
            again = [pair for pair, how in planted.items() if how in RE_ENCODED]
            found[kind]["re_encoded_recall"] = sum(pair in right for pair in again) / len(again)
    return found


def judge(folder: Path, truth: dict[str, Any], weights: Path) -> dict[str, Any]:
    """Return how much of it is found, and what else."""
    import sagitta

    began = time.perf_counter()
    plain = sagitta.doctor(folder)
    seconds = time.perf_counter() - began
    rows = sagitta.doctor(folder, model="mobilenetv2_100", weights=weights).table.to_pylist()
    assert plain.table.num_rows
    found: dict[str, Any] = {"seconds_without_network": round(seconds, 2)} | copies_judged(rows, truth)
    suspects = [row["path"] for row in rows if row["kind"] == "label-error"]
    first = [row["path"] for row in rows if row["kind"] in ("label-error", "label-doubt")][:SHOWN]
    hits = len(set(suspects) & truth["swapped"].keys())
    told = [row for row in rows if row["kind"] == "label-error"]
    right_ones = [row for row in told if truth["swapped"].get(row["path"]) == row["proposed_label"]]
    found["labels"] = {
        "among_first_40": len(set(first) & truth["swapped"].keys()),
        "recall": hits / SWAPPED,
        "precision": hits / max(1, len(suspects)),
        "suspects": len(suspects),
        "proposed_right": len(right_ones) / max(1, hits),
    }
    return found


def planted(name: str, seeds: int) -> dict[str, Any]:
    """Return what is found of planted faults, for each seed and the least of all."""
    data = Path(os.environ["SAGITTA_DATA"])
    runs = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SAGITTA_CACHE"] = f"{folder}/cache"
            truth = plant(data / name, Path(folder, "images"), seed)
            weights = data / "weights" / "mobilenetv2_100.imagenet1k.safetensors"
            runs.append(judge(Path(folder, "images"), truth, weights))
        print(name, seed, json.dumps(runs[-1]), flush=True)

    def least(*keys: str) -> float:
        values: list[Any] = runs
        for key in keys:
            values = [value[key] for value in values]
        return float(min(values))

    return {
        "exact_recall": least("exact", "recall"),
        "exact_precision": least("exact", "precision"),
        "near_recall": least("near", "recall"),
        "near_precision": least("near", "precision"),
        "turned_recall": least("turned", "recall"),
        "turned_precision": least("turned", "precision"),
        "re_encoded_recall": least("near", "re_encoded_recall"),
        "swaps_among_first_40": least("labels", "among_first_40"),
        "swaps_recall_median": statistics.median(run["labels"]["recall"] for run in runs),
        "swaps_precision_median": statistics.median(run["labels"]["precision"] for run in runs),
        "runs": runs,
    }


def generated(count: int) -> Iterator[tuple[bytes, int]]:
    """Yield images and labels, copies at the end."""
    random = np.random.default_rng(0)
    kept: list[Image.Image] = []
    for number in range(count - count // 100):
        coarse = random.integers(0, 256, (12, 12, 3), np.uint8)
        image = Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)
        if number < count // 100:
            kept.append(image)
        yield saved(image), number % 100
    for number, image in enumerate(kept):
        yield saved(image, quality=85 if number % 2 else 60), number % 100


def many(count: int, folder: Path) -> dict[str, Any]:
    """Time the doctor on generated images, in a process of its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    import sagitta

    rows = list(generated(count))
    images = pa.array([{"bytes": data, "path": f"{number}.jpg"} for number, (data, _) in enumerate(rows)])
    pq.write_table(pa.table({"image": images, "label": [f"class{label}" for _, label in rows]}), folder / "all.parquet")
    del rows, images
    sagitta.convert(folder / "all.parquet", folder / "dataset")
    code = (
        "import json, resource, sys, time, sagitta\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "began = time.perf_counter(); found = sagitta.doctor(sys.argv[1])\n"
        "seconds = time.perf_counter() - began\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(json.dumps({'images': found.images, 'seconds': round(seconds, 1), 'peak_mib': peak // 1024,"
        " 'kinds': found.kinds, 'notes': found.notes}))"
    )
    command = [sys.executable, "-c", code, str(folder / "dataset")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(told.strip().split("\n")[-1])
    return found


def main() -> None:
    """Measure what is asked for, and write it into the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=["butterflies", "cat-breeds", "dogs-vs-cats"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--many", type=int, default=MANY, help="generated images; 0 for none")
    a = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results |= {"command": "python bench/doctor.py", "machine": machine()}
    for name in a.data:
        results[name] = planted(name, a.seeds)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    if a.many:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SAGITTA_CACHE"] = f"{folder}/cache"
            results["many"] = many(a.many, Path(folder))
            print(json.dumps(results["many"]))
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
