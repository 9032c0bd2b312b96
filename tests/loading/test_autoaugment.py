"""TrivialAugment and RandAugment: every operation does what it says, by row and nothing else, whatever the threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sagitta.loading.autoaugment import Policy, _changes, _Space, auto_augment

SPACE = _Space(1, 1.0, 0.5, 0.25, 90.0, 0.5, 2)
IDENTITY, SHEAR, TRANSLATE, ROTATE, BRIGHTNESS, POSTERIZE, SOLARIZE, AUTOCONTRAST = 0, 1, 3, 5, 6, 10, 11, 12


def noise(count: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 20, 24, channels), np.uint8)


def apply(operation: int, image: np.ndarray, level: float = 1.0) -> np.ndarray:
    grey = image.shape[2] == 1
    change = _changes(SPACE, (7,) * image.shape[2])[operation]
    return np.asarray(change(Image.fromarray(image[..., 0] if grey else image), level)).reshape(image.shape).astype(int)


def test_operations_as_literals() -> None:
    image = noise(1)[0]
    assert (apply(IDENTITY, image) == image).all()
    moved = apply(TRANSLATE, image)  # a quarter of 24 pixels to the left
    assert (moved[:, :17] == image[:, 6:23]).all() and (moved[:, 18:] == 7).all()
    assert (apply(TRANSLATE, image, -1.0)[:, 7:] == image[:, 1:18]).all()
    assert (apply(BRIGHTNESS, image) == np.minimum(255, np.floor(1.5 * image))).mean() > 0.99
    assert (apply(POSTERIZE, image) == image & 0b11000000).all()
    assert (apply(SOLARIZE, image) == 255 - image.astype(int)).all()
    assert (apply(AUTOCONTRAST, np.full((4, 4, 1), 9, np.uint8)) == 9).all()


def test_a_quarter_turn_keeps_the_centre() -> None:
    square = noise(1)[0, :20, :20]
    assert np.abs(apply(ROTATE, square) - np.rot90(square, -1)).max() <= 1


@pytest.mark.parametrize("policy", ["trivial", "rand"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_change_by_row_and_nothing_else(policy: Policy, channels: int) -> None:
    images, rows, fill = noise(300, channels), np.arange(300), (9,) * channels

    def run(part: slice, epoch: int = 0) -> np.ndarray:
        return auto_augment(images[part], rows[part], seed=1, epoch=epoch, policy=policy, fill=fill)

    whole = run(slice(None))
    assert whole.shape == images.shape and whole.dtype == np.uint8
    assert (whole != images).any(axis=(1, 2, 3)).mean() > 0.6  # noise is equalized already, grey has no colour
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(run, [slice(start, start + 50) for start in range(0, 300, 50)]))
    assert (np.concatenate(parts) == whole).all()
    assert (whole != run(slice(None), epoch=1)).any(axis=(1, 2, 3)).mean() > 0.6


def test_none_changes_nothing() -> None:
    images = noise(3)
    assert auto_augment(images, np.arange(3), seed=0, epoch=0, policy="none", fill=(0, 0, 0)) is images
