import os
import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.dataset import parquet
from sagitta.dataset.parquet import RowGroups, as_array, identity, read_column


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
