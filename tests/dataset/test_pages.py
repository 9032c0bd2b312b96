import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagitta.dataset.pages import NOT_PLAIN, NULL, PageError, locate_values

HEADER = bytes(
    [
        *(0x15, 0x00),  # field 1: type, data page
        *(0x15, 30),  # field 2: uncompressed size, 15 as zigzag
        *(0x15, 30),  # field 3: compressed size
        *(0x2C, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0),  # field 5: 3 values, PLAIN, levels RLE, RLE
        0,
    ]
)
LEVELS = bytes([2, 0, 0, 0, 0b11, 0b101])  # two bytes: a bit-packed group of levels 1 0 1
BODY = LEVELS + b"\1\0\0\0a" + b"\0\0\0\0"
CHUNK = HEADER + BODY


def test_a_page_by_hand() -> None:
    offsets, lengths = locate_values(b"PAR1" + CHUNK, 4, len(CHUNK), 3, 1)
    first = 4 + len(HEADER) + len(LEVELS) + 4
    assert offsets.tolist() == [first, NULL, first + 5]
    assert lengths.tolist() == [1, 0, 0]
    assert (offsets.dtype, lengths.dtype) == (np.dtype(np.int64), np.dtype(np.uint32))


def test_a_page_in_another_encoding_is_passed_over() -> None:
    dictionary = bytearray(CHUNK)
    dictionary[10] = 16  # encoding 8: RLE_DICTIONARY
    offsets, _ = locate_values(bytes(dictionary) + CHUNK, 0, 2 * len(CHUNK), 6, 1)
    assert offsets.tolist()[:3] == [NOT_PLAIN] * 3
    assert offsets[3] > 0


@pytest.mark.parametrize(
    ("count", "chunk", "value", "reason"),
    [
        (4, CHUNK, 3, "hold 3 of the 4 values"),
        (2, CHUNK, 0, "hold more than the 2 values"),
        (6, CHUNK + CHUNK[:9], 3, "no valid page header"),
        (3, CHUNK[:-1], 0, "no valid page header"),
        (3, HEADER + LEVELS + b"\2\0\0\0a" + b"\0\0\0\0", 0, "does not fit its page"),
        (3, HEADER + LEVELS + b"\0\0\0\0" + b"\0\0\0\0a", 2, "the values end at"),
        (3, HEADER + b"\2\0\0\0\0\1" + BODY[6:], 0, "levels end early"),
        (3, HEADER + b"\xff\0\0\0" + BODY[4:], 0, "no valid page header"),
    ],
)
def test_damage_is_named_with_its_value(count: int, chunk: bytes, value: int, reason: str) -> None:
    with pytest.raises(PageError, match=reason) as caught:
        locate_values(chunk, 0, len(chunk), count, 1)
    assert caught.value.value == value


@settings(max_examples=300, deadline=None)
@given(chunk=st.binary(max_size=80), damage=st.lists(st.tuples(st.integers(0, 31), st.integers(0, 255)), max_size=4))
def test_any_bytes_are_located_or_refused(chunk: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(CHUNK)
    for at, byte in damage:
        damaged[at % len(damaged)] = byte
    for data in (chunk, bytes(damaged)):
        try:
            offsets, lengths = locate_values(data, 0, len(data), 3, 1)
        except PageError:
            continue
        assert (offsets + lengths <= len(data)).all()


@settings(max_examples=50, deadline=None)
@given(nulls=st.lists(st.integers(0, 2), min_size=1, max_size=300), version=st.sampled_from(["1.0", "2.0"]))
def test_levels_of_nested_nulls(tmp_path_factory: pytest.TempPathFactory, nulls: list[int], version: str) -> None:
    # 0: no struct, 1: a struct without bytes, 2: both
    column = pa.array([None if level == 0 else {"bytes": b"x" if level == 2 else None} for level in nulls])
    column = column.cast(pa.struct([("bytes", pa.binary())]))
    path = tmp_path_factory.mktemp("levels") / "x.parquet"
    pq.write_table(
        pa.table({"image": column}), path, compression="none", use_dictionary=False, data_page_version=version
    )
    chunk = pq.read_metadata(path).row_group(0).column(0)
    offsets, _ = locate_values(mapped(path), chunk.data_page_offset, chunk.total_compressed_size, len(nulls), 2)
    assert [offset >= 0 for offset in offsets.tolist()] == [level == 2 for level in nulls]


def mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
