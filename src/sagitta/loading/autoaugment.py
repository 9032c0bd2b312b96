"""Automatic augmentation of uint8 images: TrivialAugment and RandAugment by Pillow, with drawn parameters.

No generator with a state is involved, so threads may share the work: an image's operations are a function of
(seed, epoch, row), and Pillow computes the same pixels everywhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from sagitta.loading.draws import Stream, uniform

Policy = Literal["none", "trivial", "rand"]
Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

_LEVELS = 31


@dataclass(frozen=True)
class _Space:
    """The strongest changes of a policy.

    Attributes:
        operations: how many are applied to an image.
        level: the strength of all of them, 0 to 1; None draws each.
        shear: pixels to the side per pixel.
        translate: share of the image's side.
        rotate: degrees.
        factor: brightness, colour, contrast and sharpness change by a factor of up to 1 +- this.
        bits: posterize leaves so many bits.
    """

    operations: int
    level: float | None
    shear: float
    translate: float
    rotate: float
    factor: float
    bits: int


_SPACES = {
    # Müller & Hutter, "TrivialAugment", 2021: the wide space; its 32 pixels are a seventh of ImageNet's 224.
    "trivial": _Space(1, None, 0.99, 1 / 7, 135.0, 0.99, 2),
    # Cubuk et al., "RandAugment", 2020: two operations at level 9 of 30.
    "rand": _Space(2, 9 / 30, 0.3, 0.45, 30.0, 0.9, 4),
}
Fill = tuple[int, ...]
_Change = Callable[[Image.Image, float], Image.Image]
"""Changes an image by a signed level in -1..1; only what has a direction looks at the sign."""


def auto_augment(images: Pixels, rows: Ints, *, seed: int, epoch: int, policy: Policy, fill: Fill) -> Pixels:
    """Return randomly changed images.

    Args:
        images: (B, H, W, C) uint8, C 1 or 3.
        rows: (B,) what the random numbers of each image depend on, with ``seed`` and ``epoch``.
        seed: of the run.
        epoch: number of the epoch.
        policy: which operations, how strong.
        fill: colour of what comes in at the border, a value of 0..255 a channel.

    Returns:
        The same shape and type; ``images`` itself with the policy ``none``.
    """
    if policy == "none":
        return images
    space = _SPACES[policy]
    changes = _changes(space, fill)
    random = uniform(seed, epoch, rows, Stream.AUTO, 3 * space.operations).reshape(len(rows), -1, 3)
    levels = (
        np.full(random.shape[:2], space.level) if space.level else np.floor(random[..., 1] * _LEVELS) / (_LEVELS - 1)
    )
    levels = np.where(random[..., 2] < 0.5, levels, -levels)
    kinds = (random[..., 0] * len(changes)).astype(int)
    out = np.empty(images.shape, np.uint8)
    for index, pixels in enumerate(images):
        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
        for kind, level in zip(kinds[index].tolist(), levels[index].tolist(), strict=True):
            image = changes[kind](image, level)
        out[index] = np.asarray(image).reshape(pixels.shape)
    return out


def _changes(space: _Space, fill: Fill) -> tuple[_Change, ...]:
    """Return a policy's operations, each equally likely."""

    def affine(matrix: Callable[[float, Image.Image], tuple[float, ...]]) -> _Change:
        return lambda image, level: _affine(image, matrix(level, image), fill)

    def enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> _Change:
        return lambda image, level: kind(image).enhance(1 + level * space.factor)

    return (
        lambda image, _: image,
        affine(lambda level, _: (1, level * space.shear, 0, 0, 1, 0)),
        affine(lambda level, _: (1, 0, 0, level * space.shear, 1, 0)),
        affine(lambda level, image: (1, 0, level * space.translate * image.width, 0, 1, 0)),
        affine(lambda level, image: (1, 0, 0, 0, 1, level * space.translate * image.height)),
        affine(lambda level, _: _rotation(level * space.rotate)),
        enhance(ImageEnhance.Brightness),
        enhance(ImageEnhance.Color),
        enhance(ImageEnhance.Contrast),
        enhance(ImageEnhance.Sharpness),
        lambda image, level: ImageOps.posterize(image, 8 - round(abs(level) * (8 - space.bits))),
        lambda image, level: ImageOps.solarize(image, round(255 * (1 - abs(level)))),
        lambda image, _: ImageOps.autocontrast(image),
        lambda image, _: ImageOps.equalize(image),
    )


def _rotation(degrees: float) -> tuple[float, ...]:
    angle = math.radians(degrees)
    return math.cos(angle), math.sin(angle), 0, -math.sin(angle), math.cos(angle), 0


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Fill) -> Image.Image:
    """Transform about the centre by (a, b, c, d, e, f): output (x, y) shows (ax + by + c, dx + ey + f)."""
    a, b, c, d, e, f = matrix
    x, y = image.width / 2, image.height / 2
    centred = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
    colour = fill if len(fill) > 1 else fill[0]
    return image.transform(image.size, Image.Transform.AFFINE, centred, Image.Resampling.BILINEAR, fillcolor=colour)
