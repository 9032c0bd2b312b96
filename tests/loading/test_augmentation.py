"""Preprocessing and crops: boxes inside the image, evaluation geometry as torchvision's, randomness by row alone."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from sagitta.dataset.schema import DatasetInfo
from sagitta.errors import ConfigError
from sagitta.loading.augmentation import Augmentation, change_pixels, crop_boxes, eval_jobs, flips, train_jobs
from sagitta.loading.preprocessing import Preprocessing

IMAGENET = Preprocessing((224, 224), 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
sides = st.integers(1, 5000)


def info(max_size: tuple[int, int], channels: int = 3) -> DatasetInfo:
    return DatasetInfo(("a", "b"), channels, {}, (0.5,) * channels, (0.2,) * channels, (1, 1), max_size, "f")


@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=20), st.floats(0.01, 1), st.floats(1, 3))
@settings(max_examples=60, deadline=None)
def test_crop_boxes_lie_inside_the_image(sizes: list[tuple[int, int]], min_scale: float, max_ratio: float) -> None:
    random = np.random.default_rng(0).random((len(sizes), 22))
    boxes = crop_boxes(np.array(sizes), random, Augmentation(min_scale, max_ratio))
    left, top, right, bottom = boxes.T
    height, width = np.array(sizes).T
    assert (left >= 0).all() and (top >= 0).all() and (left < right).all() and (top < bottom).all()
    assert (right <= width).all() and (bottom <= height).all()


def test_crop_boxes_keep_area_and_ratio() -> None:
    sizes = np.tile([400, 600], (2000, 1))
    boxes = crop_boxes(sizes, np.random.default_rng(0).random((2000, 22)), Augmentation(0.25, 4 / 3))
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, ratio = width * height / 240_000, width / height
    assert 0.24 < share.min() < 0.27 and 0.85 < share.max() <= 8 / 9  # the largest 4:3 crop of a 3:2 image
    assert 0.74 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.35
    assert len(np.unique(boxes[:, 0])) > 100 and len(np.unique(boxes[:, 1])) > 50


def test_an_image_too_narrow_for_any_ratio_gets_its_largest_centre_crop() -> None:
    boxes = crop_boxes(np.array([[1000, 10]]), np.full((1, 22), 0.99), Augmentation(1.0, 4 / 3))
    assert boxes.tolist() == [[0, 493, 10, 506]]


def test_jobs_depend_on_seed_epoch_and_row_only() -> None:
    rows = np.arange(50)
    arguments = {"size": (224, 224), "augmentation": Augmentation(flip=0.5)}
    sizes, upright = np.tile([375, 500], (50, 1)), np.ones(50, np.int64)
    jobs = train_jobs(sizes, upright, rows, seed=1, epoch=2, **arguments)  # type: ignore[arg-type]
    part = train_jobs(sizes[:7], upright[:7], rows[30:37], seed=1, epoch=2, **arguments)  # type: ignore[arg-type]
    other = train_jobs(sizes, upright, rows, seed=1, epoch=3, **arguments)  # type: ignore[arg-type]
    assert (jobs[30:37] == part).all()
    assert (jobs["box"] != other["box"]).any(axis=1).mean() > 0.9
    assert 0.2 < jobs["flip"].mean() < 0.8


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([(224, 0.875), (224, 0.95), (160, 1.0), (32, 1.0)]))
@settings(max_examples=60, deadline=None)
def test_evaluation_geometry_is_torchvisions(height: int, width: int, setting: tuple[int, float]) -> None:
    size, crop_pct = setting
    preprocessing = Preprocessing((size, size), crop_pct, "bilinear", (0.5,), (0.5,))
    job = eval_jobs(np.array([[height, width]]), np.array([1]), preprocessing)[0]
    resized = v2.functional.resize(Image.new("L", (width, height)), [int(size / crop_pct)])
    ramp = torch.arange(resized.height * resized.width).view(1, resized.height, resized.width)
    corner = divmod(int(v2.functional.center_crop(ramp, [size, size])[0, 0, 0]), resized.width)
    assert tuple(job["resized"]) == (resized.height, resized.width)
    assert tuple(job["window"]) == corner
    assert tuple(job["box"]) == (0, 0, width, height)


@pytest.mark.parametrize("shape", [(100, 300), (300, 100), (50, 50)])
def test_a_wide_input_is_covered(shape: tuple[int, int]) -> None:
    job = eval_jobs(np.array([shape]), np.array([1]), Preprocessing((64, 96), 0.875, "bilinear", (0.5,), (0.5,)))[0]
    assert job["resized"][0] >= 64 and job["resized"][1] >= 96 and (job["window"] >= 0).all()


def test_thumbnails_keep_their_size_and_photos_become_224() -> None:
    assert Preprocessing.of_dataset(info((8, 8), 1)).size == (8, 8)
    assert Preprocessing.of_dataset(info((8, 8), 1)).channels == 1
    assert Preprocessing.of_dataset(info((500, 375))).size == (224, 224)
    assert Preprocessing.of_dataset(info((500, 375)), 128).size == (128, 128)


def test_preprocessing_survives_plain_values() -> None:
    assert Preprocessing.from_dict(IMAGENET.to_dict()) == IMAGENET
    with pytest.raises(ConfigError, match="preprocessing in the checkpoint"):
        Preprocessing.from_dict({"size": [1, 1], "colour": "no"})


def test_normalize_is_the_fields_formula_and_inverts() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    normal = IMAGENET.normalize(images)
    expected = v2.functional.normalize(images.float() / 255, list(IMAGENET.mean), list(IMAGENET.std))
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal, expected, atol=2e-6, rtol=1e-5)
    assert torch.equal(IMAGENET.denormalize(normal), images)


def test_mirrored_epochs_are_spread_evenly() -> None:
    rows = np.arange(1000)
    mirrored = np.stack([flips(3, epoch, rows, Augmentation(flip=0.5)) for epoch in range(6)])
    assert 0.4 < mirrored[0].mean() < 0.6
    assert (mirrored[1:] != mirrored[:-1]).all()  # alternating
    for share, times in ((0.0, {0}), (0.25, {1}), (1.0, {4})):
        counts = np.sum([flips(3, epoch, rows, Augmentation(flip=share)) for epoch in range(4)], axis=0)
        assert set(counts.tolist()) == times


def changed(images: torch.Tensor, rows: np.ndarray, augmentation: Augmentation) -> torch.Tensor:
    return change_pixels(images.clone(), rows, seed=1, epoch=2, augmentation=augmentation, preprocessing=IMAGENET)


def test_cutout_blanks_a_square_of_the_mean_colour() -> None:
    images = torch.zeros(200, 3, 16, 12, dtype=torch.uint8)
    blanked = changed(images, np.arange(200), Augmentation(cutout=0.5)) > 0
    fill = changed(images, np.arange(200), Augmentation(cutout=1.0)).amax(dim=(0, 2, 3))
    assert fill.tolist() == [124, 116, 104]  # 255 times the mean
    areas = blanked[:, 0].sum(dim=(1, 2))
    assert areas.max() == 8 * 6 and areas.min() < 30 and (areas > 0).all()  # it may reach over the border


def test_erasing_blanks_a_box_in_a_share_of_the_images() -> None:
    images = torch.zeros(400, 3, 32, 32, dtype=torch.uint8)
    blanked = (changed(images, np.arange(400), Augmentation(erase=0.25)) > 0)[:, 0]
    areas = blanked.sum(dim=(1, 2))[blanked.any(dim=2).any(dim=1)]
    assert 0.15 < len(areas) / 400 < 0.35
    assert areas.min() >= 0.015 * 32**2 and areas.max() <= 0.36 * 32**2


def test_a_share_of_the_images_is_mirrored_top_to_bottom() -> None:
    images = torch.arange(400 * 3 * 4 * 2).remainder(251).to(torch.uint8).view(400, 3, 4, 2)
    found = changed(images.clone(), np.arange(400), Augmentation(vertical=0.25))
    mirrored = torch.tensor([torch.equal(one, image.flip(1)) for one, image in zip(found, images, strict=True)])
    same = torch.tensor([torch.equal(one, image) for one, image in zip(found, images, strict=True)])
    assert (mirrored ^ same).all() and 70 < mirrored.sum() < 130
    assert torch.equal(changed(images.clone(), np.arange(400), Augmentation(vertical=1.0)), images.flip(2))


def test_changes_depend_on_the_row_only() -> None:
    images = torch.randint(0, 256, (20, 3, 9, 9), dtype=torch.uint8)
    augmentation = Augmentation(auto="rand", erase=0.5, cutout=0.3, vertical=0.5)
    whole = changed(images, np.arange(20), augmentation)
    assert torch.equal(whole[7:12], changed(images[7:12], np.arange(7, 12), augmentation))
    assert not torch.equal(whole, images)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_scale": 0.0},
        {"max_ratio": 0.5},
        {"shift": 1.0},
        {"flip": 1.5},
        {"erase": -0.1},
        {"auto": "much"},
        {"vertical": 2},
    ],
)
def test_augmentation_refuses_what_is_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        Augmentation(**wrong)


def test_flip_is_decided_by_colour() -> None:
    assert Augmentation().resolve(3).flip == 0.5
    assert Augmentation().resolve(1).flip == 0.0
    assert Augmentation(flip=0.0).resolve(3).flip == 0.0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalisation_is_the_same_with_and_without_the_core(
    channels: int, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = Preprocessing((5, 7), 1.0, "bilinear", (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels])
    images = torch.randint(0, 256, (4, channels, 5, 7), dtype=torch.uint8).contiguous(memory_format=memory_format)
    by_core = how.normalize(images)
    monkeypatch.setenv("SAGITTA_NATIVE", "0")
    by_torch = how.normalize(images)
    assert torch.equal(by_core, by_torch)
    assert by_core.is_contiguous()
    assert torch.equal(how.normalize(images[:, :, 1:]), by_torch[:, :, 1:])
