"""Anybody's transforms: of either kind, a function of (seed, epoch, row), here and in processes alike."""

import multiprocessing
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from albumentations.pytorch import ToTensorV2
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from sagitta.conversion.pipeline import convert
from sagitta.errors import ConfigError, SagittaError
from sagitta.loading.loader import Batch, Loader
from sagitta.loading.transforms import OwnTransform, Transform
from sagitta.sources.detect import open_source


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    convert(open_source("digits", cache=root / "cache"), root / "dataset")
    return root / "dataset"


@pytest.fixture
def photos_dataset(tmp_path: Path, photo_folder: Path) -> Path:
    convert(open_source(str(photo_folder), cache=tmp_path / "cache"), tmp_path / "dataset")
    return tmp_path / "dataset"


def noisy(image: Tensor) -> Tensor:
    """Draw from all three global generators."""
    low, high = random.randrange(20), int(np.random.randint(20, 40))
    return image // 2 + torch.randint(low, high, image.shape, dtype=torch.uint8)


def keyword_only(*, image: np.ndarray) -> dict[str, Any]:
    return {"image": image[::-1]}


def crash(_image: Tensor) -> Tensor:
    os._exit(3)


TORCHVISION = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4)])
ALBUMENTATIONS = A.Compose([A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast(p=0.8), A.OneOf([A.Blur(), A.NoOp()])])
KINDS: dict[str, Transform] = {"function": noisy, "torchvision": TORCHVISION, "albumentations": ALBUMENTATIONS}


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def images(count: int = 4, channels: int = 3) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, 12, 10), np.uint8)
    return torch.from_numpy(pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_a_function_of_seed_epoch_and_row(kind: str) -> None:
    pixels, keys = images(6), np.arange(6)
    own = OwnTransform(KINDS[kind], 1)
    first = own.batch(pixels, keys, 0)
    torch.rand(3), np.random.rand(3), random.random()  # somebody else draws
    assert torch.equal(own.batch(pixels[2:4], keys[2:4], 0), first[2:4])
    for seed, epoch, rows in ((2, 0, keys), (1, 1, keys), (1, 0, keys + 6)):
        assert not torch.equal(OwnTransform(KINDS[kind], seed).batch(pixels, rows, epoch), first)
    assert first.dtype == torch.uint8 and first.shape == pixels.shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_generators_and_threads_are_put_back(kind: str) -> None:
    def states() -> list[Any]:
        kept = np.random.get_state(legacy=False)["state"]
        threads = torch.get_num_threads()
        return [torch.get_rng_state().tolist(), kept["key"].tolist(), kept["pos"], random.getstate(), threads]

    torch.set_num_threads(2)
    try:
        before = states()
        OwnTransform(KINDS[kind]).batch(images(), np.arange(4), 0)
        assert states() == before
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_nothing(digits: Path, photos_dataset: Path, kind: str) -> None:
    for data in (digits, photos_dataset):
        arguments: dict[str, Any] = {"split": "val", "train": True, "batch_size": 4}
        reference = Loader(data, threads=0, transform=KINDS[kind], **arguments)
        expected = [*reference, *reference]
        loader = Loader(data, threads=2, transform=KINDS[kind], **arguments)
        assert same([*loader, *loader], expected)
        assert not same(expected[: len(reference)], list(Loader(data, **arguments)))


@pytest.mark.parametrize("kind", KINDS)
def test_processes_change_nothing(photos_dataset: Path, kind: str) -> None:
    expected = list(Loader(photos_dataset, "val", 3, train=True, transform=KINDS[kind]))
    loader = Loader(photos_dataset, "val", 3, train=True, transform=KINDS[kind], transform_workers=2)
    assert same(list(loader), expected)


def test_two_flips_of_albumentations_do_not_come_together() -> None:
    """Its own ``set_random_seed`` would give every part of a pipeline the same numbers."""
    own = OwnTransform(A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]))
    image = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2).expand(64, 3, 2, 2)
    found = {tuple(each[0].flatten().tolist()) for each in own.batch(image, np.arange(64), 0)}
    assert found == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}


def test_each_kind_gets_and_may_return_what_is_usual_there() -> None:
    pixels = images()
    expected = pixels.flip(2)
    for transform in (
        v2.RandomVerticalFlip(1.0),
        A.VerticalFlip(p=1.0),
        A.Compose([A.VerticalFlip(p=1.0), ToTensorV2()]),
        keyword_only,
        lambda image: image.flip(1),  # torchvision's, though its argument is named so
    ):
        assert torch.equal(OwnTransform(transform).batch(pixels, np.arange(4), 0), expected)
    grey = images(channels=1)
    without_axis = OwnTransform(v2.Lambda(lambda image: image))
    assert torch.equal(without_axis.batch(grey, np.arange(4), 0), grey)

    def squeezed(*, image: np.ndarray) -> dict[str, Any]:
        return {"image": image[..., 0]}

    assert torch.equal(OwnTransform(squeezed).batch(grey, np.arange(4), 0), grey)


def test_bytes_are_normalised_and_floats_are_passed_on(digits: Path) -> None:
    def as_float(image: Tensor) -> Tensor:
        return image.double() / 255

    plain = Loader(digits, batch_size=16, normalize=False)
    floats, _ = next(iter(Loader(digits, batch_size=16, transform=as_float)))
    expected = torch.stack([image.double() / 255 for image in next(iter(plain))[0]]).float()
    assert floats.dtype == torch.float32 and torch.equal(floats, expected)
    normalised, _ = next(iter(Loader(digits, batch_size=16, transform=lambda image: image)))
    assert torch.equal(normalised, next(iter(Loader(digits, batch_size=16)))[0])
    raw, _ = next(iter(Loader(digits, batch_size=16, transform=v2.Resize((12, 16)), normalize=False)))
    assert raw.dtype == torch.uint8 and raw.shape == (16, 1, 12, 16)


def returns(result: Any) -> Transform:
    def transform(_image: Tensor) -> Any:
        return result

    return transform


def by_keyword(result: Any) -> Transform:
    def transform(*, image: np.ndarray) -> Any:  # noqa: ARG001  # the name is the kind
        return result

    return transform


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (returns(None), r"transform .*returns.*transform returned nothing, not an image"),
        (returns({"image": 1}), "returned a dict"),
        (returns(torch.zeros(3, 4)), r"returned a tensor \(3, 4\) of float32"),
        (returns(torch.zeros(3, 4, 4, dtype=torch.int64)), r"returned a tensor \(3, 4, 4\) of int64"),
        (by_keyword(torch.zeros(3, 4, 4)), r"returned a tensor \(3, 4, 4\) of float32.*return a dict with 'image'"),
        (by_keyword({"picture": 1}), "returned nothing"),
        (returns(torch.zeros(1, 4, 4, dtype=torch.uint8)), "returned 1 channels, but 3 are normalised"),
        (
            v2.RandomResize(4, 9),
            r"RandomResize\(.* returned images of .* in one batch: let it end with one size",
        ),
        (v1.ToPILImage(), "returned a Image, not an image of uint8"),
    ],
)
def test_the_wrong_kind_is_one_line_that_names_the_transform(transform: Transform, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        OwnTransform(transform).batch(images(), np.arange(4), 0)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_called_or_sent_is_refused_before_work(digits: Path) -> None:
    with pytest.raises(ConfigError, match="transform 'flip': cannot be called"):
        Loader(digits, transform="flip")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigError, match=r"<lambda> cannot be sent to worker processes \(.*transform_workers=0"):
        Loader(digits, transform=lambda image: image, transform_workers=1)
    with pytest.raises(ConfigError, match="transform workers -1: must be at least 0"):
        Loader(digits, transform=noisy, transform_workers=-1)


def test_a_process_that_dies_is_an_error_that_names_the_transform(digits: Path) -> None:
    with pytest.raises(SagittaError, match=r"a process for transform .*crash died"):
        list(Loader(digits, batch_size=500, transform=crash, transform_workers=1))


def test_processes_end_with_the_iteration(photos_dataset: Path) -> None:
    loader = Loader(photos_dataset, batch_size=4, transform=noisy, transform_workers=2)
    batches = iter(loader)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []
    expected = Loader(photos_dataset, batch_size=4, transform=noisy)
    expected.set_epoch(1)
    assert same(list(loader), list(expected))
    assert multiprocessing.active_children() == []


_SCRIPT = """
import sys
from sagitta import Loader

def transform(image):
    return image // 2

def main():
    loader = Loader(sys.argv[1], "test", 500, transform=transform, transform_workers=1)
    print(sum(len(labels) for _, labels in loader))
"""


@pytest.mark.parametrize(
    ("end", "stdout", "stderr"),
    [
        ('\nif __name__ == "__main__":\n    main()\n', "179\n", ""),
        ("\nmain()\n", "", "guard the script with `if __name__ == '__main__':`"),
    ],
)
def test_a_scripts_own_function_may_be_sent(digits: Path, tmp_path: Path, end: str, stdout: str, stderr: str) -> None:
    (tmp_path / "script.py").write_text(_SCRIPT + end)
    command = [sys.executable, str(tmp_path / "script.py"), str(digits)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.stdout == stdout and stderr in result.stderr and (result.returncode == 0) == bool(stdout)


def test_what_a_notebook_defines_cannot_be_sent(digits: Path) -> None:
    command = [sys.executable, "-c", f"{_SCRIPT}\nmain()", str(digits)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "defined in a notebook or on the command line): define it in a module" in result.stderr


def test_the_description_has_no_addresses() -> None:
    assert OwnTransform(noisy).describe() == f"{__name__}.noisy"
    assert OwnTransform(v2.RandomVerticalFlip(0.25)).describe() == "RandomVerticalFlip(p=0.25)"
    assert OwnTransform(v2.Lambda(lambda image: image)).describe().count("0x") == 0
    assert "HorizontalFlip(p=0.5)" in OwnTransform(ALBUMENTATIONS).describe()


def fussy(image: Tensor) -> Tensor:
    if int(image[0, 0, 0]) == 77:
        raise ValueError("a pixel that I dislike\nand more")
    return image


@pytest.mark.parametrize(("rows", "named"), [(0, 9), (7, 2)])
def test_an_error_inside_a_transform_names_transform_and_row(rows: int, named: int) -> None:
    pixels = images()
    pixels[:, 0, 0, 0] = torch.tensor([1, 2, 77, 3], dtype=torch.uint8)
    with pytest.raises(ConfigError, match=f"fussy fails on row {named} .3x12x10.: ValueError: a pixel that I dislike"):
        OwnTransform(fussy, rows=rows).batch(pixels, np.array([4, 5, 9, 6]), 0)
