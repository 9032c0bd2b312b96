"""The compiled core behind ``decode``: a plain C library, called through ctypes so that it runs without the GIL.

``setup.py`` builds it where a C++ compiler and libjpeg-turbo's header are found. Without it, or with the environment
variable ``SAGITTA_NATIVE=0``, ``decode`` gives the same pixels through Pillow.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import numpy.typing as npt

_POINTER = ctypes.c_void_p


def library() -> ctypes.CDLL | None:
    """Return the loaded core, or None where it is not built, does not load or is switched off."""
    return None if switched_off() else _load()


def switched_off() -> bool:
    """Return whether the environment forbids the core."""
    return os.environ.get("SAGITTA_NATIVE") == "0"


@cache
def _load() -> ctypes.CDLL | None:
    for path in (Path(__file__).with_name(f"core{suffix}") for suffix in EXTENSION_SUFFIXES):
        if path.exists():
            try:
                return _declare(ctypes.CDLL(str(path)))
            except OSError:  # built against a libjpeg that this machine lacks
                return None
    return None


def _declare(core: ctypes.CDLL) -> ctypes.CDLL:
    core.sagitta_decode_batch.argtypes = [ctypes.c_int64, *[_POINTER] * 4, *[ctypes.c_int] * 6, _POINTER]
    core.sagitta_decode_batch.restype = None
    core.sagitta_add_restart_markers.argtypes = [_POINTER, ctypes.c_uint64, _POINTER]
    core.sagitta_add_restart_markers.restype = ctypes.c_uint64
    core.sagitta_free.argtypes = [_POINTER]
    core.sagitta_free.restype = None
    core.sagitta_libjpeg.restype = ctypes.c_char_p
    core.sagitta_cut_out.argtypes = [ctypes.c_int64, _POINTER, *[ctypes.c_int] * 3, _POINTER, *[ctypes.c_int] * 2]
    core.sagitta_cut_out.argtypes += [_POINTER] * 3
    core.sagitta_cut_out.restype = None
    core.sagitta_normalize.argtypes = [*[ctypes.c_int64] * 2, *[ctypes.c_int] * 2, *[_POINTER] * 4]
    core.sagitta_normalize.restype = None
    return core


def decode_batch(
    core: ctypes.CDLL,
    images: Sequence[bytes | memoryview],
    jobs: npt.NDArray[np.void],
    out: npt.NDArray[np.uint8],
    *,
    bicubic: bool,
    fast: bool,
    threads: int,
) -> npt.NDArray[np.bool_]:
    """Do the jobs of ``decode.decode_batch`` that the core can do.

    Returns:
        (B,) bool: True where ``out`` is written, False where the image is left to Pillow, which decodes or refuses it.
    """
    views = [np.frombuffer(image, np.uint8) for image in images]
    files = np.array([view.__array_interface__["data"][0] for view in views], np.uint64)
    sizes = np.array([view.size for view in views], np.uint64)
    jobs = np.ascontiguousarray(jobs)
    done = np.zeros(len(views), np.bool_)
    _, height, width, channels = out.shape
    core.sagitta_decode_batch(
        len(views),
        files.ctypes.data,
        sizes.ctypes.data,
        jobs.ctypes.data,
        out.ctypes.data,
        height,
        width,
        channels,
        int(bicubic),
        int(fast),
        threads,
        done.ctypes.data,
    )
    return done


def add_restart_markers(core: ctypes.CDLL, data: bytes | memoryview) -> bytes | None:
    """Return ``data`` with one restart interval per row of MCUs, or None where that cannot be proven lossless."""
    view = np.frombuffer(data, np.uint8)
    out = ctypes.c_void_p()
    size = core.sagitta_add_restart_markers(view.ctypes.data, view.size, ctypes.byref(out))
    if not size:
        return None
    try:
        return ctypes.string_at(out, size)
    finally:
        core.sagitta_free(out)


def cut_out(
    core: ctypes.CDLL,
    images: npt.NDArray[np.uint8],
    cuts: npt.NDArray[np.void],
    out: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    affine: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None,
) -> None:
    """Write into ``out`` a window of each chosen image: bytes, or floats after scale and shift.

    Args:
        core: the library.
        images: (N, C, H, W), C-contiguous.
        cuts: (B,) of ``thumbnails.CUT``; windows must lie inside of the images, nobody checks.
        out: (B, C, h, w), C-contiguous, float32 with ``affine``.
        affine: what bytes are multiplied by, and what is added then, (C,) each.
    """
    change = (None, None) if affine is None else (affine[0].ctypes.data, affine[1].ctypes.data)
    core.sagitta_cut_out(
        len(cuts), images.ctypes.data, *images.shape[1:], cuts.ctypes.data, *out.shape[2:], *change, out.ctypes.data
    )


def normalize(
    core: ctypes.CDLL,
    images: npt.NDArray[np.uint8],
    out: npt.NDArray[np.float32],
    affine: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
) -> None:
    """Write into ``out`` the bytes as floats after scale and shift.

    Args:
        core: the library.
        images: (B, C, H, W), the memory in this order or with the channels last.
        out: (B, C, H, W), C-contiguous.
        affine: what bytes are multiplied by, and what is added then, (C,) each.
    """
    count, channels, height, width = images.shape
    change = (affine[0].ctypes.data, affine[1].ctypes.data)
    core.sagitta_normalize(
        count, height * width, channels, not images.flags.c_contiguous, images.ctypes.data, *change, out.ctypes.data
    )


def libjpeg(core: ctypes.CDLL) -> str:
    """Return the version of libjpeg-turbo that the core was compiled against."""
    return str(core.sagitta_libjpeg().decode())
