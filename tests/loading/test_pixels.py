"""Thumbnails in memory: windows and mirrors as literals, the same pixels natively and in torch."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sagitta.conversion import ConvertOptions, convert
from sagitta.dataset import ShardSet
from sagitta.errors import DatasetError
from sagitta.images import native
from sagitta.loading.augmentation import Augmentation, Ints
from sagitta.loading.pixels import CachedPixels, EncodedPixels, Pixels, Reading
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


def test_a_shard_that_is_cut_off_between_two_batches_is_an_error(photo_folder: Path, tmp_path: Path) -> None:
    convert(open_source(str(photo_folder), cache=tmp_path), tmp_path / "data", ConvertOptions(workers=1))
    split = ShardSet.open(tmp_path / "data").splits["train"]
    encoded = EncodedPixels(split, Reading(preprocessing(3)))
    assert encoded.batch(np.arange(4), 0).shape == (4, 3, 8, 8)
    os.truncate(split.files[0], 5000)
    with pytest.raises(DatasetError, match="shorter than when it was opened"):
        encoded.batch(np.arange(4), 0)
