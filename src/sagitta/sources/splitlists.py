"""Lists and tables that divide images into splits while their classes are the folders: Food-101, CUB, splits.csv."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sagitta.dataset import split_of, split_of_file
from sagitta.errors import SourceError
from sagitta.sources.base import Cell, examples
from sagitta.sources.joining import Sheet, split_folder
from sagitta.sources.splitcolumns import GivenSplits
from sagitta.sources.tree import Tree


def class_lists(tree: Tree, sheets: Sequence[Sheet]) -> list[Sheet]:
    """Return lists of ``CLASS/name`` with the folders as labels; empty where there are none.

    They are one a split, or CUB's ``images.txt`` with ``train_test_split.txt`` beside it, or one table with a column of
    splits.

    Raises:
        SourceError: two lists are of one split, or train has none.
    """
    for sheet in sheets:
        if sheet.name.rpartition("/")[2] == "images.txt" and (splits := _cub_splits(tree, sheet)):
            return [replace(sheet, used="class in the path", labels=_classes(sheet), splits=splits)]
    of_files = _folders_of_files(sheets)
    for sheet in sheets:
        classes = _classes_of_files(sheet, of_files)
        if divides(sheet) and classes and None not in classes:
            return [replace(sheet, used="class in the files' folders", labels=classes)]
    lists: dict[str, Sheet] = {}
    for sheet in sheets:
        split = split_of_file(sheet.name)
        classes = _classes(sheet)
        if None in classes and of_files:
            classes = _classes_of_files(sheet, of_files)
        if split is None or len(sheet.columns) > 1 or None in classes or not any(sheet.files):
            continue
        if split in lists:
            raise SourceError(
                f"{tree.location}: {lists[split].name} and {sheet.name} both list images of {split}; leave one of "
                "them, or insist on class folders, to be split anew, with --layout folders"
            )
        lists[split] = replace(sheet, used="file and class in its lines", labels=classes)
    if lists and "train" not in lists and len({label for sheet in lists.values() for label in sheet.labels}) > 1:
        raise SourceError(
            f"{tree.location}: {examples([sheet.name for sheet in lists.values()])} name images of "
            f"{' and '.join(lists)}, and no list those of train; write one, or insist on class folders with "
            "--layout folders"
        )
    return list(lists.values()) if len(lists) > 1 else []


def divides(sheet: Sheet) -> bool:
    """Say whether a column of a table gives its rows to different splits."""
    return sheet.splits is not None and len({split for split in sheet.splits.splits if split}) > 1


def refuse_lost_splits(tree: Tree, sheets: Sequence[Sheet]) -> None:
    """Check that lists without labels do not divide the images otherwise than their folders do.

    Raises:
        SourceError: two or more of them are called after different splits, or a column of one divides its rows.
    """
    if table := next(filter(divides, sheets), None):
        raise SourceError(
            f"{tree.location}/{table.name}: divides the images into splits, but which column has their classes is not "
            f"evident; its columns are {examples(table.columns, 20)}: name it with --label-column, or insist on what "
            "the folders and names say, to be split anew, with --layout folders or filenames"
        )
    lists = {
        sheet.name: split
        for sheet in sheets
        if len(sheet.columns) == 1
        and (split := split_of_file(sheet.name))
        and any(split_folder(file) != split for file in sheet.found_files())
    }
    if len(set(lists.values())) > 1:
        raise SourceError(
            f"{tree.location}: {examples([*lists])} list images of {' and '.join(dict.fromkeys(lists.values()))}, but "
            "not their classes; write a class beside each name, or insist on what the folders and names say, to be "
            "split anew, with --layout folders or filenames"
        )


def _cub_splits(tree: Tree, sheet: Sheet) -> GivenSplits | None:
    """Return the splits in ``train_test_split.txt`` (number, 1 for train), or None where there is none."""
    beside = f"{sheet.name.removesuffix('images.txt')}train_test_split.txt"
    if beside not in tree.sizes or len(sheet.columns) != 2:
        return None
    rows, flags = (
        [line.split() for line in tree.reader.read(name).decode("utf-8", "replace").splitlines() if line.strip()]
        for name in (sheet.name, beside)
    )
    told = {row[0]: "train" if row[-1] == "1" else "test" for row in flags}
    return GivenSplits((), [told.get(row[0]) for row in rows], is_flag=False, note=f"splits of {beside}")


def _classes(sheet: Sheet) -> list[Cell]:
    return [_folder(path or "") for path in sheet.paths]


def _classes_of_files(sheet: Sheet, folders: Mapping[str, str]) -> list[Cell]:
    return [folders.get(files[0]) if len(files) == 1 else None for files in sheet.files]


def _folders_of_files(sheets: Sequence[Sheet]) -> dict[str, str]:
    """Return file -> its folder, for lists of names without one; empty where one folder holds all of the files."""
    files = [found for sheet in sheets if len(sheet.columns) == 1 or divides(sheet) for found in sheet.found_files()]
    folders = {file: parts[-2] for file in files if len(parts := file.split("/")) > 1 and not split_of(parts[-2])}
    return folders if len(set(folders.values())) > 1 else {}


def _folder(path: str) -> str | None:
    """Return the folder of ``CLASS/name``; a split's or ``images`` in front does not count."""
    *folders, _ = path.replace("\\", "/").removeprefix("./").split("/")
    if len(folders) > 1 and (split_of(folders[0]) or folders[0].lower() in ("images", "data")):
        folders = folders[1:]
    return folders[0] if len(folders) == 1 else None
