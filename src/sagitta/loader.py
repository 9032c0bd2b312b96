"""Batches: plan + shards + decode, by a few threads, in an order and with pixels that do not depend on them.

A batch is a pure function of (dataset, seed, epoch, batch number), so the number of threads or ranks changes nothing
but the speed, and the state of a loader is two numbers.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.augment import THUMBNAIL, Augmentation, Preprocessing, eval_jobs, shift_and_flip, train_jobs
from sagitta.decode import decode_batch, read_header
from sagitta.plan import Plan, uniform
from sagitta.schema import ConfigError, DatasetError, ImageError
from sagitta.shards import ShardSet, Split

Batch = tuple[Tensor, Tensor]
Ints = npt.NDArray[np.int64]

_PREFETCH_BYTES = 256 * 2**20
_CACHE_BYTES = 4 * 2**30
_CACHE_CHUNK = 4096
_TRANSFORM_OPERATION = 16  # after augment's own operations, so that a user's transform has a stream of its own


class Pixels(Protocol):
    """Where a batch's pixels come from."""

    def batch(self, rows: Ints, epoch: int) -> npt.NDArray[np.uint8]:
        """Return the rows' pixels, (B, C, H, W) uint8."""


class EncodedPixels:
    """Pixels decoded from the stored bytes, batch by batch.

    Args:
        split: rows of a dataset.
        preprocessing: size, crop and interpolation.
        augmentation: random crops and flips; None gives the evaluation crop.
        seed: of the random crops.
    """

    def __init__(
        self, split: Split, preprocessing: Preprocessing, augmentation: Augmentation | None, seed: int
    ) -> None:
        self._split = split
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._seed = seed
        columns = [split.column(name) for name in ("height", "width", "orientation")]
        known = [column for column in columns if column is not None]
        self._geometry = np.stack(known, axis=1).astype(np.int64) if len(known) == len(columns) else None

    def batch(self, rows: Ints, epoch: int) -> npt.NDArray[np.uint8]:
        """Return the rows' pixels, (B, C, H, W) uint8, channels last in memory.

        Raises:
            DatasetError: an image cannot be decoded; names its file and row.
        """
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
                rows,
                seed=self._seed,
                epoch=epoch,
                size=(height, width),
                augmentation=self._augmentation,
            )
        out = np.empty((len(rows), height, width, self._preprocessing.channels), np.uint8)
        interpolation = self._preprocessing.interpolation if self._augmentation is None else "bilinear"
        try:
            decode_batch(images, jobs, out, filter=interpolation, profile=self._preprocessing.profile)
        except ImageError as error:
            raise self._error(rows[getattr(error, "index", 0)], error) from None
        return out.transpose(0, 3, 1, 2)

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


class CachedPixels:
    """Thumbnails decoded once into one array; a batch is one gather.

    Args:
        split: rows of a dataset.
        preprocessing: size and interpolation.
        augmentation: random shifts and flips; None gives the images as they are.
        seed: of the random shifts and flips.
    """

    def __init__(
        self, split: Split, preprocessing: Preprocessing, augmentation: Augmentation | None, seed: int
    ) -> None:
        self._size = preprocessing.size
        self._augmentation = augmentation
        self._seed = seed
        whole = EncodedPixels(split, preprocessing, None, seed)
        chunks = [
            whole.batch(np.arange(start, min(start + _CACHE_CHUNK, len(split))), 0)
            for start in range(0, len(split), _CACHE_CHUNK)
        ]
        images = np.ascontiguousarray(np.concatenate(chunks))
        if augmentation is not None:
            pad = [round(augmentation.shift * side) for side in self._size]
            images = np.pad(images, [(0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2], mode="reflect")
        self._images = images

    def batch(self, rows: Ints, epoch: int) -> npt.NDArray[np.uint8]:
        """Return the rows' pixels, (B, C, H, W) uint8."""
        if self._augmentation is None:
            taken: npt.NDArray[np.uint8] = self._images[rows]
            return taken
        return shift_and_flip(
            self._images, rows, seed=self._seed, epoch=epoch, size=self._size, augmentation=self._augmentation
        )


class Loader:
    """Batches ``(images, labels)`` of one split; use it where a ``DataLoader`` would stand.

    Images are float32 (B, C, H, W), normalised (or uint8 with ``normalize=False``); labels are int64 (B,). Under
    ``torch.distributed`` each rank gets its slice of every global batch. Training shuffles all rows and drops the tail
    batch; evaluation sees every row exactly once over all ranks.

    Args:
        data: a converted dataset, or a folder or file of Hugging Face image Parquet, or an open :class:`ShardSet`.
        split: ``train``, ``val`` or ``test``.
        batch_size: images a rank and batch.
        train: shuffle, augment and drop the tail; by default for the split ``train`` only.
        preprocessing: size, crop, normalisation, profile; by default that of the dataset.
        augmentation: of training images.
        class_names: the label order wanted; labels are matched by name.
        transform: torchvision v2 transform of one uint8 image (C, H, W) after decoding; seeded by (seed, epoch, row).
        seed: determines order and augmentation.
        threads: decoding threads; 0 decodes in the caller's thread, None takes every core of this process.
        normalize: float32 normalised images, or uint8.

    Raises:
        ConfigError: the batch size is below 1, or ``class_names`` lacks a class of the dataset.
        DatasetError: no such dataset or split, or (while iterating) an image cannot be decoded.
    """

    def __init__(
        self,
        data: str | Path | ShardSet,
        split: str = "train",
        batch_size: int = 64,
        *,
        train: bool | None = None,
        preprocessing: Preprocessing | None = None,
        augmentation: Augmentation = Augmentation(),
        class_names: Sequence[str] | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
        threads: int | None = None,
        normalize: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch size {batch_size}: must be at least 1")
        self.shards = data if isinstance(data, ShardSet) else ShardSet.open(data)
        if split not in self.shards.splits:
            raise DatasetError(f"no split {split!r}; the dataset has {', '.join(self.shards.splits)}")
        rows = self.shards.splits[split]
        self.batch_size = batch_size
        self.train = split == "train" if train is None else train
        self.preprocessing = preprocessing or Preprocessing.of_dataset(self.shards.info)
        self.seed = seed
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self._rows = len(rows)
        self._labels = match_labels(rows.labels, self.shards.info.class_names, class_names)
        self._transform = transform
        self._normalize = normalize
        resolved = augmentation.resolve(self.preprocessing.channels) if self.train else None
        self._pixels = _open_pixels(rows, self.shards.info.max_size, self.preprocessing, resolved, seed)
        self._epoch = 0
        self._delivered = 0  # batches of this epoch that the consumer has been given
        self._resumed = False

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Where Lightning looks for a ``sampler`` to call ``set_epoch`` on at the start of every epoch."""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of ``epoch``; keeps the position when it is already there."""
        if epoch != self._epoch:
            self._epoch, self._delivered, self._resumed = epoch, 0, False

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return self._plan().batches(_rank_and_world()[1])

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch, or the rest of a resumed one."""
        plan = self._plan()
        if self._delivered and not self._resumed:
            self._epoch, self._delivered = self._epoch + 1, 0
        self._resumed = False
        for images, labels in self._produce(plan, self._epoch, self._delivered):
            self._delivered += 1
            yield images, labels

    def state_dict(self) -> dict[str, Any]:
        """Return where this loader stands: plain JSON, by samples delivered to the consumer."""
        plan = self._plan()
        finished = self._delivered >= len(self)
        return {
            "fingerprint": self.shards.info.fingerprint,
            "seed": self.seed,
            "global_batch": plan.global_batch,
            "epoch": self._epoch + finished,
            "samples": 0 if finished else self._delivered * plan.global_batch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken: the next iteration yields exactly the remaining batches.

        Raises:
            ConfigError: the state belongs to another dataset, seed or global batch size.
        """
        mine = self.state_dict()
        for key, name in (
            ("fingerprint", "dataset"),
            ("seed", "seed"),
            ("global_batch", "global batch size"),
        ):
            if state[key] != mine[key]:
                raise ConfigError(
                    f"cannot resume: the {name} was {state[key]} and is now {mine[key]}; "
                    "resume with what the run began with"
                )
        self._epoch = state["epoch"]
        self._delivered = state["samples"] // state["global_batch"]
        self._resumed = True

    def take(self, rows: Ints) -> Batch:
        """Return the given rows as one batch, outside of the plan; uint8 images."""
        return torch.from_numpy(self._pixels.batch(rows, 0)), torch.from_numpy(self._labels[rows])

    def _plan(self) -> Plan:
        _, world = _rank_and_world()
        return Plan(self._rows, self.batch_size * world, seed=self.seed, shuffle=self.train, drop_last=self.train)

    def _produce(self, plan: Plan, epoch: int, start: int) -> Iterator[Batch]:
        """Yield batches in order; up to ``_PREFETCH_BYTES`` of them are decoded ahead, each by one thread."""
        rank, world = _rank_and_world()
        numbers = range(start, plan.batches(world))
        if self.threads == 0:
            for number in numbers:
                yield self._finish(*self._load(plan.batch_rows(epoch, number, rank, world), epoch), epoch)
            return
        height, width = self.preprocessing.size
        batch_bytes = self.batch_size * height * width * self.preprocessing.channels * (4 if self._normalize else 1)
        ahead = max(self.threads, min(4 * self.threads, _PREFETCH_BYTES // batch_bytes))
        pending: deque[Future[tuple[Tensor, Ints]]] = deque()
        pool = ThreadPoolExecutor(self.threads, "sagitta-decode")
        try:
            for number in numbers:
                pending.append(pool.submit(self._load, plan.batch_rows(epoch, number, rank, world), epoch))
                if len(pending) > ahead:
                    yield self._finish(*pending.popleft().result(), epoch)
            while pending:
                yield self._finish(*pending.popleft().result(), epoch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, rows: Ints, epoch: int) -> tuple[Tensor, Ints]:
        images = torch.from_numpy(self._pixels.batch(rows, epoch))
        if self._normalize and self._transform is None:
            images = self.preprocessing.normalize(images)
        return images, rows

    def _finish(self, images: Tensor, rows: Ints, epoch: int) -> Batch:
        """Apply the user's transform, in the consumer's thread: torch's random state is global."""
        if self._transform is not None:
            seeds = (uniform(self.seed, epoch, rows, _TRANSFORM_OPERATION, 1)[:, 0] * 2**53).astype(np.int64)
            with torch.random.fork_rng(devices=[]):
                changed = []
                for image, image_seed in zip(images, seeds, strict=True):
                    torch.manual_seed(int(image_seed))
                    changed.append(self._transform(image))
            images = torch.stack(changed)
            if self._normalize and images.dtype == torch.uint8:
                images = self.preprocessing.normalize(images)
        return images, torch.from_numpy(self._labels[rows])


def match_labels(labels: Ints, own: Sequence[str], wanted: Sequence[str] | None) -> Ints:
    """Return ``labels`` (indices into ``own``) as indices into ``wanted``, matched by name.

    Raises:
        ConfigError: a class of the dataset is not among ``wanted``.
    """
    if wanted is None or list(own) == list(wanted):
        return labels
    missing = [name for name in own if name not in wanted]
    if missing:
        raise ConfigError(
            f"the dataset has {len(missing)} classes that the model does not know: {_shorten(missing)}; "
            f"the model knows {_shorten(wanted)}"
        )
    position = {name: index for index, name in enumerate(wanted)}
    table = np.array([position[name] for name in own], np.int64)
    return table[labels]


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


def _open_pixels(
    split: Split,
    max_size: tuple[int, int],
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    seed: int,
) -> Pixels:
    thumbnails = 0 < max(max_size) <= THUMBNAIL and max(preprocessing.size) <= THUMBNAIL
    size = len(split) * preprocessing.channels * preprocessing.size[0] * preprocessing.size[1]
    kind = CachedPixels if thumbnails and size <= _CACHE_BYTES else EncodedPixels
    return kind(split, preprocessing, augmentation, seed)


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
