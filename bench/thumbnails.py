"""CIFAR-size loaders: 32 x 32, random shift by up to 4 pixels and flip, normalised float32 NCHW."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from peers import CORES, MEAN, STD, Batch, Datasets, Peer, TorchPeer, Work, normalize

SIDE, PAD = 32, 4


def decoded(work: Work) -> Any:
    """Return all images, (N, 32, 32, 3) uint8."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(file)) for file in work.files])


class SagittaThumbnails(Peer):
    """Sagitta's loader, which keeps thumbnails decoded."""

    environment = "sagitta"
    format = "sagitta"

    def __init__(self, work: Work) -> None:
        from sagitta import Loader
        from sagitta.loading.augmentation import Augmentation
        from sagitta.loading.preprocessing import Preprocessing

        super().__init__(work)
        self.loader = Loader(
            work.folder / "dataset",
            "train",
            work.batch,
            preprocessing=Preprocessing((SIDE, SIDE), 1.0, "bilinear", MEAN, STD),
            augmentation=Augmentation(shift=PAD / SIDE, flip=0.5),
        )

    def run(self) -> Iterator[Batch]:
        """Yield an epoch."""
        yield from self.loader


class _Shift:
    """A Pillow image shifted and flipped, as (3, 32, 32) uint8."""

    def __init__(self) -> None:
        from torchvision.transforms import v2

        self.transform = v2.Compose([v2.RandomCrop(SIDE, PAD), v2.RandomHorizontalFlip(), v2.PILToTensor()])

    def __call__(self, data: bytes) -> Any:
        from PIL import Image

        return self.transform(Image.open(io.BytesIO(data)))


class _Decoded:
    """Map-style dataset of images that are decoded already, as torchvision's CIFAR10."""

    def __init__(self, work: Work) -> None:
        self.images, self.labels, self.transform = decoded(work), list(work.labels), _Shift().transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class TorchvisionThumbnails(TorchPeer):
    """Decoded images in memory, transforms through Pillow, DataLoader."""

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        return self._dataloader(_Decoded(self.work), shuffle=True)


class DatasetsThumbnails(Datasets):
    """Hugging Face datasets over PNG files in Parquet."""

    def _open(self, decode: Callable[[bytes], Any]) -> Any:
        return super()._open(_Shift())


class FfcvThumbnails(Peer):
    """FFCV: raw pixels, compiled pipeline."""

    environment = "ffcv"
    format = "ffcv_raw"

    def __init__(self, work: Work) -> None:
        from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, RandomTranslate, ToTensor, ToTorchImage

        super().__init__(work)
        mean, std = 255 * np.array(MEAN), 255 * np.array(STD)
        steps = [
            SimpleRGBImageDecoder(),
            RandomHorizontalFlip(),
            RandomTranslate(PAD),
            NormalizeImage(mean, std, np.float32),
        ]
        self.loader = Loader(
            str(work.folder / "data.beton"),
            batch_size=work.batch,
            num_workers=CORES,
            os_cache=True,
            order=OrderOption.RANDOM,
            pipelines={
                "image": [*steps, ToTensor(), ToTorchImage()],
                "label": [IntDecoder(), ToTensor()],
            },
        )

    def run(self) -> Iterator[Batch]:
        """Yield an epoch."""
        for images, labels in self.loader:
            yield images, labels.ravel()


class VectorisedLimit(Peer):
    """Limit: numpy and torch, two threads: one gather from images and mirrored images, normalised in place."""

    environment = "sagitta"

    def __init__(self, work: Work) -> None:
        import torch

        super().__init__(work)
        torch.set_num_threads(1)
        images = decoded(work).transpose(0, 3, 1, 2)
        padded = np.pad(images, [(0, 0), (0, 0), (PAD, PAD), (PAD, PAD)], mode="reflect")
        padded = np.concatenate([padded, padded[..., ::-1]])
        self.windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), axis=(2, 3))
        self.labels = np.array(work.labels)

    def run(self) -> Iterator[Batch]:
        """Yield an epoch."""
        order = np.random.permutation(len(self.labels))
        whole = len(order) // self.work.batch
        with ThreadPoolExecutor(CORES) as pool:
            yield from pool.map(self._load, order[: whole * self.work.batch].reshape(whole, -1))

    def _load(self, rows: npt.NDArray[np.int64]) -> Batch:
        import torch

        top, left = np.random.randint(2 * PAD + 1, size=(2, len(rows)))
        mirrored = np.random.randint(2, size=len(rows)) * len(self.labels)
        batch = self.windows[rows + mirrored, :, top, left]
        return normalize(torch.from_numpy(batch)), self.labels[rows]
