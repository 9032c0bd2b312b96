"""What a machine computes at once: torch's threads, its memory, and the images of a pass without gradients."""

import ctypes
import os
import sys

import torch

from sagitta.pool import usable_cores

_CPU_BATCH, _DEVICE_BATCH = 4, 256  # see bench/busy.py
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
