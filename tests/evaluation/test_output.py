"""Files of predictions: three formats, and tables that go on where a process was killed."""

import csv
import io
import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.errors import ConfigError
from sagitta.evaluation.output import Table, check_output, table_to

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


def make(output: Path, *, stop: int = 2, key: Mapping[str, object] = KEY) -> Table:
    """Predict up to four rows, of which those before ``stop`` are kept."""
    with table_to(output, key, SCHEMA) as table:
        for start in range(table.before, stop * 2, 2):
            table.add(batch(start), {"unreadable": start})
        if stop == 2:
            table.finish()
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
    partial, journal = (tmp_path / f"found{suffix}.{what}" for what in ("partial", "journal"))
    rows, lines = partial.read_bytes(), journal.read_bytes()
    assert suffix == ".parquet" or whole.read_bytes().startswith(rows)
    for torn in (b"", b'"', b'"c.png",0.5,"x;y"\n', b"\1" * 200):  # what a kill has left of a batch, or of a line
        partial.write_bytes(rows + torn)
        journal.write_bytes(lines + torn)
        assert make(output, stop=1).before == 2
        assert (partial.read_bytes(), journal.read_bytes()) == (rows, lines)
    table = make(output)
    assert table.before == 2 and (table.told["rows"], table.told["unreadable"]) == (4, 2) and not table.other
    assert output.read_bytes() == whole.read_bytes() and not partial.exists() and not journal.exists()


# Each trial is a fork, so that everything is imported once.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.evaluation.test_output import make

CHANGES = {"open", "os.truncate", "os.rename", "os.remove"}

def killed_at(number, output):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    seen = 0
    def count(event, arguments):
        nonlocal seen
        if event in CHANGES and str(output) in str(arguments[0]) and (seen := seen + 1) == number:
            if event == "open":  # to make, or to add to: in the middle of that
                half = {("w", ".journal"): b"journal of", ("a", ".journal"): b"half", ("a", ".partial"): b"half"}
                with Path(arguments[0]).open("ab") as file:
                    file.write(half.get((arguments[1], Path(arguments[0]).suffix), b""))
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    make(output)
    os._exit(0)

for suffix in (".csv", ".parquet", ".jsonl"):
    make(whole := Path(sys.argv[1], "whole" + suffix))
    number, before = 1, []
    while killed_at(number, output := Path(sys.argv[1], str(number) + suffix)):
        assert not output.exists() or output.read_bytes() == whole.read_bytes(), output
        before.append(make(output).before)
        assert output.read_bytes() == whole.read_bytes(), output
        number += 1
    assert set(before) == {0, 2, 4} and number > 10, before
assert not [path for path in Path(sys.argv[1]).iterdir() if path.suffix in (".partial", ".journal")]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_killed_at_any_change_on_the_disk_it_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_while_it_is_made_whole_lines_can_be_read(tmp_path: Path, suffix: str) -> None:
    partial = tmp_path / f"found{suffix}.partial"
    with table_to(tmp_path / f"found{suffix}", KEY, SCHEMA) as table:
        for start in range(0, 10, 2):
            table.add(batch(start), {})
            text = partial.read_text()
            assert text.endswith("\n")
            if suffix == ".jsonl":
                rows = [json.loads(line) for line in text.splitlines()]
            else:
                rows = list(csv.DictReader(io.StringIO(text)))
            assert len(rows) == start + 2 and rows[-1]["path"] == f"{start + 1}.png"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str) -> None:
    before = pa.total_allocated_bytes()
    with table_to(tmp_path / f"found{suffix}", KEY, SCHEMA) as table:
        for start in range(0, 1000, 2):
            table.add(batch(start), {"unreadable": start})
        assert table.told == {"rows": 1000, "bytes": table.told["bytes"], "unreadable": 998}
        size = len(pickle.dumps(table))
    assert pa.total_allocated_bytes() == before
    with table_to(tmp_path / f"found{suffix}", KEY, SCHEMA) as table:
        assert table.before == 1000 and size < len(pickle.dumps(table)) < size + 100 < 1000  # a digest more


def test_rows_that_are_cut_off_or_changed_are_not_taken(tmp_path: Path) -> None:
    output = tmp_path / "found.csv"
    make(output, stop=1)
    files = [tmp_path / "found.csv.partial", tmp_path / "found.csv.journal"]
    kept = [file.read_bytes() for file in files]
    title = kept[1].index(b"\n") + 1
    for file, data in zip(files, kept, strict=True):
        for damaged in (data[:-1], data[:-5] + bytes([data[-5] ^ 1]) + data[-4:], data[: min(title, 20)], b""):
            if file == files[1] and len(damaged) < title:
                continue  # then nothing tells what the rows are, see below
            file.write_bytes(damaged)
            assert make(output, stop=0).before == 0
            make(output, stop=1)
            assert [each.read_bytes() for each in files] == kept


def test_what_is_of_another_table_is_begun_anew_and_it_is_said_why(tmp_path: Path) -> None:
    make(tmp_path / "found.csv", stop=1)
    table = make(tmp_path / "found.csv", stop=1, key=KEY | {"options": {"top_k": 1}, "run": []})
    assert table.before == 0 and table.other == ["run", "options"]
    assert make(tmp_path / "found.csv", stop=1).other == ["run", "options"]


@pytest.mark.parametrize("name", ["found.csv.partial", "found.csv.journal"])
def test_a_file_in_the_way_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{name}: in the way"):
        make(tmp_path / "found.csv")
    assert (tmp_path / name).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_somebody_else_has_changed_meanwhile_is_not_the_whole(tmp_path: Path) -> None:
    output, partial = tmp_path / "found.csv", tmp_path / "found.csv.partial"
    with table_to(output, KEY, SCHEMA) as table:
        table.add(batch(0), {})
        partial.write_bytes(partial.read_bytes() + b"x\n")
        with pytest.raises(ConfigError, match=r"found\.csv\.partial: somebody else has written in it"):
            table.finish()
        partial.unlink()
        with pytest.raises(FileNotFoundError, match=r"found\.csv\.partial"):
            table.finish()
    assert not output.exists()


@pytest.mark.parametrize(("room", "full"), [(1, "found.csv.partial"), (100, "found.csv.journal")])
def test_no_room_names_the_file_and_what_is_whole_goes_on(tmp_path: Path, room: int, full: str) -> None:
    make(output := tmp_path / "found.csv", stop=1)
    size = (tmp_path / "found.csv.partial").stat().st_size
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limit[1]))
        with pytest.raises(OSError, match="File too large") as error:
            make(output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.filename == str(tmp_path / full) and not output.exists()
    assert make(output).before == 2


def test_two_processes_do_not_write_the_same(tmp_path: Path) -> None:
    with table_to(tmp_path / "found.csv", KEY, SCHEMA), pytest.raises(ConfigError, match="another process"):
        make(tmp_path / "found.csv")
    make(tmp_path / "found.csv")


def test_other_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.csv, \.parquet or \.jsonl"):
        check_output(tmp_path / "found.txt")
    with pytest.raises(OSError, match="no such folder"):
        check_output(tmp_path / "none" / "found.csv")
    with pytest.raises(ConfigError, match=r"standard output takes -\.csv or -\.jsonl"):
        check_output(Path("-.parquet"))


@pytest.mark.parametrize(("name", "suffix"), [("-", ".csv"), ("-.csv", ".csv"), ("-.jsonl", ".jsonl")])
def test_standard_output_gets_what_a_file_gets(
    tmp_path: Path, name: str, suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path(name))
    assert not list(tmp_path.iterdir())
    make(file := tmp_path / f"found{suffix}")
    assert capsys.readouterr().out.encode() == file.read_bytes()
