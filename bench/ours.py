"""Sagitta's loader as one more peer, and the limits that no loader can pass: decoding alone, with two threads."""

import ctypes
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from environments import cache
from peers import CORES, MEAN, RATIO, RESIZED, SCALE, SIZE, STD, Batch, Peer, Work, random_box


class Sagitta(Peer):
    """Sagitta's loader over its own Parquet; exact pixels."""

    environment = "sagitta"
    format = "sagitta"
    profile: Literal["exact", "fast"] = "exact"

    def __init__(self, work: Work) -> None:
        from sagitta import Loader
        from sagitta.loading.augmentation import Augmentation
        from sagitta.loading.preprocessing import Preprocessing

        super().__init__(work)
        self.loader = Loader(
            work.folder / "dataset",
            "train",
            work.batch,
            train=not work.evaluate,
            preprocessing=Preprocessing((SIZE, SIZE), SIZE / RESIZED, "bilinear", MEAN, STD, self.profile),
            augmentation=Augmentation(min_scale=SCALE[0], max_ratio=RATIO[1], flip=0.5),
            normalize=work.normalized,
        )

    def run(self) -> Iterator[Batch]:
        """Yield an epoch."""
        yield from self.loader


class SagittaRestart(Sagitta):
    """The same from files with restart markers."""

    data = "restart"


class SagittaFast(Sagitta):
    """The same with large photos decoded at a fraction of their size."""

    profile = "fast"


class FullDecode(Peer):
    """Limit: libjpeg-turbo through simplejpeg, whole images in memory, two threads; no crop, resize or batch."""

    environment = "sagitta"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.images = [file.read_bytes() for file in work.files]

    def run(self) -> Iterator[Batch]:
        """Yield an epoch: no images, and how many they were."""
        import simplejpeg

        with ThreadPoolExecutor(CORES) as pool:
            done = pool.map(lambda image: simplejpeg.decode_jpeg(image).shape, self.images)
            while shapes := list(islice(done, self.work.batch)):
                yield None, shapes


class RegionDecode(FullDecode):
    """Limit: the native core's decoder on random crops, not resized, two threads in C++."""

    def __init__(self, work: Work) -> None:
        from PIL import Image

        super().__init__(work)
        self.boxes = np.array([random_box(*Image.open(file).size) for file in work.files], np.int32)
        self.library = _region_library()

    def run(self) -> Iterator[Batch]:
        """Yield an epoch as one batch: no images, and how many they were.

        Raises:
            RuntimeError: an image was not decoded.
        """
        files = np.array([np.frombuffer(image, np.uint8).ctypes.data for image in self.images], np.uint64)
        sizes = np.array(list(map(len, self.images)), np.uint64)
        arrays = (ctypes.c_void_p(array.ctypes.data) for array in (files, sizes, self.boxes))
        done = self.library.decode_regions(ctypes.c_int64(len(files)), *arrays, CORES)
        if done != len(files):
            raise RuntimeError(f"{len(files) - done} images were not decoded")
        yield None, self.boxes


class RegionDecodeRestart(RegionDecode):
    """The same on files with restart markers."""

    data = "restart"


def _region_library() -> ctypes.CDLL:
    """Compile ``region.cpp`` with the core's sources, once."""
    here = Path(__file__).parent
    library = cache() / "region.so"
    if not library.exists():
        native = here.parent / "src" / "sagitta" / "images" / "native"
        sources = [here / "region.cpp", *(native / f"{name}.cpp" for name in ("jpeg", "layout", "restart"))]
        flags = ["-std=c++17", "-O3", "-shared", "-fPIC", "-pthread"]
        subprocess.run(["g++", *flags, "-o", str(library), *map(str, sources), "-ljpeg"], check=True)
    return ctypes.CDLL(str(library))
