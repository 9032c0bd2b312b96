from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from sagitta.diagnosis.likeness import NEAR, candidates, likeness, likenesses, signatures, turned_signatures
from sagitta.diagnosis.looks import SIDE, Bytes
from sagitta.diagnosis.symmetries import SYMMETRIES, turned
from tests.diagnosis.conftest import picture


def thumbnail(image: Image.Image) -> Bytes:
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((70, 70), Image.Resampling.LANCZOS),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "of less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "cropped in the middle": lambda image: image.crop((3, 3, 117, 117)),
    "cropped at a corner": lambda image: image.crop((6, 6, 120, 120)),
    "cropped by a tenth": lambda image: image.crop((2, 8, 110, 116)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_alike_and_a_candidate(change: str) -> None:
    images = [picture(seed) for seed in range(12)]
    every = np.stack([thumbnail(image) for image in [*images, CHANGES[change](images[5])]])
    found, _, more = candidates(signatures(every, np.arange(len(every))), 100, small=False)
    assert [5, 12] in found.tolist() and not more
    assert likeness(every[[5]], every[[12]])[0] > NEAR and likeness(every[[12]], every[[5]])[0] > NEAR


def test_other_pictures_are_not_alike_even_where_they_are_alike_at_first_sight() -> None:
    coarse = np.asarray(picture(0, 16).resize((120, 120), Image.Resampling.BICUBIC), np.float64)
    same = [Image.fromarray(np.uint8(0.7 * coarse + 0.3 * np.asarray(picture(seed)))) for seed in (1, 2)]
    every = np.stack([thumbnail(image) for image in same])
    products = signatures(every, np.arange(len(every)))
    assert products[0] @ products[1] > 0.8
    assert likeness(every[:1], every[1:])[0] < 0.8


def test_pairs_are_found_across_tiles_the_most_alike_first(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.stack([thumbnail(picture(seed)) for seed in range(10)])
    every = np.concatenate([images, images[3:4], images[7:8] // 2])
    monkeypatch.setattr("sagitta.diagnosis.likeness._TILE", 4)
    found = candidates(signatures(every, np.arange(len(every))), 2, small=False)
    assert {tuple(pair) for pair in found.pairs.tolist()} == {(3, 10), (7, 11)}
    assert (np.concatenate(list(likenesses(every, found))) > 0.95).all()
    few, _, more = candidates(signatures(every, np.arange(len(every))), 1, small=False)
    assert len(few) == 1 and more


def test_a_blank_image_is_like_nothing() -> None:
    every = np.stack([thumbnail(picture(0)), np.full((SIDE, SIDE), 200, np.uint8), np.full((SIDE, SIDE), 9, np.uint8)])
    assert (signatures(every, np.arange(len(every)))[1:] == 0).all()
    assert len(candidates(signatures(every, np.arange(len(every))), 10, small=False)[0]) == 0
    assert likeness(every[1:2], every[2:]).tolist() == [0]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_turned_copy_is_a_candidate_under_its_symmetry_alone(symmetry: int) -> None:
    images = np.stack([thumbnail(picture(seed)) for seed in range(8)])
    every = np.concatenate([images, turned(images[3:4], symmetry)])
    square = signatures(every, np.arange(len(every)), square=True)
    assert np.allclose(turned_signatures(square[3:4], symmetry), square[8:], atol=1e-3)
    found = candidates(square, 1, small=False, symmetries=SYMMETRIES)
    assert found.pairs.tolist() == [[3, 8]] and next(likenesses(every, found))[0] > 0.999
    assert [3, 8] not in candidates(signatures(every, np.arange(len(every))), 100, small=False).pairs.tolist()
