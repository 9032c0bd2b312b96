"""Thumbnails in memory: windows and mirrors as literals, the same pixels natively, in torch and normalised."""

from typing import Any

import numpy as np
import pytest
import torch

from sagitta.images import native
from sagitta.loading.augmentation import Augmentation
from sagitta.loading.pixels import CachedPixels
from sagitta.loading.preprocessing import Preprocessing

ROWS = np.arange(40)


def preprocessing(channels: int, size: tuple[int, int] = (8, 8)) -> Preprocessing:
    return Preprocessing(size, 1.0, "bilinear", (0.49, 0.48, 0.45)[:channels], (0.25, 0.24, 0.26)[:channels])


def cached(images: np.ndarray, augmentation: Augmentation | None, **settings: Any) -> CachedPixels:
    return CachedPixels(images, preprocessing(images.shape[1]), augmentation, 0, **settings)


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
    augmentation, how = Augmentation(shift=0.2, flip=0.5), preprocessing(channels, size)
    for normalize in (False, True):
        core = CachedPixels(images, how, augmentation, 0, normalize=normalize).batch(ROWS, 3)
        monkeypatch.setenv("SAGITTA_NATIVE", "0")
        plain = CachedPixels(images, how, augmentation, 0, normalize=normalize).batch(ROWS, 3)
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
