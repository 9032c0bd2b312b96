"""Memory for batches: fresh pages cost as much as filling them, so what a consumer has dropped is used again."""

import mmap
import threading
import weakref
from collections import deque
from math import prod

import numpy as np
import torch
from torch import Tensor

_HUGE = 2 * 2**20  # bytes: smaller blocks gain nothing, malloc keeps them anyway


class Blocks:
    """Blocks of memory by size, used again; those that nobody has use at most twice what was in use at one time.

    Batches of one loader have two or three sizes, which come and go in turns and all find their blocks again. Of sizes
    that do not come any more, the blocks that have been free for longest are given back to the system.

    Attributes:
        mapped: bytes of all blocks.
    """

    def __init__(self) -> None:
        self.mapped = 0
        self._most = 0  # bytes in use at one time so far
        self._free: dict[int, list[mmap.mmap]] = {}  # by size; the sizes that have been free for longest stand first
        # Where a finalizer puts a block: it may run in any thread at any moment, so also while this one has the lock.
        self._returned: deque[mmap.mmap] = deque()
        self._lock = threading.Lock()

    def take(self, size: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
        """Return uninitialised bytes (size,), which are free again when the last view of them is gone."""
        with self._lock:
            self._put_back()
            blocks = self._free.get(size, [])
            block = blocks.pop() if blocks else self._new(size)
            if not blocks:
                self._free.pop(size, None)
            free = sum(size * len(blocks) for size, blocks in self._free.items())
            self._most = max(self._most, self.mapped - free)
            self._give_back(free - 2 * self._most)
        array = np.frombuffer(block, np.uint8)
        weakref.finalize(array, self._returned.append, block).atexit = False
        return array

    def _put_back(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._free.setdefault(len(block), []).append(block)

    def _new(self, size: int) -> mmap.mmap:
        block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.madvise(mmap.MADV_HUGEPAGE)
        self.mapped += size
        return block

    def _give_back(self, excess: int) -> None:
        """Unmap free blocks until so many bytes are gone."""
        while excess > 0:
            size = next(iter(self._free))
            self._free[size].pop()  # unmapped with its last reference
            self.mapped -= size
            excess -= size
            if not self._free[size]:
                del self._free[size]


_blocks = Blocks()


def empty(shape: tuple[int, ...], dtype: torch.dtype, *, pinned: bool = False) -> Tensor:
    """Return an uninitialised contiguous tensor on the host.

    Its memory goes to the next caller as soon as the last tensor that looks at it is gone.

    Args:
        shape: of the tensor.
        dtype: of the tensor.
        pinned: page-locked, for asynchronous copies to a GPU; torch itself uses such memory again.
    """
    size = prod(shape) * dtype.itemsize
    if pinned or size < _HUGE:
        return torch.empty(shape, dtype=dtype, pin_memory=pinned)
    return torch.from_numpy(_blocks.take(size)).view(dtype).view(shape)
