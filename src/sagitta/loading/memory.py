"""Memory for batches: fresh pages cost as much as filling them, so what a consumer has dropped is used again."""

import mmap
import weakref
from collections import deque
from math import prod

import numpy as np
import torch
from torch import Tensor

_HUGE = 2 * 2**20  # bytes: smaller blocks gain nothing, malloc keeps them anyway
_free: dict[int, deque[mmap.mmap]] = {}  # by size


def empty(shape: tuple[int, ...], dtype: torch.dtype, *, pinned: bool = False) -> Tensor:
    """Return an uninitialised contiguous tensor on the host.

    Its memory goes to the next caller as soon as the last tensor that looks at it is gone, so there is never more of it
    than was in use at one time.

    Args:
        shape: of the tensor.
        dtype: of the tensor.
        pinned: page-locked, for asynchronous copies to a GPU; torch itself uses such memory again.
    """
    size = prod(shape) * dtype.itemsize
    if pinned or size < _HUGE:
        return torch.empty(shape, dtype=dtype, pin_memory=pinned)
    blocks = _free.setdefault(size, deque())
    try:
        block = blocks.pop()
    except IndexError:
        block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(block, np.uint8)
    weakref.finalize(array, blocks.append, block).atexit = False
    return torch.from_numpy(array).view(dtype).view(shape)
