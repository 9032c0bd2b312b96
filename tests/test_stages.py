import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sagitta.stages import cut


def test_blocks_end_at_so_many_bytes_or_rows() -> None:
    sizes = np.array([4, 4, 4, 9, 1, 1, 1, 1])
    #        bytes before: 0  4  8  12 21 22 23 24; a block spans ten bytes of them
    assert cut(sizes, 10, 100) == [slice(0, 3), slice(3, 4), slice(4, 8)]
    assert cut(sizes, 100, 3) == [slice(0, 3), slice(3, 6), slice(6, 8)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 100), st.integers(1, 20))
def test_blocks_cover_all_rows_and_keep_their_bounds(sizes: list[int], most_bytes: int, most_rows: int) -> None:
    blocks = cut(np.array(sizes), most_bytes, most_rows)
    assert [row for block in blocks for row in range(len(sizes))[block]] == list(range(len(sizes)))
    for block in blocks:
        assert len(sizes[block]) <= most_rows
        assert sum(sizes[block][:-1]) <= most_bytes
