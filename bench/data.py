"""The images that are loaded, as files: ``DATA/files/LABEL/NUMBER.EXT``, where the label is the number of the photo.

The real photos, repeated under distinct names: 160 of about 500 x 375 to 1,024 rows (16 whole batches), 5 from cameras
to 60, 10,000 CIFAR-10 test images to 50,000.
"""

import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

PHOTOS, CAMERA, CIFAR = 1024, 60, 50_000


def source() -> Path:
    """Return the folder of real data.

    Raises:
        SystemExit: SAGITTA_DATA is not set.
    """
    if not (folder := os.environ.get("SAGITTA_DATA")):
        raise SystemExit("SAGITTA_DATA is not set; it names the folder of real data")
    return Path(folder)


def write(root: Path, name: str) -> None:
    """Write the files of one set unless they are there."""
    files = root / name / "files"
    if (root / name / "complete").exists():
        return
    for label, number, content, suffix in _images(name):
        file = files / f"{label:03d}" / f"{number:05d}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (root / name / "complete").touch()


def photos(folder: str) -> list[bytes]:
    """Return the encoded photos of a folder of the real data, by name."""
    return [file.read_bytes() for file in sorted((source() / folder).iterdir()) if file.suffix.lower() != ".md"]


def _images(name: str) -> Iterator[tuple[int, int, bytes, str]]:
    """Yield label, number, bytes and suffix of a set's files."""
    if name == "cifar":
        images = _cifar_pngs()
        yield from ((number % 10, number, images[number % len(images)], ".png") for number in range(CIFAR))
        return
    images = photos("camera-photos" if name == "camera" else "photos")
    if name == "restart":
        from sagitta.images.encoding import add_restart_markers

        images = list(map(add_restart_markers, images))
    for number in range(CAMERA if name == "camera" else PHOTOS):
        label = number % len(images)
        yield label, number, images[label], ".jpg"


def cifar() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return CIFAR-10's test images (10000, 32, 32, 3) and labels; our own copy of the pickle, so it is trusted."""
    with (source() / "cifar-10-batches-py" / "test_batch").open("rb") as file:
        batch = pickle.load(file, encoding="bytes")
    return batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(batch[b"labels"])


def _cifar_pngs() -> list[bytes]:
    """Return CIFAR-10's test images as PNG files."""
    from PIL import Image

    encoded = []
    for image in cifar()[0]:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        encoded.append(buffer.getvalue())
    return encoded
