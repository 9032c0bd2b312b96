"""Where a batch's pixels come from: stored bytes decoded now, or thumbnails decoded once.

====================  =================================  =========================================================
:class:`EncodedPixels`  rows of a split                  decoded batch by batch; random crops in training
:class:`CachedPixels`   rows of a split of thumbnails    all decoded before the first batch; random shifts in training
====================  =================================  =========================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.dataset import Split
from sagitta.errors import DatasetError, ImageError
from sagitta.files import content_hash
from sagitta.images import BatchError, ImageHeader, decode_batch, native, read_header
from sagitta.loading import memory
from sagitta.loading.augmentation import Augmentation, Ints, eval_jobs, flips, train_jobs
from sagitta.loading.draws import Stream, uniform
from sagitta.loading.preprocessing import Preprocessing

_MAPPED_BYTES = 32 * 2**20
_CHUNK = 4096  # rows decoded at a time for the cache
_HOST = torch.device("cpu")


@dataclass(frozen=True)
class Reading:
    """How the rows of a split are read; two loaders that read alike may share their pixels.

    Attributes:
        preprocessing: size, crop, interpolation and normalisation.
        augmentation: random crops, shifts and flips; None gives the evaluation crop.
        seed: of what is random.
        normalize: decoded thumbnails come as float32, normalised; everything else is uint8.
        threads: that share a batch.
        device: where decoded thumbnails are kept and their batches made, if they take no more than a quarter of its
            memory; batches for a GPU lie in page-locked memory.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation | None = None
    seed: int = 0
    normalize: bool = False
    threads: int = 1
    device: torch.device = _HOST


class Pixels(Protocol):
    """Where a batch's pixels come from; may be used by many threads."""

    def prepare(self) -> None:
        """Do what is done once, before the first of many batches."""
        return

    def batch(self, keys: Ints, epoch: int) -> Tensor:
        """Return the pixels (B, C, H, W) of the rows ``keys % rows``, uint8, or float32 and normalised.

        What is random about an image depends on its key, so that two copies of a row differ.
        """
        ...


class EncodedPixels(Pixels):
    """Pixels decoded from the stored bytes, batch by batch."""

    def __init__(self, split: Split, reading: Reading) -> None:
        self.split, self.reading = split, reading
        self._read = 0  # bytes since pages were released

    @cached_property
    def _geometry(self) -> Ints | None:
        """(N, 3) height, width, orientation of all rows, where the dataset has them."""
        columns = [self.split.column(name) for name in ("height", "width", "orientation")]
        known = [column for column in columns if column is not None]
        return np.stack(known, axis=1).astype(np.int64) if len(known) == len(columns) else None

    def batch(self, keys: Ints, epoch: int) -> Tensor:
        """Return the pixels of the rows ``keys % rows``, (B, C, H, W) uint8, channels last in memory.

        Raises:
            DatasetError: an image cannot be decoded; names its file and row.
        """
        rows = keys % len(self.split)
        images = self.split.images(rows)
        geometry = self._geometry[rows] if self._geometry is not None else self._read_geometry(rows, images)
        how = self.reading.preprocessing
        jobs = self._jobs(keys, epoch, geometry)
        pinned = self.reading.device.type == "cuda"
        out = memory.empty((len(rows), *how.size, how.channels), torch.uint8, pinned=pinned)
        filter = how.interpolation if self.reading.augmentation is None else "bilinear"
        try:
            decode_batch(images, jobs, out.numpy(), filter=filter, profile=how.profile, threads=self.reading.threads)
        except BatchError as error:
            raise undecodable(self.split, int(rows[error.index]), error) from None
        self._release(images)
        return out.permute(0, 3, 1, 2)

    def _jobs(self, keys: Ints, epoch: int, geometry: Ints) -> npt.NDArray[np.void]:
        how, augmentation = self.reading.preprocessing, self.reading.augmentation
        sizes, orientations = geometry[:, :2], geometry[:, 2]
        if augmentation is None:
            return eval_jobs(sizes, orientations, how)
        return train_jobs(
            sizes,
            orientations,
            keys,
            seed=self.reading.seed,
            epoch=epoch,
            size=how.size,
            augmentation=augmentation,
        )

    def _release(self, images: Sequence[memoryview]) -> None:
        """Let go of mapped pages now and then, so that this process does not seem to hold all that it ever read."""
        self._read += sum(map(len, images))
        if self._read > _MAPPED_BYTES:
            self._read = 0
            self.split.release()

    def _read_geometry(self, rows: Ints, images: Sequence[memoryview]) -> Ints:
        """Return (B, 3) height, width, orientation from the images' headers: other Parquet has no such columns."""
        geometry = np.empty((len(rows), 3), np.int64)
        for index, image in enumerate(images):
            try:
                geometry[index] = _geometry_of(read_header(image))
            except ImageError as error:
                raise undecodable(self.split, int(rows[index]), error) from None
        return geometry


def undecodable(split: Split, row: int, error: ImageError) -> DatasetError:
    """Return the error that names file and row of an image, and whether it was damaged since it was converted."""
    reason = error.reason if isinstance(error, BatchError) else str(error)
    hashes = split.column("content_hash")
    if hashes is not None and content_hash(split.image(row)) != hashes[row]:
        return DatasetError(
            f"{split.where(row)}: not the image that was converted ({reason}): the file is damaged; fetch the dataset "
            "again, or remove it and convert its source again (`sagitta verify` names all that is damaged)"
        )
    return DatasetError(
        f"{split.path(row)} ({split.name} row {row}): {reason}; convert the source again to leave it out"
    )


def _geometry_of(header: ImageHeader) -> tuple[int, int, int]:
    return header.height, header.width, header.orientation


CUT = np.dtype([("row", "<i8"), ("top", "<i4"), ("left", "<i4"), ("flip", "u1")], align=True)
"""Which image, where the window begins in the padded image (pixels), and whether it is mirrored."""


class CachedPixels(Pixels):
    """Batches of decoded images, on the host or on a device; the same pixels on both.

    All rows are decoded in ``prepare``; a batch before that decodes its own rows only.

    In training each image moves by up to ``shift`` of its size, what comes in at the border being its mirror image, and
    is mirrored as :func:`sagitta.loading.augmentation.flips` says: a function of (seed, epoch, row).

    Args:
        source: gives the evaluation crop of each row.
        count: number of rows, N.
        reading: how they are read.
    """

    def __init__(self, source: Pixels, count: int, reading: Reading) -> None:
        self.reading = reading
        self._source, self._count = source, count
        augmentation, size = reading.augmentation, np.array(reading.preprocessing.size)
        self._margins = np.rint((0 if augmentation is None else augmentation.shift) * size).astype(int)
        self._images: npt.NDArray[np.uint8] | None = None
        self._windows: Tensor | None = None  # of all images, on a device

    def prepare(self) -> None:
        """Decode all rows, if that is not done yet."""
        if self._images is not None:
            return
        how = self.reading.preprocessing
        images = np.empty((self._count, how.channels, *(how.size + 2 * self._margins)), np.uint8)
        for start in range(0, self._count, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, self._count))
            images[rows[0] : rows[-1] + 1] = self._padded(rows)
        device = self.reading.device
        if device.type == "cuda" and 4 * images.nbytes <= torch.cuda.mem_get_info(device)[0]:
            self._windows = self._windows_of(images, device)
        self._images = images

    def batch(self, keys: Ints, epoch: int) -> Tensor:
        """Return the rows ``keys % N``, (B, C, H, W), contiguous; shift and flip are those of the key."""
        cuts = self._cuts(keys, epoch)
        images = self._images
        if images is None:
            images, cuts["row"] = self._padded(cuts["row"]), np.arange(len(cuts))
        normalize, how = self.reading.normalize, self.reading.preprocessing
        if self._windows is None and (core := native.library()):
            shape = (len(keys), how.channels, *how.size)
            out = memory.empty(shape, torch.float32 if normalize else torch.uint8)
            native.cut_out(core, images, cuts, out.numpy(), how.affine if normalize else None)
            return out
        windows = self._windows if self._windows is not None else self._windows_of(images, _HOST)
        batch = _gather(windows, cuts)
        return how.normalize(batch) if normalize else batch

    def _padded(self, rows: Ints) -> npt.NDArray[np.uint8]:
        """Return rows (B,) with their mirror images around them, (B, C, H', W') contiguous."""
        images = np.ascontiguousarray(self._source.batch(rows, 0).numpy())
        top, left = self._margins.tolist()
        return np.pad(images, [(0, 0), (0, 0), (top, top), (left, left)], mode="reflect") if top or left else images

    def _windows_of(self, images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
        """Return every window of every image, without copies: (N, C, room, room, H, W)."""
        height, width = self.reading.preprocessing.size
        return torch.from_numpy(images).to(device).unfold(2, height, 1).unfold(3, width, 1)

    def _cuts(self, keys: Ints, epoch: int) -> npt.NDArray[np.void]:
        cuts = np.zeros(len(keys), CUT)
        cuts["row"] = keys % self._count
        augmentation, seed = self.reading.augmentation, self.reading.seed
        if augmentation is not None:
            random = uniform(seed, epoch, keys, Stream.SHIFT, 2)
            cuts["top"], cuts["left"] = np.floor(random * (2 * self._margins + 1)).T
            cuts["flip"] = flips(seed, epoch, keys, augmentation)
        return cuts


def _gather(windows: Tensor, cuts: npt.NDArray[np.void]) -> Tensor:
    """Do what the native core does with ``cuts``, in torch: (N, C, room, room, H, W) to (B, C, H, W)."""
    row, top, left, flip = (
        torch.from_numpy(cuts[name].astype(np.int64)).to(windows.device) for name in ("row", "top", "left", "flip")
    )
    batch = windows[row, :, top, left]
    return torch.where(flip.bool()[:, None, None, None], batch.flip(3), batch)
