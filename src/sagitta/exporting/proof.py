"""The proof of an export: real images through the file, in a process without Sagitta, against the checkpoint.

The images are those that validated the model, and copies of one that are turned by EXIF, grey, CMYK, transparent, and
far longer than wide. The reader beside the model must make the same pixels of them to the last bit, and the model the
same answers. Where timm reads the images, the answers must be the same as well, but for those that it reads in its
own way. What Sagitta alone reads is opened anew.
"""

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sagitta.errors import SagittaError
from sagitta.exporting import apart
from sagitta.exporting.formats import Format
from sagitta.loading import DecodedAhead, EncodedFiles, ImageData, Preprocessing
from sagitta.models import Classifier, Floats, load_classifier

FEWEST = 200
"""Images that are compared, or all where there are fewer."""
CLOSE = 1e-4
"""How far a probability may be off, and how near the two best ones count as equal."""
_BATCH = 32


class Photos(NamedTuple):
    """Image files to compare on.

    Attributes:
        split: that they are of.
        files: of them.
        called: what to call each.
    """

    split: str
    files: list[Path]
    called: list[str]


class Answers(NamedTuple):
    """What an exported model says.

    Attributes:
        probabilities: (N, classes) float32.
        counts: (N,) which images it is given as Sagitta is.
        one: seconds for a single image.
        many: seconds for 32.
        pixels: (N, H, W, C) uint8 that it was given; None where they are not bytes.
    """

    probabilities: Floats
    counts: npt.NDArray[np.bool_]
    one: float
    many: float
    pixels: npt.NDArray[np.uint8] | None = None


class ExportError(SagittaError):
    """What was exported does not answer as the checkpoint does; nothing of it is kept."""


@dataclass(frozen=True)
class Proof:
    """What was compared, and how fast the exported model is.

    Attributes:
        images: how many.
        split: that they are of.
        same: how many have the same decision.
        difference: the largest, of a probability.
        one: seconds for a single image.
        many: seconds for 32.
    """

    images: int
    split: str
    same: int
    difference: float
    one: float
    many: float

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "images": self.images,
            "split": self.split,
            "same_decision": self.same,
            "largest_difference": self.difference,
            "milliseconds_batch_1": round(1e3 * self.one, 3),
            "milliseconds_batch_32": round(1e3 * self.many, 3),
        }


def write_images(data: ImageData, folder: Path) -> Photos:
    """Write real images for a proof as files, and odd copies of the first.

    Raises:
        ExportError: the data has no images.
    """
    splits = data.shards.splits
    name = next((each for each in ("val", "test", "train") if len(splits.get(each, ()))), None)
    if name is None:
        raise ExportError(f"{data.source}: no images to prove an export on")
    split = splits[name]
    rows = np.unique(np.linspace(0, len(split) - 1, min(len(split), FEWEST)).astype(np.int64))
    paths = [split.path(row) for row in rows.tolist()]
    files, called = [], []
    for number, (row, path) in enumerate(zip(rows.tolist(), paths, strict=True)):
        file = folder / f"{number:04d}"
        file.write_bytes(split.image(row))
        files.append(file)
        called.append(str(path))
    for what, content in _odd(files[0]):
        file = folder / f"odd-{len(files):04d}"
        file.write_bytes(content)
        files.append(file)
        called.append(f"{called[0]}, {what}")
    return Photos(name, files, called)


def _odd(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield copies of an image that readers are known to take for something else."""
    image = Image.open(file).convert("RGB")
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"turned by EXIF {orientation}", _encoded(image, "JPEG", exif=exif)
    yield "in grey", _encoded(image.convert("L"), "JPEG")
    yield "in CMYK", _encoded(image.convert("CMYK"), "JPEG")
    yield "transparent", _encoded(_transparent(image), "PNG")
    long = image.resize((max(64, 12 * image.height), max(4, image.height // 2)))
    yield "far wider than high", _encoded(long, "PNG")
    yield "far higher than wide", _encoded(long.transpose(Image.Transpose.ROTATE_90), "PNG")


def _transparent(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(image.size))
    return layer


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def prove(kind: str, folder: Path, form: Format, classifier: Classifier, photos: Photos) -> Proof:
    """Compare an exported model with the checkpoint.

    Args:
        kind: name of the format.
        folder: of the export: the model, and what belongs to it.
        form: the format.
        classifier: of the checkpoint.
        photos: to compare on.

    Raises:
        ExportError: pixels or answers differ, or the model does not run.
    """
    how = classifier.preprocessing
    assert how is not None
    own = _pixels(replace(how, profile="exact"), photos)
    found = _again(folder / form.file, own) if kind == "safetensors" else _apart(kind, folder / form.file, photos)
    if form.reader:
        assert found.pixels is not None
        differing = np.flatnonzero((own != found.pixels).reshape(len(own), -1).any(axis=1)).tolist()
        if differing:
            raise ExportError(
                f"{photos.called[differing[0]]}: the exported reader makes other pixels of it than Sagitta"
            )
    wanted = answered(classifier, own)
    kept = np.flatnonzero(found.counts)
    thresholds = classifier.thresholds if classifier.multilabel else None
    called = [photos.called[number] for number in kept.tolist()]
    return compared(wanted[kept], found.probabilities[kept], called, thresholds, photos.split, found.one, found.many)


def _pixels(how: Preprocessing, photos: Photos) -> npt.NDArray[np.uint8]:
    """Return Sagitta's (N, H, W, C) of the images."""
    files = [str(file) for file in photos.files]
    decoded = DecodedAhead(EncodedFiles(files), [how], len(files)).decode(range(len(files)))
    if decoded.errors:
        number, why = next(iter(decoded.errors.items()))
        raise ExportError(f"{photos.called[number]}: {why}")
    pixels: npt.NDArray[np.uint8] = decoded.pixels[0].permute(0, 2, 3, 1).numpy()
    return pixels


def answered(classifier: Classifier, pixels: npt.NDArray[np.uint8]) -> Floats:
    """Return probabilities (N, classes) of images (N, H, W, C) as a prediction computes them."""
    how = classifier.preprocessing
    assert how is not None
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = [classifier.predict_step(how.normalize(batch), 0) for batch in torch.split(images, _BATCH)]
    probabilities: Floats = torch.cat(found).numpy()
    return probabilities


def _apart(kind: str, model: Path, photos: Photos) -> Answers:
    """Return what a model answers in a process without Sagitta."""
    with TemporaryDirectory() as temporary:
        listed, out = Path(temporary) / "files.json", Path(temporary) / "answers.npz"
        listed.write_text(json.dumps([str(file.absolute()) for file in photos.files]))
        command = [sys.executable, apart.__file__, kind, str(model), str(listed), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ExportError(f"the exported model does not run in a process of its own: {last}")
        with np.load(out) as answers:
            pixels = answers["pixels"]
            seconds = float(answers["one"]), float(answers["many"])
            found = Answers(answers["probabilities"], answers["counts"], *seconds, pixels)
    return found


def _again(model: Path, pixels: npt.NDArray[np.uint8]) -> Answers:
    """Return what a model answers that Sagitta opens anew."""
    classifier = load_classifier(model)
    seconds: list[float] = []
    for count in (1, _BATCH):
        images = np.resize(pixels, (count, *pixels.shape[1:]))
        answered(classifier, images)
        began = time.perf_counter()
        answered(classifier, images)
        seconds.append(time.perf_counter() - began)
    one, many = seconds
    return Answers(answered(classifier, pixels), np.ones(len(pixels), np.bool_), one, many)


def compared(
    wanted: Floats, found: Floats, called: Sequence[str], thresholds: Sequence[float] | None, split: str, one: float,
    many: float,
) -> Proof:  # fmt: skip
    """Return the proof that answers are equal.

    Args:
        wanted: (N, classes) probabilities of the checkpoint.
        found: of the exported model.
        called: what to call each image.
        thresholds: of several labels an image; None of one.
        split: of the images.
        one: seconds.
        many: seconds.

    Raises:
        ExportError: they are not; it names the image.
    """
    if wanted.shape != found.shape or not np.isfinite(found).all():
        raise ExportError(f"the exported model answers {found.shape} numbers, not all finite ones of {wanted.shape}")
    difference = np.abs(wanted - found).max(axis=1)
    worst = int(difference.argmax())
    if difference[worst] > CLOSE:
        raise ExportError(
            f"{called[worst]}: a probability of the exported model is {difference[worst]:.2g} off, more than {CLOSE:g}"
        )
    same, near = _decided(wanted, found, thresholds)
    if wrong := np.flatnonzero(~same & ~near).tolist():
        raise ExportError(f"{called[wrong[0]]}: the exported model decides otherwise")
    return Proof(len(wanted), split, int(same.sum()), float(difference[worst]), one, many)


def _decided(
    wanted: Floats, found: Floats, thresholds: Sequence[float] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which rows have the same decision, and which are so near to another that it does not matter."""
    if thresholds is not None:
        limits = np.array(thresholds)
        same = ((wanted >= limits) == (found >= limits)).all(axis=1)
        return same, (np.abs(wanted - limits) < CLOSE).any(axis=1)
    best = np.sort(wanted, axis=1)[:, -2:]
    return wanted.argmax(axis=1) == found.argmax(axis=1), best[:, -1] - best[:, 0] < CLOSE
