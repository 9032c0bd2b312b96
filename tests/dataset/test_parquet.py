import os
import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.dataset import parquet
from sagitta.dataset.parquet import Chunk, RowGroups, as_array, identity, read_chunks, read_column
from sagitta.dataset.shards import ShardSet
from sagitta.errors import DatasetError


def test_identity_is_that_of_size_and_footer(tmp_path: Path) -> None:
    for name, values in (("a", [1, 2]), ("b", [1, 2]), ("c", [1, 3])):
        pq.write_table(pa.table({"x": values}), tmp_path / name)
    assert identity(tmp_path / "a") == identity(tmp_path / "b") != identity(tmp_path / "c")
    assert identity(tmp_path / "a")[0] == (tmp_path / "a").stat().st_size


def test_a_column_of_several_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([1, 2], pa.int64()), "s": [{"p": "a"}, None]}), tmp_path / "a")
    pq.write_table(pa.table({"x": pa.array([3], pa.int32()), "s": [{"p": "b"}]}), tmp_path / "b")
    files = [tmp_path / "a", tmp_path / "b"]
    numbers, paths = read_column(files, "x"), read_column(files, "s.p")
    assert numbers is not None
    assert paths is not None
    assert numbers.to_pylist() == [1, 2, 3]
    assert paths.to_pylist() == ["a", None, "b"]
    assert read_column(files, "y") is None


def test_text_that_is_not_utf_8_is_refused_unless_asked_for(tmp_path: Path) -> None:
    text = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], "<i4")), pa.py_buffer(b"a\xff"))
    pq.write_table(pa.table({"x": text, "image": [b"", b""], "label": text}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=r"x.parquet: cannot be read .*UTF8"):
        read_column([tmp_path / "x.parquet"], "x")
    with pytest.raises(DatasetError, match=r"x.parquet: cannot be read .*UTF8"):
        ShardSet.open(tmp_path)
    column = read_column([tmp_path / "x.parquet"], "x", any_text=True)
    assert column is not None and column[0].as_py() == "a"


def test_chunks_are_what_arrow_says(tmp_path: Path) -> None:
    path, rng = tmp_path / "x.parquet", np.random.default_rng(0)
    table = pa.table(
        {"image": pa.array([{"bytes": rng.bytes(99), "path": "p"}] * 25), "labels": [[1, 2], []] * 12 + [[3]]}
    )
    for compression in ("none", "zstd"):
        pq.write_table(table, path, row_group_size=10, compression=compression)
        metadata = pq.read_metadata(path)
        for number, leaf in enumerate(("image.bytes", "image.path", "labels.list.element")):
            for group, chunk in enumerate(read_chunks(path, leaf)):
                column = metadata.row_group(group).column(number)
                assert column.path_in_schema == leaf
                assert chunk == Chunk(
                    metadata.row_group(group).num_rows,
                    column.num_values,
                    column.dictionary_page_offset or column.data_page_offset,
                    column.total_compressed_size,
                    column.total_uncompressed_size,
                    compression != "none",
                )
    with pytest.raises(DatasetError, match="0 columns nothing"):
        read_chunks(path, "nothing")


def test_more_rows_than_bytes_are_believed_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": pa.nulls(5000, pa.binary())}), path)
    assert path.stat().st_size < 5000
    assert [chunk.rows for chunk in read_chunks(path, "image")] == [5000]
    monkeypatch.setattr(parquet, "_FREE_ROWS", 4999)
    with pytest.raises(DatasetError, match=r"x.parquet: its footer is damaged \(5,000 rows, 5,000 in row groups"):
        read_chunks(path, "image")


@pytest.mark.parametrize("values", [[[1, 2], [3]], [[5], [4], [6]], [["a", None], ["b"]], [[1.5], [None]]])
def test_arrays(values: list[list[object]]) -> None:
    column = pa.chunked_array(values)
    expected = column.to_pylist()
    assert [None if value != value else value for value in as_array(column).tolist()] == expected


def test_arrays_of_nothing() -> None:
    empty = as_array(pa.chunked_array([], pa.int32()))
    assert (len(empty), empty.dtype.name) == (0, "int32")


def test_numbers_are_read_without_pandas(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"a", b"b"], "label": [0, 1]}), tmp_path / "x.parquet")
    script = (
        "import sys; from sagitta.dataset import ShardSet; split = ShardSet.open(sys.argv[1]).splits['train'];"
        "assert split.labels.tolist() == [0, 1]; assert not {'pandas', 'torch'} & set(sys.modules)"
    )
    run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_row_groups_are_kept_up_to_a_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = [rng.bytes(1000) for _ in range(40)]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet", row_group_size=10)
    monkeypatch.setattr(parquet, "_ROW_GROUP_BYTES", 25_000)
    groups = RowGroups([tmp_path / "x.parquet"], "image")
    for row in (0, 39, 10, 0, 25, *range(40)):
        assert groups.read(0, row) == images[row]
        assert len(groups._kept) <= 2


def test_row_groups_leave_no_file_open(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.parquet" for number in range(20)]
    for path in files:
        pq.write_table(pa.table({"image": [path.name.encode()]}), path)
    groups = RowGroups(files, "image")
    assert [groups.read(number, 0) for number in range(20)] == [path.name.encode() for path in files]
    held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]  # noqa: PTH208
    assert not [name for name in held if name.startswith(str(tmp_path))]
