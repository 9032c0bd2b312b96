"""A split as a map-style torch ``Dataset``: for samplers, collate functions and further columns of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sagitta.dataset import ShardSet
from sagitta.errors import DatasetError, ImageError
from sagitta.images import decode
from sagitta.loading.loader import match_labels
from sagitta.loading.pixels import undecodable
from sagitta.loading.transforms import OwnTransform, Transform


class SplitDataset(Dataset[tuple[Tensor, Any]]):
    """Items ``(image, label)`` of one split, for a ``torch.utils.data.DataLoader``; its workers may have it, too.

    Images are whole, upright, at their own sizes: uint8 (C, H, W), or what ``transform`` makes of them. Labels are
    numbers, or float32 (classes,) of 0 and 1 where the dataset has several labels a row. What is random in the
    transform draws from the generators as they are: seeding is the DataLoader's affair here, as order and batches are.

    Further columns are those of ``split``: ``dataset.split.column("width")``, ``dataset.split.path(row)``.

    Args:
        data: a converted dataset, or a folder or file of Hugging Face image Parquet, or an open :class:`ShardSet`.
        split: ``train``, ``val`` or ``test``.
        transform: of each image, torchvision's or Albumentations': see :mod:`sagitta.loading.transforms`.
        class_names: the label order wanted; labels are matched by name.

    Attributes:
        split: the rows.

    Raises:
        ConfigError: ``class_names`` lacks a class of the dataset, or the transform cannot be called.
        DatasetError: no such dataset or split.
    """

    def __init__(
        self,
        data: str | Path | ShardSet,
        split: str = "train",
        transform: Transform | None = None,
        *,
        class_names: Sequence[str] | None = None,
    ) -> None:
        shards = data if isinstance(data, ShardSet) else ShardSet.open(data)
        if split not in shards.splits:
            raise DatasetError(f"no split {split!r}; the dataset has {', '.join(shards.splits)}")
        self.split = shards.splits[split]
        self._channels = shards.info.channels
        self._labels = match_labels(self.split.labels, shards.info.class_names, class_names)
        self._own = None if transform is None else OwnTransform(transform)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.split)

    def __getitem__(self, row: int) -> tuple[Tensor, Any]:
        """Return image and label of a row, counted from the end where it is negative.

        Raises:
            IndexError: no such row.
            DatasetError: the image cannot be decoded; names its file and row.
            ConfigError: the transform returns no image.
        """
        number = row + len(self) if row < 0 else row
        try:
            pixels = decode(self.split.image(number), self._channels)
        except ImageError as error:
            raise undecodable(self.split, number, error) from None
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        if self._own is not None:
            image = self._own.image(image)
        label = self._labels[number]
        return image, int(label) if label.ndim == 0 else torch.from_numpy(label).float()
