"""Where a batch's pixels come from: the stored bytes, decoded now, or thumbnails decoded before."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.dataset import Split
from sagitta.errors import DatasetError, ImageError
from sagitta.images import decode_batch, native, read_header
from sagitta.loading import memory
from sagitta.loading.augmentation import Augmentation, Ints, eval_jobs, flips, train_jobs
from sagitta.loading.draws import Stream, uniform
from sagitta.loading.preprocessing import Preprocessing

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


CUT = np.dtype([("row", "<i8"), ("top", "<i4"), ("left", "<i4"), ("flip", "u1")], align=True)
"""Which image, where the window begins in the padded image (pixels), and whether it is mirrored."""


class CachedPixels:
    """Batches of decoded images, on the host or on a device; the same pixels on both.

    In training each image moves by up to ``shift`` of its size, what comes in at the border being its mirror image, and
    is mirrored as :func:`sagitta.loading.augmentation.flips` says: a function of (seed, epoch, row).

    Args:
        images: all rows of a split, (N, C, H, W) uint8.
        preprocessing: how batches are normalised.
        augmentation: random shifts and flips; None gives the images as they are.
        seed: of the random shifts and flips.
        normalize: batches are float32 and normalised, not uint8.
        device: where the images are kept and the batches made.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        seed: int,
        *,
        normalize: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self._count, _, *size = images.shape
        self._size = size[0], size[1]
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._seed = seed
        self._normalize = normalize
        pad = [0 if augmentation is None else round(augmentation.shift * side) for side in size]
        self._room = 2 * np.array(pad)
        self._images = np.pad(images, [(0, 0), (0, 0), *((margin, margin) for margin in pad)], mode="reflect")
        self._core = native.library() if torch.device(device).type == "cpu" else None
        self._windows = torch.from_numpy(self._images).to(device).unfold(2, size[0], 1).unfold(3, size[1], 1)

    def batch(self, keys: Ints, epoch: int) -> Tensor:
        """Return the rows ``keys % N``, (B, C, H, W), contiguous; shift and flip are those of the key."""
        cuts = self._cuts(keys, epoch)
        if self._core is not None:
            shape = (len(keys), self._images.shape[1], *self._size)
            out = memory.empty(shape, torch.float32 if self._normalize else torch.uint8)
            affine = self._preprocessing.affine if self._normalize else None
            native.cut_out(self._core, self._images, cuts, out.numpy(), affine)
            return out
        batch = _gather(self._windows, cuts)
        return self._preprocessing.normalize(batch) if self._normalize else batch

    def _cuts(self, keys: Ints, epoch: int) -> npt.NDArray[np.void]:
        cuts = np.zeros(len(keys), CUT)
        cuts["row"] = keys % self._count
        if self._augmentation is not None:
            random = uniform(self._seed, epoch, keys, Stream.SHIFT, 2)
            cuts["top"], cuts["left"] = np.floor(random * (self._room + 1)).T
            cuts["flip"] = flips(self._seed, epoch, keys, self._augmentation)
        return cuts


def _gather(windows: Tensor, cuts: npt.NDArray[np.void]) -> Tensor:
    """Do what the native core does with ``cuts``, in torch: (N, C, room, room, H, W) to (B, C, H, W)."""
    row, top, left, flip = (
        torch.from_numpy(cuts[name].astype(np.int64)).to(windows.device) for name in ("row", "top", "left", "flip")
    )
    batch = windows[row, :, top, left]
    return torch.where(flip.bool()[:, None, None, None], batch.flip(3), batch)
