"""What turns an upright image into model input: the one place for size, crop, interpolation and normalisation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.dataset import DatasetInfo
from sagitta.errors import ConfigError, DatasetError
from sagitta.images import Profile, Reduction, native
from sagitta.loading import memory

THUMBNAIL = 64
"""Images up to this many pixels a side are kept decoded in memory and augmented as one array."""


_PHOTO_SIZE = 224
_CROP_PCT = 0.875  # resize 256, crop 224: the evaluation crop of torchvision's references


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
        reduction: how deep samples and many bands became 8-bit pixels when the data was converted, and how those of new
            files do; None where the images were decoded as they are.
    """

    size: tuple[int, int]
    crop_pct: float
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    profile: Profile = "exact"
    reduction: Reduction | None = None

    @property
    def channels(self) -> int:
        """Number of channels of the model's input."""
        return len(self.mean)

    @property
    def cover(self) -> tuple[int, int]:
        """Height and width that the evaluation resizes an image to cover, before it crops ``size`` of it."""
        height, width = self.size
        return int(height / self.crop_pct), int(width / self.crop_pct)

    @classmethod
    def of_dataset(
        cls, info: DatasetInfo, image_size: int | None = None, profile: Profile = "exact"
    ) -> "Preprocessing":
        """Return that for training from scratch: thumbnails at their own size, photos at 224, data statistics.

        Raises:
            DatasetError: the dataset has no training images, so no statistics.
        """
        if not info.mean:
            raise DatasetError("the dataset has no train split, so no mean and deviation to normalise by")
        thumbnails = 0 < max(info.max_size) <= THUMBNAIL  # 0: sizes unknown, as in other tools' Parquet
        native = info.max_size if thumbnails else (_PHOTO_SIZE, _PHOTO_SIZE)
        return cls(
            size=(image_size, image_size) if image_size else native,
            crop_pct=1.0 if thumbnails else _CROP_PCT,
            interpolation="bilinear",
            mean=info.mean,
            std=info.std,
            profile=profile,
            reduction=None if info.reduction is None else Reduction.from_dict(info.reduction),
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
            reduction = values.pop("reduction", None)
            return cls(**values, reduction=None if reduction is None else Reduction.from_dict(reduction))
        except TypeError as error:
            raise ConfigError(
                f"preprocessing in the checkpoint does not fit this version of Sagitta: {error}"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, for checkpoints and YAML."""
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        fields.pop("reduction")
        return fields if self.reduction is None else fields | {"reduction": self.reduction.to_dict()}

    def normalize(self, images: Tensor) -> Tensor:
        """Return ``(images / 255 - mean) / std``: uint8 (B, C, H, W) to float32, same shape and device.

        Statistics of one channel serve images of any number of channels.

        Raises:
            ConfigError: the statistics are of several channels, and the images have another number of them.
        """
        affine = self._affine_of(images)
        core = native.library() if images.device.type == "cpu" else None
        dense = images.is_contiguous() or images.is_contiguous(memory_format=torch.channels_last)
        if core is not None and dense and images.dtype == torch.uint8 and images.ndim == 4:
            out = memory.empty(tuple(images.shape), torch.float32)
            native.normalize(core, images.numpy(), out.numpy(), affine)
            return out
        # Two operations, each rounded: fused into one, the last bit would depend on the device.
        scale, shift = (torch.from_numpy(each).to(images.device).view(-1, 1, 1) for each in affine)
        return images.float().mul_(scale).add_(shift)

    def _affine_of(self, images: Tensor) -> native.Affine:
        """Return :attr:`affine` for the channels of some images (B, C, H, W)."""
        channels = images.shape[-3] if images.ndim >= 3 else 0
        if channels == self.channels:
            return self.affine
        if self.channels == 1 and channels:
            scale, shift = (np.repeat(each, channels) for each in self.affine)
            return scale, shift
        raise ConfigError(
            f"images of shape {tuple(images.shape)}, but mean and std are of {self.channels} channels: let the "
            f"transform return {self.channels}, or give a preprocessing with statistics of as many"
        )

    @cached_property
    def affine(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What a byte is multiplied by, and what is added then: (C,) each."""
        mean, std = np.array(self.mean), np.array(self.std)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def denormalize(self, images: Tensor) -> Tensor:
        """Invert :meth:`normalize`: float (B, C, H, W) to uint8 of 0..255."""
        self._affine_of(images)
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
