"""Image Parquet as Hugging Face writes it: bytes and labels in columns, splits in file names, any compression."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sagitta.dataset import (
    ROWS,
    Chunk,
    RowGroups,
    Source,
    class_names_in,
    column_texts,
    common_label,
    declared_names,
    files_note,
    image_columns,
    image_leaves,
    is_list,
    label_numbers,
    plural,
    read_chunks,
    read_column,
    read_schema,
    splits_of_files,
)
from sagitta.errors import DatasetError, ImageError, SourceError
from sagitta.sources.base import (
    SourceOptions,
    examples,
    make_source,
    refuse_flags,
    rows_table,
    several_labels,
    split_text,
    suffix,
)
from sagitta.sources.splitcolumns import NO_COLUMN, GivenSplits, given_splits
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
            ImageError: the row holds no bytes, or its row group cannot be read.
            OSError: the file is gone.
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
            Path(self._root, name).stat()  # gone is not damaged
            raise ImageError(str(error)) from error
        return self._beside(name, row, path[found.end() + 1 :]) if image is None else image

    def _beside(self, name: str, row: int, given: str) -> bytes:
        """Return the image of a row that stores only its path, of a file below the folder."""
        root = Path(self._root)
        for folder in (Path(root, name).parent, root) if given and ".." not in Path(given).parts else ():
            file = folder / given  # an absolute path stands for itself
            if file.absolute().is_relative_to(root.absolute()) and file.is_file():
                return file.read_bytes()
        raise ImageError(f"{name}, row {row}: no image bytes{f', and no file {given} beside' if given else ''}")


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
    schemas = {name: schema for name in names if image_columns(schema := _schema(tree, name))}
    if not schemas:
        return None
    labels = _labels(tree, schemas, options)
    files = [_open(tree, name, schema, labels, options) for name, schema in schemas.items()]
    by_name = options.split_column in (None, NO_COLUMN)
    named = _splits_of_names(tree, list(schemas)) if by_name else [None] * len(files)
    rows = pa.concat_tables(_with_splits(tree.location, file, split) for file, split in zip(files, named, strict=True))
    kept = rows.filter(pc.is_valid(rows["label"]))
    notes = _chosen(files[0].leaf, labels.column, schemas[files[0].name])
    texts = not labels.numbered and _is_text(schemas, labels.column)
    if texts and options.label_separator is None:
        kept, decided = _separated(tree.location, kept, labels.column)
        notes += decided
    notes += dict.fromkeys(file.given.note for file in files if file.given)
    if mapped := files_note([f"{tree.within}{name}" for name in schemas], named):
        notes.append(f"splits: {mapped}")
    if unlabelled := rows.num_rows - kept.num_rows:
        notes.append(f"skipped {plural(unlabelled, 'row')} without a label{_wholly_unlabelled(files)}")
    return make_source(
        tree.location,
        f"Parquet with images, {plural(len(files), 'file')}",
        kept,
        ParquetReader(str(tree.root), {file.name: file.leaf for file in files}),
        class_names=None if options.label_separator or texts else labels.names,
        notes=notes,
        warnings=[f"{file.name}: {warning}" for file in files for warning in file.warnings],
    )


def _chosen(leaf: str, label: str, schema: pa.Schema) -> list[str]:
    """Return which columns hold the image and the class, where others might."""
    image = leaf.partition(".")[0]
    images = image_columns(schema)
    known = "(?i)label|class|category|target|species|diagnosis"
    others = [name for name in schema.names if name != label and re.search(known, name)]
    notes = [f"image in {image!r}, not in {examples([repr(name) for name in images if name != image])}"]
    return (notes if len(images) > 1 else []) + ([f"class in {label!r}"] if others else [])


def _separated(location: str, rows: pa.Table, column: str) -> tuple[pa.Table, list[str]]:
    """Return rows whose label is text with lists in its place where rows have several, and what was decided.

    Raises:
        SourceError: they may have several; see :func:`several_labels`.
    """
    texts = rows["label"].unique().to_pylist()
    several, decided = several_labels(texts, None, column, location)
    if several is None:
        return rows, [decided] if decided else []
    of_text = dict(zip(texts, several, strict=True))
    kind = pa.list_(pa.string())
    lists = pa.array([of_text[text] for text in rows["label"].to_pylist()], kind)
    return rows.set_column(1, pa.field("label", kind), lists), [decided] if decided else []


def _is_text(schemas: Mapping[str, pa.Schema], column: str) -> bool:
    kinds = (schema.field(column).type for schema in schemas.values())
    return any(pa.types.is_string(getattr(kind, "value_type", kind)) and not is_list(kind) for kind in kinds)


def _schema(tree: Tree, name: str) -> pa.Schema:
    path = Path(str(tree.root), name)
    try:
        return read_schema(path)
    except DatasetError as error:
        raise unreadable(f"{tree.location}/{name}", path, error) from error


@dataclass(frozen=True)
class _Labels:
    """The column of labels that all files have, the class names, and whether integers are positions among them."""

    column: str
    names: tuple[str, ...]
    numbered: bool


def _labels(tree: Tree, schemas: Mapping[str, pa.Schema], options: SourceOptions) -> _Labels:
    """Return what the files say of their labels, all alike.

    Raises:
        SourceError: there is no label column, or the files differ in it.
    """
    located = {f"{tree.location}/{name}": schema for name, schema in schemas.items()}
    try:
        column = common_label(located, options.label_column)
        if column is None:
            where, schema = next(iter(located.items()))
            what = f"no column {options.label_column!r}" if options.label_column else "no label column"
            columns = ", ".join(schema.names)
            raise SourceError(f"{where}: {what}; its columns are {columns}: name one with --label-column")
        declared = declared_names(located, column)
        names = declared or class_names_in({"": [Path(str(tree.root), name) for name in schemas]}, column)
    except DatasetError as error:
        raise SourceError(str(error)) from error
    return _Labels(column, names, declared is not None)


def _splits_of_names(tree: Tree, names: Sequence[str]) -> list[str | None]:
    """Return the splits that the files' names tell, or else the folders that the tree was found in."""
    return splits_of_files([f"{tree.within}{name}" for name in names])


@dataclass(frozen=True)
class _File:
    name: str
    leaf: str
    rows: pa.Table
    given: GivenSplits | None
    warnings: Sequence[str]


def _wholly_unlabelled(files: Iterable[_File]) -> str:
    """Return which files have no label at all, for the note on rows without one."""
    names = [file.name for file in files if file.rows.num_rows and file.rows["label"].null_count == file.rows.num_rows]
    return f" (all of {examples(names)})" if names else ""


def _with_splits(location: str, file: _File, named: str | None) -> pa.Table:
    """Return the rows of a file with their splits: a column's, else the file's."""
    given = [named] * file.rows.num_rows
    splits = file.given.beside(f"{location}/{file.name}", named) if file.given else given
    column = pa.array(splits, pa.string())
    return file.rows.set_column(file.rows.column_names.index("split"), ROWS.field("split"), column)


def _open(tree: Tree, name: str, schema: pa.Schema, labels: _Labels, options: SourceOptions) -> _File:
    """Return the rows of one file, null where a row has no label. No image is read."""
    where, path = f"{tree.location}/{name}", Path(str(tree.root), name)
    try:
        leaves = image_leaves(schema, options.path_column)
    except DatasetError as error:
        raise SourceError(f"{where}: {error}") from error
    if leaves is None:
        raise SourceError(
            f"{where}: column {options.path_column!r} holds no images; those that do are "
            f"{', '.join(image_columns(schema))}: name one with --path-column"
        )
    for asked in filter(None, (options.split_column, options.group_column)):
        if asked not in (*schema.names, NO_COLUMN):
            raise SourceError(f"{where}: no column {asked!r}; its columns are {', '.join(schema.names)}")

    def texts(column: str) -> list[str | None]:
        return _texts(where, read_column([path], column))

    try:
        chunks = read_chunks(path, leaves[0])
        column = read_column([path], labels.column)
        originals = read_column([path], leaves[1]) if leaves[1] else None
        given, warnings = given_splits(where, schema.names, texts, options.split_column)
        rows = rows_table(
            where,
            _paths(name, originals.to_pylist() if originals else [None] * sum(chunk.rows for chunk in chunks)),
            _label_names(where, column, labels, options.label_separator),  # null for now: left out of the source
            _sizes(chunks),
            None,
            texts(options.group_column) if options.group_column else None,
        )
    except DatasetError as error:
        raise unreadable(where, path, error) from error
    several = pa.list_(pa.string())
    if (options.label_separator or is_list(schema.field(labels.column).type)) and rows["label"].type != several:
        rows = rows.set_column(1, pa.field("label", several), pa.nulls(rows.num_rows, several))  # none has any
    return _File(name, leaves[0], rows, given, warnings)


def _paths(name: str, originals: Sequence[str | None]) -> list[str]:
    digits = len(str(max(len(originals) - 1, 0)))
    return [f"{name}/{row:0{digits}d}" + (f"/{given}" if given else "") for row, given in enumerate(originals)]


def _label_names(where: str, column: pa.ChunkedArray, labels: _Labels, separator: str | None) -> list[Any]:
    """Return class names, or lists of them where the column holds lists or text to be split; None without a label."""
    if not is_list(column.type):
        if separator:
            return [split_text(text, separator) if text else None for text in _texts(where, column)]
        return _label_texts(where, column, labels)
    if not labels.numbered:
        refuse_flags(column.to_pylist(), where, labels.column)
    names = iter(_label_texts(where, pc.list_flatten(column), labels))
    lengths = pc.list_value_length(column).to_pylist()
    return [None if length is None else [name for name in islice(names, length) if name] for length in lengths]


def _label_texts(where: str, column: pa.ChunkedArray, labels: _Labels) -> list[str | None]:
    """Return class names; None for null, NaN, empty and -1, Hugging Face's mark of a row without a label."""
    numbers = label_numbers(column, labels.names, numbered=labels.numbered).tolist()
    outside = [row for row, number in enumerate(numbers) if not -1 <= number < len(labels.names)]
    if outside:
        raise SourceError(
            f"{where}: row {outside[0]} has label {numbers[outside[0]]}, but there are {len(labels.names)} class names"
        )
    return [None if number == -1 else labels.names[number] for number in numbers]


def _texts(where: str, column: pa.ChunkedArray | None) -> list[str | None]:
    texts = column_texts(column)
    if texts is None:
        kind = "nothing" if column is None else column.type
        raise SourceError(f"{where}: a column of {kind} is no text or number; name another one")
    found: list[str | None] = texts.to_pylist()
    return found


def _sizes(chunks: Iterable[Chunk]) -> list[int]:
    """Return for every row the mean bytes of an image in its row group, from the footer alone."""
    return [chunk.unpacked // chunk.rows for chunk in chunks for _ in range(chunk.rows)]
