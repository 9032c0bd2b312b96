"""The column of a table that gives its rows to splits: found by its name, read by its values, never guessed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sagitta.dataset import flag_of, mapping_note, read_split_column, split_columns
from sagitta.errors import SourceError
from sagitta.sources.base import examples

NO_COLUMN = "none"
"""What is written for the column where none gives splits."""

_FOLD = re.compile(r"(?i)(?:k|cv)?[ _-]?folds?(?:[ _-]?(?:id|no|nr|number))?")
_ORDER = ("val", "test", "train")


class UnknownSplitError(SourceError):
    """A column of splits holds values that name none."""


@dataclass(frozen=True)
class GivenSplits:
    """What the columns of a table say about its rows.

    Attributes:
        columns: that say it.
        splits: of each row; None where its cell is empty.
        is_flag: they come from booleans (``is_valid``), of which false does not say which other split it is.
        note: which columns were used, and what was taken for what.
    """

    columns: tuple[str, ...]
    splits: list[str | None]
    is_flag: bool
    note: str

    def beside(self, where: str, named: str | None) -> list[str | None]:
        """Return the split of each row of a table that is itself called after a split, or not (None).

        Raises:
            SourceError: the rows of a test would be of another split.
        """
        splits = [split or named for split in self.splits]
        if named in (None, "train"):
            return splits
        splits = [named if self.is_flag and split == "train" else split for split in splits]
        if other := next((split for split in splits if split != named), None):
            raise SourceError(f"{where}: is {named} by its name, but has {other} in {self.note}; mend one")
        return splits


def given_splits(
    where: str, names: Sequence[str], read: Callable[[str], Sequence[str | None]], asked: str | None
) -> tuple[GivenSplits | None, list[str]]:
    """Return the splits that a table's columns give, or None where no column does; and warnings.

    Args:
        where: the table, for messages.
        names: of its columns.
        read: returns a column's values as text.
        asked: the column that the user names; ``NO_COLUMN`` for none; None to look for one.

    Raises:
        UnknownSplitError: a column of splits holds a value that names none.
        SourceError: what ``read`` raises.
    """
    if asked and asked != NO_COLUMN:
        return _given(where, {asked: read(asked)}, asked), []
    wanted: dict[str, Sequence[str | None]] = {}
    warnings = []
    for name in split_columns(names) if asked is None else ():
        values = read(name)
        column = read_split_column(name, values, asked=False)
        if column is None and flag_of(name) and set(values) == {"0", "1"}:
            warnings.append(f"column {name!r} of 0 and 1 counts as no split (--split-column {name} if it is one)")
        if column is None or (wanted and not flag_of(name)):
            continue
        if flag_of(name) and _mostly(values, column.splits.get):
            warnings.append(f"column {name!r} is true in most rows, so it counts as no split (--split-column {name})")
        elif not wanted or all(map(flag_of, wanted)):
            wanted[name] = values
    folds = [name for name in names if _FOLD.fullmatch(name)] if asked is None and not wanted else []
    warnings += [f"column {name!r} is not used; to test on one of the folds, write a column split" for name in folds]
    return (_given(where, wanted, None) if wanted else None), warnings


def _mostly(values: Sequence[str | None], split_of: Callable[[str | None], str | None]) -> bool:
    """Say whether a column sets apart more rows than it leaves to train on: it then says that rows are valid."""
    return sum(split_of(value) in ("val", "test") for value in values) > len(values) / 2


def _given(where: str, columns: dict[str, Sequence[str | None]], asked: str | None) -> GivenSplits:
    found, notes = [], []
    for name, values in columns.items():
        column = read_split_column(name, values, asked=asked is not None)
        assert column is not None  # so it was chosen
        if column.unknown:
            out = "" if asked else f", or use no column with --split-column {NO_COLUMN}"
            raise UnknownSplitError(
                f"{where}: split column {name!r} holds {examples(column.unknown)}; write train, val or test{out}"
            )
        found.append([column.splits[value] for value in values])
        mapped = mapping_note((value, split) for value, split in column.splits.items() if value)
        notes.append(f"{name!r}{f' ({mapped})' if mapped else ''}")
    splits = [min(filter(None, cells), key=_ORDER.index, default=None) for cells in zip(*found, strict=True)]
    return GivenSplits(tuple(columns), splits, all(map(flag_of, columns)), f"splits of column {' and '.join(notes)}")
