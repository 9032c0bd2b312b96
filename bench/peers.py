"""The loaders that are compared, each in its best setting on two cores; what they share is one seam.

``format`` says what is written for it once, ``run`` yields one epoch of ``(images, labels)``: 224 x 224, uint8 or
normalised float32, NCHW or NHWC. Imports of peers are inside of functions: each runs in an environment of its own.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, RESIZED = 224, 256
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
CORES = 2

Batch = tuple[Any, Any]


@dataclass(frozen=True)
class Work:
    """What to load: image files with labels, how, and the folder of the loader's own format."""

    files: Sequence[Path]
    labels: Sequence[int]
    folder: Path
    batch: int
    evaluate: bool = False
    normalized: bool = False


class Peer:
    """A loader.

    Attributes:
        environment: which of ``environments.REQUIREMENTS`` it runs in.
        format: what it reads, one of ``formats.WRITERS``.
        data: the images it wants in place of the row's, a folder of :mod:`data`.
        antialias: whether its resize averages over the pixels that it leaves out, as Pillow's does.
        ahead: batches that an endless loader has ready between two epochs, which do not count.
    """

    environment: ClassVar[str] = "torchvision"
    format: ClassVar[str] = "files"
    data: ClassVar[str] = ""
    antialias: ClassVar[bool] = True
    ahead: ClassVar[int] = 0

    def __init__(self, work: Work) -> None:
        self.work = work

    def run(self) -> Iterator[Batch]:
        """Yield an epoch."""
        raise NotImplementedError


# What torch's loaders share.


class Decode:
    """Encoded bytes to (3, 224, 224) uint8, by torchvision's decoder and transforms."""

    def __init__(self, evaluate: bool) -> None:
        from torchvision.transforms import v2

        self.transform = v2.Compose(
            [v2.Resize(RESIZED, antialias=True), v2.CenterCrop(SIZE)]
            if evaluate
            else [v2.RandomResizedCrop(SIZE, SCALE, RATIO, antialias=True), v2.RandomHorizontalFlip()]
        )

    def __call__(self, data: bytes) -> Any:
        """Return the tensor."""
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        encoded = torch.frombuffer(data, dtype=torch.uint8)
        return self.transform(decode_jpeg(encoded, mode=ImageReadMode.RGB))


class PillowDecode(Decode):
    """The same by Pillow: the pixel reference."""

    def __call__(self, data: bytes) -> Any:
        """Return the tensor."""
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        return pil_to_tensor(self.transform(Image.open(io.BytesIO(data)).convert("RGB")))


class TorchPeer(Peer):
    """Loaders of uint8 tensors under torch's DataLoader; whole batches are normalised by their consumer.

    Attributes:
        workers: processes, the best of 1 to 4.
    """

    workers: ClassVar[int] = CORES

    def __init__(self, work: Work) -> None:
        import torch

        super().__init__(work)
        torch.set_num_threads(1)
        self.loader = self._open(Decode(work.evaluate))

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        """Return an iterable of (uint8 images, labels)."""
        raise NotImplementedError

    def _dataloader(self, dataset: Any, **options: Any) -> Any:
        """Return torch's DataLoader over a dataset, in its usual best setting."""
        from torch.utils.data import DataLoader

        return DataLoader(
            dataset, self.work.batch, num_workers=self.workers, persistent_workers=True, drop_last=True, **options
        )

    def run(self) -> Iterator[Batch]:
        """Yield an epoch."""
        for images, labels in self.loader:
            yield (normalize(images) if self.work.normalized else images), labels


def normalize(images: Any) -> Any:
    """Return uint8 (B, 3, H, W) as normalised float32, contiguous.

    numpy asks for huge pages and torch does not, and touching fresh memory is most of this work: 10 ms in place of 23
    for 64 photos. Every torch peer is given that.
    """
    import torch

    scale = torch.tensor([1 / (255 * std) for std in STD]).view(-1, 1, 1)
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)]).view(-1, 1, 1)
    out = torch.from_numpy(np.empty(tuple(images.shape), np.float32))
    return out.copy_(torch.as_tensor(images)).mul_(scale).add_(shift)


class _Files:
    """Map-style dataset of image files, also what grain calls a random-access source."""

    def __init__(self, work: Work, decode: Callable[[bytes], Any]) -> None:
        self.files, self.labels, self.decode = list(map(str, work.files)), list(work.labels), decode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Batch:
        return self.decode(Path(self.files[index]).read_bytes()), self.labels[index]


class Torchvision(TorchPeer):
    """Image files, torchvision's decoder and transforms, DataLoader."""

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        return self._dataloader(_Files(self.work, decode), shuffle=not self.work.evaluate)


class TorchvisionPillow(TorchPeer):
    """Image files, Pillow, DataLoader: what most people run."""

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        return self._dataloader(_Files(self.work, PillowDecode(self.work.evaluate)), shuffle=not self.work.evaluate)


class _Columns:
    """Turns a batch of columns from ``datasets`` into one of tensors."""

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self.decode = decode

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        return {"image": [self.decode(image["bytes"]) for image in rows["image"]], "label": rows["label"]}


def _stack(rows: Sequence[dict[str, Any]]) -> Batch:
    import torch

    return torch.stack([row["image"] for row in rows]), torch.tensor([row["label"] for row in rows])


class Datasets(TorchPeer):
    """Hugging Face datasets, map style, without its own (Pillow) decoding."""

    environment = "datasets"
    format = "parquet"
    streaming = False

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        from datasets import Image, config, load_dataset

        config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0  # else five seconds an epoch when it streams and shuffles
        rows = load_dataset(
            "parquet",
            data_files=sorted(map(str, self.work.folder.glob("*.parquet"))),
            split="train",
            streaming=self.streaming,
            cache_dir=str(self.work.folder / "cache"),
        ).cast_column("image", Image(decode=False))
        if self.streaming:
            rows = rows.shuffle(buffer_size=256) if not self.work.evaluate else rows
            return self._dataloader(
                rows.map(_Columns(decode), batched=True, batch_size=self.work.batch), collate_fn=_stack
            )
        rows.set_transform(_Columns(decode))
        return self._dataloader(rows, shuffle=not self.work.evaluate, collate_fn=_stack)


class DatasetsStreaming(Datasets):
    """Hugging Face datasets, streaming from Parquet."""

    streaming = True


class WebDataset(TorchPeer):
    """WebDataset's tar shards."""

    environment = "webdataset"
    format = "webdataset"

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        import webdataset

        shards = sorted(map(str, self.work.folder.glob("*.tar")))
        train = not self.work.evaluate
        samples = webdataset.WebDataset(shards, shardshuffle=len(shards) if train else False)
        samples = samples.shuffle(256 if train else 0).to_tuple("jpg", "cls").map_tuple(decode, int)
        samples = samples.batched(self.work.batch, partial=False)
        return webdataset.WebLoader(samples, batch_size=None, num_workers=self.workers, persistent_workers=True)


class _Sample:
    """Turns a sample of LitData or MosaicML Streaming into a pair."""

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self.decode = decode

    def __call__(self, sample: dict[str, Any]) -> Batch:
        return self.decode(sample["image"]), sample["label"]


class LitData(TorchPeer):
    """LitData's optimised chunks."""

    environment = "litdata"
    format = "litdata"
    workers = 3

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        from litdata import StreamingDataLoader, StreamingDataset

        rows = StreamingDataset(
            str(self.work.folder), shuffle=not self.work.evaluate, transform=_Sample(decode), drop_last=False
        )
        return StreamingDataLoader(
            rows, batch_size=self.work.batch, num_workers=self.workers, persistent_workers=True, drop_last=True
        )


class Streaming(TorchPeer):
    """MosaicML Streaming's MDS shards."""

    environment = "streaming"
    format = "streaming"

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        to_pair = _Sample(decode)

        class Rows(StreamingDataset):  # type: ignore[misc]
            def __getitem__(self, index: int) -> Batch:
                return to_pair(super().__getitem__(index))

        folder = str(self.work.folder / "mds")
        return self._dataloader(Rows(local=folder, shuffle=not self.work.evaluate, batch_size=self.work.batch))


class Grain(TorchPeer):
    """Grain over image files in worker processes; they start with the iterator, so it is endless."""

    environment = "grain"
    workers = 3
    ahead = 16

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        import grain

        os.environ["OMP_NUM_THREADS"] = "1"  # for the workers, which start anew
        rows = grain.MapDataset.source(_Files(self.work, decode))
        rows = rows if self.work.evaluate else rows.shuffle(seed=0)
        batches = rows.repeat().batch(self.work.batch, drop_remainder=True, batch_fn=_collate)
        options = grain.MultiprocessingOptions(num_workers=self.workers)
        return iter(
            batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)).mp_prefetch(options)
        )


def _collate(pairs: Sequence[Batch]) -> Batch:
    import torch

    return torch.stack([image for image, _ in pairs]).numpy(), np.array([label for _, label in pairs])


def random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Return RandomResizedCrop's box for loaders that bring none: left, top, right, bottom."""
    for _ in range(10):
        area = width * height * np.random.uniform(*SCALE)
        ratio = np.exp(np.random.uniform(*np.log(RATIO)))
        wide, high = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = np.random.randint(width - wide + 1), np.random.randint(height - high + 1)
            return left, top, left + wide, top + high
    return 0, 0, width, height
