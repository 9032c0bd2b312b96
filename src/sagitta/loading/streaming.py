"""Encoded images of any number, decoded ahead of their consumer in bounded memory; what cannot be read is told.

A chunk of images is read once, and decoded once for each way in which a model wants them; two chunks are under way
beside the one that is waited for, so one is read while the other is decoded.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.errors import DatasetError, ImageError
from sagitta.images import BatchError, ImageHeader, decode_batch, read_header, reduce
from sagitta.loading import memory
from sagitta.loading.augmentation import eval_jobs
from sagitta.loading.encoded import Bytes, Encoded
from sagitta.loading.preprocessing import Preprocessing
from sagitta.pool import ahead, closed_at_exit, usable_cores

_AHEAD = 2  # chunks


@dataclass(frozen=True)
class Decoded:
    """A chunk of images.

    Attributes:
        numbers: of all of them.
        readable: of those that are decoded, (R,).
        pixels: of these, (R, C, H, W) uint8, channels last in memory, one for each preprocessing.
        errors: why the others cannot be read, by number.
        reduced: what decoding lost, and of how many.
    """

    numbers: range
    readable: list[int]
    pixels: list[Tensor]
    errors: dict[int, str]
    reduced: Counter[str]


@dataclass(frozen=True)
class DecodedAhead:
    """Chunks of images, decoded ahead of their consumer.

    Attributes:
        encoded: the images.
        preprocessings: evaluation crops, at least one.
        chunk: images at a time.
        start: number of the first; those before it are left out.
        threads: that share a chunk; by default every core of this process.
        pinned: pixels lie in page-locked memory, for a GPU.
    """

    encoded: Encoded
    preprocessings: Sequence[Preprocessing]
    chunk: int
    start: int = 0
    threads: int = field(default_factory=usable_cores)
    pinned: bool = False

    def __iter__(self) -> Iterator[Decoded]:
        """Yield the chunks in order; memory is that of a few of them."""
        return closed_at_exit(self._iterate())

    def _iterate(self) -> Generator[Decoded, None, None]:
        end = len(self.encoded)
        chunks = (range(first, min(first + self.chunk, end)) for first in range(self.start, end, self.chunk))
        with ThreadPoolExecutor(_AHEAD, "sagitta-images") as pool:
            yield from ahead(lambda numbers: pool.submit(self.decode, numbers), chunks, _AHEAD)

    def decode(self, numbers: range) -> Decoded:
        """Return one chunk."""
        errors: dict[int, str] = {}
        lost: Counter[str] = Counter()
        read: dict[int, list[tuple[Bytes, ImageHeader]]] = {}
        for number in numbers:
            try:
                read[number] = self._read(number, lost)
            except (ImageError, DatasetError, OSError) as error:
                errors[number] = str(error)
        pixels = []
        for index, how in enumerate(self.preprocessings):
            found, failed = self._decoded([each[index] for each in read.values()], how)
            pixels.append(found)
            errors.update((list(read)[place], reason) for place, reason in failed.items())
        kept = [number not in errors for number in read]
        if not all(kept):
            pixels = [each[torch.tensor(kept)] for each in pixels]
        return Decoded(numbers, [number for number in read if number not in errors], pixels, errors, lost)

    def _read(self, number: int, lost: Counter[str]) -> list[tuple[Bytes, ImageHeader]]:
        """Return an image for each preprocessing: its samples and bands reduced as those of the training were."""
        data = self.encoded.read(number)
        found: list[tuple[Bytes, ImageHeader]] = []
        losses: list[str | None] = []
        for how in self.preprocessings:
            if how.reduction is None or self.encoded.is_reduced(number):
                found.append((data, header := read_header(data)))
                losses.append(header.reduced)
            else:
                made = reduce(bytes(data), how.reduction)
                found.append((made.data, header := read_header(made.data)))
                losses.append(made.lost if made.changed else header.reduced)
        lost.update(filter(None, losses[:1]))
        return found

    def _decoded(
        self, images: Sequence[tuple[Bytes, ImageHeader]], how: Preprocessing
    ) -> tuple[Tensor, Mapping[int, str]]:
        """Return pixels (N, C, H, W), and why some of them are none."""
        data, headers = [image for image, _ in images], [header for _, header in images]
        shapes = [(header.height, header.width, header.orientation) for header in headers]
        geometry: npt.NDArray[np.int64] = np.array(shapes, np.int64).reshape(-1, 3)
        jobs = eval_jobs(geometry[:, :2], geometry[:, 2], how)
        out = memory.empty((len(data), *how.size, how.channels), torch.uint8, pinned=self.pinned)
        failed: Mapping[int, str] = {}
        try:
            decode_batch(data, jobs, out.numpy(), filter=how.interpolation, profile=how.profile, threads=self.threads)
        except BatchError as error:
            failed = error.failures
        return out.permute(0, 3, 1, 2), failed
