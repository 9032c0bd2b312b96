"""Files of predictions: three formats, and tables that go on where a process was killed."""

import csv
import json
import resource
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.errors import ConfigError
from sagitta.evaluation.output import Unfinished, check_output, unfinished

SCHEMA = pa.schema(
    [("path", pa.string()), ("p", pa.float32()), ("labels", pa.list_(pa.string())), ("v", pa.list_(pa.float32(), 2))]
)
KEY: dict[str, object] = {"run": ["a"], "options": {"top_k": 5}, "images": [4, "x"]}


def batch(start: int) -> pa.RecordBatch:
    rows = [
        {"path": f'a "{start}",\nä.jpg', "p": 0.3, "labels": ["x", "y"], "v": [0.1, 2]},
        {"path": f"{start + 1}.png", "p": None, "labels": None, "v": None},
    ]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def make(output: Path, *, stop: int = 2, key: Mapping[str, object] = KEY) -> Unfinished:
    """Predict up to four rows, of which those before ``stop`` are kept."""
    with unfinished(output, key, SCHEMA) as table:
        for start in range(table.before, stop * 2, 2):
            table.add(batch(start), {"unreadable": 1})
        if stop == 2:
            table.finish(output)
    return table


def test_the_three_formats_hold_the_same(tmp_path: Path) -> None:
    outputs = [tmp_path / f"found{suffix}" for suffix in (".csv", ".parquet", ".jsonl")]
    for output in outputs:
        make(output)
    with outputs[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"path": 'a "0",\nä.jpg', "p": "0.3", "labels": "x;y", "v": "0.1;2"} and len(rows) == 4
    assert rows[1] == {"path": "1.png", "p": "", "labels": "", "v": ""}
    table = pq.read_table(outputs[1])
    assert table.schema == SCHEMA and table.num_rows == 4
    lines = outputs[2].read_text().splitlines()
    assert [json.loads(line) for line in lines[:2]] == [
        {"path": 'a "0",\nä.jpg', "p": 0.3, "labels": ["x", "y"], "v": [0.1, 2.0]},
        {"path": "1.png", "p": None, "labels": None, "v": None},
    ]
    assert '"p": 0.3,' in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in outputs)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_what_was_interrupted_ends_with_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    whole, output = tmp_path / f"whole{suffix}", tmp_path / f"found{suffix}"
    make(whole)
    assert make(output, stop=1).before == 0 and not output.exists()
    partial = tmp_path / f"found{suffix}.partial"
    assert partial.read_bytes().startswith(b"unfinished predictions")
    size = partial.stat().st_size
    for torn in (0, 1, 30, 200):  # bytes of a frame that a kill has left
        partial.write_bytes(partial.read_bytes()[:size] + b"\1" * torn)
        assert make(output, stop=1).before == 2 and partial.stat().st_size == size
    table = make(output)
    assert table.before == 2 and [told["rows"] for told in table.told] == [2, 2] and not table.other
    assert output.read_bytes() == whole.read_bytes() and not partial.exists()


def test_a_frame_that_is_cut_off_or_changed_is_not_taken(tmp_path: Path) -> None:
    output, partial = tmp_path / "found.csv", tmp_path / "found.csv.partial"
    make(output, stop=1)
    data = partial.read_bytes()
    for damaged in (data[:-1], data[:-5] + bytes([data[-5] ^ 1]) + data[-4:], data[:20], b""):
        partial.write_bytes(damaged)
        assert make(output, stop=0).before == 0
        make(output, stop=1)
        assert partial.read_bytes() == data


def test_what_is_of_another_table_is_begun_anew_and_it_is_said_why(tmp_path: Path) -> None:
    make(tmp_path / "found.csv", stop=1)
    table = make(tmp_path / "found.csv", stop=1, key=KEY | {"options": {"top_k": 1}, "run": []})
    assert table.before == 0 and table.other == ["run", "options"]
    assert make(tmp_path / "found.csv", stop=1).other == ["run", "options"]


def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "found.csv.partial").write_text("mine")
    with pytest.raises(ConfigError, match=r"found\.csv\.partial: in the way"):
        make(tmp_path / "found.csv")
    assert (tmp_path / "found.csv.partial").read_text() == "mine"


def test_no_room_names_the_file_and_what_is_whole_goes_on(tmp_path: Path) -> None:
    output, partial = tmp_path / "found.csv", tmp_path / "found.csv.partial"
    make(output, stop=1)
    size = partial.stat().st_size
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limit[1]))
        with pytest.raises(OSError, match="File too large") as error:
            make(output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.filename == str(partial) and not output.exists()
    assert make(output).before == 2


def test_two_processes_do_not_write_the_same(tmp_path: Path) -> None:
    with unfinished(tmp_path / "found.csv", KEY, SCHEMA), pytest.raises(ConfigError, match="another process"):
        make(tmp_path / "found.csv")
    make(tmp_path / "found.csv")


def test_other_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.csv, \.parquet or \.jsonl"):
        check_output(tmp_path / "found.txt")
    with pytest.raises(OSError, match="no such folder"):
        check_output(tmp_path / "none" / "found.csv")
