"""A sidecar is believed when it is what was written for these files; else it is made anew."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.dataset.index import Index, open_index
from sagitta.dataset.pages import NOT_PLAIN, NULL
from sagitta.errors import DatasetError

IMAGES = [b"image %d" % (row * 7919) for row in range(40)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pq.write_table(
        pa.table({"image": IMAGES}), tmp_path / "x.parquet", row_group_size=15, compression="none", use_dictionary=False
    )
    return tmp_path / "x.parquet"


def opened(path: Path) -> Index:
    return open_index(path.parent, None, "train", [path], "image")


def damaged(data: bytes, count: int) -> Iterator[bytes]:
    """Yield so many copies with one flipped bit, and the shorter and longer ones."""
    rng = random.Random(0)
    for _ in range(count):
        other, bit = bytearray(data), rng.randrange(8 * len(data))
        other[bit // 8] ^= 1 << bit % 8
        yield bytes(other)
    yield from (data[:size] for size in (0, 1, 32, 33, 40, len(data) - 12, len(data) - 1))
    yield from (data + b"\0", data + data, data[:-12] + data[-4:] + data[-12:-4])


def test_the_layout_of_a_sidecar(path: Path) -> None:
    index = opened(path)
    assert index.sidecar == path.parent / ".sagitta-index" / "train.index"
    data = index.sidecar.read_bytes()
    digest, head, payload = data.split(b"\n", 2)
    assert len(digest) == 32 and b"x.parquet" in head and head.rstrip().endswith(b", [40]]")
    assert (len(digest) + len(head) + 2) % 8 == 0
    content = path.read_bytes()
    offsets, lengths = np.frombuffer(payload, "<i8", 40), np.frombuffer(payload, "<u4", 40, 320)
    assert [content[at : at + size] for at, size in zip(offsets, lengths, strict=True)] == IMAGES


def test_a_damaged_sidecar_is_never_used_and_is_replaced(path: Path) -> None:
    first = opened(path)
    sidecar = path.parent / ".sagitta-index" / "train.index"
    whole = sidecar.read_bytes()
    for data in damaged(whole, 300):
        sidecar.write_bytes(data)
        index = opened(path)
        assert (index.offsets == first.offsets).all() and (index.lengths == first.lengths).all()
        assert index.rows == (40,)
        assert sidecar.read_bytes() == whole


def test_nothing_is_left_where_no_sidecar_comes_of_it(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n\0\0\0image 7919", b"\n\0\0\1image 7919"))
    with pytest.raises(DatasetError, match="row 1: damaged"):
        opened(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_sidecar_is_taken_up_and_forgotten(path: Path) -> None:
    opened(path)
    sidecar = path.parent / ".sagitta-index" / "train.index"
    inode = sidecar.stat().st_ino
    index = opened(path)
    assert sidecar.stat().st_ino == inode
    index.forget()
    index.forget()  # another process may have done it before
    assert not sidecar.exists()


def test_what_is_no_plain_image_has_no_place(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"a", None]}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    pq.write_table(pa.table({"image": [b"a", None]}), tmp_path / "b.parquet", compression="zstd")
    index = open_index(tmp_path, None, "train", [tmp_path / "a.parquet", tmp_path / "b.parquet"], "image")
    assert index.rows == (2, 2)
    assert index.offsets[0] > 4 and index.offsets[1:].tolist() == [NULL, NOT_PLAIN, NOT_PLAIN]
