"""Pillow's antialiased resize, of which only a window is made: what an image of any shape needs is bounded.

Pillow makes the whole resized image. Of a picture of 4x20000 pixels whose shorter side becomes 256 that is 256x1280000,
of which a model sees 224x224. The native core makes the window alone; this is the same for what it leaves to Pillow.
The pixels are Pillow's, bit for bit: weights with 22 fractional bits, one pass for each axis, rounded in between.
"""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Span = tuple[float, float]

_PRECISION = 32 - 8 - 2


def resize_window(
    source: Pixels, box: tuple[float, float, float, float], resized: tuple[int, int], window: tuple[int, int, int, int],
    *, bicubic: bool,
) -> Pixels:  # fmt: skip
    """Return a window of a resized part of an image.

    Args:
        source: (H, W, C) uint8.
        box: left, top, right, bottom of the part, in pixels of ``source``.
        resized: height and width of the whole part after the resize.
        window: top, left, height and width of what is wanted of it.
        bicubic: or bilinear.

    Returns:
        (height, width, C) uint8.
    """
    top, left, height, width = window
    # Pillow goes down first where that drops many more rows than the other way drops columns.
    rows, columns = source.shape[0] - resized[0], source.shape[1] - resized[1]
    across = (1, (box[0], box[2]), resized[1], left, width)
    down = (0, (box[1], box[3]), resized[0], top, height)
    for axis, span, whole, first, count in (down, across) if rows > 0 and rows > 2 * columns else (across, down):
        source = _resize_axis(source, axis, span, whole, first, count, bicubic=bicubic)
    return source


def _resize_axis(source: Pixels, axis: int, span: Span, whole: int, first: int, count: int, *, bicubic: bool) -> Pixels:
    """Resize one axis: outputs ``first`` to ``first + count`` of the ``whole`` that ``span`` becomes."""
    source = np.moveaxis(source, axis, 0)
    size = source.shape[0]
    out = np.empty((count, *source.shape[1:]), np.uint8)
    scale = (span[1] - span[0]) / whole
    stretch = max(scale, 1.0)
    support = (2.0 if bicubic else 1.0) * stretch
    for index in range(count):
        centre = span[0] + (first + index + 0.5) * scale
        start, end = max(0, int(centre - support + 0.5)), min(size, int(centre + support + 0.5))
        weights = (_cubic if bicubic else _linear)((np.arange(start, end) - centre + 0.5) * (1.0 / stretch))
        total = _sum(weights)
        shares = weights / total if total != 0.0 else weights
        fixed = (shares * (1 << _PRECISION) + np.where(shares < 0, -0.5, 0.5)).astype(np.int32)
        sums = np.full(source.shape[1:], 1 << (_PRECISION - 1), np.int32)
        for weight, samples in zip(fixed, source[start:end], strict=True):
            sums += samples.astype(np.int32) * weight
        out[index] = np.clip(sums >> _PRECISION, 0, 255)
    return np.moveaxis(out, 0, axis)


def _sum(weights: npt.NDArray[np.float64]) -> float:
    """Return the sum in order: numpy's pairwise one may differ in the last bit."""
    total = 0.0
    for weight in weights.tolist():
        total += weight
    return total


def _linear(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
