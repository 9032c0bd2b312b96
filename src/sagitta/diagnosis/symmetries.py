"""The eight symmetries of the square: a picture as it is, mirrored, turned by quarters, and both.

Each is a number of three bits: transpose (4), then turn the order of the lines (2), then of the columns (1).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sagitta.files import content_hash
from sagitta.images import decode

Ints = npt.NDArray[np.int64]

_MIRRORED, _UPSIDE, _TRANSPOSED = 1, 2, 4
SYMMETRIES = range(1, 8)
"""All but the picture as it is."""
WORDS = (
    "as it is", "mirrored", "mirrored top to bottom", "turned by 180 degrees",
    "turned by 90 degrees and mirrored", "turned by 90 degrees", "turned by 90 degrees",
    "turned by 90 degrees and mirrored",
)  # fmt: skip
"""What each does to a picture, in words that are as true of the way back."""


def turned(images: npt.NDArray[Any], symmetry: int) -> npt.NDArray[Any]:
    """Return a view of images (..., H, W) under a symmetry, 0..7."""
    if symmetry & _TRANSPOSED:
        images = images.swapaxes(-1, -2)
    if symmetry & _UPSIDE:
        images = images[..., ::-1, :]
    return images[..., ::-1] if symmetry & _MIRRORED else images


def turned_each(images: npt.NDArray[Any], symmetries: Ints) -> npt.NDArray[Any]:
    """Return square images (P, S, S), each under its own of symmetries (P,)."""
    found = images.copy()
    for symmetry in np.unique(symmetries).tolist():
        found[symmetries == symmetry] = turned(images[symmetries == symmetry], symmetry)
    return found


def turned_spectra(spectra: npt.NDArray[Any], symmetry: int) -> npt.NDArray[Any]:
    """Return cosine transforms (..., K, K) as they are of the images under a symmetry: odd frequencies change sign."""
    signs = np.where(np.arange(spectra.shape[-1]) % 2, -1, 1).astype(spectra.dtype)
    found = spectra.swapaxes(-1, -2) if symmetry & _TRANSPOSED else spectra
    if symmetry & _UPSIDE:
        found = found * signs[:, None]
    return found * signs if symmetry & _MIRRORED else found


def symmetric_hash(data: bytes | memoryview) -> str:
    """Return a digest of an image's upright pixels in RGB, the same for all copies that are mirrored or turned.

    Raises:
        ImageError: it cannot be decoded.
    """
    pixels = decode(data).transpose(2, 0, 1)
    views = (turned(pixels, symmetry) for symmetry in range(8))
    return min(f"{view.shape[2]}x{view.shape[1]}-{content_hash(view.tobytes())}" for view in views)
