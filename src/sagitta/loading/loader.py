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
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.dataset import ShardSet
from sagitta.errors import ConfigError, DatasetError
from sagitta.loading.augmentation import Augmentation, change_pixels
from sagitta.loading.draws import Stream, uniform
from sagitta.loading.pixels import CachedPixels, EncodedPixels, Pixels
from sagitta.loading.plan import Balanced, Plan
from sagitta.loading.preprocessing import THUMBNAIL, Preprocessing

Batch = tuple[Tensor, Tensor]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_PREFETCH_BYTES = 512 * 2**20
_CACHE_BYTES = 4 * 2**30
_CACHE_CHUNK = 4096


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
        transform: torchvision v2 transform of one uint8 image (C, H, W) after decoding; seeded by (seed, epoch, row).
        balanced: in training, show every class equally often: see :class:`sagitta.loading.plan.Balanced`.
        seed: determines order and augmentation.
        threads: decoding threads; 0 decodes in the caller's thread, None takes every core of this process.
        normalize: float32 normalised images, or uint8.
        device: where decoded thumbnails are kept and their batches made, if they take no more than a quarter of its
            memory; other batches are made on the host.

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
        balanced: bool = False,
        seed: int = 0,
        threads: int | None = None,
        normalize: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch size {batch_size}: must be at least 1")
        self.shards = data if isinstance(data, ShardSet) else ShardSet.open(data)
        if split not in self.shards.splits:
            raise DatasetError(f"no split {split!r}; the dataset has {', '.join(self.shards.splits)}")
        self._split = rows = self.shards.splits[split]
        self.batch_size = batch_size
        self.train = split == "train" if train is None else train
        self.preprocessing = preprocessing or Preprocessing.of_dataset(self.shards.info)
        self.seed = seed
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self._rows = len(rows)
        self._labels = match_labels(rows.labels, self.shards.info.class_names, class_names)
        self._transform = transform
        self._normalize = normalize
        self._balanced = Balanced(rows.labels, seed) if balanced and self.train else None
        self._augmentation = augmentation.resolve(self.preprocessing.channels) if self.train else None
        self._pixels = self._open_pixels(device)
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
        """Return the given rows as one batch, outside of the plan."""
        images = self._pixels.batch(rows, 0)
        if self._normalize and images.dtype == torch.uint8:
            images = self.preprocessing.normalize(images)
        return images, _targets(self._labels[rows])

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
        """Yield batches in order, some of them decoded ahead.

        One more is decoded ahead whenever the decoders had nothing to do and the consumer had to wait later: a longer
        queue would have bridged that. All batches under way take ``_PREFETCH_BYTES`` at most, or are one.
        """
        rank, world = _rank_and_world()
        numbers = range(start, plan.batches(world))
        if self.threads == 0:
            for number in numbers:
                yield self._finish(*self._load(plan.batch_rows(epoch, number, rank, world), epoch), epoch)
            return
        ahead, idle = self._concurrent(), False
        pending: deque[Future[tuple[Tensor, Ints]]] = deque()
        pool = ThreadPoolExecutor(ahead, "sagitta-decode")
        try:
            for number in numbers:
                pending.append(pool.submit(self._load, plan.batch_rows(epoch, number, rank, world), epoch))
                if len(pending) > ahead:
                    if idle and not pending[0].done() and ahead < self._most_batches():
                        ahead, idle = ahead + 1, False
                        continue
                    yield self._finish(*pending.popleft().result(), epoch)
                    idle = idle or all(future.done() for future in pending)
            while pending:
                yield self._finish(*pending.popleft().result(), epoch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _most_batches(self) -> int:
        """Return how many batches fit into the memory for those under way, at least one."""
        height, width = self.preprocessing.size
        image = height * width * self.preprocessing.channels * (4 if self._normalize else 1)
        return max(1, _PREFETCH_BYTES // (self.batch_size * image))

    def _concurrent(self) -> int:
        """Return how many batches are decoded at the same time; where memory allows few, threads share a batch."""
        return max(1, min(self.threads, self._most_batches()))

    def _load(self, rows: Ints, epoch: int) -> tuple[Tensor, Ints]:
        keys = rows if self._balanced is None else self._balanced.keys(rows, epoch)
        images = self._pixels.batch(keys, epoch)
        if self._augmentation is not None:
            images = change_pixels(
                images,
                keys,
                seed=self.seed,
                epoch=epoch,
                augmentation=self._augmentation,
                preprocessing=self.preprocessing,
            )
        if self._normalize and self._transform is None and images.dtype == torch.uint8:
            images = self.preprocessing.normalize(images)
        return images, keys

    def _finish(self, images: Tensor, keys: Ints, epoch: int) -> Batch:
        """Apply the user's transform, in the consumer's thread: torch's random state is global."""
        if self._transform is not None:
            seeds = (uniform(self.seed, epoch, keys, Stream.TRANSFORM, 1)[:, 0] * 2**53).astype(np.int64)
            with torch.random.fork_rng(devices=[]):
                changed = []
                for image, image_seed in zip(images, seeds, strict=True):
                    torch.manual_seed(int(image_seed))
                    changed.append(self._transform(image))
            images = torch.stack(changed)
            if self._normalize and images.dtype == torch.uint8:
                images = self.preprocessing.normalize(images)
        return images, _targets(self._labels[keys % self._rows])

    def _open_pixels(self, device: torch.device | str) -> Pixels:
        """Decode thumbnails now, if there is room for them; everything else batch by batch."""
        split, size = self._split, self.preprocessing.size
        thumbnails = 0 < max(self.shards.info.max_size) <= THUMBNAIL and max(size) <= THUMBNAIL
        needed = len(split) * self.preprocessing.channels * size[0] * size[1]
        if not thumbnails or needed > _CACHE_BYTES:
            threads = -(-self.threads // self._concurrent())
            pinned = torch.device(device).type == "cuda"
            return EncodedPixels(
                split, self.preprocessing, self._augmentation, self.seed, threads=max(1, threads), pinned=pinned
            )
        whole = EncodedPixels(split, self.preprocessing, None, self.seed)
        chunks = [
            whole.batch(np.arange(start, min(start + _CACHE_CHUNK, len(split))), 0).numpy()
            for start in range(0, len(split), _CACHE_CHUNK)
        ]
        images = np.ascontiguousarray(np.concatenate(chunks))
        fits = torch.device(device).type == "cuda" and 4 * needed <= torch.cuda.mem_get_info(device)[0]
        changed = self._augmentation is not None and self._augmentation.changes_pixels
        return CachedPixels(
            images,
            self.preprocessing,
            self._augmentation,
            self.seed,
            normalize=self._normalize and self._transform is None and not changed,
            device=device if fits else "cpu",
        )


def match_labels(labels: Ints | Bools, own: Sequence[str], wanted: Sequence[str] | None) -> Ints | Bools:
    """Return ``labels`` (indices into ``own``, or one column each of them) for ``wanted``, matched by name.

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
    if labels.ndim == 1:
        return table[labels]
    columns = np.zeros((len(labels), len(wanted)), np.bool_)
    columns[:, table] = labels
    return columns


def _targets(labels: Ints | Bools) -> Tensor:
    targets = torch.from_numpy(labels)
    return targets.float() if targets.dtype == torch.bool else targets


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
