"""Generated pictures with faults that are known, converted once."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from sagitta.conversion import ConvertOptions, convert
from sagitta.dataset import ShardSet
from sagitta.diagnosis.rows import Rows
from sagitta.sources import SourceOptions, open_source


def picture(seed: int, side: int = 120) -> Image.Image:
    """Blobs of several sizes, no two alike: as much detail as a photo has."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((side, side, 3))
    for coarse, weight in ((4, 1.0), (12, 0.6), (40, 0.4)):
        noise = Image.fromarray(random.integers(0, 256, (coarse, coarse, 3), np.uint8))
        pixels += weight * np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray((pixels / 2).astype(np.uint8))


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """An encoded image."""
    sink = io.BytesIO()
    image.save(sink, kind, **({"quality": 90} | options if kind == "JPEG" else options))
    return sink.getvalue()


def put(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def faults(tagged: bytes = b"\xff\xfe\x00\x05abc") -> dict[str, bytes]:
    """Forty sound images of two classes in three given splits, and beside them ten with faults."""
    files = {
        f"{split}/{name}/{number:02}.jpg": saved(picture(number + 100 * (name == "b")))
        for name in "ab"
        for split, numbers in (("train", range(12)), ("val", range(12, 16)), ("test", range(16, 20)))
        for number in numbers
    }
    first = files["train/a/00.jpg"]
    turned = Image.Exif()
    turned[0x0112] = 6
    stored = Image.open(io.BytesIO(files["train/a/02.jpg"]))
    white = Image.fromarray(np.full((120, 120, 3), 255, np.uint8))
    return files | {
        "test/a/same.jpg": first[:2] + tagged + first[2:],  # train/a/00
        "train/a/saved.png": saved(Image.open(io.BytesIO(files["train/a/01.jpg"])), "PNG"),
        "val/a/turned.png": saved(stored.transpose(Image.Transpose.ROTATE_90), "PNG", exif=turned),
        "train/b/other.jpg": files["train/a/03.jpg"],  # under two labels
        "train/b/small.jpg": saved(picture(100).resize((80, 80), Image.Resampling.LANCZOS)),
        "test/b/crop.jpg": saved(picture(101, 120).crop((6, 3, 119, 117))),
        "train/b/bright.jpg": saved(ImageEnhance.Brightness(picture(102)).enhance(1.2)),
        "train/a/blank.jpg": saved(white),
        "train/b/dark.jpg": saved(ImageEnhance.Brightness(picture(50)).enhance(0.1)),
        "train/a/wide.jpg": saved(picture(51).resize((400, 60))),
    }


def converted(root: Path, out: Path, options: ConvertOptions = ConvertOptions()) -> ShardSet:
    convert(open_source(str(root), SourceOptions(), cache=out.parent / "cache"), out, options)
    return ShardSet.open(out)


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted dataset of :func:`faults`, whose source is in ``images`` beside it."""
    folder = tmp_path_factory.mktemp("faulty")
    put(folder / "images", faults())
    converted(folder / "images", folder / "dataset")
    return folder / "dataset"


@pytest.fixture
def rows(faulty: Path) -> Rows:
    return Rows(ShardSet.open(faulty))


Maker = Callable[[dict[str, bytes]], Rows]


@pytest.fixture
def rows_of_files(tmp_path: Path) -> Maker:
    """Converts files, and opens their rows."""

    def make(files: dict[str, bytes]) -> Rows:
        put(tmp_path / "images", files)
        return Rows(converted(tmp_path / "images", tmp_path / "dataset"))

    return make
