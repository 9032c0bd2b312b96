"""From the tables that name images to a source: which of them count, and what their rows say together."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sagitta.dataset import Reader, Source, is_no_label, plural, split_of, split_of_file
from sagitta.errors import ImageError, SourceError
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
from sagitta.sources.matching import Finder
from sagitta.sources.splitcolumns import GivenSplits
from sagitta.sources.tree import Tree


@dataclass(frozen=True)
class Sheet:
    """A table that was read.

    Attributes:
        name: the file's.
        columns: its columns' names.
        used: which of them tell the file and the class, in words; empty where none tells a class.
        label_column: the one that tells the class, or ''.
        paths: what it writes of each row's file.
        files: the files that each may mean.
        labels: what it writes of each row's class; empty where it has none.
        splits: of each row; None where it has no such column; likewise ``groups``.
        warnings: what a person must see of it.
        group_hint: a column that seems to tell which rows belong together.
    """

    name: str
    columns: tuple[str, ...]
    used: str
    label_column: str
    paths: list[str | None]
    files: list[list[str]]
    labels: list[Cell]
    splits: GivenSplits | None
    groups: list[str | None] | None
    group_hint: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[bool, int, str]:
        """Sorts the table to use first: one called train, then the longest."""
        return split_of_file(self.name) != "train", -len(self.paths), self.name

    def found_files(self) -> list[str]:
        """Return the files that are there."""
        return [files[0] for files in self.files if files]

    def found(self) -> dict[str, Cell]:
        """Return file -> label of the files that are there."""
        return {files[0]: label for files, label in zip(self.files, self.labels, strict=True) if files}


def choose(tree: Tree, sheets: Sequence[Sheet]) -> tuple[list[Sheet], list[str]]:
    """Return the tables to use: all those of different splits, else one; and a note that names the others.

    Tables of equal columns that name different files are parts of one.

    Raises:
        SourceError: one that is not used gives other labels to the same files.
    """
    by_split: dict[str | None, list[Sheet]] = {}
    for sheet in sorted(sheets, key=lambda sheet: sheet.rank):
        parts = by_split.setdefault(split_of_file(sheet.name), [])
        taken = {file for part in parts for file in part.found()}
        if not parts or (sheet.columns == parts[0].columns and not taken & sheet.found().keys()):
            parts.append(sheet)
    named = [split for split in sorted(by_split, key=str) if split is not None]
    if len(named) > 1:
        chosen = [sheet for split in named for sheet in by_split[split]]
    else:
        chosen = min(by_split.values(), key=lambda parts: parts[0].rank)
    known = {file: label for sheet in chosen for file, label in sheet.found().items()}
    unused = [sheet for sheet in sheets if sheet not in chosen]
    for sheet in unused:
        if any(file in known and label != known[file] for file, label in sheet.found().items()):
            raise SourceError(
                f"{tree.location}: {chosen[0].name} ({chosen[0].used}) and {sheet.name} ({sheet.used}) give different "
                f"labels to the same images; give one of them itself: {tree.location}/{chosen[0].name}"
            )
    return chosen, [f"not used: {examples([sheet.name for sheet in unused])}"] if unused else []


def require_most(tree: Tree, sheets: Sequence[Sheet]) -> None:
    """Check that the tables are of all images, not of some that somebody wrote down.

    Raises:
        SourceError: they name less than half of what lies in several folders, or none of train though there is one.
    """
    images = [name for name in tree.sizes if suffix(name) in IMAGE_SUFFIXES]
    named = {file for sheet in sheets for file in sheet.found()}
    folders = {file.rpartition("/")[0] for file in named}
    beside = sum(name.rpartition("/")[0] in folders for name in images)
    ways = (
        f"if it is the labels: --layout manifest, or give it itself ({tree.location}/{sheets[0].name}); "
        "if the folders are: --layout folders"
    )
    if len(folders) > 1 and len(named) * 2 < beside:
        some = f"{len(named):,} of {plural(beside, 'image')} in its folders"
        raise SourceError(f"{tree.location}: {_names(sheets)} names {some}; {ways}")
    of_rest = {split_folder(name) for name in images if name not in named}
    if "train" in of_rest and not {None, "train"} & {split_folder(name) for name in named}:
        raise SourceError(f"{tree.location}: {_names(sheets)} names no image of the folder of train; {ways}")


def _names(sheets: Sequence[Sheet]) -> str:
    more = f" and {len(sheets) - 5} more" if len(sheets) > 5 else ""
    return " and ".join(sheet.name for sheet in sheets[:5]) + more


def split_folder(name: str) -> str | None:
    """Return the split that a file's folders name."""
    return _split_of_folder(name.rpartition("/")[0])


@lru_cache(maxsize=4096)
def _split_of_folder(folder: str) -> str | None:
    return next((split for part in folder.split("/") if (split := split_of(part))), None)


def source_of(
    tree: Tree,
    finder: Finder,
    sheets: Sequence[Sheet],
    options: SourceOptions,
    notes: Sequence[str] = (),
    others: Sequence[Sheet] = (),
) -> Source:
    """Return the source of the rows of ``sheets``.

    Args:
        tree: the files.
        finder: of these.
        sheets: tables with labels.
        options: the separator of labels, and what becomes of missing files.
        notes: what was decided already.
        others: tables without labels, which may tell splits.

    Raises:
        SourceError: a row has no file or label, names one that is missing or several, or is not the only one of its
            file; or labels seem to be several and it is not evident.
    """
    cells = [None if _is_nothing(cell) else cell for sheet in sheets for cell in sheet.labels]
    several, decided = several_labels(
        cells, options.label_separator, sheets[0].label_column, f"{tree.location}/{sheets[0].name}"
    )
    paths, missing = _paths(tree, finder, sheets, keep_missing=options.keep_missing)
    splits, how = _splits(sheets, paths, others)
    groups = _groups(tree, sheets, paths, others, options.group_column)
    unnamed = _unnamed(tree, paths)
    kept, warnings = _labelled(tree, sheets, cells, several=several is not None)
    paths = [paths[row] for row in kept]
    splits, groups = ([column[row] for row in kept] for column in (splits, groups))
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise SourceError(
            f"{tree.location}: {plural(len(twice), 'file')} named by more than one row: {examples(twice)}; "
            "keep one row for each"
        )
    labels = [str(cells[row]) for row in kept] if several is None else [several[row] for row in kept]
    sizes = [0 if path in missing else tree.size(path) or 0 for path in paths]
    rows = rows_table(tree.location, paths, labels, sizes, splits, groups)
    named = _names(sheets)
    reader = _WithoutMissing(tree.reader, frozenset(missing), named) if missing else tree.reader
    notes = [*dict.fromkeys(sheet.used for sheet in sheets), *notes, *([decided] if decided else []), *how]
    notes += unnamed
    return make_source(
        tree.location,
        f"files named in {named}",
        rows.sort_by("path"),
        reader,
        notes=notes,
        warnings=[
            *warnings,
            *(warning for sheet in sheets for warning in sheet.warnings),
            *_group_hints([*sheets, *others]),
        ],
    )


@dataclass(frozen=True)
class _WithoutMissing:
    """A reader that says of a file that is not there which table names it."""

    reader: Reader
    missing: frozenset[str]
    named: str

    def read(self, path: str) -> bytes:
        """Return the file's bytes; raises :class:`ImageError` for one that is missing, and what the reader raises."""
        if path in self.missing:
            raise ImageError(f"named in {self.named}, but no such file is there")
        return self.reader.read(path)


def _is_nothing(cell: Cell) -> bool:
    return isinstance(cell, str) and is_no_label(cell)


def _labelled(
    tree: Tree, sheets: Sequence[Sheet], cells: Sequence[Cell], *, several: bool
) -> tuple[list[int], list[str]]:
    """Return the rows that have a label, and a warning of the others.

    Of several labels a row, an empty cell is none of them, but ``NA`` is no answer.

    Raises:
        SourceError: half of the rows or more have none.
    """
    raw = [(sheet, row, cell) for sheet in sheets for row, cell in enumerate(sheet.labels, 1)]
    empty = [
        index for index, (_, _, cell) in enumerate(raw) if (_is_nothing(cell) if several else cells[index] is None)
    ]
    if not empty:
        return list(range(len(raw))), []
    sheet, row, _ = raw[empty[0]]
    where = f"{tree.location}/{sheet.name}"
    more = f" (and {plural(len(empty) - 1, 'more row')})" if len(empty) > 1 else ""
    if len(empty) * 2 >= len(raw):
        raise SourceError(f"{where}: row {row}{more} has no label; fill it in or remove the row")
    out = set(empty)
    warning = f"{sheet.name}: row {row}{more} has no label (empty, NA, nan or null) and is left out"
    return [index for index in range(len(raw)) if index not in out], [warning]


def _paths(tree: Tree, finder: Finder, sheets: Sequence[Sheet], *, keep_missing: bool) -> tuple[list[str], set[str]]:
    """Return the file of every row, and which of them are not there.

    Raises:
        SourceError: a row names none, several, or one that is missing without ``keep_missing``.
    """
    paths: list[str] = []
    missing: set[str] = set()
    for sheet in sheets:
        where = f"{tree.location}/{sheet.name}"
        if (row := next((row for row, path in enumerate(sheet.paths, 1) if not path), None)) is not None:
            more = sum(not path for path in sheet.paths) - 1
            rest = f" (and {plural(more, 'more row')})" if more else ""
            raise SourceError(f"{where}: row {row}{rest} has no file name; fill it in or remove the row")
        absent = [str(path) for path, files in zip(sheet.paths, sheet.files, strict=True) if not files]
        if absent and not keep_missing:
            raise SourceError(f"{where}: {_absent(finder, absent, len(sheet.paths))}")
        missing.update(absent)
        for row, files in enumerate(sheet.files, 1):
            if len(files) > 1:
                raise SourceError(
                    f"{where}: row {row}, {sheet.paths[row - 1]!r}, fits {len(files)} files: {examples(files)}; "
                    "write the path with its folder"
                )
            paths.append(files[0] if files else str(sheet.paths[row - 1]))
    return paths, missing


def _absent(finder: Finder, absent: Sequence[str], rows: int) -> str:
    """Return what to say of missing files, with the first ten of them."""
    text = f"{len(absent):,} of {plural(rows, 'row')} name files that are missing: {examples(absent, 10)}; "
    if near := finder.near(absent[0]):
        text += f"{near} is there: have names lost leading zeros, or another extension? "
    return (
        text
        + "put them beside the table, remove these rows, or leave them out: sagitta convert SRC OUT --on-bad quarantine"
    )


def _splits(
    sheets: Sequence[Sheet], paths: Sequence[str], others: Sequence[Sheet]
) -> tuple[list[str | None], list[str]]:
    """Return the split of every row, and how it was told if not by a column of its table.

    The column's where there is one, else that of the table's name where there are several, else of a table that tells
    splits only, else of the folders where each file lies in one that is called so.
    """
    splits: list[str | None] = []
    of_names = len({split_of_file(sheet.name) for sheet in sheets}) > 1
    for sheet in sheets:
        named = split_of_file(sheet.name) if of_names else None
        splits += sheet.splits.beside(sheet.name, named) if sheet.splits else [named] * len(sheet.paths)
    if any(splits):
        return splits, [*dict.fromkeys(sheet.splits.note for sheet in sheets if sheet.splits)]
    for names, told in _told_splits(others):
        if all(path in told for path in paths):
            return [told[path] for path in paths], [f"splits of {names}"]
    folders = [split_folder(path) for path in paths]
    if None not in folders and len(set(folders)) > 1:
        return folders, ["splits by the files' folders"]
    return splits, []


def _told_splits(others: Sequence[Sheet]) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield what tables without labels tell of splits: their names, and file -> split.

    Such a table has a column of splits, or is a list of files that is called after one.

    Raises:
        SourceError: two lists give a file to different splits, as where images were divided several times.
    """
    lists: dict[str, str] = {}
    names: list[str] = []
    for other in others:
        if other.splits:
            rows = zip(other.files, other.splits.splits, strict=True)
            yield other.name, {files[0]: split for files, split in rows if files}
        elif len(other.columns) == 1 and (split := split_of_file(other.name)):
            found = other.found_files()
            if twice := next((file for file in found if lists.get(file, split) != split), None):
                raise SourceError(
                    f"{examples([*names, other.name], 10)}: {twice} is in {lists[twice]} and in {split}; leave the "
                    "lists of one division, or write a column split into the table of classes"
                )
            lists.update(dict.fromkeys(found, split))
            names.append(other.name)
    if len(set(lists.values())) > 1:
        yield " and ".join(names), {**lists}


def _unnamed(tree: Tree, paths: Iterable[str]) -> list[str]:
    """Return a note on images that no row names; of a table given by itself the folder is not listed."""
    named = set(paths)
    listed = tree.__dict__.get("sizes", {})
    count = sum(suffix(name) in IMAGE_SUFFIXES and name not in named for name in listed)
    return [f"skipped {plural(count, 'image')} that no row names"] if count else []


def _groups(
    tree: Tree, sheets: Sequence[Sheet], paths: Sequence[str], others: Sequence[Sheet], asked: str | None
) -> list[str | None]:
    """Return the group of every row: its own table's, or that of a table without labels.

    Raises:
        SourceError: ``asked`` for, and no table has the column for every row.
    """
    if not asked or any(sheet.groups for sheet in sheets):
        return [group for sheet in sheets for group in (sheet.groups or [None] * len(sheet.paths))]
    for other in others:
        rows = zip(other.files, other.groups or (), strict=False)
        told = {files[0]: group for files, group in rows if files}
        if all(path in told for path in paths):
            return [told[path] for path in paths]
    columns = examples(sheets[0].columns, 20)
    raise SourceError(f"{tree.location}/{sheets[0].name}: no column {asked!r}; its columns are {columns}: mend --group")


def _group_hints(sheets: Sequence[Sheet]) -> list[str]:
    hinted = next((sheet for sheet in sheets if sheet.group_hint), None)
    if hinted is None:
        return []
    column = str(hinted.group_hint)
    return [
        f"{hinted.name}: rows of one {column!r} may be spread over train, val and test; if they belong together, "
        f"--group {column!r}"
    ]
