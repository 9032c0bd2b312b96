"""Random changes of training images, and crop boxes: a function of (seed, epoch, row) and nothing else."""

import math
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.errors import ConfigError
from sagitta.images import JOB, centre_jobs
from sagitta.loading.autoaugment import Policy, auto_augment
from sagitta.loading.draws import Stream, uniform
from sagitta.loading.preprocessing import Preprocessing

_CROP_ATTEMPTS = 10  # as in Szegedy et al. 2014 and torchvision's RandomResizedCrop
_ERASED_AREA, _ERASED_RATIO = (0.02, 1 / 3), 10 / 3  # as in Zhong et al. 2017

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        min_scale: photos: smallest share of the image's area that a crop may cover, 0 < min_scale <= 1.
        max_ratio: photos: a crop's width / height lies between 1 / max_ratio and max_ratio.
        shift: thumbnails: the image moves by up to this share of its size in each direction.
        flip: share of the epochs in which an image is mirrored; by default 0.5 for colour images, where mirrored and
            plain epochs alternate, and 0 for grey ones (digits, letters).
        auto: what happens to colours and geometry: ``trivial`` (TrivialAugment), ``rand`` (RandAugment) or ``none``; by
            default ``none``, and in ``sagitta fit`` what the recipe says.
        erase: probability that a random rectangle is blanked out (random erasing, Zhong et al. 2017).
        cutout: side, as a share of the image's, of a square that is blanked out in every image (cutout, DeVries &
            Taylor 2017); by default 0, and in ``sagitta fit`` what the recipe says.
        vertical: probability that an image is mirrored top to bottom, for what has no upper side: cells, aerial photos,
            surfaces.
    """

    min_scale: float = 0.35
    max_ratio: float = 4 / 3
    shift: float = 0.1
    flip: float | None = None
    auto: Policy | None = None
    erase: float = 0.0
    cutout: float | None = None
    vertical: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.flip or 0.0, self.erase, self.cutout or 0.0, self.vertical)
        in_range = 0 < self.min_scale <= 1 <= self.max_ratio < math.inf and 0 <= self.shift < 1
        in_range = in_range and all(0 <= share <= 1 for share in shares)
        if not in_range or self.auto not in (None, *get_args(Policy)):
            raise ConfigError(f"augmentation out of range: {self}; see `sagitta fit --help`")

    @property
    def changes_pixels(self) -> bool:
        """Whether :func:`change_pixels` has anything to do."""
        return self.auto not in (None, "none") or self.erase > 0 or bool(self.cutout) or self.vertical > 0

    def resolve(self, channels: int) -> "Augmentation":
        """Return the same with ``flip`` decided for images of so many channels, and ``auto`` decided."""
        flip = (0.5 if channels == 3 else 0.0) if self.flip is None else self.flip
        return replace(self, flip=flip, auto=self.auto or "none")


def crop_boxes(sizes: Ints, random: npt.NDArray[np.float64], augmentation: Augmentation) -> Ints:
    """Return crop boxes (B, 4) as (left, top, right, bottom) of random area and aspect ratio, see ``random_boxes``."""
    return random_boxes(sizes, random, (augmentation.min_scale, 1.0), augmentation.max_ratio)


def random_boxes(sizes: Ints, random: npt.NDArray[np.float64], areas: tuple[float, float], max_ratio: float) -> Ints:
    """Return boxes (B, 4) inside of the images as (left, top, right, bottom) of random area and aspect ratio.

    The method is RandomResizedCrop's (Szegedy et al., "Going deeper with convolutions", 2014): up to ten draws of area
    and log-uniform ratio, the first that fits wins, otherwise the largest box in the centre of an allowed ratio.

    Args:
        sizes: (B, 2) height and width of each upright image, pixels.
        random: (B, 22) uniform numbers in [0, 1).
        areas: the smallest and the largest, as shares of the image's.
        max_ratio: width / height lies between 1 / max_ratio and max_ratio.
    """
    height, width = sizes[:, :1].astype(float), sizes[:, 1:].astype(float)
    area = height * width * (areas[0] + random[:, :_CROP_ATTEMPTS] * (areas[1] - areas[0]))
    ratio = np.exp((2 * random[:, _CROP_ATTEMPTS : 2 * _CROP_ATTEMPTS] - 1) * np.log(max_ratio))
    box_w, box_h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (box_w >= 1) & (box_h >= 1) & (box_w <= width) & (box_h <= height)
    first = np.argmax(fits, axis=1)[:, None]
    box_w, box_h = np.take_along_axis(box_w, first, 1), np.take_along_axis(box_h, first, 1)
    left, top = np.floor(random[:, 20:21] * (width - box_w + 1)), np.floor(random[:, 21:22] * (height - box_h + 1))

    none = ~fits.any(axis=1, keepdims=True)
    whole_w = np.minimum(width, np.maximum(1, np.rint(height * max_ratio)))
    whole_h = np.minimum(height, np.maximum(1, np.rint(width * max_ratio)))
    box_w, box_h = np.where(none, whole_w, box_w), np.where(none, whole_h, box_h)
    left = np.where(none, np.floor((width - box_w) / 2), left)
    top = np.where(none, np.floor((height - box_h) / 2), top)
    return np.hstack([left, top, left + box_w, top + box_h]).astype(np.int64)


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
    random = uniform(seed, epoch, rows, Stream.CROP, 2 * _CROP_ATTEMPTS + 2)
    jobs = np.zeros(len(rows), JOB)
    jobs["box"] = crop_boxes(sizes, random, augmentation)
    jobs["resized"] = size
    jobs["flip"] = flips(seed, epoch, rows, augmentation)
    jobs["orientation"] = orientations
    return jobs


def eval_jobs(sizes: Ints, orientations: Ints, preprocessing: Preprocessing) -> npt.NDArray[np.void]:
    """Return one decode job (B,) an image: shorter side to ``size / crop_pct``, then the centre crop.

    See :func:`sagitta.images.centre_jobs`; for a non-square size the crop is scaled to cover it.
    """
    return centre_jobs(sizes, orientations, preprocessing.size, preprocessing.cover)


def crop_box(height: int, width: int, preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the evaluation crop in an upright image's own pixels."""
    (job,) = eval_jobs(np.array([[height, width]]), np.array([1]), preprocessing)
    scale = np.array([height, width]) / job["resized"]
    top, left = job["window"] * scale
    bottom, right = (job["window"] + preprocessing.size) * scale
    return float(left), float(top), float(right), float(bottom)


def flips(seed: int, epoch: int, rows: Ints, augmentation: Augmentation) -> npt.NDArray[np.bool_]:
    """Return which images (B,) are mirrored in an epoch.

    Mirrored epochs are spread evenly, from a phase that is drawn once for each row. With 0.5 they alternate, so that
    two epochs show every image both ways (alternating flip: Jordan, "94 % on CIFAR-10 in 3.29 seconds", 2024).
    """
    share = augmentation.flip or 0.0
    phase = uniform(seed, 0, rows, Stream.FLIP, 1)[:, 0]
    mirrored: npt.NDArray[np.bool_] = np.floor((epoch + 1) * share + phase) > np.floor(epoch * share + phase)
    return mirrored


def change_pixels(
    images: Tensor, rows: Ints, *, seed: int, epoch: int, augmentation: Augmentation, preprocessing: Preprocessing
) -> Tensor:
    """Return images upside down and after automatic augmentation, random erasing and cutout.

    What these uncover has the mean colour.

    Args:
        images: (B, C, H, W) uint8 on any device; may be changed in place.
        rows: (B,) what the random numbers of each image depend on, with ``seed`` and ``epoch``.
        seed: of the run.
        epoch: number of the epoch.
        augmentation: what to do.
        preprocessing: knows the mean colour.
    """
    fill = tuple(round(255 * mean) for mean in preprocessing.mean)
    if augmentation.vertical:
        mirrored = uniform(seed, epoch, rows, Stream.VERTICAL, 1)[:, 0] < augmentation.vertical
        index = torch.from_numpy(np.flatnonzero(mirrored)).to(images.device)
        images[index] = images[index].flip(2)
    if augmentation.auto and augmentation.auto != "none":
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        changed = auto_augment(pixels, rows, seed=seed, epoch=epoch, policy=augmentation.auto, fill=fill)
        images = torch.from_numpy(changed).to(images.device).permute(0, 3, 1, 2)
    height, width = images.shape[2:]
    if augmentation.erase:
        random = uniform(seed, epoch, rows, Stream.ERASE, 2 * _CROP_ATTEMPTS + 3)
        boxes = random_boxes(np.tile((height, width), (len(rows), 1)), random[:, 1:], _ERASED_AREA, _ERASED_RATIO)
        _blank(images, boxes, random[:, 0] < augmentation.erase, fill)
    if augmentation.cutout:
        random = uniform(seed, epoch, rows, Stream.CUTOUT, 2)
        centre, side = np.floor(random * (width, height)), np.rint(augmentation.cutout * np.array([width, height]))
        first = (centre - side // 2).astype(np.int64)
        _blank(images, np.hstack([first, first + side.astype(np.int64)]), np.ones(len(rows), np.bool_), fill)
    return images


def _blank(images: Tensor, boxes: Ints, chosen: npt.NDArray[np.bool_], fill: tuple[int, ...]) -> None:
    """Fill a box (left, top, right, bottom) in each chosen image (B, C, H, W); boxes may reach over the border."""
    device = images.device
    index = torch.from_numpy(np.flatnonzero(chosen)).to(device)
    left, top, right, bottom = torch.from_numpy(boxes[chosen]).to(device).T[..., None]
    y, x = (torch.arange(side, device=device) for side in images.shape[2:])
    inside = ((y >= top) & (y < bottom))[:, None, :, None] & ((x >= left) & (x < right))[:, None, None, :]
    colour = torch.tensor(fill, dtype=torch.uint8, device=device).view(-1, 1, 1)
    images[index] = torch.where(inside, colour, images[index])
