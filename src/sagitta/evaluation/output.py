"""Where predictions go: CSV, Parquet or JSON lines, whole or not at all; what is unfinished goes on where it was.

::

    OUT.partial     while it is made: a line of words, then frames: lengths and digest, words (JSON), a batch (Arrow)
    OUT             the whole, made of that at the end in one go

So what is unfinished cannot be taken for the whole, a table that was interrupted has the bytes of one that was not, and
Parquet can go on, too, though a file of it is nothing before its end. The first frame says which table it is: a run,
options and images. What a process that was killed left half-written is cut off.
"""

import hashlib
import io
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from sagitta.errors import ConfigError
from sagitta.files import check_place, lock, new_file

SUFFIXES = (".csv", ".parquet", ".jsonl")
_TITLE = b"unfinished predictions of sagitta predict, version 1: the same command goes on\n"
_HEAD = struct.Struct("<QQ16s")
_GROUP = 16_384  # rows of a row group

Frame = tuple[dict[str, Any], pa.RecordBatch]
"""What was said of a batch, and the batch."""


def check_output(output: Path) -> None:
    """Refuse a place for predictions before anything is predicted.

    Raises:
        ConfigError: the name does not end in .csv, .parquet or .jsonl.
        OSError: there is no such folder, or it cannot be written to.
    """
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"{output}: the name must end in .csv, .parquet or .jsonl")
    check_place(output)


def partial_of(output: Path) -> Path:
    """Return where a table lies while it is made."""
    return output.with_name(f"{output.name}.partial")


class Unfinished:
    """A table on its way to a file; made by :func:`unfinished`.

    Attributes:
        path: where it lies meanwhile.
        told: what was said of each batch that is there.
        before: rows that an earlier process left, and that are right.
        other: what of the table that was left is another than it is to be: ``run``, ``options``, ``images``; so it is
            begun anew.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], schema: pa.Schema) -> None:
        self.path, self._schema = path, schema
        self.told: list[dict[str, Any]] = []
        self.before, self.other = 0, list[str]()
        self._file = path.open("a+b")
        try:
            if not self._goes_on(dict(key)):
                self._file.truncate(0)
                self._file.write(_TITLE)
                self._write(dict(key), schema.serialize())
        except BaseException:
            self._file.close()
            raise

    def _goes_on(self, key: dict[str, Any]) -> bool:
        """Find what an earlier process left, and cut off what it did not finish; returns whether it is of this table.

        Raises:
            ConfigError: it is a file of somebody else.
        """
        self._file.seek(0)
        if not _TITLE.startswith(title := self._file.read(len(_TITLE))):
            raise ConfigError(f"{self.path}: in the way, and no unfinished table; move it, or name another -o")
        if title != _TITLE or (first := self._next()) is None:
            return False
        if first[0] != key or pa.ipc.read_schema(pa.py_buffer(first[1])) != self._schema:
            self.other = [name for name in key if first[0].get(name) != key[name]] or ["version"]
            return False
        end = self._file.tell()
        while (frame := self._next()) is not None:
            self.told.append(frame[0])
            self.before += frame[0]["rows"]
            end = self._file.tell()
        self._file.truncate(end)
        return True

    def _next(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next whole frame; None where there is none."""
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        words, data, digest = _HEAD.unpack(head)
        body = self._file.read(words + data) if words + data < 2**40 else b""
        if len(body) < words + data or _digest(body) != digest:
            return None
        return json.loads(body[:words]), body[words:]

    def _write(self, words: Mapping[str, Any], data: pa.Buffer) -> None:
        body = (text := json.dumps(words).encode()) + data.to_pybytes()
        self._file.write(_HEAD.pack(len(text), len(data), _digest(body)) + body)
        self._file.flush()

    def add(self, batch: pa.RecordBatch, words: Mapping[str, Any]) -> None:
        """Keep a batch, and what is said of it, from now on.

        Raises:
            OSError: it finds no room, and names the file.
        """
        told = {"rows": batch.num_rows, **words}
        try:
            self._write(told, batch.serialize())
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
        self.told.append(told)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all that is there, from the file."""
        self._file.seek(len(_TITLE))
        self._next()
        while (frame := self._next()) is not None:
            yield pa.ipc.read_record_batch(pa.py_buffer(frame[1]), self._schema)

    def finish(self, output: Path) -> None:
        """Make the table of it, and remove it.

        Raises:
            OSError: it cannot be written there.
        """
        with new_file(output) as temporary:
            _write_whole(self.batches(), self._schema, temporary, output.suffix)
        self.remove()

    def remove(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; what found no room is not tried again."""
        with suppress(OSError):
            self._file.close()


@contextmanager
def unfinished(output: Path, key: Mapping[str, Any], schema: pa.Schema) -> Iterator[Unfinished]:
    """Yield the table that is to become ``output``, with what is there of it.

    Args:
        output: see :func:`check_output`.
        key: what the table depends on.
        schema: of it.

    Raises:
        ConfigError: another process is making it.
        OSError: it cannot be written there.
    """
    path = partial_of(output)
    try:
        with lock(path.with_name(f"{path.name}.lock"), wait=False, needed=False):
            table = Unfinished(path, key, schema)
            try:
                yield table
            finally:
                table.close()
    except BlockingIOError:
        raise ConfigError(f"{output}: another process is writing it; wait for it, or name another -o") from None


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _write_whole(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        with pq.ParquetWriter(path, schema) as writer:
            for table in _grouped(batches, schema):
                writer.write_table(table, row_group_size=_GROUP)
        return
    with path.open("wb") as file:
        for number, batch in enumerate(batches):
            file.write(as_json_lines(batch) if suffix == ".jsonl" else as_csv(batch, head=number == 0))


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


def write_csv_to(stream: TextIO, batch: pa.RecordBatch, *, head: bool) -> None:
    """Write lines of CSV to a stream of text, at once."""
    stream.write(as_csv(batch, head=head).decode())
    stream.flush()
