"""Makes small trees of real images and gives them to a test as a folder, a tar, a packed tar and a zip in turn."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagitta.dataset.schema import Source
from sagitta.sources.base import SourceOptions
from sagitta.sources.detect import open_source

Files = Mapping[str, bytes | str | None]
"""Name -> content; None stands for some image, another for each name."""

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}


def image(seed: int) -> bytes:
    """Return a PNG of 4x4 random pixels."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_files(root: Path, files: Files) -> Path:
    for index, (name, content) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = image(index) if content is None else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def pack(root: Path, kind: str) -> Path:
    """Return an archive beside ``root`` that holds the folder itself (``zip``) or what is in it (tars)."""
    target = root.with_name(f"{root.name}.{kind}")
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(root.rglob("*")):
                packed.write(path, path.relative_to(root.parent))
    elif kind != "folder":
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as tar:
            tar.add(root, ".")
        target.write_bytes(COMPRESS[kind](plain.getvalue()))
    return root if kind == "folder" else target


@pytest.fixture(params=["folder", "tar", "tar.gz", "zip"])
def open_files(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Source]:
    """A function that opens files given by name and content, once in each kind of container."""

    def open_packed(files: Files, options: SourceOptions = SourceOptions()) -> Source:
        location = pack(write_files(tmp_path / "given", files), request.param)
        return open_source(str(location), options, cache=tmp_path / "cache")

    return open_packed


@pytest.fixture
def open_folder(tmp_path: Path) -> Callable[..., Source]:
    """As ``open_files``, in a folder only."""

    def open_written(files: Files, options: SourceOptions = SourceOptions()) -> Source:
        return open_source(str(write_files(tmp_path / "given", files)), options, cache=tmp_path / "cache")

    return open_written


KINDS = ("cat", "dog", "bird")


def coloured(names: Sequence[str]) -> dict[str, bytes]:
    """Return 4x4 PNGs of these names, red, green and blue in turn: a cat, a dog, a bird, a cat, ..."""
    files = {}
    for index, name in enumerate(names):
        pixels = np.full((4, 4, 3), index, np.uint8)
        pixels[..., index % 3] = 200
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files[name] = file.getvalue()
    return files


def seen(source: Source) -> list[tuple[str, str | list[str], str | None]]:
    """Return (what the image's colour says, label, split) of every row, in the order of paths."""
    rows = source.rows.select(["path", "label", "split"]).to_pylist()
    found = []
    for row in rows:
        pixels = np.asarray(Image.open(io.BytesIO(source.reader.read(row["path"]))))
        found.append((KINDS[int(pixels[0, 0].argmax())], row["label"], row["split"]))
    return found
