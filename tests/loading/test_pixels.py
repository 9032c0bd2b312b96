"""Thumbnails in memory: windows and mirrors as literals, the same pixels natively and in torch; files decoded ahead."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sagitta.conversion import ConvertOptions, convert
from sagitta.dataset import ShardSet
from sagitta.errors import DatasetError
from sagitta.images import Reduction, native
from sagitta.images.decoding import decode_batch
from sagitta.loading import pixels
from sagitta.loading.augmentation import Augmentation, Ints
from sagitta.loading.pixels import CachedPixels, EncodedPixels, FilePixels, Pixels, Reading
from sagitta.loading.preprocessing import Preprocessing
from sagitta.sources import open_source

ROWS = np.arange(40)


def preprocessing(channels: int, size: tuple[int, int] = (8, 8)) -> Preprocessing:
    return Preprocessing(size, 1.0, "bilinear", (0.49, 0.48, 0.45)[:channels], (0.25, 0.24, 0.26)[:channels])


class Given(Pixels):
    """Images that need no decoding; counts those that were asked for."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.asked = images, 0

    def batch(self, keys: Ints, epoch: int) -> Tensor:
        self.asked += len(keys)
        return torch.from_numpy(self.images[keys])


def cached(images: np.ndarray, augmentation: Augmentation | None, **settings: Any) -> CachedPixels:
    size = images.shape[2], images.shape[3]
    reading = Reading(preprocessing(images.shape[1], size), augmentation, **settings)
    found = CachedPixels(Given(images), len(images), reading)
    found.prepare()
    return found


def test_images_move_by_at_most_the_shift() -> None:
    images = np.zeros((40, 1, 8, 8), np.uint8)
    images[:, 0, 3, 4] = 255
    batch = cached(images, Augmentation(shift=0.25, flip=0.0)).batch(ROWS, 0).numpy()
    positions = {tuple(np.argwhere(image[0])[0].tolist()) for image in batch}
    assert batch.sum() == 40 * 255
    assert positions <= {(y, x) for y in range(1, 6) for x in range(2, 7)} and len(positions) > 12
    mirrored = cached(images, Augmentation(shift=0.25, flip=1.0)).batch(ROWS, 0).numpy()
    assert (mirrored == batch[:, :, :, ::-1]).all()


def test_what_comes_in_at_the_border_is_the_mirror_image() -> None:
    ramp = np.arange(8, dtype=np.uint8) * np.ones((40, 1, 8, 1), np.uint8)
    batch = cached(ramp, Augmentation(shift=0.25, flip=0.0)).batch(ROWS, 0)
    assert {tuple(line) for line in batch[:, 0, 0].tolist()} == {
        (2, 1, 0, 1, 2, 3, 4, 5),
        (1, 0, 1, 2, 3, 4, 5, 6),
        (0, 1, 2, 3, 4, 5, 6, 7),
        (1, 2, 3, 4, 5, 6, 7, 6),
        (2, 3, 4, 5, 6, 7, 6, 5),
    }


def test_without_augmentation_images_are_as_they_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)
    assert (cached(images, None).batch(ROWS[::-3], 5).numpy() == images[ROWS[::-3]]).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (7, 13)])
def test_native_core_and_torch_agree_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, channels: int, size: tuple[int, int]
) -> None:
    if native.library() is None:
        pytest.skip("the native core is not built")
    images = np.random.default_rng(0).integers(0, 256, (40, channels, *size), np.uint8)
    augmentation = Augmentation(shift=0.2, flip=0.5)
    for normalize in (False, True):
        core = cached(images, augmentation, normalize=normalize).batch(ROWS, 3)
        monkeypatch.setenv("SAGITTA_NATIVE", "0")
        plain = cached(images, augmentation, normalize=normalize).batch(ROWS, 3)
        monkeypatch.delenv("SAGITTA_NATIVE")
        assert core.dtype == (torch.float32 if normalize else torch.uint8)
        assert core.is_contiguous() and plain.is_contiguous() and torch.equal(core, plain)


def test_a_device_gives_the_same_pixels() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)
    augmentation = Augmentation(shift=0.25, flip=0.5)
    there = cached(images, augmentation, device=device).batch(ROWS, 1)
    assert there.device.type == device.type
    assert torch.equal(there.cpu(), cached(images, augmentation).batch(ROWS, 1))


def test_copies_of_a_row_differ() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    pixels = cached(images, Augmentation(shift=0.25))
    first, second = pixels.batch(ROWS, 0), pixels.batch(ROWS + 40, 0)
    assert (first != second).flatten(1).any(dim=1).float().mean() > 0.8
    assert torch.equal(cached(images, None).batch(ROWS, 0), cached(images, None).batch(ROWS + 40, 0))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("engine", ["1", "0"])
def test_a_few_rows_are_decoded_alone_and_all_of_them_once(
    monkeypatch: pytest.MonkeyPatch, engine: str, normalize: bool
) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", engine)
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)
    augmentation = Augmentation(shift=0.25, flip=0.5)
    source = Given(images)
    lazy = CachedPixels(source, 40, Reading(preprocessing(3), augmentation, normalize=normalize))
    whole, keys = cached(images, augmentation, normalize=normalize), np.array([7, 2, 47, 7])
    assert torch.equal(lazy.batch(keys, 1), whole.batch(keys, 1))
    assert source.asked == 4
    lazy.prepare()
    lazy.prepare()
    assert torch.equal(lazy.batch(keys, 1), whole.batch(keys, 1))
    assert source.asked == 4 + 40


HOW = Preprocessing((24, 24), 0.875, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


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
    expected = [torch.cat(list(FilePixels([path], HOW, 1))) for path in readable]
    for size, threads in ((1, 1), (4, 2), (5, 1), (64, 3)):
        reader = FilePixels(files, HOW, size, threads)
        batches = list(reader)
        assert torch.equal(torch.cat(batches), torch.cat(expected))
        assert all(batch.dtype == torch.float32 and 0 < len(batch) <= size for batch in batches)
        assert sorted(reader.errors) == sorted(set(files) - set(readable))
    assert {Path(path).name: reason.split("(")[0] for path, reason in reader.errors.items()} == {
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

    monkeypatch.setattr(pixels, "decode_batch", counting)
    batches = iter(FilePixels([path for path in files if "photos" in path] * 10, HOW, 4))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert 1 < len(calls) <= 3 and set(calls) == {4}


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
    reader = FilePixels(names, how, 5)
    assert torch.equal(torch.cat(list(reader)), how.normalize(stored.contiguous())) and not reader.reduced
    unasked = FilePixels(names, replace(how, reduction=None), 5)
    assert torch.cat(list(unasked)).std() < 0.1 < torch.cat(list(reader)).std()
    assert unasked.reduced == {"16-bit grey to 8 bits": 12}


@pytest.mark.parametrize("engine", ["1", "0"])
def test_a_thin_file_is_read(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", engine)
    for kind in ("png", "jpg"):
        Image.fromarray(np.arange(4 * 3000, dtype=np.uint8).reshape(4, 3000)).save(tmp_path / f"thin.{kind}")
        (batch,) = FilePixels([str(tmp_path / f"thin.{kind}")], replace(HOW, size=(96, 96)), 1)
        assert batch.shape == (1, 3, 96, 96)


def test_a_shard_that_is_cut_off_between_two_batches_is_an_error(photo_folder: Path, tmp_path: Path) -> None:
    convert(open_source(str(photo_folder), cache=tmp_path), tmp_path / "data", ConvertOptions(workers=1))
    split = ShardSet.open(tmp_path / "data").splits["train"]
    encoded = EncodedPixels(split, Reading(preprocessing(3)))
    assert encoded.batch(np.arange(4), 0).shape == (4, 3, 8, 8)
    os.truncate(split.files[0], 5000)
    with pytest.raises(DatasetError, match="shorter than when it was opened"):
        encoded.batch(np.arange(4), 0)
