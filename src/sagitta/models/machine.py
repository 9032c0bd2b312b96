"""What a machine computes at once: torch's threads, its memory, and the images of a pass without gradients."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sagitta.pool import usable_cores

_CPU_BATCH, _DEVICE_BATCH = 4, 256  # see bench/busy.py
_FEW_PIXELS = 16_384  # 64 images of 16x16; a batch of MNIST has 100,352 and gains half from a second thread
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def inference_batch(device: torch.device) -> int:
    """Return how many images at a time a network sees on a device where nobody says it.

    On a CPU few: what lies between two layers stays near the cores, and is small enough for malloc to use again, where
    larger blocks come as fresh pages from the system each time. Too few would have the threads wait for one another at
    every layer, above all where other processes want the cores, too.
    """
    return _CPU_BATCH if device.type == "cpu" else _DEVICE_BATCH


def limit_threads() -> None:
    """Let torch have no more threads than this process may use cores; by itself it knows nothing of a quota."""
    cores = usable_cores()
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


@contextmanager
def threads_for(pixels: int) -> Iterator[None]:
    """Compute on one thread meanwhile where batches have few pixels.

    The threads of a small operation mostly wait for one another, and for as long as another process has their core: an
    epoch of scikit-learn's digits takes 0.4 s with one thread and with two, but 30 s with two beside one busy process.

    Args:
        pixels: of a batch.
    """
    before = torch.get_num_threads()
    try:
        if pixels < _FEW_PIXELS and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def reuse_memory() -> None:
    """Let malloc keep what is freed, on Linux: the next step of a training asks for blocks of the same sizes again.

    By itself glibc takes every block above 32 MB as fresh pages from the system and gives them back, which costs a
    fifth of a training step of mobilenetv2_100 (LOG.md). What the process has at most in use stays the same.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
