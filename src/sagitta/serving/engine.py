"""What answers images: a model behind one interface, whatever runs it; and images as models take them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sagitta.errors import ImageError
from sagitta.images import BatchError, Filter, ImageHeader, Reduction, centre_jobs, decode_batch, read_header, reduce
from sagitta.pool import usable_cores

Floats = npt.NDArray[np.float32]


class Named(NamedTuple):
    """An encoded image.

    Attributes:
        name: as its sender calls it.
        data: its bytes.
    """

    name: str
    data: bytes


@dataclass(frozen=True)
class Wanted:
    """What is asked of every model that is served.

    Attributes:
        device: where a checkpoint computes; an export runs on the processor.
        accuracy: share of answers that are to be right; the others abstain.
        coverage: share of images whose class is to be in the set.
        batch: images that the network sees at a time.
        pixels: of an image; more are not decoded.
    """

    device: str = "auto"
    accuracy: float | None = None
    coverage: float | None = None
    batch: int = 32
    pixels: int = 64_000_000


@dataclass(frozen=True)
class Found:
    """What a model says of some images.

    Attributes:
        probabilities: (R, classes) of those that could be read.
        errors: why the others could not, by their places.
        further: what else is said of those that could: ``abstain``, ``set``, ``unfamiliar``, (R,) each.
    """

    probabilities: Floats
    errors: Mapping[int, str] = field(default_factory=dict)
    further: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class Engine(Protocol):
    """A model that is open; used by one thread at a time.

    Attributes:
        kind: what runs it.
        names: of the classes, in the order of the probabilities.
        thresholds: from which each of several labels is given; None where an image has one label.
        about: what a client may know of it, for JSON.
    """

    kind: str
    names: Sequence[str]
    thresholds: Sequence[float] | None
    about: Mapping[str, Any]

    def answer(self, images: Sequence[Named]) -> Found:
        """Return what the model says of images."""
        ...

    def heat(self, image: Named, label: int | None) -> bytes:
        """Return a PNG of where in an image the model sees a class, by default the most probable one.

        Raises:
            ImageError: it cannot be read.
            ConfigError: this engine has no heat maps.
        """
        ...


@dataclass(frozen=True)
class Crop:
    """How images become a network's input.

    Attributes:
        size: height and width.
        scale: what an image is resized to cover, see :func:`sagitta.images.centre_jobs`.
        channels: 1 or 3.
        filter: of the resize.
        reduction: of deep samples and many bands.
        pixels: of an image; more are not decoded.
    """

    size: tuple[int, int]
    scale: tuple[int, int]
    channels: int
    filter: Filter
    reduction: Reduction | None
    pixels: int

    @classmethod
    def of(cls, specification: Mapping[str, Any], pixels: int) -> "Crop":
        """Return what an export's ``preprocessing`` says."""
        crop, resize = specification["crop"], specification["resize"]
        short, reduction = resize["shorter_side"], specification["decode"]["reduction"]
        cover = resize["cover"] if short is None else (short, short)
        return cls(
            (crop["height"], crop["width"]), (cover[0], cover[1]), 3 if specification["convert"] == "RGB" else 1,
            resize["filter"], None if reduction is None else Reduction.from_dict(reduction), pixels,
        )  # fmt: skip

    def __call__(self, images: Sequence[Named]) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
        """Return pixels (R, H, W, C) of those that can be read, and why the others cannot, by their places."""
        errors: dict[int, str] = {}
        read: dict[int, tuple[bytes, ImageHeader]] = {}
        for place, image in enumerate(images):
            try:
                read[place] = self._read(image.data)
            except ImageError as error:
                errors[place] = str(error)
        shapes = [(header.height, header.width, header.orientation) for _, header in read.values()]
        geometry = np.array(shapes, np.int64).reshape(-1, 3)
        jobs = centre_jobs(geometry[:, :2], geometry[:, 2], self.size, self.scale)
        out = np.empty((len(read), *self.size, self.channels), np.uint8)
        places = list(read)
        try:
            decode_batch([data for data, _ in read.values()], jobs, out, filter=self.filter, threads=usable_cores())
        except BatchError as error:
            errors |= {places[place]: reason for place, reason in error.failures.items()}
            out = out[[place not in errors for place in places]]
        return out, errors

    def _read(self, data: bytes) -> tuple[bytes, ImageHeader]:
        header = checked_header(data, self.pixels)
        if self.reduction is None:
            return data, header
        made = reduce(data, self.reduction).data
        return made, read_header(made)


def checked_header(data: bytes, most: int) -> ImageHeader:
    """Return an image's header; refuses too many pixels before they take memory.

    Raises:
        ImageError: it is none, or has too many pixels.
    """
    header = read_header(data)
    if header.width * header.height > most:
        raise ImageError(f"{header.width}x{header.height} pixels, more than the {most:,} that are taken")
    return header
