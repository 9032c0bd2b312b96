"""Tables and lists in files, as columns: CSV, TSV, Parquet, JSON, JSON lines, and lines of ``path label``."""

import csv
import functools
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from sagitta.dataset import class_names_of
from sagitta.errors import DatasetError, SourceError
from sagitta.sources.annotations import records
from sagitta.sources.base import IMAGE_SUFFIXES, suffix
from sagitta.sources.columns import LABEL_COLUMNS, PATH_COLUMNS, plain
from sagitta.sources.tree import Tree

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".lst", ".parquet", ".json", ".jsonl", ".ndjson", ".manifest")
_JSON = (".json", ".jsonl", ".ndjson", ".manifest")
LIST_SUFFIXES = (".txt", ".lst")
_HEAD, _MOST_JSON = 2**18, 2**30
_ROWS = 500  # of the head

Named = Callable[[str], bool]
"""Whether a text names a file of the tree."""


def read_table(where: str, name: str, data: bytes, named: Named) -> pa.Table:
    """Return a table's columns: text, but for Parquet's; a column without a name is ``column N``.

    Args:
        where: the file, for messages.
        name: its name, whose extension tells the format.
        data: its bytes.
        named: tells a first row of values from a header.

    Raises:
        SourceError: it is damaged, of another encoding, or an annotation format without labels of whole images.
    """
    try:
        if suffix(name) == ".parquet":
            table = pq.read_table(pa.BufferReader(data))
            table.validate(full=True)  # text that is no UTF-8, lists of wrong lengths
            return _with_declared_names(where, table)
        text = _decoded(where, data)
        if suffix(name) in _JSON:
            return _from_records(records(where, text))
        if suffix(name) in LIST_SUFFIXES and (lines := _list_rows(text, named)) is not None:
            return _from_rows(where, lines, named)
        return _from_csv(text, named)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"{where}: cannot be read as a table ({reason}); save it as UTF-8 CSV") from error


def _with_declared_names(where: str, table: pa.Table) -> pa.Table:
    """Return a table with names for numbers where Hugging Face's features declare them; ``-1`` is no label.

    Raises:
        SourceError: a number has no name, or the features are damaged.
    """
    for place, title in enumerate(table.column_names):
        try:
            names = class_names_of(table.schema, title)
        except DatasetError as error:
            raise SourceError(f"{where}: {error}") from error
        if names and pa.types.is_integer(table.column(place).type):
            column = _named_numbers(f"{where}: column {title!r}", table.column(place).to_pylist(), names)
            table = table.set_column(place, title, column)
    return table


def _named_numbers(where: str, numbers: Sequence[int | None], names: Sequence[str]) -> pa.Array:
    outside = [number for number in numbers if number is not None and not -1 <= number < len(names)]
    if outside:
        raise SourceError(f"{where} holds {outside[0]}, but has {len(names)} class names; mend one of them")
    return pa.array([None if number in (None, -1) else names[number] for number in numbers], pa.string())


def head(tree: Tree, name: str, named: Named) -> pa.Table | None:
    """Return some first rows of the table ``name``, to see what it is about; None where they cannot be read.

    JSON is read as a whole where any text in it names a file.

    Raises:
        SourceError: such JSON is of a format without labels of whole images.
    """
    where = f"{tree.location}/{name}"
    if suffix(name) == ".parquet" and tree.root is not None:
        return _parquet_head(Path(tree.root, name))
    if suffix(name) in _JSON:
        data = _first_bytes(tree, name, _MOST_JSON)
        return read_table(where, name, data, named) if any(map(named, _texts_in(data))) else None
    data = _first_bytes(tree, name, _HEAD)
    text = _without_mark(_lenient(data if len(data) < _HEAD else data[: data.rfind(b"\n") + 1]))
    if suffix(name) in LIST_SUFFIXES and (lines := _list_rows(text, named)) is not None:
        cells, titled = lines[:_ROWS], False
    else:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        try:
            cells, titled = [row for row in itertools.islice(rows, _ROWS) if row], True
        except csv.Error:
            return None
    width = max(map(len, cells), default=0)
    if width == 0:
        return None
    return _from_rows(where, [[*row, *[""] * (width - len(row))] for row in cells], named, titled=titled)


def _texts_in(data: bytes) -> Iterator[str]:
    """Yield some of JSON's texts: the first ones, and the first that look like image files."""
    text = rb'"((?:[^"\\\n]|\\/){1,300}%b)"'
    for pattern in (text % b"", text % rb"\.(?:jpe?g|png|tiff?|bmp|webp|gif)(?:\?[^\"]*)?"):
        for match in itertools.islice(re.finditer(pattern, data, re.IGNORECASE), _ROWS):
            yield match[1].decode("utf-8", "replace").replace("\\/", "/")


def _first_bytes(tree: Tree, name: str, most: int) -> bytes:
    if tree.root is None:
        return tree.reader.read(name)[:most]
    with Path(tree.root, name).open("rb") as file:
        return file.read(most)


def _lenient(data: bytes) -> str:
    """Return text whatever its encoding is: enough to see file names."""
    try:
        return _decoded("", data)
    except SourceError:
        return data.decode("latin-1").replace("\0", "")


def _parquet_head(path: Path) -> pa.Table | None:
    try:
        with pq.ParquetFile(str(path)) as file:
            batch = next(file.iter_batches(_ROWS), None)
            if batch is None:
                return None
            batch.validate(full=True)
            return pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError):
        return None


def _decoded(where: str, data: bytes) -> str:
    """Return text from UTF-8, or from UTF-16 with its mark.

    Raises:
        SourceError: it is of another encoding.
    """
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16").removeprefix("\ufeff")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16 without its mark" if b"\0" in data[:100] else "Windows-1252 or Latin-1, perhaps"
        raise SourceError(
            f"{where}: cannot be read as a table: byte {error.start} is not UTF-8 ({kind}); save it as UTF-8"
        ) from None


def _without_mark(text: str) -> str:
    """Return text without the first line ``sep=;``, which tells a spreadsheet how to read it."""
    return re.sub(r"\A\"?sep=[^\n]\"?\r?\n", "", text)


def _delimiter(text: str) -> str:
    """Return what stands equally often in every first line, or else most often in the first."""
    lines = [line for line in text[:65536].splitlines()[:20] if line]
    counts = {mark: {line.count(mark) for line in lines} for mark in ",;\t|"}
    even = {mark: min(found) for mark, found in counts.items() if len(found) == 1 and min(found)}
    if even:
        return max(even, key=lambda mark: even[mark] + (mark != "|"))
    return max(counts, key=lambda mark: lines[0].count(mark)) if lines else ","


def _from_csv(text: str, named: Named) -> pa.Table:
    text = _without_mark(text)
    delimiter = _delimiter(text)
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    rows = csv.reader(io.StringIO(text[:65536], newline=""), delimiter=delimiter)
    sample = [row for row in itertools.islice(rows, _ROWS) if row]
    if not sample:
        raise pa.ArrowInvalid("empty")
    names = _titles(sample, named)
    if names is not None:
        names = [name or f"column {place}" for place, name in enumerate(names, 1)]
    if names is not None and len(set(names)) < len(names):
        names = [name if names.index(name) == place else f"{place + 1}.{name}" for place, name in enumerate(names)]
    read = pa.csv.ReadOptions(
        column_names=names or [f"column {place}" for place in range(1, len(sample[0]) + 1)],
        skip_rows_after_names=int(names is not None),
    )
    kinds = dict.fromkeys(read.column_names, pa.string())
    options = pa.csv.ConvertOptions(column_types=kinds, null_values=[""], strings_can_be_null=True)
    table = pa.csv.read_csv(pa.BufferReader(text.encode()), read, parse, options)
    blank = functools.reduce(pc.and_, (pc.is_null(column) for column in table.columns))
    return table.filter(pc.invert(blank)) if pc.any(blank).as_py() else table  # a spreadsheet's last rows: ",,"


def _titles(rows: Sequence[Sequence[str]], named: Named) -> list[str] | None:
    """Return the header's names, or None where the first row is a row: it names a file, or what it says recurs."""
    cells = [cell.strip() for cell in rows[0]]
    if any(suffix(cell.partition("?")[0]) in IMAGE_SUFFIXES for cell in cells):
        return None
    if any(cell.strip("/").count("/") > 1 for cell in cells):
        return None
    titled = any(plain(cell) in (*PATH_COLUMNS, *LABEL_COLUMNS) for cell in cells)
    if titled:
        return cells
    recur = any(
        cell and cell == row[place].strip() for place, cell in enumerate(cells) for row in rows[1:] if place < len(row)
    )
    return None if recur or any(cell and named(cell) for cell in cells) else cells


def _list_rows(text: str, named: Named) -> list[list[str]] | None:
    """Return the lines of a list, split at white space; None where tabs or commas make it a table.

    A path with blanks in it stays whole where the rest of its line is one number, and so does a class with blanks after
    a path without. ``#`` begins a comment, and a first line of one number (CelebA's) is a count.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) > 2 and lines[0].isdecimal() and not lines[1].isdecimal():
        lines = lines[1:]
    sample = lines[:20]
    if any("\t" in line for line in sample) or (sample and all(line.count(",") or line.count(";") for line in sample)):
        return None
    rows = [line.split() for line in lines]
    if len({len(row) for row in rows}) > 1 and all(re.fullmatch(r".+\S\s+-?\d+", line) for line in lines):
        return [line.rsplit(None, 1) for line in lines]
    if lines and len({len(row) for row in rows}) > 1 and all(suffix(line) in IMAGE_SUFFIXES for line in lines):
        return [[line] for line in lines]
    worded = all(any(re.search(r"[^\W\d]", cell) for cell in row[1:]) for row in rows)
    if worded and len({len(row) for row in rows}) > 1 and all(named(row[0]) for row in rows[:20]):
        return [line.split(None, 1) for line in lines]
    return rows


def _from_rows(where: str, rows: Sequence[Sequence[str]], named: Named, *, titled: bool = False) -> pa.Table:
    """Return columns of rows of equal length, the first of which may be a header; lists have one where all is text."""
    if not rows:
        raise SourceError(f"{where}: cannot be read as a table (empty); save it as UTF-8 CSV")
    names = _titles(rows, named)
    if names is not None and not titled and not _is_header(rows):
        names = None
    width = max(map(len, rows))
    body = rows if names is None else rows[1:]
    if any(len(row) != width for row in body):
        raise SourceError(f"{where}: cannot be read as a table (its lines differ in length); save it as UTF-8 CSV")
    numbered = [f"column {number}" for number in range(1, width + 1)]
    if names is None:
        names = numbered
    elif len(names) == width - 1:
        names = [numbered[0], *names]  # CelebA's file names have no title
    else:
        names = [name or number for name, number in zip([*names, *numbered[len(names) :]], numbered, strict=False)]
    columns = zip(*body, strict=True) if body else ((),) * width
    return pa.table([pa.array([cell.strip() or None for cell in column], pa.string()) for column in columns], names)


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Say whether a list's first line has titles: no number in it, where numbers or file names follow."""
    return len(rows) > 1 and not any(re.search(r"\d", cell) for cell in rows[0][1:]) and (
        len(rows[0]) > 1 and any(re.search(r"\d", cell) for cell in rows[1])
    )  # fmt: skip


def _from_records(found: Sequence[dict[str, object]]) -> pa.Table:
    """Return columns of records: text, or lists of text; nested fields have dotted names."""
    flat = [_flat(record) for record in found]
    names = list(dict.fromkeys(name for record in flat for name in record))
    columns = []
    for name in names:
        values = [record.get(name) for record in flat]
        if any(isinstance(value, list) for value in values):
            lists = [value if isinstance(value, list) else [] if value is None else [value] for value in values]
            columns.append(pa.array([[_text(item) for item in items] for items in lists], pa.list_(pa.string())))
        else:
            columns.append(pa.array([None if value is None else _text(value) for value in values], pa.string()))
    return pa.table(columns, names)


def _flat(record: dict[str, object], before: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
