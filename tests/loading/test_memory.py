import gc
import weakref

import pytest
import torch

from sagitta.loading import memory

SHAPE = (64, 3, 128, 128)


@pytest.fixture(autouse=True)
def nothing_free() -> None:
    gc.collect()
    memory._free.clear()


def test_memory_is_used_again_when_nobody_looks_at_it_any_more() -> None:
    first = memory.empty(SHAPE, torch.float32)
    address, view = first.data_ptr(), first[3].flip(0)[None]
    window = first[1:]
    del first
    second = memory.empty(SHAPE, torch.float32)
    assert second.data_ptr() != address  # `window` still looks at it
    window.fill_(1)
    second.fill_(2)
    assert (window == 1).all()
    del window, view
    assert memory.empty(SHAPE, torch.float32).data_ptr() == address


def test_another_type_of_the_same_size_takes_the_same_memory() -> None:
    address = memory.empty(SHAPE, torch.float32).data_ptr()
    images = memory.empty((4 * 64, 3, 128, 128), torch.uint8)
    assert images.data_ptr() == address
    assert images.is_contiguous()
    assert images.shape == (256, 3, 128, 128)


def test_numpy_keeps_it_as_well() -> None:
    array = memory.empty(SHAPE, torch.float32).numpy()
    array[:] = 3
    other = memory.empty(SHAPE, torch.float32).fill_(4)
    assert (array == 3).all()
    assert other.data_ptr() != array.ctypes.data


def test_small_ones_are_ordinary_tensors() -> None:
    small = memory.empty((2, 3), torch.uint8)
    assert small.shape == (2, 3)
    gone = weakref.ref(small)
    del small
    assert gone() is None
