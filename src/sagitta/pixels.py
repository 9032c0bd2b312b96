"""Where a batch's pixels come from: the stored bytes, decoded now, or thumbnails decoded before."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta import memory
from sagitta.augment import Augmentation, Preprocessing, eval_jobs, train_jobs
from sagitta.decode import decode_batch, read_header
from sagitta.schema import DatasetError, ImageError
from sagitta.shards import Split

Ints = npt.NDArray[np.int64]

_MAPPED_BYTES = 32 * 2**20


class Pixels(Protocol):
    """Where a batch's pixels come from."""

    def batch(self, keys: Ints, epoch: int) -> Tensor:
        """Return the pixels (B, C, H, W) of the rows ``keys % rows``, uint8, or float32 and normalised.

        What is random about an image depends on its key, so that two copies of a row differ.
        """


class EncodedPixels:
    """Pixels decoded from the stored bytes, batch by batch.

    Args:
        split: rows of a dataset.
        preprocessing: size, crop and interpolation.
        augmentation: random crops and flips; None gives the evaluation crop.
        seed: of the random crops.
        threads: that share a batch.
        pinned: batches lie in page-locked memory.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        seed: int,
        *,
        threads: int = 1,
        pinned: bool = False,
    ) -> None:
        self._split = split
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._seed = seed
        self._threads = threads
        self._pinned = pinned
        self._read = 0  # bytes since pages were released
        columns = [split.column(name) for name in ("height", "width", "orientation")]
        known = [column for column in columns if column is not None]
        self._geometry = np.stack(known, axis=1).astype(np.int64) if len(known) == len(columns) else None

    def batch(self, keys: Ints, epoch: int) -> Tensor:
        """Return the pixels of the rows ``keys % rows``, (B, C, H, W) uint8, channels last in memory.

        Raises:
            DatasetError: an image cannot be decoded; names its file and row.
        """
        rows = keys % len(self._split)
        images = self._split.images(rows)
        geometry = self._geometry[rows] if self._geometry is not None else self._read_geometry(rows, images)
        sizes, orientations = geometry[:, :2], geometry[:, 2]
        height, width = self._preprocessing.size
        if self._augmentation is None:
            jobs = eval_jobs(sizes, orientations, self._preprocessing)
        else:
            jobs = train_jobs(
                sizes,
                orientations,
                keys,
                seed=self._seed,
                epoch=epoch,
                size=(height, width),
                augmentation=self._augmentation,
            )
        shape = (len(rows), height, width, self._preprocessing.channels)
        out = memory.empty(shape, torch.uint8, pinned=self._pinned)
        how, threads = self._preprocessing, self._threads
        filter = how.interpolation if self._augmentation is None else "bilinear"
        try:
            decode_batch(images, jobs, out.numpy(), filter=filter, profile=how.profile, threads=threads)
        except ImageError as error:
            raise self._error(rows[getattr(error, "index", 0)], error) from None
        self._release(images)
        return out.permute(0, 3, 1, 2)

    def _release(self, images: Sequence[memoryview]) -> None:
        """Let go of mapped pages now and then, so that this process does not seem to hold all that it ever read."""
        self._read += sum(map(len, images))
        if self._read > _MAPPED_BYTES:
            self._read = 0
            self._split.release()

    def _read_geometry(self, rows: Ints, images: Sequence[memoryview]) -> Ints:
        """Return (B, 3) height, width, orientation from the images' headers: other Parquet has no such columns."""
        geometry = np.empty((len(rows), 3), np.int64)
        for index, image in enumerate(images):
            try:
                header = read_header(image)
            except ImageError as error:
                raise self._error(rows[index], error) from None
            geometry[index] = header.height, header.width, header.orientation
        return geometry

    def _error(self, row: int, error: ImageError) -> DatasetError:
        return DatasetError(
            f"{self._split.path(int(row))} ({self._split.name} row {row}): {error}; "
            "convert the source again to quarantine it"
        )
