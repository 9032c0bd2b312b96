"""Encoded images in chunks, decoded ahead: what is read, how often, and what is told of the rest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sagitta.conversion import ConvertOptions, convert
from sagitta.dataset import ShardSet
from sagitta.images import Reduction, decode_batch
from sagitta.loading import DecodedAhead, EncodedFiles, Preprocessing, streaming
from sagitta.loading.pixels import EncodedPixels, Reading
from sagitta.sources import open_source

HOW = Preprocessing((24, 24), 0.875, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def ahead(paths: list[str], chunk: int, how: Preprocessing = HOW, **others: Any) -> DecodedAhead:
    return DecodedAhead(EncodedFiles(paths), [how], chunk, **others)


@pytest.fixture
def files(photo_folder: Path, tmp_path: Path) -> list[str]:
    """Twenty photos, one turned by EXIF, and among them three files that are no image, half an image, and missing."""
    paths = sorted(photo_folder.rglob("*.jpg"))[:20]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(paths[3]).save(paths[3], exif=exif)
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "half.jpg").write_bytes(paths[0].read_bytes()[:900])
    names = [str(path) for path in paths]
    return [*names[:9], str(tmp_path / "text.jpg"), str(tmp_path / "half.jpg"), *names[9:], str(tmp_path / "gone.jpg")]


def test_files_that_cannot_be_read_are_told_and_left_out(files: list[str]) -> None:
    readable = [path for path in files if "photos" in path]
    expected = torch.cat([found.pixels[0] for path in readable for found in ahead([path], 1)])
    for size, threads in ((1, 1), (4, 2), (5, 1), (64, 3)):
        chunks = list(ahead(files, size, threads=threads))
        assert torch.equal(torch.cat([chunk.pixels[0] for chunk in chunks]), expected)
        assert [number for chunk in chunks for number in chunk.numbers] == list(range(len(files)))
        assert [files[number] for chunk in chunks for number in chunk.readable] == readable
        assert all(len(chunk.numbers) <= size and chunk.pixels[0].dtype == torch.uint8 for chunk in chunks)
    errors = {files[number]: reason for chunk in chunks for number, reason in chunk.errors.items()}
    assert {Path(path).name: reason.split("(")[0] for path, reason in errors.items()} == {
        "text.jpg": "not an image but text",
        "half.jpg": "image file is truncated ",
        "gone.jpg": "[Errno 2] No such file or directory: " + repr(files[-1]),
    }


def test_a_batch_of_files_is_one_call_and_few_are_decoded_ahead(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counting(images: list[bytes], *arguments: Any, **settings: Any) -> None:
        calls.append(len(images))
        decode_batch(images, *arguments, **settings)

    monkeypatch.setattr(streaming, "decode_batch", counting)
    chunks = iter(ahead([path for path in files if "photos" in path] * 10, 4))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert 1 < len(calls) <= 3 and set(calls) == {4}


def test_an_image_is_read_once_and_decoded_once_for_each_preprocessing(files: list[str]) -> None:
    reads: list[int] = []

    class Counted(EncodedFiles):
        def read(self, number: int) -> bytes:
            reads.append(number)
            return super().read(number)

    other = Preprocessing((16, 12), 1.0, "bilinear", (0.5,), (0.25,))
    chunks = list(DecodedAhead(Counted(files), [HOW, other], 7))
    assert sorted(reads) == list(range(len(files)))
    for index, how in enumerate((HOW, other)):
        alone = torch.cat([chunk.pixels[0] for chunk in DecodedAhead(EncodedFiles(files), [how], 7)])
        assert torch.equal(torch.cat([chunk.pixels[index] for chunk in chunks]), alone)
    assert chunks[0].pixels[1].shape == (7, 1, 16, 12)


def test_a_stream_begins_where_it_is_told_to(files: list[str]) -> None:
    whole, rest = list(ahead(files, 5)), list(ahead(files, 5, start=10))
    assert [chunk.numbers for chunk in rest] == [chunk.numbers for chunk in whole[2:]]
    assert all(torch.equal(one.pixels[0], other.pixels[0]) for one, other in zip(rest, whole[2:], strict=True))


def test_files_become_what_a_conversion_made_of_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(12):
        path = tmp_path / "xray" / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(200, 3000, (30, 26), np.uint16)).save(path)
    options = ConvertOptions(purpose="test", range="auto")
    info = convert(open_source(str(tmp_path / "xray"), cache=tmp_path), tmp_path / "out", options)
    asked = Reduction.from_dict(info.reduction or {})
    how = Preprocessing((24, 24), 1.0, "bilinear", (0.5,), (0.25,), reduction=asked)
    with ShardSet.open(tmp_path / "out") as shards:
        stored = EncodedPixels(shards.splits["test"], Reading(how)).batch(np.arange(12), 0)
        names = [str(tmp_path / "xray" / shards.splits["test"].path(row)) for row in range(12)]
    asked_for, unasked = (list(ahead(names, 12, each)) for each in (how, replace(how, reduction=None)))
    assert torch.equal(asked_for[0].pixels[0], stored) and not asked_for[0].reduced
    assert unasked[0].pixels[0].float().std() < 8 < asked_for[0].pixels[0].float().std()
    assert unasked[0].reduced == {"16-bit grey to 8 bits": 12}


@pytest.mark.parametrize("engine", ["1", "0"])
def test_a_thin_file_is_read(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", engine)
    for kind in ("png", "jpg"):
        Image.fromarray(np.arange(4 * 3000, dtype=np.uint8).reshape(4, 3000)).save(tmp_path / f"thin.{kind}")
        (chunk,) = ahead([str(tmp_path / f"thin.{kind}")], 1, replace(HOW, size=(96, 96)))
        assert chunk.pixels[0].shape == (1, 3, 96, 96)
