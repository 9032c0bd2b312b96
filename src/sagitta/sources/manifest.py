"""Tables (CSV, TSV, Parquet) that name image files and their labels."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from sagitta.dataset import Source, is_list, plural, split_of_file
from sagitta.errors import SourceError
from sagitta.sources.base import (
    IMAGE_SUFFIXES,
    Cell,
    SourceOptions,
    examples,
    make_source,
    rows_table,
    several_labels,
    suffix,
)
from sagitta.sources.splitcolumns import GivenSplits, given_splits
from sagitta.sources.tree import Tree

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")

_PATH_COLUMNS = (
    "path", "filepath", "file_path", "filename", "file_name", "file", "image_path", "image", "image_name", "img",
    "id", "image_id",
)  # fmt: skip
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "breed", "species", "variety")


@dataclass(frozen=True)
class _Table:
    """One table read, its columns as text or lists; ``splits`` and ``groups`` are None where it has no such column."""

    name: str
    paths: list[str | None]
    labels: list[Cell]
    splits: GivenSplits | None
    warnings: list[str]
    groups: list[str | None] | None

    @property
    def rank(self) -> tuple[bool, int, str]:
        """Sorts the table to use first: one called train, then the longest."""
        return split_of_file(self.name) != "train", -len(self.paths), self.name


def manifest(tree: Tree, options: SourceOptions) -> Source | None:
    """Return the images named by the tables in the top folder of ``tree``, or None where no table names images.

    Raises:
        SourceError: as :func:`open_tables`, where the layout or a column was asked for by name.
    """
    # Kaggle's sample_submission.csv has labels that mean nothing.
    names = [name for name in tree.sizes if "/" not in name and suffix(name) in TABLE_SUFFIXES]
    names = [name for name in names if not name.lower().startswith("sample")]
    asked = options.layout == "manifest" or options.names_columns()
    tables, errors = [], []
    for name in names:
        try:
            tables.append(_read_table(tree, name, options))
        except SourceError as error:
            errors.append(error)
    if not tables:
        if asked and errors:
            raise errors[0]
        return None
    chosen, notes = _choose(tables)
    finder = _Finder(tree)
    if not asked and not any(finder.find(path or "", chosen[0].name) for path in chosen[0].paths[:1000]):
        return None
    return _source(tree, finder, chosen, options.label_separator, notes)


def open_table(tree: Tree, name: str, options: SourceOptions) -> Source:
    """Return the images that the table ``name`` names, relative to its folder or in a folder beside it.

    Raises:
        SourceError: the table cannot be read, lacks a column, a label or a path, repeats a path, or names files that
            are missing.
    """
    return _source(tree, _Finder(tree), [_read_table(tree, name, options)], options.label_separator, [])


def _choose(tables: Sequence[_Table]) -> tuple[list[_Table], list[str]]:
    """Return the tables to use: all those of different splits, else one; and a note that names the others."""
    by_split = {
        split_of_file(table.name): table for table in sorted(tables, key=lambda table: table.rank, reverse=True)
    }
    by_split.pop(None, None)
    chosen = [by_split[split] for split in sorted(by_split, key=str)]
    if len(chosen) < 2:
        chosen = [min(tables, key=lambda table: table.rank)]
    unused = [table.name for table in tables if table not in chosen]
    return chosen, [f"not used: {examples(unused)}"] if unused else []


def _read_table(tree: Tree, name: str, options: SourceOptions) -> _Table:
    where = f"{tree.location}/{name}"
    table = _parse(where, name, tree.reader.read(name))
    paths = _column(where, table, options.path_column, _PATH_COLUMNS, "--path-column")
    labels = _labels(where, table, options.label_column)
    groups = _column(where, table, options.group_column, (), "--group") if options.group_column else None

    def texts(column: str) -> list[str | None]:
        return _column(where, table, column, (), "--split-column")

    splits, warnings = given_splits(where, table.column_names, texts, options.split_column)
    return _Table(name, paths, labels, splits, [f"{name}: {warning}" for warning in warnings], groups)


def _parse(where: str, name: str, data: bytes) -> pa.Table:
    """Return the table's columns, all of them text where it is CSV or TSV."""
    try:
        if suffix(name) == ".parquet":
            return pq.read_table(pa.BufferReader(data))
        header = data[:65536].partition(b"\n")[0] + b"\n"
        delimiter = max(",;\t|", key=lambda mark: header.count(mark.encode()))
        parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        names = pa.csv.read_csv(pa.BufferReader(header), parse_options=parse).column_names
        text = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
        )
        return pa.csv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=text)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise SourceError(f"{where}: cannot be read as a table ({error}); save it as UTF-8 CSV") from error


def _labels(where: str, table: pa.Table, asked: str | None) -> list[Cell]:
    """Return the label column's texts, or lists of texts where it holds lists."""
    name = _named(where, table, asked, _LABEL_COLUMNS, "--label-column")
    column = table.column(table.column_names.index(name))
    if not is_list(column.type):
        return [*_column(where, table, name, (), "--label-column")]
    try:
        lists = pc.cast(column, pa.list_(pa.string())).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"{where}: column {name!r} holds no lists of text or numbers ({error})") from error
    return [list(dict.fromkeys(label.strip() for label in labels or () if label and label.strip())) for labels in lists]


def _named(where: str, table: pa.Table, asked: str | None, known: Sequence[str], flag: str) -> str:
    """Return the name of the column asked for or else of the first known one, in any case."""
    lower = {name.strip().lower(): name for name in reversed(table.column_names)}
    wanted = (asked,) if asked else known
    found = [lower[name.lower()] for name in wanted if name.lower() in lower]
    if not found:
        missing = f"no column {asked!r}" if asked else f"no column called {', '.join(known[:4])} or the like"
        columns = ", ".join(table.column_names)
        raise SourceError(f"{where}: {missing}; its columns are {columns}: name one with {flag}")
    return str(found[0])


def _column(where: str, table: pa.Table, asked: str | None, known: Sequence[str], flag: str) -> list[str | None]:
    """Return the values of a column as text; see :func:`_named`."""
    name = _named(where, table, asked, known, flag)
    try:
        column = table.column(table.column_names.index(name))
        return [text.strip() or None if text else None for text in pc.cast(column, pa.string()).to_pylist()]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"{where}: column {name!r} is not text or numbers ({error}); use {flag}") from error


class _Finder:
    """Finds the file that a table means: relative to the table's folder, or else in any folder below it."""

    def __init__(self, tree: Tree):
        self._tree = tree

    def find(self, value: str, table: str) -> list[str]:
        """Return the names of the files that ``value`` may mean: one, none, or several.

        Args:
            value: path, file name, or file name without its extension, as written in the table.
            table: the table's name; ``train.csv`` means files in a folder ``train`` rather than in ``test``.
        """
        name = value.replace("\\", "/").removeprefix("./")
        if self._tree.root is not None:
            name = name.removeprefix(self._tree.root + "/")
        if self._tree.size(name) is not None:
            return [name]
        found = [
            path for path in self._by_stem[_stem(name)] if f"/{path}".endswith((f"/{name}", f"/{name}{suffix(path)}"))
        ]
        split = split_of_file(table)
        return [path for path in found if split and split_of_file(path) == split] or found

    @cached_property
    def _by_stem(self) -> defaultdict[str, list[str]]:
        stems: defaultdict[str, list[str]] = defaultdict(list)
        for path in self._tree.sizes:
            if suffix(path) in IMAGE_SUFFIXES:
                stems[_stem(path)].append(path)
        return stems


def _stem(name: str) -> str:
    base = name.rpartition("/")[2]
    return base[: -len(suffix(base))] if suffix(base) in IMAGE_SUFFIXES else base


def _source(
    tree: Tree, finder: _Finder, tables: Sequence[_Table], separator: str | None, notes: Sequence[str]
) -> Source:
    paths: list[str] = []
    cells = [cell for table in tables for cell in table.labels]
    several, decided = several_labels(cells, separator)
    for table in tables:
        where = f"{tree.location}/{table.name}"
        if several is None:
            _require(where, table.labels, "label")
        _require(where, table.paths, "file name")
        paths += _found_paths(where, table, finder)
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise SourceError(
            f"{tree.location}: {plural(len(twice), 'file')} named by more than one row: {examples(twice)}; "
            "keep one row for each"
        )
    sizes = [tree.size(path) or 0 for path in paths]
    labels = [str(cell) for cell in cells] if several is None else several
    rows = rows_table(tree.location, paths, labels, sizes, _all_splits(tables), _all_groups(tables))
    notes = [*notes, *dict.fromkeys(table.splits.note for table in tables if table.splits)]
    notes = [*notes, decided] if decided else notes
    warnings = [warning for table in tables for warning in table.warnings]
    named = " and ".join(table.name for table in tables)
    layout = f"files named in {named}"
    return make_source(tree.location, layout, rows.sort_by("path"), tree.reader, notes=notes, warnings=warnings)


def _require(where: str, values: Sequence[Cell], what: str) -> None:
    empty = [row for row, value in enumerate(values, 1) if not value]
    if empty:
        more = f" (and {plural(len(empty) - 1, 'more row')})" if len(empty) > 1 else ""
        raise SourceError(f"{where}: row {empty[0]}{more} has no {what}; fill it in or remove the row")


def _found_paths(where: str, table: _Table, finder: _Finder) -> list[str]:
    found = [finder.find(path or "", table.name) for path in table.paths]
    missing = [path or "" for path, names in zip(table.paths, found, strict=True) if not names]
    if missing:
        raise SourceError(
            f"{where}: {len(missing):,} of {plural(len(found), 'row')} name files that are missing: "
            f"{examples(missing)}; "
            "put them beside the table or remove these rows"
        )
    for row, names in enumerate(found, 1):
        if len(names) > 1:
            raise SourceError(
                f"{where}: row {row}, {table.paths[row - 1]!r}, fits {len(names)} files: {examples(names)}; "
                "write the path with its folder"
            )
    return [names[0] for names in found]


def _all_splits(tables: Sequence[_Table]) -> list[str | None]:
    """Return the split of every row: the column's where there is one, the table's name's where there are several."""
    of_table = [split_of_file(table.name) if len(tables) > 1 else None for table in tables]
    return [
        split
        for table, named in zip(tables, of_table, strict=True)
        for split in (table.splits.splits if table.splits else [named] * len(table.paths))
    ]


def _all_groups(tables: Sequence[_Table]) -> list[str | None]:
    return [group for table in tables for group in (table.groups or [None] * len(table.paths))]
