"""Batches: plan + shards + decode, by a few threads, in an order and with pixels that do not depend on them.

A batch is a pure function of (dataset, seed, epoch, batch number), so the number of threads or ranks changes nothing
but the speed, and the state of a loader is two numbers.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.dataset import ShardSet, plural
from sagitta.errors import ConfigError, DatasetError
from sagitta.loading.augmentation import Augmentation, change_pixels
from sagitta.loading.pixels import CachedPixels, EncodedPixels, Reading
from sagitta.loading.plan import Balanced, Plan
from sagitta.loading.preprocessing import THUMBNAIL, Preprocessing
from sagitta.loading.transforms import OwnTransform, Transform
from sagitta.pool import ahead, closed_at_exit, usable_cores

Batch = tuple[Tensor, Tensor]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_PREFETCH_BYTES = 512 * 2**20
_CACHE_BYTES = 4 * 2**30


class Loader:
    """Batches ``(images, labels)`` of one split; use it where a ``DataLoader`` would stand.

    Images are float32 (B, C, H, W), normalised (or uint8 with ``normalize=False``); labels are int64 (B,), or float32
    (B, classes) of 0 and 1 where the dataset has several labels a row. Under
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
        transform: of each uint8 image after decoding and augmentation, torchvision's or Albumentations', seeded by
            (seed, epoch, row): see :mod:`sagitta.loading.transforms`. It returns uint8, which is normalised here, or
            floats, which are passed on as float32.
        transform_workers: apply ``transform`` in so many spawned processes, which are started for each iteration; 0
            applies it in the consumer's thread. The pixels are the same.
        balanced: in training, show every class equally often: see :class:`sagitta.loading.plan.Balanced`.
        seed: determines order and augmentation.
        threads: decoding threads; 0 decodes in the caller's thread, None takes every core of this process.
        normalize: float32 normalised images, or uint8.
        device: where decoded thumbnails are kept and their batches made, if they take no more than a quarter of its
            memory; other batches are made on the host.

    Attributes:
        pixels: where the images come from; loaders that read alike may share it.
        same_rows: every epoch has the rows of the first one in their order, augmented anew.

    Raises:
        ConfigError: the batch size is below 1, ``class_names`` lacks a class of the dataset, or ``transform`` cannot be
            called, or be sent to processes, or (while iterating) returns no image.
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
        transform: Transform | None = None,
        balanced: bool = False,
        seed: int = 0,
        threads: int | None = None,
        normalize: bool = True,
        device: torch.device | str = "cpu",
        transform_workers: int = 0,
    ) -> None:
        for name, value, least in (("batch size", batch_size, 1), ("transform workers", transform_workers, 0)):
            if value < least:
                raise ConfigError(f"{name} {value}: must be at least {least}")
        self.shards = data if isinstance(data, ShardSet) else ShardSet.open(data)
        if split not in self.shards.splits:
            raise DatasetError(f"no split {split!r}; the dataset has {', '.join(self.shards.splits)}")
        self._split = rows = self.shards.splits[split]
        self.batch_size = batch_size
        self.train = split == "train" if train is None else train
        self.preprocessing = preprocessing or Preprocessing.of_dataset(self.shards.info)
        self.seed = seed
        self.threads = usable_cores() if threads is None else threads
        self._rows = len(rows)
        self._labels = match_labels(rows.labels, self.shards.info.class_names, class_names)
        self._own = None if transform is None else OwnTransform(transform, seed, len(self._split))
        self._workers = transform_workers
        if self._own is not None and transform_workers:
            self._own.check_sendable()
        self._normalize = normalize
        self._balanced = Balanced(rows.labels, seed) if balanced and self.train else None
        self._augmentation = augmentation.resolve(self.preprocessing.channels) if self.train else None
        self.pixels = self._open_pixels(torch.device(device if self._own is None else "cpu"))
        self.same_rows = False
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
        return closed_at_exit(self._iterate())

    def _iterate(self) -> Generator[Batch, None, None]:
        plan = self._plan()
        if self._delivered and not self._resumed:
            self._epoch, self._delivered = self._epoch + 1, 0
        self._resumed = False
        for batch in self._produce(plan, self._epoch, self._delivered):
            self._delivered += 1
            yield batch

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
        """Return the given rows as one batch, outside of the plan and without ``transform``."""
        images = self.pixels.batch(rows, 0)
        if self._normalize and images.dtype == torch.uint8:
            images = self.preprocessing.normalize(images)
        return images, _targets(self._labels[rows])

    def rows_of(self, epoch: int, number: int) -> Ints:
        """Return the rows of one of this rank's batches of an epoch, in their order."""
        rank, world = _rank_and_world()
        order = self._order(epoch)
        return self._keys(self._plan().batch_rows(order, number, rank, world), order) % self._rows

    def evaluated_rows(self, rank: int, world: int, batches: int) -> Ints:
        """Return the rows of an evaluation's first batches in the order in which one of ``world`` ranks gets them."""
        plan = Plan(self._rows, self.batch_size * world, shuffle=False, drop_last=False)
        return np.concatenate([plan.batch_rows(0, batch, rank, world) for batch in range(batches)])

    def paths(self, rows: Ints) -> list[str]:
        """Return the paths that the rows' images had at their source."""
        return [self._split.path(row) for row in rows.tolist()]

    def _plan(self) -> Plan:
        _, world = _rank_and_world()
        return Plan(self._rows, self.batch_size * world, seed=self.seed, shuffle=self.train, drop_last=self.train)

    def _produce(self, plan: Plan, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from one on, in order."""
        self.pixels.prepare()
        with closing(self._decoded(plan, epoch, start)) as decoded:
            changed = decoded if self._own is None else self._own.batches(decoded, epoch, self._workers)
            with closing(changed):
                for images, keys in changed:
                    yield self._finish(images), _targets(self._labels[keys % self._rows])

    def _decoded(self, plan: Plan, epoch: int, start: int) -> Generator[tuple[Tensor, Ints], None, None]:
        """Yield images and keys in order, some batches decoded ahead.

        All batches under way take ``_PREFETCH_BYTES`` at most, or are one.
        """
        rank, world = _rank_and_world()
        order = self._order(epoch)
        rows = (plan.batch_rows(order, number, rank, world) for number in range(start, plan.batches(world)))
        if self.threads == 0:
            for some in rows:
                yield self._load(some, epoch)
            return
        threads = self._concurrent()
        with ThreadPoolExecutor(threads, "sagitta-decode") as pool:
            yield from ahead(lambda some: pool.submit(self._load, some, epoch), rows, threads, self._most_batches())

    def _most_batches(self) -> int:
        """Return how many batches fit into the memory for those under way, at least one."""
        height, width = self.preprocessing.size
        image = height * width * self.preprocessing.channels * (4 if self._normalize else 1)
        return max(1, _PREFETCH_BYTES // (self.batch_size * image))

    def _concurrent(self) -> int:
        """Return how many batches are decoded at the same time; where memory allows few, threads share a batch."""
        return max(1, min(self.threads, self._most_batches()))

    def _load(self, rows: Ints, epoch: int) -> tuple[Tensor, Ints]:
        keys = self._keys(rows, self._order(epoch))
        images = self.pixels.batch(keys, epoch)
        if self._augmentation is not None:
            images = change_pixels(
                images,
                keys,
                seed=self.seed,
                epoch=epoch,
                augmentation=self._augmentation,
                preprocessing=self.preprocessing,
            )
        return (images if self._own else self._finish(images)), keys

    def _order(self, epoch: int) -> int:
        """Return the epoch whose order and classes an epoch has."""
        return 0 if self.same_rows else epoch

    def _keys(self, rows: Ints, order: int) -> Ints:
        return rows if self._balanced is None else self._balanced.keys(rows, order)

    def _finish(self, images: Tensor) -> Tensor:
        """Return images as they are wanted: bytes normalised, or as they are; floats as they are."""
        return self.preprocessing.normalize(images) if self._normalize and images.dtype == torch.uint8 else images

    def _open_pixels(self, device: torch.device) -> CachedPixels | EncodedPixels:
        """Thumbnails are decoded once, if there is room for them; everything else batch by batch."""
        split, how = self._split, self.preprocessing
        thumbnails = 0 < max(self.shards.info.max_size) <= THUMBNAIL and max(how.size) <= THUMBNAIL
        needed = len(split) * how.channels * how.size[0] * how.size[1]
        reading = Reading(how, self._augmentation, self.seed, threads=max(1, self.threads), device=device)
        if not thumbnails or needed > _CACHE_BYTES:
            threads = max(1, -(-self.threads // self._concurrent()))
            return EncodedPixels(split, replace(reading, threads=threads))
        changed = self._own is not None or (self._augmentation is not None and self._augmentation.changes_pixels)
        whole = EncodedPixels(split, Reading(how, threads=reading.threads))
        return CachedPixels(whole, len(split), replace(reading, normalize=self._normalize and not changed))


def match_labels(labels: Ints | Bools, own: Sequence[str], wanted: Sequence[str] | None) -> Ints | Bools:
    """Return ``labels`` (indices into ``own``, or one column each of them) for ``wanted``, matched by name.

    Raises:
        ConfigError: a class of the dataset is not among ``wanted``.
    """
    if wanted is None or list(own) == list(wanted):
        return labels
    missing = [name for name in own if name not in wanted]
    if missing:
        count = plural(len(missing), "class", "classes")
        raise ConfigError(
            f"the dataset has {count} that the model does not know: {shorten(missing)}; rename its folders or labels: "
            f"the model knows {shorten(wanted)}"
        )
    position = {name: index for index, name in enumerate(wanted)}
    table = np.array([position[name] for name in own], np.int64)
    if labels.ndim == 1:
        return table[labels]
    columns = np.zeros((len(labels), len(wanted)), np.bool_)
    columns[:, table] = labels
    return columns


def _targets(labels: Ints | Bools) -> Tensor:
    targets = torch.from_numpy(labels)
    return targets.float() if targets.dtype == torch.bool else targets


def shorten(names: Sequence[str]) -> str:
    """Return the first names of a list, for messages."""
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
