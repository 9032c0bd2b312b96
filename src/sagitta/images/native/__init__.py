"""The compiled core behind ``decode``: a plain C library, called through ctypes so that it runs without the GIL.

``setup.py`` builds it where a C++ compiler and libjpeg-turbo's header are found. Without it, or with the environment
variable ``SAGITTA_NATIVE=0``, ``decode`` gives the same pixels through Pillow.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Affine = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

_POINTER = ctypes.c_void_p
_JOB_BYTES, _CUT_BYTES = 36, 24  # by the core's own assertions

INTERFACE = 1
"""Must equal the core's ``sagitta_interface()``; raise both when a function, its arguments or their meaning change."""

_FILE = Path(__file__).with_name("core.so")  # no Python's name in it; whatever else lies here was built before


def library() -> ctypes.CDLL | None:
    """Return the loaded core, or None where it is missing; :func:`missing_core` says why."""
    return None if switched_off() else _load(_FILE)[0]


def missing_core() -> str | None:
    """Return None where the core is used, else one line: why it is not, and the remedy."""
    if switched_off():
        return "the native core is switched off: unset SAGITTA_NATIVE"
    reason = _load(_FILE)[1]
    return reason and f"the native core {reason}"


def switched_off() -> bool:
    """Return whether the environment forbids the core."""
    return os.environ.get("SAGITTA_NATIVE") == "0"


@cache
def _load(path: Path) -> tuple[ctypes.CDLL | None, str | None]:
    """Return the core, or why there is none and what to do."""
    if not path.exists():
        return None, (
            "is not built: install a C++ compiler and libjpeg-turbo's headers (libjpeg-turbo8-dev, "
            "libjpeg62-turbo-dev or libjpeg-turbo-devel), then install sagitta again"
        )
    try:
        core = ctypes.CDLL(str(path))
    except OSError as error:  # such as a libjpeg that this machine lacks
        reason = " ".join(str(error).split())
        return None, f"is built but does not load ({reason}): install libjpeg-turbo, or install sagitta again"
    found = core.sagitta_interface() if hasattr(core, "sagitta_interface") else 0
    if found != INTERFACE:
        return None, (
            f"was built by another version (its interface is {found}, not {INTERFACE}): install sagitta again, "
            "in its source folder with `python setup.py build_ext --inplace`"
        )
    return _declare(core), None


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

    Raises:
        ValueError: shapes or types do not fit together.
    """
    _check(out, np.uint8, (len(images), *out.shape[1:]), contiguous=True)
    if jobs.shape != (len(images),) or jobs.dtype.itemsize != _JOB_BYTES or out.shape[3] not in (1, 3):
        raise ValueError(f"{len(images)} images need as many jobs, and one or three channels, not {out.shape}")
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
    affine: Affine | None,
) -> None:
    """Write into ``out`` a window of each chosen image: bytes, or floats after scale and shift.

    Args:
        core: the library.
        images: (N, C, H, W), C-contiguous.
        cuts: (B,) of ``pixels.CUT``.
        out: (B, C, h, w), C-contiguous, float32 with ``affine``.
        affine: what bytes are multiplied by, and what is added then, (C,) each.

    Raises:
        ValueError: shapes or types do not fit together, or a window does not lie inside of its image.
    """
    kind = np.uint8 if affine is None else np.float32
    _check(images, np.uint8, images.shape, contiguous=True)
    _check(out, kind, (len(cuts), images.shape[1], *out.shape[2:]), contiguous=True)
    _check_affine(affine, images.shape[1])
    room = np.array(images.shape[2:]) - out.shape[2:]
    if len(cuts) and not (
        cuts.dtype.itemsize == _CUT_BYTES
        and cuts.flags.c_contiguous
        and 0 <= cuts["row"].min() <= cuts["row"].max() < len(images)
        and 0 <= cuts["top"].min() <= cuts["top"].max() <= room[0]
        and 0 <= cuts["left"].min() <= cuts["left"].max() <= room[1]
    ):
        raise ValueError(f"a window of {out.shape[2:]} does not lie inside of {len(images)} images {images.shape[2:]}")
    change = (None, None) if affine is None else (affine[0].ctypes.data, affine[1].ctypes.data)
    core.sagitta_cut_out(
        len(cuts), images.ctypes.data, *images.shape[1:], cuts.ctypes.data, *out.shape[2:], *change, out.ctypes.data
    )


def normalize(
    core: ctypes.CDLL,
    images: npt.NDArray[np.uint8],
    out: npt.NDArray[np.float32],
    affine: Affine,
) -> None:
    """Write into ``out`` the bytes as floats after scale and shift.

    Args:
        core: the library.
        images: (B, C, H, W), the memory in this order or with the channels last.
        out: (B, C, H, W), C-contiguous.
        affine: what bytes are multiplied by, and what is added then, (C,) each.

    Raises:
        ValueError: shapes or types do not fit together.
    """
    count, channels, height, width = images.shape
    last = images.transpose(0, 2, 3, 1).flags.c_contiguous
    _check(images, np.uint8, images.shape, contiguous=not last)
    _check(out, np.float32, images.shape, contiguous=True)
    _check_affine(affine, channels)
    change = (affine[0].ctypes.data, affine[1].ctypes.data)
    core.sagitta_normalize(
        count, height * width, channels, not images.flags.c_contiguous, images.ctypes.data, *change, out.ctypes.data
    )


def _check(array: npt.NDArray[Any], kind: npt.DTypeLike, shape: tuple[int, ...], *, contiguous: bool) -> None:
    """Raise where the core would read or write beside an array."""
    if array.dtype != kind or array.shape != shape or array.ndim != 4 or (contiguous and not array.flags.c_contiguous):
        raise ValueError(f"the core needs {shape} of {np.dtype(kind)}, contiguous, not {array.shape} of {array.dtype}")


def _check_affine(affine: Affine | None, channels: int) -> None:
    for each in affine or ():
        if each.shape != (channels,) or each.dtype != np.float32 or not each.flags.c_contiguous:
            raise ValueError(f"{channels} channels need as many float32 each to scale and to shift, not {each.shape}")


def libjpeg(core: ctypes.CDLL) -> str:
    """Return the version of libjpeg-turbo that the core was compiled against."""
    return str(core.sagitta_libjpeg().decode())
