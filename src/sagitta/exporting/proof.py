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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sagitta.errors import ConfigError
from sagitta.exporting import apart
from sagitta.exporting.formats import Format
from sagitta.exporting.judging import Answers, ExportError, Photos, Pixels, Proof, compared
from sagitta.exporting.precision import FLOAT32
from sagitta.loading import DecodedAhead, EncodedFiles, ImageData, Preprocessing, match_labels
from sagitta.models import Classifier, Floats, load_classifier
from sagitta.pool import usable_cores

FEWEST = 200
"""Images that are compared, or all where there are fewer."""
_BATCH = 32


def write_images(data: ImageData, folder: Path, classes: Sequence[str]) -> Photos:
    """Write real images for a proof as files, and odd copies of the first.

    Args:
        data: set up.
        folder: for the files.
        classes: of the model.

    Raises:
        ExportError: the data has no images.
    """
    splits = data.shards.splits
    name = next((each for each in ("val", "test", "train") if len(splits.get(each, ()))), None)
    if name is None:
        raise ExportError(f"{data.source}: no images to prove an export on")
    split = splits[name]
    rows = spread(len(split), FEWEST)
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
    try:
        labels = match_labels(split.labels[rows], data.shards.info.class_names, classes)
    except ConfigError:  # other classes: what is decided alike can be compared all the same
        labels = None
    return Photos(name, files, called, labels)


def spread(rows: int, most: int) -> npt.NDArray[np.int64]:
    """Return numbers of rows, evenly spread over all."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))


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


def prove(
    kind: str,
    folder: Path,
    form: Format,
    classifier: Classifier,
    photos: Photos,
    *,
    precision: str = FLOAT32,
    against: Path | None = None,
) -> Proof:
    """Compare an exported model with the checkpoint.

    Args:
        kind: name of the format.
        folder: of the export: the model, and what belongs to it.
        form: the format.
        classifier: of the checkpoint.
        photos: to compare on.
        precision: of the exported model.
        against: a model of the same format that it is timed with, in turns; int8 must be faster.

    Raises:
        ExportError: pixels or answers differ, the model does not run, or int8 is not faster.
    """
    how = classifier.preprocessing
    assert how is not None
    own = pixels_of(replace(how, profile="exact"), photos.files, photos.called)
    if kind == "safetensors":
        found = _again(folder / form.file, own)
    else:
        found = _apart(kind, folder / form.file, photos, against)
    if form.reader:
        assert found.pixels is not None
        differing = np.flatnonzero((own != found.pixels).reshape(len(own), -1).any(axis=1)).tolist()
        if differing:
            raise ExportError(
                f"{photos.called[differing[0]]}: the exported reader makes other pixels of it than Sagitta"
            )
    return compared(classifier, answered(classifier, own), found, photos, precision)


def pixels_of(how: Preprocessing, files: Sequence[Path], called: Sequence[str]) -> Pixels:
    """Return Sagitta's (N, H, W, C) of images.

    Args:
        how: to read them.
        files: of them.
        called: what to call each.

    Raises:
        ExportError: one cannot be decoded.
    """
    decoded = DecodedAhead(EncodedFiles([str(file) for file in files]), [how], len(files)).decode(range(len(files)))
    if decoded.errors:
        number, why = next(iter(decoded.errors.items()))
        raise ExportError(f"{called[number]}: {why}")
    pixels: Pixels = decoded.pixels[0].permute(0, 2, 3, 1).numpy()
    return pixels


def answered(classifier: Classifier, pixels: Pixels) -> Floats:
    """Return probabilities (N, classes) of images (N, H, W, C) as a prediction computes them."""
    how = classifier.preprocessing
    assert how is not None
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = [classifier.predict_step(how.normalize(batch), 0) for batch in torch.split(images, _BATCH)]
    probabilities: Floats = torch.cat(found).numpy()
    return probabilities


def _apart(kind: str, model: Path, photos: Photos, against: Path | None) -> Answers:
    """Return what a model answers in a process without Sagitta."""
    with TemporaryDirectory() as temporary:
        listed, out = Path(temporary) / "files.json", Path(temporary) / "answers.npz"
        listed.write_text(json.dumps([str(file.absolute()) for file in photos.files]))
        command = [sys.executable, apart.__file__, kind, str(model), str(listed), str(out), str(usable_cores())]
        command += [] if against is None else [str(against)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ExportError(f"the exported model does not run in a process of its own: {last}")
        with np.load(out) as answers:
            pixels = answers["pixels"]
            seconds = answers["one"].tolist(), answers["many"].tolist()
            found = Answers(answers["probabilities"], answers["counts"], *seconds, pixels)
    return found


def _again(model: Path, pixels: Pixels) -> Answers:
    """Return what a model answers that Sagitta opens anew."""
    classifier = load_classifier(model)
    one, many = (
        apart.seconds([lambda images: answered(classifier, images)], np.resize(pixels, (count, *pixels.shape[1:])))
        for count in (1, _BATCH)
    )
    return Answers(answered(classifier, pixels), np.ones(len(pixels), np.bool_), one, many)
