"""Where predictions go: CSV, Parquet or JSON lines, whole or not at all; what is unfinished goes on where it was.

::

    OUT.partial     the rows so far: text as OUT will hold it, for `tail -f`; of Parquet, a stream of Arrow
    OUT.journal     a line of words, then lines of digest and JSON: which table it is, how far it was after each batch
    OUT             the whole: OUT.partial, renamed; of Parquet, made of that at the end in one go

So what is unfinished cannot be taken for the whole, and a table that was interrupted has the bytes of one that was not.
A batch's line in the journal follows its rows: what a process that was killed left half-written has no line that fits
it, and is cut off. Which table it is: a run, options and images.
"""

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from sagitta.errors import ConfigError
from sagitta.files import check_place, content_hash, lock, new_file

SUFFIXES = (".csv", ".parquet", ".jsonl")
STANDARD_OUTPUT = {Path("-"): ".csv", Path("-.csv"): ".csv", Path("-.jsonl"): ".jsonl"}
_TITLE = b"journal of sagitta predict, version 2, of the unfinished table beside it: the same command goes on\n"
_GROUP = 16_384  # rows of a row group


def check_output(output: Path) -> None:
    """Refuse a place for predictions before anything is predicted.

    Raises:
        ConfigError: the name does not end in .csv, .parquet or .jsonl, or it is Parquet on standard output.
        OSError: there is no such folder, or it cannot be written to.
    """
    if output in STANDARD_OUTPUT:
        return
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"{output}: the name must end in .csv, .parquet or .jsonl")
    if output == Path("-.parquet"):
        raise ConfigError(f"{output}: standard output takes -.csv or -.jsonl; name a file for Parquet")
    check_place(output)


def partial_of(output: Path) -> Path:
    """Return where a table lies while it is made."""
    return output.with_name(f"{output.name}.partial")


class Table:
    """A table on its way, here to standard output, where nothing goes on; made by :func:`table_to`.

    Attributes:
        told: what was said of all rows with the last batch that is there; empty where none is.
        before: rows that an earlier process left, and that are right.
        other: what of the table that was left is another than it is to be.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self.told: Mapping[str, Any] = {}
        self.before, self.other = 0, list[str]()

    def add(self, batch: pa.RecordBatch, words: Mapping[str, Any]) -> None:
        """Write a batch, and note what is said of all rows so far.

        Raises:
            OSError: it finds no room, and names the file, if it goes to one.
        """
        rows = _encoded(batch, self._suffix, first=not self.told)
        before = {"rows": 0, "bytes": 0, **self.told}
        told = {**words, "rows": before["rows"] + batch.num_rows, "bytes": before["bytes"] + len(rows)}
        self._write(rows, told)
        self.told = told

    def _write(self, rows: bytes, told: Mapping[str, Any]) -> None:
        sys.stdout.write(rows.decode())
        sys.stdout.flush()

    def finish(self) -> None:
        """Give the whole its name."""

    def remove(self) -> None:
        """Remove what is there; what is printed stays."""


class Unfinished(Table):
    """A table on its way to a file, which goes on.

    Attributes:
        other: see above: ``run``, ``options``, ``images`` or ``version``; so it is begun anew.

    Raises:
        ConfigError: a file of somebody else is in the way.
        OSError: it cannot be written there.
    """

    def __init__(self, output: Path, key: Mapping[str, Any], schema: pa.Schema) -> None:
        super().__init__(output.suffix)
        self._output, self._partial = output, partial_of(output)
        self._journal = output.with_name(f"{output.name}.journal")
        title = _start_of(self._journal)
        other = self._partial if _TITLE.startswith(title) else self._journal
        if title != _TITLE and _start_of(other):
            raise ConfigError(f"{other}: in the way, and no unfinished table; move it, or name another -o")
        # The columns follow from the rest of the key, unless another version of this program made them.
        key = {**key, "version": content_hash(schema.serialize())}
        if title != _TITLE or not self._goes_on(key):
            self._partial.write_bytes(b"")  # first, since without a journal its rows would be somebody else's
            with _about(self._journal):
                self._journal.write_bytes(_TITLE + _line(key))

    def _goes_on(self, key: Mapping[str, Any]) -> bool:
        """Find what is left of this table, and cut off what was not finished; returns whether it is of this one."""
        with self._journal.open("rb") as journal, self._partial.open("a+b") as partial:
            journal.seek(len(_TITLE))
            if (first := _next(journal)) != key:
                other = [name for name in key if first is not None and first.get(name) != key[name]]
                self.other = [name for name in other if name != "version"] or other
                return False
            partial.seek(0)
            while True:
                end = journal.tell()
                told = _next(journal) or {"bytes": 0}
                rows = partial.read(max(0, told["bytes"] - self.told.get("bytes", 0)))
                if told.get("digest") != content_hash(rows):
                    break
                self.told = told
        self.before = self.told.get("rows", 0)
        os.truncate(self._partial, self.told.get("bytes", 0))
        os.truncate(self._journal, end)
        return True

    def _write(self, rows: bytes, told: Mapping[str, Any]) -> None:
        line = _line({**told, "digest": content_hash(rows)})
        for path, data in ((self._partial, rows), (self._journal, line)):
            with _about(path), path.open("ab") as file:
                file.write(data)

    def finish(self) -> None:
        """Make the file.

        Raises:
            ConfigError: somebody else has written in it.
            OSError: it cannot be written there.
        """
        if self._partial.stat().st_size != self.told.get("bytes"):
            raise ConfigError(f"{self._partial}: somebody else has written in it, too; remove it, and begin again")
        if self._suffix == ".parquet":
            with self._partial.open("rb") as file, new_file(self._output) as temporary:
                _write_parquet(pa.ipc.open_stream(file), temporary)
        else:
            with _about(self._output), self._partial.open("rb") as file:
                os.fsync(file.fileno())
                self._partial.replace(self._output)
        self.remove()

    def remove(self) -> None:
        """Remove what is there, the journal last: without it, rows would be somebody else's."""
        self._partial.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)


@contextmanager
def table_to(output: Path, key: Mapping[str, Any], schema: pa.Schema) -> Iterator[Table]:
    """Yield the table that is to become ``output``, with what is there of it.

    Args:
        output: see :func:`check_output`.
        key: what the table depends on, as JSON has it.
        schema: of it.

    Raises:
        ConfigError: another process is making it.
        OSError: it cannot be written there.
    """
    if output in STANDARD_OUTPUT:
        yield Table(STANDARD_OUTPUT[output])
        return
    try:
        with lock(output.with_name(f"{partial_of(output).name}.lock"), wait=False, needed=False):
            yield Unfinished(output, key, schema)
    except BlockingIOError:
        raise ConfigError(f"{output}: another process is writing it; wait for it, or name another -o") from None


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Have what the system says name a file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None


def _start_of(path: Path) -> bytes:
    """Return as much of a file as a journal's first line is long; nothing where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(len(_TITLE))
    except FileNotFoundError:
        return b""


def _line(words: Mapping[str, Any]) -> bytes:
    """Return a line of a journal."""
    text = json.dumps(words).encode() + b"\n"
    return content_hash(text).encode() + b" " + text


def _next(journal: BinaryIO) -> dict[str, Any] | None:
    """Return what the next line of a journal says; None where it is not whole, or there is none."""
    digest, _, text = journal.readline().partition(b" ")
    return dict(json.loads(text)) if digest == content_hash(text).encode() else None


def _encoded(batch: pa.RecordBatch, suffix: str, *, first: bool) -> bytes:
    """Return what stands for a batch while a table is made; the first one has what stands before all rows."""
    if suffix == ".csv":
        return as_csv(batch, head=first)
    if suffix == ".jsonl":
        return as_json_lines(batch)
    schema = batch.schema.serialize().to_pybytes() if first else b""
    return bytes(schema + batch.serialize().to_pybytes())


def _write_parquet(batches: pa.RecordBatchReader, path: Path) -> None:
    with pq.ParquetWriter(path, batches.schema) as writer:
        for table in _grouped(batches, batches.schema):
            writer.write_table(table, row_group_size=_GROUP)


def _grouped(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield tables of whole row groups, and the rest."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= _GROUP:
            table = pa.Table.from_batches(held, schema)
            yield table.slice(0, _GROUP)
            held = table.slice(_GROUP).to_batches()
    if held:
        yield pa.Table.from_batches(held, schema)


def as_csv(batch: pa.RecordBatch, *, head: bool) -> bytes:
    """Return lines of CSV; the items of a list are separated by ``;``."""
    sink = io.BytesIO()
    options = pa.csv.WriteOptions(include_header=head, quoting_style="needed")
    pa.csv.write_csv(_flat(pa.Table.from_batches([batch])), sink, options)
    return sink.getvalue()


def as_json_lines(batch: pa.RecordBatch) -> bytes:
    """Return a line of JSON a row; numbers are as short as float32 allows."""
    columns = [_plain(column) for column in batch.columns]
    rows = (dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _flat(table: pa.Table) -> pa.Table:
    """Return the table with lists as text."""
    for index, field in enumerate(table.schema):
        if is_list(field.type):
            lists = table[field.name].cast(pa.list_(field.type.value_type)).cast(pa.list_(pa.string()))
            table = table.set_column(index, field.name, pc.binary_join(lists, ";"))
    return table


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column holds lists, of any or of one length."""
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _plain(column: pa.Array) -> list[Any]:
    """Return Python's values of a column, its float32 as the shortest numbers that stand for them."""
    if is_list(column.type) and pa.types.is_float32(column.type.value_type):
        lists = column.cast(pa.list_(pa.float32())).cast(pa.list_(pa.string()))
        return [None if row is None else [float(item) for item in row] for row in lists.to_pylist()]
    if pa.types.is_float32(column.type):
        return [None if value is None else float(value) for value in column.cast(pa.string()).to_pylist()]
    return list(column.to_pylist())
