"""Image Parquet as Hugging Face writes it: bytes and labels in columns, splits in file names, any compression."""

import bisect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sagitta.dataset import Source, class_names_of, is_list, plural, single_labels
from sagitta.errors import ImageError, SourceError
from sagitta.sources.base import (
    SourceOptions,
    class_order,
    examples,
    make_source,
    rows_table,
    split_of,
    split_of_file,
    split_text,
    suffix,
)
from sagitta.sources.tree import Tree

_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "class_name", "category", "target")
_ROW = re.compile(r"(?P<file>.+?\.parquet)/(?P<row>\d+)")


class ParquetReader:
    """Reads ``FILE.parquet/ROW[/NAME]``: the image of a row. One row group at a time is held, in each process anew."""

    def __init__(self, root: str, columns: Mapping[str, str]):
        """Take the folder and, for each file in it, the name of its image column."""
        self._root = root
        self._columns = columns
        self._open: tuple[str, pq.ParquetFile, list[int]] | None = None
        self._held: tuple[str, int, pa.ChunkedArray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_root": self._root, "_columns": self._columns, "_open": None, "_held": None}

    def read(self, path: str) -> bytes:
        """Return the stored bytes of the image.

        Raises:
            ImageError: the row holds no bytes, or its row group cannot be read.
            OSError: the file cannot be opened.
        """
        found = _ROW.match(path)
        if found is None:
            raise ImageError(f"{path} names no row of a Parquet file")
        name, row = found["file"], int(found["row"])
        file, starts = self._file(name)
        group = bisect.bisect_right(starts, row) - 1
        value = self._group(name, file, group)[row - starts[group]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None:
            raise ImageError(f"{name}, row {row}: no image bytes")
        return bytes(data)

    def _file(self, name: str) -> tuple[pq.ParquetFile, list[int]]:
        """Return the opened file and the first row of each of its row groups."""
        if self._open is None or self._open[0] != name:
            if self._open is not None:
                self._open[1].close()
            file = pq.ParquetFile(f"{self._root}/{name}")
            starts = [0]
            for group in range(file.num_row_groups):
                starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
            self._open = name, file, starts[:-1]
        return self._open[1:]

    def _group(self, name: str, file: pq.ParquetFile, group: int) -> pa.ChunkedArray:
        if self._held is None or self._held[:2] != (name, group):
            self._held = None  # let go of the former group before the next is read
            try:
                column = file.read_row_group(group, columns=[self._columns[name]]).column(0)
            except (pa.ArrowInvalid, OSError) as error:
                raise ImageError(f"{name}: row group {group} is damaged: {error}") from error
            self._held = name, group, column
        return self._held[2]


def image_column(schema: pa.Schema) -> str | None:
    """Return the name of the first column that holds images: struct<bytes, ...> or binary; None where there is none."""
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind):
            kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return str(field.name)
    return None


def parquet(tree: Tree, options: SourceOptions) -> Source | None:
    """Return the labelled images of the Parquet files in ``tree``, or None where none holds images.

    Raises:
        SourceError: a file is damaged, has no label column, or its class names differ from another's; or the files
            lie in an archive.
    """
    names = [name for name in tree.sizes if suffix(name) == ".parquet"]
    if not names:
        return None
    if tree.root is None:
        raise SourceError(f"{tree.location}: Parquet files in an archive; unpack it first")
    files = [found for name in names if (found := _open(tree, name, options)) is not None]
    if not files:
        return None
    rows = pa.concat_tables([file.rows for file in files])
    notes = []
    if unlabelled := sum(file.unlabelled for file in files):
        notes.append(f"skipped {plural(unlabelled, 'row')} without a label")
    reader = ParquetReader(tree.root, {file.name: file.column for file in files})
    layout = f"Parquet with images, {plural(len(files), 'file')}"
    return make_source(tree.location, layout, rows, reader, class_names=_class_names(tree.location, files), notes=notes)


@dataclass(frozen=True)
class _File:
    name: str
    column: str
    rows: pa.Table
    unlabelled: int
    class_names: tuple[str, ...] | None


def _open(tree: Tree, name: str, options: SourceOptions) -> _File | None:
    """Return the rows of one file, or None where it holds no images. No image is read."""
    where = f"{tree.location}/{name}"
    try:
        with pq.ParquetFile(f"{tree.root}/{name}") as file:
            column = image_column(file.schema_arrow)
            return None if column is None else _file_rows(where, name, file, column, options)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{where}: cannot be read as Parquet ({error}); get it again") from error


def _file_rows(where: str, name: str, file: pq.ParquetFile, column: str, options: SourceOptions) -> _File:
    schema = file.schema_arrow
    label = _label_column(where, schema, options.label_column)
    class_names = class_names_of(schema, label)
    extra = [asked for asked in (options.split_column, options.group_column) if asked]
    if absent := [asked for asked in extra if asked not in schema.names]:
        raise SourceError(f"{where}: no column {absent[0]!r}; its columns are {', '.join(schema.names)}")
    named = pa.types.is_struct(schema.field(column).type) and schema.field(column).type.get_field_index("path") >= 0
    table = file.read(columns=[label, *extra, *([f"{column}.path"] if named else [])])
    labels = _label_names(where, table[label], class_names, options.label_separator)
    originals = pc.struct_field(table[column], "path").to_pylist() if named else [None] * len(labels)
    digits = len(str(max(len(labels) - 1, 0)))
    paths = [
        f"{name}/{row:0{digits}d}" + (f"/{original}" if original else "") for row, original in enumerate(originals)
    ]
    rows = rows_table(
        where,
        paths,
        labels,  # null for now: such rows are dropped below
        _sizes(file, column),
        _splits(where, name, table, options.split_column),
        _texts(table[options.group_column]) if options.group_column else None,
    )
    kept = rows.filter(pc.is_valid(rows["label"]))
    return _File(name, column, kept, rows.num_rows - kept.num_rows, class_names)


def _label_column(where: str, schema: pa.Schema, asked: str | None) -> str:
    if asked:
        candidates = [asked] if asked in schema.names else []
    else:
        candidates = [name for name in schema.names if class_names_of(schema, name)]
        candidates += [name for known in _LABEL_COLUMNS for name in schema.names if name.lower() == known]
        if "fine_label" in candidates:  # CIFAR-100's coarse classes are a ClassLabel too
            candidates = ["fine_label"]
    if not candidates:
        what = f"no column {asked!r}" if asked else "no label column"
        raise SourceError(f"{where}: {what}; its columns are {', '.join(schema.names)}: name one with --label-column")
    return str(candidates[0])


def _label_names(
    where: str, column: pa.ChunkedArray, class_names: Sequence[str] | None, separator: str | None
) -> list[Any]:
    """Return class names, or lists of them where the column holds lists or text to be split; None without a label."""
    if not is_list(column.type):
        texts = _label_texts(where, column, class_names)
        return [text and split_text(text, separator) for text in texts] if separator else texts
    names = iter(_label_texts(where, pc.list_flatten(column), class_names))
    lengths = pc.list_value_length(column).to_pylist()
    return [None if length is None else [name for name in islice(names, length) if name] for length in lengths]


def _label_texts(where: str, column: pa.ChunkedArray, class_names: Sequence[str] | None) -> list[str | None]:
    """Return class names; None for null, empty and -1, Hugging Face's mark of a row without a label."""
    if class_names is None:
        return [text or None for text in _texts(column)]
    values = [None if value is None or value == -1 else int(value) for value in column.to_pylist()]
    outside = [row for row, value in enumerate(values) if value is not None and not 0 <= value < len(class_names)]
    if outside:
        raise SourceError(
            f"{where}: row {outside[0]} has label {values[outside[0]]}, but there are {len(class_names)} class names"
        )
    return [None if value is None else class_names[value] for value in values]


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    return [None if value is None else str(value) for value in column.to_pylist()]


def _splits(where: str, name: str, table: pa.Table, asked: str | None) -> list[str | None]:
    if asked is None:
        return [split_of_file(name)] * table.num_rows
    values = _texts(table[asked])
    unknown = sorted({value for value in values if value and split_of(value) is None})
    if unknown:
        raise SourceError(f"{where}: split column {asked!r} holds {examples(unknown)}; write train, val or test")
    return [split_of(value) for value in values]


def _sizes(file: pq.ParquetFile, column: str) -> list[int]:
    """Return for every row the mean bytes of an image in its row group, from the footer alone."""
    sizes: list[int] = []
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = (group.column(index) for index in range(group.num_columns))
        total = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
        sizes += [total // max(group.num_rows, 1)] * group.num_rows
    return sizes


def _class_names(location: str, files: Sequence[_File]) -> tuple[str, ...]:
    """Return the names all files agree on, or those of the labels where no file names them.

    Raises:
        SourceError: two files name different classes.
    """
    named = {file.class_names: file.name for file in files if file.class_names}
    if len(named) > 1:
        first, second = list(named.values())[:2]
        raise SourceError(f"{location}: {first} and {second} name different classes; convert them one by one")
    if named:
        return next(iter(named)) or ()
    return class_order(label for file in files for label in pc.unique(single_labels(file.rows["label"])).to_pylist())
