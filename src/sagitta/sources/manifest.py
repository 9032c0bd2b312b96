"""Tables and lists (CSV, TSV, Parquet, JSON, lines of text) that name image files and their labels."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from sagitta.dataset import Source, is_list, split_in, split_of_file
from sagitta.errors import SourceError
from sagitta.sources.base import IMAGE_SUFFIXES, Cell, SourceOptions, examples, refuse_flags, suffix
from sagitta.sources.columns import LABEL_COLUMNS, PATH_COLUMNS, SURE_LABELS, Columns, Labels, plain
from sagitta.sources.joining import Sheet, choose, require_most, source_of
from sagitta.sources.matching import Finder
from sagitta.sources.splitcolumns import GivenSplits, UnknownSplitError, given_splits
from sagitta.sources.splitlists import class_lists, refuse_lost_splits
from sagitta.sources.tables import TABLE_SUFFIXES, head, read_table
from sagitta.sources.tree import Tree

_NO_TABLES = re.compile(r"(?i)sample_?(?:sub.*)?\.\w+|.*(?:submission|prediction).*|(?:readme|license|requirements).*")
_DEEPEST, _MOST_TABLES = 2, 300
_INSIST = "or insist on class folders with --layout folders"
_IMAGES = re.compile(r"(?i).*(?:ima?ge?s?|photos?|pictures?|data|files|annotations?|labels?|meta\w*)")
_PREDICTED = frozenset({"path", "class", "probability", "error"})
"""Columns of what ``sagitta predict`` writes."""
_SPLIT_NUMBERS = frozenset("01234")
_BOXED = re.compile(r"(?:\S+(?:\s+-?\d+(?:\.\d+)?){4}\s*)+")


@dataclass
class _Seen:
    """What the tables of a tree say: those with labels, those without, and why others cannot be used."""

    labelled: list[Sheet] = field(default_factory=list)
    unlabelled: list[Sheet] = field(default_factory=list)
    doubts: list[SourceError] = field(default_factory=list)


def manifest(tree: Tree, options: SourceOptions) -> Source | None:
    """Return the images named by the tables in ``tree``, or None where no table names images and their labels.

    Tables lie in the top folder, or one or two folders below. A table that names images without labels (the ids of a
    test) is none.

    Raises:
        SourceError: a table names the images but not evidently their labels, or says where objects are in them, or
            as :func:`open_table`.
    """
    asked = options.layout == "manifest" or options.names_columns()
    finder = Finder(tree)
    seen = _Seen()
    candidates = _candidates(tree)
    for name in candidates:
        try:
            _look_at(tree, finder, name, options, seen, asked=asked)
        except UnknownSplitError:
            raise  # whatever the other tables say of the classes, these splits would be lost
        except SourceError as error:
            if asked or not _is_of_one_class(tree, name):
                seen.doubts.append(error)
    _read_alike(tree, finder, options, seen)
    if not asked and _concern_some_classes(tree, seen.labelled):
        seen.labelled = []
    labelled = seen.labelled or class_lists(tree, seen.unlabelled)
    if not labelled:
        if seen.doubts:
            raise seen.doubts[0]
        if asked and candidates:
            _read(tree, finder, candidates[0], options)  # says which column it lacks
        refuse_lost_splits(tree, seen.unlabelled)
        return None
    chosen, notes = choose(tree, labelled)
    if not asked:
        require_most(tree, chosen)
        _refuse_against_folders(tree, chosen)
    passed = [str(error).removeprefix(f"{tree.location}/").partition(";")[0] for error in seen.doubts[:3]]
    notes += [f"not used: {why}" for why in passed]
    source = source_of(tree, finder, chosen, options, notes, seen.unlabelled)
    return replace(source, warnings=(*source.warnings, *_unread_splits(candidates, seen, source.notes)))


def _unread_splits(candidates: Sequence[str], seen: _Seen, notes: Sequence[str]) -> list[str]:
    """Return a sentence on files that are called after splits and name no image: they may divide places or patients."""
    known = {sheet.name for sheet in (*seen.labelled, *seen.unlabelled)}
    unread = [name for name in candidates if name not in known and re.search(r"splits?\b", _stem(name))]
    unread = [name for name in unread if not any(name in note for note in notes)]
    return [f"{examples(unread)}: not used, for no image is named in it; its splits are lost"] if unread else []


def refuse_unlabelled(tree: Tree) -> None:
    """Check, where no labels were found, that no table names the images.

    Raises:
        SourceError: one does; none of its columns is evidently the class.
    """
    seen = _Seen()
    for name in _candidates(tree):
        with suppress(SourceError):
            _look_at(tree, Finder(tree), name, SourceOptions(), seen, asked=False)
    for sheet in seen.unlabelled:
        if len(sheet.columns) > 1:
            raise SourceError(
                f"{tree.location}/{sheet.name}: names the images, but which column has their classes is not evident; "
                f"its columns are {examples(sheet.columns, 20)}: name it with --label-column, {_INSIST}"
            )


def open_table(tree: Tree, name: str, options: SourceOptions) -> Source:
    """Return the images that the table ``name`` names, relative to its folder or in a folder beside it.

    Raises:
        SourceError: the table cannot be read, lacks a column, a label or a path, repeats a path, or names files that
            are missing.
    """
    finder = Finder(tree)
    return source_of(tree, finder, [_read(tree, finder, name, options)], options)


def _candidates(tree: Tree) -> list[str]:
    """Return the names of files that may be tables of the images, the topmost first."""
    # Kaggle's sample_submission.csv has labels that mean nothing.
    found = [
        name
        for name in tree.sizes
        if suffix(name) in TABLE_SUFFIXES
        and name.count("/") <= _DEEPEST
        and not _NO_TABLES.fullmatch(name.rpartition("/")[2])
    ]
    if any("/" in name for name in found):
        stems = {_stem(name) for name in tree.sizes if suffix(name) in IMAGE_SUFFIXES}
        found = [name for name in found if "/" not in name or _stem(name) not in stems]  # such is of one image
    if len(found) > _MOST_TABLES:
        found = [name for name in found if "/" not in name]
    return sorted(found, key=lambda name: (name.count("/"), name))


def _is_of_one_class(tree: Tree, name: str) -> bool:
    """Say whether a table lies in one of several class folders: what it says in doubt concerns these images only."""
    folder, below, _ = name.partition("/")
    if not below or split_in(folder) or _IMAGES.fullmatch(folder):
        return False
    images = (other for other in tree.sizes if suffix(other) in IMAGE_SUFFIXES)
    return any("/" in other and not other.startswith(f"{folder}/") for other in images)


def _refuse_against_folders(tree: Tree, sheets: Sequence[Sheet]) -> None:
    """Refuse to choose between class folders and a column whose name does not say class, where they disagree.

    Raises:
        SourceError: each of them may hold the classes.
    """
    for sheet in sheets:
        if not sheet.label_column or plain(sheet.label_column) in SURE_LABELS:
            continue
        pairs = {
            (files[0].rpartition("/")[0].rpartition("/")[2], str(label))
            for files, label in zip(sheet.files, sheet.labels, strict=True)
            if files
        }
        folders, labels = ({pair[place] for pair in pairs} for place in (0, 1))
        if min(len(folders), len(labels)) > 1 and len(pairs) > max(len(folders), len(labels)):
            if any(not name or _IMAGES.fullmatch(name) or split_in(name) or name[-1].isdigit() for name in folders):
                continue
            raise SourceError(
                f"{tree.location}/{sheet.name}: {sheet.label_column!r} ({examples(sorted(labels), 3)}) may be the "
                f"class, and so may the folder ({examples(sorted(folders), 3)}): take --label-column "
                f"{sheet.label_column} or --layout folders"
            )


def _concern_some_classes(tree: Tree, sheets: Sequence[Sheet]) -> bool:
    """Say whether all tables lie in class folders, while other class folders hold images that none of them names."""
    if not all(_is_of_one_class(tree, sheet.name) for sheet in sheets):
        return False
    named = {file.partition("/")[0] for sheet in sheets for files in sheet.files for file in files}
    images = (name for name in tree.sizes if suffix(name) in IMAGE_SUFFIXES and "/" in name)
    return any(name.partition("/")[0] not in named for name in images)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0].lower()


def _look_at(tree: Tree, finder: Finder, name: str, options: SourceOptions, seen: _Seen, *, asked: bool) -> None:
    """Add the table ``name`` to ``seen`` where its first rows name files.

    Raises:
        SourceError: they do, but it cannot be used; it was ``asked`` for and lacks a column; or they are predictions.
    """
    first = head(tree, name, lambda text: bool(finder.find(name, [text])[0]))
    columns = None if first is None else Columns(name, first, finder)
    if columns and not asked and _PREDICTED.issubset(columns.values):
        raise SourceError(
            f"{tree.location}/{name}: what a model predicted, not labels; move it away, {_INSIST}, or take them "
            "as labels with --label-column class"
        )
    if columns is None or (options.path_column not in columns.values and columns.path() is None):
        if columns is not None:
            _refuse_near(f"{tree.location}/{name}", columns)
        if not asked or "/" in name:
            return
    sheet = _read(tree, finder, name, options, alone=False)
    if not asked and _lists_classes(tree, sheet):
        return
    if asked or any(sheet.files):
        (seen.labelled if sheet.used else seen.unlabelled).append(sheet)


def _refuse_splits(where: str, name: str, column: str, cells: Sequence[Cell]) -> None:
    """Check that what seem to be classes are not splits by number, as in CelebA's ``list_eval_partition.txt``.

    Raises:
        UnknownSplitError: the file is called after them, and the column by no name of a class holds few small numbers.
    """
    words = set(re.findall(r"[a-z]+", _stem(name)))
    called = "partition" in words or (words & {"split", "splits"} and split_of_file(name) is None)
    numbers = set(map(str, cells))
    if called and plain(column) not in LABEL_COLUMNS and numbers <= _SPLIT_NUMBERS:
        raise UnknownSplitError(
            f"{where}: column {column!r} holds {examples(sorted(numbers))}, which are splits by the file's name; write "
            f"train, val or test, or if they are the classes, --label-column {column!r}"
        )


def _refuse_near(where: str, columns: Columns) -> None:
    """Check that a table that names no file does not nearly do so.

    Raises:
        SourceError: it names folders of images, or files but for leading zeros or the extension.
    """
    if folders := columns.names_folders():
        raise SourceError(
            f"{where}: column {folders!r} names folders of images, not files; write a row for each image, {_INSIST}"
        )
    if numbers := columns.numbers_folders():
        raise SourceError(
            f"{where}: column {numbers[0]!r} names folders of images, not files, and {numbers[1]!r} their classes, "
            f"perhaps; write a row for each image, {_INSIST}"
        )
    if near := columns.nearly_path():
        column, value, file = near
        raise SourceError(
            f"{where}: column {column!r} names no file, but {value!r} is nearly {file}: have names lost leading zeros, "
            f"or another extension? mend the column, {_INSIST}"
        )


def _lists_classes(tree: Tree, sheet: Sheet) -> bool:
    """Say whether rows are numbered classes rather than images: 0, cat; 1, dog; while there are many more images."""
    labels = [cell for cell in sheet.labels if isinstance(cell, str)]
    images = sum(suffix(name) in IMAGE_SUFFIXES for name in tree.sizes)
    numbered = all((path or "").isdecimal() for path in sheet.paths)
    return numbered and 1 < len(labels) == len(set(labels)) and len(labels) * 2 < images


def _read_alike(tree: Tree, finder: Finder, options: SourceOptions, seen: _Seen) -> None:
    """Read the label column of tables that have the columns of one that is evident: of a few rows it need not be."""
    known = {sheet.columns: sheet.label_column for sheet in seen.labelled if sheet.label_column}
    for sheet in [sheet for sheet in seen.unlabelled if sheet.columns in known]:
        named = replace(options, label_column=known[sheet.columns])
        seen.unlabelled.remove(sheet)
        seen.labelled.append(_read(tree, finder, sheet.name, named, alone=False))


def _read(tree: Tree, finder: Finder, name: str, options: SourceOptions, *, alone: bool = True) -> Sheet:
    """Return the table ``name``. What it lacks is an error if it is ``alone``: else another may have it.

    Raises:
        SourceError: it cannot be read, lacks a column, or tells splits where classes are sought.
    """
    where = f"{tree.location}/{name}"
    table = read_table(where, name, tree.reader.read(name), lambda text: bool(finder.find(name, [text])[0]))
    columns = Columns(name, table, finder)
    path = None if options.path_column else columns.path()
    if path and (rival := columns.rival(path)):
        raise SourceError(
            f"{where}: {path!r} and {rival!r} name different images in one row; write a row for each image, or name "
            "one of the columns with --path-column"
        )
    path = path or _named(where, table, options.path_column, PATH_COLUMNS, "--path-column")
    splits, warnings = _splits(where, table, columns, path, options)
    taken = splits.columns if splits else ()
    labels = _labels_of(where, table, columns, path, options, taken, alone=alone)
    grouped = options.group_column and (alone or options.group_column in columns.values)
    paths = _column(where, table, path, (), "--path-column")
    cells = _cells(where, table, labels) if labels else []
    if labels.column and not options.label_column:
        _refuse_splits(where, name, labels.column, cells)
    return Sheet(
        name=name,
        columns=tuple(table.column_names),
        used=f"file in {path!r}, {labels}" if labels else "",
        label_column=labels.column or "",
        paths=paths,
        files=finder.find(name, paths),
        labels=cells,
        splits=splits,
        warnings=tuple(f"{name}: {warning}" for warning in warnings),
        groups=_column(where, table, options.group_column, (), "--group") if grouped else None,
        group_hint=None if options.group_column else columns.group(path, labels.column),
    )


def _labels_of(
    where: str,
    table: pa.Table,
    columns: Columns,
    path: str,
    options: SourceOptions,
    taken: Sequence[str],
    *,
    alone: bool,
) -> Labels:
    """Return what tells the labels: not the columns ``taken`` for splits.

    Raises:
        SourceError: nothing does in a table that stands ``alone``; it is in doubt; or several columns are named for
            the classes that do not hold 0 and 1.
    """
    if several := _several_of(table, options.label_column):
        if odd := columns.no_flag(several):
            raise SourceError(
                f"{where}: column {odd!r} does not hold 0 and 1 for a class, as several with --label-column have to"
            )
        return Labels(flags=several)
    if options.label_column and (alone or options.label_column in table.column_names):
        return Labels(_named(where, table, options.label_column, (), "--label-column"))
    if options.label_column:
        return Labels()
    labels = columns.labels(path, (*taken, options.group_column))
    if labels.doubt:
        raise SourceError(
            f"{where}: names the images in {path!r}, but their classes are not evident: {labels.doubt}; its columns "
            f"are {examples(table.column_names, 20)}: name it with --label-column, or several of 0 and 1 with commas, "
            f"{_INSIST}"
        )
    if not labels and alone:
        _named(where, table, None, LABEL_COLUMNS, "--label-column")
    return labels


def _several_of(table: pa.Table, asked: str | None) -> tuple[str, ...]:
    """Return the columns that are named with commas, ``cat,dog``, where all are there and none is called that."""
    names = tuple(name.strip() for name in (asked or "").split(","))
    there = len(names) > 1 and asked not in table.column_names and set(names) <= set(table.column_names)
    return names if there else ()


def _cells(where: str, table: pa.Table, labels: Labels) -> list[Cell]:
    """Return what the table says of each row's labels: text, lists of text where there are several, or None."""
    if labels.flags:
        return labels.flagged(table)
    name = str(labels.column)
    column = table.column(table.column_names.index(name))
    if not is_list(column.type):
        return [*_without_boxes(where, _column(where, table, name, (), "--label-column"))]
    try:
        lists = pc.cast(column, pa.list_(pa.string())).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"{where}: column {name!r} holds no lists of text or numbers ({error})") from error
    if found := next((text for texts in lists for text in texts or () if text and text.startswith("{")), None):
        raise SourceError(f"{where}: column {name!r} holds objects, not labels, as {found[:60]}; write their names")
    refuse_flags(lists, where, name)
    return [list(dict.fromkeys(label.strip() for label in labels or () if label and label.strip())) for labels in lists]


def _without_boxes(where: str, texts: Sequence[str | None]) -> Sequence[str | None]:
    """Return the class of ``n01440764 10 20 30 40``, ImageNet's way, where a row's boxes have one class only.

    Raises:
        SourceError: a row has boxes of several classes.
    """
    given = [text for text in texts if text]
    if not given or not all(_BOXED.fullmatch(text) for text in given):
        return texts
    classes = [dict.fromkeys(text.split()[::5]) if text else {} for text in texts]
    if row := next((row for row, found in enumerate(classes, 1) if len(found) > 1), None):
        raise SourceError(
            f"{where}: row {row} has boxes of several classes: it is for detection; give a table of classes"
        )
    return [next(iter(found), None) for found in classes]


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


def _splits(
    where: str, table: pa.Table, columns: Columns, path: str, options: SourceOptions
) -> tuple[GivenSplits | None, list[str]]:
    """Return what the columns say of splits, and warnings; see :func:`given_splits`."""

    def texts(column: str) -> list[str | None]:
        return _column(where, table, column, (), "--split-column")

    labels = _several_of(table, options.label_column) or (options.label_column,)
    names = [name for name in table.column_names if name not in (path, *labels)]
    given, warnings = given_splits(where, names, texts, options.split_column)
    if given is None and options.split_column is None and (name := columns.split(options.label_column)):
        return given_splits(where, names, texts, name)
    return given, warnings
