import mmap
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sagitta.loading import memory

SHAPE = (64, 3, 128, 128)


class Counted(memory.Blocks):
    """Counts the blocks that it has had to make."""

    made = 0

    def _new(self, size: int) -> mmap.mmap:
        self.made += 1
        return super()._new(size)


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Of this test alone."""
    blocks = Counted()
    monkeypatch.setattr(memory, "_blocks", blocks)
    return blocks


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


def test_sizes_that_do_not_come_again_are_given_back(blocks: Counted) -> None:
    """Of 40 batch sizes, each with bytes and floats, no more stays than three times what was in use at one time."""
    most = 0
    for count in range(64, 144, 2):
        for _ in range(3):
            images = memory.empty((count, 128, 128, 3), torch.uint8)
            batch = memory.empty((count, 3, 128, 128), torch.float32)
            most = max(most, images.nbytes + batch.nbytes)
            del images, batch
        assert blocks.mapped <= 3 * most


def test_sizes_that_come_in_turns_all_find_their_memory_again(blocks: Counted) -> None:
    """Also where much of one is in use while the other is free."""

    def turn() -> None:
        several = [memory.empty((64, 128, 128, 3), torch.uint8) for _ in range(6)]
        while several:
            del several[0]
            batch = memory.empty(SHAPE, torch.float32)
            del batch

    turn()
    made = blocks.made
    for _ in range(5):
        turn()
    assert blocks.made == made


def test_many_threads_share_it_and_no_two_have_the_same(blocks: Counted) -> None:
    def fill(number: int) -> bool:
        array = memory.empty((3 * 2**20 + number % 4 * 4096,), torch.uint8).fill_(number % 251)
        return bool((array == number % 251).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fill, range(200)))
    assert blocks.mapped <= 3 * 8 * 2**22
