"""A quick look at each image: a grey thumbnail to compare it by, and what can be measured on a small picture.

JPEGs are decoded at a half, a quarter or an eighth where they are large enough, so a photo takes about a millisecond.
"""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sagitta.diagnosis.rows import Ints, Progress, Rows
from sagitta.images import JOB, BatchError, decode_batch
from sagitta.pool import usable_cores

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SIDE = 64
"""Pixels a side of a thumbnail: the whole image, squeezed into a square."""
_SEEN = 2 * SIDE  # pixels a side of what is measured
_BATCH = 64
_RELEASED = 32 * 2**20  # bytes read, after which mapped pages are let go of
_GREY = (77, 150, 29)  # of 256, as Pillow weighs red, green and blue

MEASURES = ("mean", "spread", "low", "high", "sharpness", "red", "green", "blue", "edge_spread")
"""Grey levels of the whole (0..255): mean, standard deviation, 5th and 95th percentile; mean absolute Laplacian over
the deviation; mean colour along the border, and its deviation there."""


@dataclass(frozen=True)
class Looks:
    """What was seen of some rows.

    Attributes:
        rows: (M,) of the dataset's rows, in ascending order.
        thumbnails: (M, SIDE, SIDE) uint8, grey.
        measures: (M, len(MEASURES)) float32.
        failed: why an image cannot be decoded, by row; these are not among ``rows``.
        complete: whether every row of the dataset was looked at.
    """

    rows: Ints
    thumbnails: Bytes
    measures: Floats
    failed: dict[int, str]
    complete: bool

    def measure(self, name: str) -> Floats:
        """Return one of ``MEASURES``, (M,)."""
        return self.measures[:, MEASURES.index(name)]


def look(rows: Rows, order: Ints, *, seconds: float = float("inf"), told: Progress = lambda _: None) -> Looks:
    """Look at rows in this order until the time is over.

    Args:
        rows: of the dataset.
        order: which, the most important first.
        seconds: of wall time; what is not looked at by then is left out.
        told: is told how many are done.

    Raises:
        DatasetError: a file cannot be read.
    """
    end, read = time.monotonic() + seconds, 0
    thumbnails = np.empty((len(order), SIDE, SIDE), np.uint8)
    measures = np.empty((len(order), len(MEASURES)), np.float32)
    good = np.zeros(len(order), np.bool_)
    failed: dict[int, str] = {}
    count = 0
    for start in range(0, len(order), _BATCH):
        if time.monotonic() > end:
            break
        some = order[start : start + _BATCH]
        images = rows.images(some)
        seen, reasons = _seen(images, rows.know(some, images))
        failed |= {int(some[place]): reason for place, reason in reasons.items()}
        whole = np.array([place not in reasons for place in range(len(some))])
        count = start + len(some)
        good[start:count] = whole
        thumbnails[start:count], measures[start:count] = _measured(seen)
        read += sum(map(len, images))
        del images
        if read > _RELEASED:
            rows.release()
            read = 0
        told(len(some))
    kept = np.flatnonzero(good[:count])
    kept = kept[np.argsort(order[kept])]
    if len(kept) == len(order) and (np.diff(kept) == 1).all():  # the usual case, in which nothing has to be copied
        return Looks(order, thumbnails, measures, failed, count == len(rows))
    return Looks(order[kept], thumbnails[kept], measures[kept], failed, count == len(rows))


def _seen(images: list[memoryview], geometry: Ints) -> tuple[Bytes, dict[int, str]]:
    """Return each image (B, _SEEN, _SEEN, 3), zeros where it cannot be decoded, and why, by place."""
    reasons = dict.fromkeys(np.flatnonzero(geometry[:, 0] == 0).tolist(), "its header cannot be read")
    places = [place for place in range(len(images)) if place not in reasons]
    jobs = np.zeros(len(places), JOB)
    jobs["box"][:, 2], jobs["box"][:, 3] = geometry[places, 1], geometry[places, 0]
    jobs["resized"], jobs["orientation"] = _SEEN, geometry[places, 2]
    out = np.zeros((len(places), _SEEN, _SEEN, 3), np.uint8)
    try:
        decode_batch([images[place] for place in places], jobs, out, profile="fast", threads=usable_cores())
    except BatchError as error:
        reasons |= {places[index]: reason for index, reason in error.failures.items()}
    if not reasons:
        return out, reasons
    seen = np.zeros((len(images), _SEEN, _SEEN, 3), np.uint8)
    seen[places] = out
    return seen, reasons


def _measured(seen: Bytes) -> tuple[Bytes, Floats]:
    """Return thumbnails and measures of (B, _SEEN, _SEEN, 3) images."""
    red, green, blue = (seen[..., channel].astype(np.uint16) * weight for channel, weight in enumerate(_GREY))
    grey = ((red + green + blue) >> 8).astype(np.int16)
    thumbnails = ((grey[:, ::2, ::2] + grey[:, 1::2, ::2] + grey[:, ::2, 1::2] + grey[:, 1::2, 1::2] + 2) >> 2).astype(
        np.uint8
    )
    flat = thumbnails.reshape(len(seen), -1)
    spread = flat.std(axis=1, dtype=np.float32)
    inner = 4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    sharpness = np.abs(inner).mean(axis=(1, 2), dtype=np.float32) / np.maximum(spread, 1)
    border = np.concatenate([seen[:, 0], seen[:, -1], seen[:, :, 0], seen[:, :, -1]], axis=1)
    low, high = np.percentile(flat, [5, 95], axis=1)
    colour = border.mean(axis=1, dtype=np.float32)
    edge = border.std(axis=1, dtype=np.float32).mean(axis=1)
    return thumbnails, np.column_stack([flat.mean(axis=1), spread, low, high, sharpness, colour, edge]).astype("f4")
