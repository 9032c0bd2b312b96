"""Makes the stored datasets and the stored run: ``python -m tests.golden.make``, with the code that is to be golden.

They were made by 0.1.0 and prove that later versions read its files, so they are not to be made again lightly;
``record.py`` alone suffices where only values changed. Everything runs in a temporary folder with relative names: no
path of the machine may end up in provenance, configuration or checkpoint.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from tests.golden.record import DATASETS, HANDED_ON, HERE, RUN, command

Pixels = npt.NDArray[np.uint8]

_CLASSES = ("heron", "kestrel", "wren")
_COUNTS = {"train": (12, 8, 4), "val": (4, 3, 1), "test": (3, 3, 2)}  # unequal, so that `balanced` has work
_THUMBNAILS = {"train": (13, 10, 7), "val": (4, 3, 3), "test": (4, 3, 3)}
_TAGS = ("feather", "nest", "water")


def scene(rng: np.random.Generator, kind: int, height: int, width: int) -> Pixels:
    """Return something with smooth areas, edges and noise as photos have, whose colours and stripes tell the class."""
    y, x = np.mgrid[:height, :width]
    angle = kind * np.pi / 3 + rng.normal(0, 0.2)
    stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (0.3 + 0.1 * rng.random()) + 6 * rng.random())
    colour = np.roll((170.0, 110.0, 70.0), kind) + rng.normal(0, 15, 3)
    image = colour + 40 * stripes[..., None] + rng.normal(0, 6, (height, width, 3))
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    image[top : top + height // 3, left : left + width // 3] += rng.normal(0, 60, 3)
    pixels: Pixels = image.clip(0, 255).astype(np.uint8)
    return pixels


def save_photo(path: Path, pixels: Pixels, number: int) -> None:
    """Save as the JPEG or PNG that the photo's number asks for: grey, 4:4:4, rotated by EXIF, or plain 4:2:0."""
    image = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    if number == 5:
        image.save(path.with_suffix(".png"))
        return
    if number % 10 == 3:
        image = image.convert("L")
    options: dict[str, Any] = {"quality": 85}
    if number % 10 == 7:
        options["subsampling"] = 0
    if number % 10 == 1:
        options["exif"] = exif = Image.Exif()
        exif[0x0112] = 6
    image.save(path.with_suffix(".jpg"), **options)


def photos(root: Path) -> None:
    """Write 40 photo-like images, split and in class folders."""
    rng = np.random.default_rng(2024)
    number = 0
    for split, counts in _COUNTS.items():
        for kind, (name, count) in enumerate(zip(_CLASSES, counts, strict=True)):
            for index in range(count):
                height, width = rng.integers(40, 121, 2)
                save_photo(root / split / name / f"{index:02d}", scene(rng, kind, height, width), number)
                number += 1


def thumbnails(root: Path) -> None:
    """Write 50 colour thumbnails of 16x16, split and in class folders."""
    rng = np.random.default_rng(16)
    for split, counts in _THUMBNAILS.items():
        for kind, (name, count) in enumerate(zip(_CLASSES, counts, strict=True)):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(scene(rng, kind, 16, 16)).save(root / split / name / f"{index:02d}.png")


def multilabel(root: Path) -> None:
    """Write 24 small photos and a manifest that gives each of them up to three tags, some none."""
    rng = np.random.default_rng(3)
    rows = ["path,labels,split"]
    root.mkdir()
    for index in range(24):
        held = [tag for tag in _TAGS if rng.random() < 0.5]
        height, width = rng.integers(66, 90, 2)  # above 64: photos, not thumbnails
        Image.fromarray(scene(rng, len(held), height, width)).save(root / f"{index:02d}.jpg", quality=75)
        rows.append(f"{index:02d}.jpg,{'|'.join(held)},{'train' if index < 14 else 'val' if index < 19 else 'test'}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")


def without_paths(value: Any, folder: str) -> Any:
    """Return a checkpoint's content with ``folder`` taken off the front of every path in it."""
    if isinstance(value, dict):
        for key in list(value):  # in place: it may be an OrderedDict with attributes of its own
            kept = value.pop(key)
            value[without_paths(key, folder)] = without_paths(kept, folder)
        return value
    if isinstance(value, list | tuple):
        return type(value)([without_paths(item, folder) for item in value])
    return value.replace(folder + "/", "") if isinstance(value, str) else value


def make(work: Path) -> None:
    """Generate, convert and train in ``work``, then put what is to be stored beside this file."""
    photos(work / "photos")
    thumbnails(work / "small")
    multilabel(work / "tagged")
    sources = ("photos", "small", "tagged/manifest.csv")
    for source, name in zip(sources, DATASETS, strict=True):
        command("convert", source, name, cwd=work)
        shutil.rmtree(HERE / name, ignore_errors=True)
        shutil.copytree(work / name, HERE / name, ignore=shutil.ignore_patterns(".sagitta-index"))

    # sgd: one momentum a weight is half the state of adamw. A constant rate: one-cycle refuses steps beyond the end of
    # its first plan, so that such a run cannot be resumed with more epochs. The precision is set since the recipe's may
    # depend on the processor, and the accelerator since this is about the CPU.
    how = ("--model", "resnet20", "--model.optimizer", "sgd", "--model.schedule", "constant", "--lr", 0.02)
    settings = (*how, "--batch-size", 10, "--epochs", 2)
    machine = ("--trainer.precision", "32-true", "--trainer.accelerator", "cpu")
    command("fit", "thumbnails", *settings, *machine, "--seed", 5, "--out", "run", cwd=work)
    shutil.rmtree(RUN, ignore_errors=True)
    (RUN / "checkpoints").mkdir(parents=True)
    (RUN / "lightning_logs" / "version_0").mkdir(parents=True)
    for name in ("config.yaml", "run.json", "test_logs.csv", "lightning_logs/version_0/metrics.csv"):
        shutil.copy(work / "run" / name, RUN / name)
    # Only the last one, 2 MB: a run whose best checkpoint was deleted opens with it.
    path = work / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    torch.save(without_paths(checkpoint, str(work.resolve())), RUN / "checkpoints" / "last.ckpt")
    hand_on(work)


def hand_on(work: Path) -> None:
    """Train a tiny network on the thumbnails in ``work``, and store its export as safetensors beside this file."""
    how = ("--model", "tests.golden.network.Tiny", "--lr", 0.02, "--batch-size", 10, "--epochs", 8, "--seed", 5)
    machine = ("--trainer.precision", "32-true", "--trainer.accelerator", "cpu")
    command("fit", "thumbnails", *how, *machine, "--out", "tiny", cwd=work)
    command("export", "tiny", "--to", "safetensors", "-o", HANDED_ON, cwd=work)
    shutil.rmtree(HERE / HANDED_ON, ignore_errors=True)
    shutil.copytree(work / HANDED_ON, HERE / HANDED_ON)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make(Path(folder))
