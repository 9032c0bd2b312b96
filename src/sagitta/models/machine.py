"""What a machine computes at once: torch's threads, and the images of a pass without gradients."""

import os

import torch

from sagitta.pool import usable_cores

_CPU_BATCH, _DEVICE_BATCH = 4, 256  # see bench/busy.py


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
