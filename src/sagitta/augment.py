"""How pixels become model input: preprocessing that travels with the model, crop boxes, and batched augmentation.

:class:`Preprocessing` is the one place for size, crop, interpolation and normalisation. Training crops are drawn
from counter-based random numbers (:func:`sagitta.plan.uniform`): a crop depends on (seed, epoch, row) and nothing else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.decode import JOB, Profile
from sagitta.plan import uniform
from sagitta.schema import ConfigError, DatasetInfo

THUMBNAIL = 64
"""Images up to this many pixels a side are kept decoded in memory and augmented as one array."""

_PHOTO_SIZE = 224
_CROP_PCT = 0.875  # resize 256, crop 224: the evaluation crop of torchvision's references
_CROP_ATTEMPTS = 10  # as in Szegedy et al. 2014 and torchvision's RandomResizedCrop
_CROP_OPERATION, _SHIFT_OPERATION, _FLIP_OPERATION = range(3)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Preprocessing:
    """What turns an upright image into model input; saved in every checkpoint.

    Attributes:
        size: (height, width) of the model's input, pixels.
        crop_pct: evaluation resizes the shorter side to ``size / crop_pct``, then crops the centre.
        interpolation: antialiased filter of the evaluation resize.
        mean: per channel, of pixels scaled to 0..1; its length is the number of channels (1 or 3).
        std: likewise.
        profile: Pillow's pixels exactly, or large photos decoded at a fraction of their size; see ``decode_batch``.
    """

    size: tuple[int, int]
    crop_pct: float
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    profile: Profile = "exact"

    @property
    def channels(self) -> int:
        """Number of channels of the model's input."""
        return len(self.mean)

    @classmethod
    def of_dataset(
        cls, info: DatasetInfo, image_size: int | None = None, profile: Profile = "exact"
    ) -> "Preprocessing":
        """Return that for training from scratch: thumbnails at their own size, photos at 224, data statistics."""
        thumbnails = 0 < max(info.max_size) <= THUMBNAIL  # 0: sizes unknown, as in other tools' Parquet
        native = info.max_size if thumbnails else (_PHOTO_SIZE, _PHOTO_SIZE)
        return cls(
            size=(image_size, image_size) if image_size else native,
            crop_pct=1.0 if thumbnails else _CROP_PCT,
            interpolation="bilinear",
            mean=info.mean,
            std=info.std,
            profile=profile,
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """Rebuild from :meth:`to_dict`.

        Raises:
            ConfigError: a field is missing or unknown.
        """
        try:
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
            }
            return cls(**values)
        except TypeError as error:
            raise ConfigError(
                f"preprocessing in the checkpoint does not fit this version of Sagitta: {error}"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, for checkpoints and YAML."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def normalize(self, images: Tensor) -> Tensor:
        """Return ``(images / 255 - mean) / std``: uint8 (B, C, H, W) to float32, same shape and device."""
        scale = torch.tensor([1 / (255 * s) for s in self.std], device=images.device).view(-1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=images.device).view(
            -1, 1, 1
        )
        return torch.addcmul(shift, images.float(), scale)

    def denormalize(self, images: Tensor) -> Tensor:
        """Invert :meth:`normalize`: float (B, C, H, W) to uint8 of 0..255."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        min_scale: photos: smallest share of the image's area that a crop may cover, 0 < min_scale <= 1.
        max_ratio: photos: a crop's width / height lies between 1 / max_ratio and max_ratio.
        shift: thumbnails: the image moves by up to this share of its size in each direction.
        flip: probability of a horizontal flip; by default 0.5 for colour images and 0 for grey ones (digits, letters).
    """

    min_scale: float = 0.35
    max_ratio: float = 4 / 3
    shift: float = 0.1
    flip: float | None = None

    def __post_init__(self) -> None:
        flip = self.flip or 0.0
        if not (0 < self.min_scale <= 1 <= self.max_ratio and 0 <= self.shift < 1 and 0 <= flip <= 1):
            raise ConfigError(f"augmentation out of range: {self}; see `sagitta fit --help`")

    def resolve(self, channels: int) -> "Augmentation":
        """Return the same with ``flip`` decided for images of so many channels."""
        return self if self.flip is not None else replace(self, flip=0.5 if channels == 3 else 0.0)


def crop_boxes(sizes: Ints, random: npt.NDArray[np.float64], augmentation: Augmentation) -> Ints:
    """Return crop boxes (B, 4) as (left, top, right, bottom) of random area and aspect ratio.

    The method is RandomResizedCrop's (Szegedy et al., "Going deeper with convolutions", 2014): up to ten draws of area
    and log-uniform ratio, the first that fits wins, otherwise the largest centre crop of an allowed ratio.

    Args:
        sizes: (B, 2) height and width of each upright image, pixels.
        random: (B, 22) uniform numbers in [0, 1).
        augmentation: ranges of area and ratio.
    """
    height, width = sizes[:, :1].astype(float), sizes[:, 1:].astype(float)
    area = height * width * (augmentation.min_scale + random[:, :_CROP_ATTEMPTS] * (1 - augmentation.min_scale))
    log_ratio = np.log(augmentation.max_ratio)
    ratio = np.exp((2 * random[:, _CROP_ATTEMPTS : 2 * _CROP_ATTEMPTS] - 1) * log_ratio)
    crop_w, crop_h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (crop_w >= 1) & (crop_h >= 1) & (crop_w <= width) & (crop_h <= height)
    first = np.argmax(fits, axis=1)[:, None]
    crop_w, crop_h = np.take_along_axis(crop_w, first, 1), np.take_along_axis(crop_h, first, 1)
    left, top = (
        np.floor(random[:, 20:21] * (width - crop_w + 1)),
        np.floor(random[:, 21:22] * (height - crop_h + 1)),
    )

    none = ~fits.any(axis=1, keepdims=True)
    whole_w = np.minimum(width, np.maximum(1, np.rint(height * augmentation.max_ratio)))
    whole_h = np.minimum(height, np.maximum(1, np.rint(width * augmentation.max_ratio)))
    crop_w, crop_h = np.where(none, whole_w, crop_w), np.where(none, whole_h, crop_h)
    left = np.where(none, np.floor((width - crop_w) / 2), left)
    top = np.where(none, np.floor((height - crop_h) / 2), top)
    return np.hstack([left, top, left + crop_w, top + crop_h]).astype(np.int64)


def train_jobs(
    sizes: Ints,
    orientations: Ints,
    rows: Ints,
    *,
    seed: int,
    epoch: int,
    size: tuple[int, int],
    augmentation: Augmentation,
) -> npt.NDArray[np.void]:
    """Return one decode job (B,) a row: random crop resized to ``size``, flipped with the given probability."""
    random = uniform(seed, epoch, rows, _CROP_OPERATION, 2 * _CROP_ATTEMPTS + 2)
    jobs = np.zeros(len(rows), JOB)
    jobs["box"] = crop_boxes(sizes, random, augmentation)
    jobs["resized"] = size
    jobs["flip"] = _flips(seed, epoch, rows, augmentation)
    jobs["orientation"] = orientations
    return jobs


def eval_jobs(sizes: Ints, orientations: Ints, preprocessing: Preprocessing) -> npt.NDArray[np.void]:
    """Return one decode job (B,) an image: shorter side to ``size / crop_pct``, then the centre crop.

    Roundings are torchvision's (``Resize`` truncates the longer side, ``CenterCrop`` rounds half to even), so that a
    model evaluates the same here as in timm's pipeline. For a non-square size the crop is scaled to cover it.
    """
    target = np.array(preprocessing.size)
    scale = np.floor(target / preprocessing.crop_pct).astype(np.int64)
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    shorter = np.maximum(scale[0], scale[1])
    resized = np.where(sizes == short[:, None], shorter, (shorter * long // short)[:, None])
    if preprocessing.size[0] != preprocessing.size[1]:
        factor = np.max(scale / sizes, axis=1, keepdims=True)
        resized = np.maximum(np.rint(sizes * factor).astype(np.int64), target)
    jobs = np.zeros(len(sizes), JOB)
    jobs["box"][:, 2:] = sizes[:, ::-1]
    jobs["resized"] = resized
    jobs["window"] = np.rint((resized - target) / 2)
    jobs["orientation"] = orientations
    return jobs


def shift_and_flip(
    padded: npt.NDArray[np.uint8],
    rows: Ints,
    *,
    seed: int,
    epoch: int,
    size: tuple[int, int],
    augmentation: Augmentation,
) -> npt.NDArray[np.uint8]:
    """Return randomly shifted and flipped thumbnails (B, C, H, W).

    Args:
        padded: all images (N, C, H + 2p, W + 2q), already padded by p and q pixels.
        rows: which images to take, (B,).
        seed: together with ``epoch`` and the row it determines shift and flip.
        epoch: see ``seed``.
        size: (H, W).
        augmentation: probability of a flip.
    """
    room = np.array(padded.shape[2:]) - size
    offset = np.floor(uniform(seed, epoch, rows, _SHIFT_OPERATION, 2) * (room + 1)).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(2, 3))
    batch: npt.NDArray[np.uint8] = windows[rows, :, offset[:, 0], offset[:, 1]]
    flipped = _flips(seed, epoch, rows, augmentation)
    batch[flipped] = batch[flipped, :, :, ::-1]
    return batch


def _flips(seed: int, epoch: int, rows: Ints, augmentation: Augmentation) -> npt.NDArray[np.bool_]:
    flipped: npt.NDArray[np.bool_] = uniform(seed, epoch, rows, _FLIP_OPERATION, 1)[:, 0] < (augmentation.flip or 0.0)
    return flipped
