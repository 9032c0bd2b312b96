"""Image Parquet as Hugging Face writes it: bytes and labels in columns, splits in file names, any compression."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sagitta.dataset import (
    ROWS,
    RowGroups,
    Source,
    class_names_of,
    image_leaves,
    is_list,
    label_column,
    label_numbers,
    plural,
    read_column,
    read_metadata,
    read_schema,
    single_labels,
    split_of,
    splits_of_files,
)
from sagitta.errors import DatasetError, ImageError, SourceError
from sagitta.sources.base import SourceOptions, class_order, examples, make_source, rows_table, split_text, suffix
from sagitta.sources.tree import Tree

_ROW = re.compile(r"(?P<file>.+?\.parquet)/(?P<row>\d+)", re.IGNORECASE)


class ParquetReader:
    """Reads ``FILE.parquet/ROW[/NAME]``: the image of a row. One row group at a time is held, in each process anew."""

    def __init__(self, root: str, leaves: Mapping[str, str]):
        """Take the folder and, for each file in it, the leaf column of its images' bytes."""
        self._root = root
        self._leaves = leaves
        self._held: tuple[str, RowGroups] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_root": self._root, "_leaves": self._leaves, "_held": None}

    def read(self, path: str) -> bytes:
        """Return the stored bytes of the image.

        Raises:
            ImageError: the row holds no bytes, or its file or row group cannot be read.
        """
        found = _ROW.match(path)
        if found is None:
            raise ImageError(f"{path} names no row of a Parquet file")
        name, row = found["file"], int(found["row"])
        if self._held is None or self._held[0] != name:
            self._held = name, RowGroups([Path(self._root, name)], self._leaves[name], most_bytes=0)
        try:
            image = self._held[1].read(0, row)
        except DatasetError as error:
            raise ImageError(str(error)) from error
        if image is None:
            raise ImageError(f"{name}, row {row}: no image bytes")
        return image


def unreadable(where: str, path: Path, error: DatasetError) -> SourceError:
    """Return the error for a Parquet file whose footer cannot be read."""
    reason = str(error).removeprefix(f"{path}: ").partition(";")[0]
    return SourceError(f"{where}: cannot be read as Parquet ({reason}); get it again")


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
    files = [found for name in names if (found := _open(tree.location, tree.root, name, options)) is not None]
    if not files:
        return None
    rows = pa.concat_tables([file.rows for file in files])
    if options.split_column is None:
        splits = zip(files, splits_of_files([file.name for file in files]), strict=True)
        column = pa.array([split for file, split in splits for _ in range(file.rows.num_rows)], pa.string())
        rows = rows.set_column(rows.column_names.index("split"), ROWS.field("split"), column)
    notes = []
    if unlabelled := sum(file.unlabelled for file in files):
        notes.append(f"skipped {plural(unlabelled, 'row')} without a label")
    reader = ParquetReader(tree.root, {file.name: file.leaf for file in files})
    layout = f"Parquet with images, {plural(len(files), 'file')}"
    return make_source(tree.location, layout, rows, reader, class_names=_class_names(tree.location, files), notes=notes)


@dataclass(frozen=True)
class _File:
    name: str
    leaf: str
    rows: pa.Table
    unlabelled: int
    class_names: tuple[str, ...] | None


def _open(location: str, root: str, name: str, options: SourceOptions) -> _File | None:
    """Return the rows of one file, or None where it holds no images. No image is read."""
    where, path = f"{location}/{name}", Path(root, name)
    try:
        schema, metadata = read_schema(path), read_metadata(path)
        if (leaves := image_leaves(schema)) is None:
            return None
        label = _label_column(where, schema, options.label_column)
        class_names = class_names_of(schema, label)
        labels, splits, groups, originals = (
            read_column([path], name) if name else None
            for name in (label, options.split_column, options.group_column, leaves[1])
        )
    except DatasetError as error:
        raise unreadable(where, path, error) from error
    for asked, column in ((options.split_column, splits), (options.group_column, groups)):
        if asked and column is None:
            raise SourceError(f"{where}: no column {asked!r}; its columns are {', '.join(schema.names)}")
    rows = rows_table(
        where,
        _paths(name, originals.to_pylist() if originals else [None] * metadata.num_rows),
        _label_names(where, labels, class_names, options.label_separator),  # null for now: dropped below
        _sizes(metadata, leaves[0]),
        _splits(where, splits, options.split_column) if options.split_column else None,
        _texts(where, groups) if groups else None,
    )
    kept = rows.filter(pc.is_valid(rows["label"]))
    return _File(name, leaves[0], kept, rows.num_rows - kept.num_rows, class_names)


def _label_column(where: str, schema: pa.Schema, asked: str | None) -> str:
    found = label_column(schema) if asked is None else asked if asked in schema.names else None
    if found is None:
        what = f"no column {asked!r}" if asked else "no label column"
        raise SourceError(f"{where}: {what}; its columns are {', '.join(schema.names)}: name one with --label-column")
    return found


def _paths(name: str, originals: Sequence[str | None]) -> list[str]:
    digits = len(str(max(len(originals) - 1, 0)))
    return [f"{name}/{row:0{digits}d}" + (f"/{given}" if given else "") for row, given in enumerate(originals)]


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
        return [text or None for text in _texts(where, column)]
    numbers = label_numbers(column, class_names).tolist()
    outside = [row for row, number in enumerate(numbers) if not -1 <= number < len(class_names)]
    if outside:
        raise SourceError(
            f"{where}: row {outside[0]} has label {numbers[outside[0]]}, but there are {len(class_names)} class names"
        )
    return [None if number == -1 else class_names[number] for number in numbers]


def _texts(where: str, column: pa.ChunkedArray) -> list[str | None]:
    try:
        texts: list[str | None] = column.cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"{where}: a column of {column.type} is no text or number; name another one") from error
    return texts


def _splits(where: str, column: pa.ChunkedArray, asked: str) -> list[str | None]:
    values = _texts(where, column)
    unknown = sorted({value for value in values if value and split_of(value) is None})
    if unknown:
        raise SourceError(f"{where}: split column {asked!r} holds {examples(unknown)}; write train, val or test")
    return [split_of(value) for value in values]


def _sizes(metadata: pq.FileMetaData, leaf: str) -> list[int]:
    """Return for every row the mean bytes of an image in its row group, from the footer alone."""
    sizes: list[int] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = (group.column(index) for index in range(group.num_columns))
        total = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == leaf)
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
