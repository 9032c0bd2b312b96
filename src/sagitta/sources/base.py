"""What every source becomes: a table of rows, a reader of their bytes, and class names in label order."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from sagitta.dataset import ROWS, Reader, Source, single_labels
from sagitta.errors import ConfigError, SourceError

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif",
    ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".tga", ".qoi",
})  # fmt: skip
"""Lower-case suffixes that mark a file as an image."""


@dataclass(frozen=True)
class SourceOptions:
    """What to impose where detection would choose otherwise.

    Attributes:
        layout: one of ``LAYOUTS``.
        label_column: column of a manifest or of image Parquet that holds the class; likewise the others.
        label_separator: between several labels in one text; empty for one label a row; detected by default.
        path_column: column that names the image file.
        split_column: column that holds train, val or test.
        group_column: column whose equal values must stay in one split.

    Raises:
        ConfigError: one of them is no text, or an empty name, which a script's empty variable would be.
    """

    layout: str | None = None
    label_column: str | None = None
    label_separator: str | None = None
    path_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (isinstance(value, str) and (value or name == "label_separator")):
                raise ConfigError(f"{name} {value!r}: must be a name; leave it out where there is none")

    def names_columns(self) -> bool:
        """Return whether any column is named, which only tables have."""
        columns = (self.label_column, self.path_column, self.split_column, self.group_column)
        return any((*columns, self.label_separator))


def examples(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, comma-separated, with an ellipsis where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def suffix(name: str) -> str:
    """Return the lower-case extension of a '/'-separated name, with its dot, or ''."""
    stem, dot, extension = name.rpartition("/")[2].rpartition(".")
    return dot + extension.lower() if stem else ""


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels: numerically where all are integers, alphabetically otherwise."""
    names = sorted(set(labels))
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        names.sort(key=int)
    return tuple(names)


def rows_table(
    location: str,
    paths: Sequence[str],
    labels: Sequence[str] | Sequence[list[str]],
    sizes: Sequence[int],
    splits: Sequence[str | None] | None = None,
    groups: Sequence[str | None] | None = None,
) -> pa.Table:
    """Return a table of schema ``ROWS`` from its columns.

    Raises:
        SourceError: a name is not valid Unicode.
    """
    missing = pa.nulls(len(paths), pa.string())
    kind = pa.list_(pa.string()) if any(isinstance(label, list) for label in labels) else pa.string()
    try:
        columns = [
            pa.array(paths, pa.string()),
            pa.array(labels, kind),
            missing if splits is None else pa.array(splits, pa.string()),
            missing if groups is None else pa.array(groups, pa.string()),
            pa.array(sizes, pa.int64()),
        ]
    except UnicodeEncodeError as error:
        raise SourceError(f"{location}: the name {error.object!r} is not valid UTF-8; rename that file") from None
    return pa.table(columns, schema=ROWS.set(1, pa.field("label", kind)))


@dataclass
class Found:
    """Columns of the rows that a walk over files finds, and how many files of each split have no label."""

    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    unlabelled: Counter[str | None] = field(default_factory=Counter)

    def add(self, path: str, label: str, size: int, split: str | None) -> None:
        """Add a row."""
        self.paths.append(path)
        self.labels.append(label)
        self.sizes.append(size)
        self.splits.append(split)

    def table(self, location: str) -> pa.Table:
        """Return the rows, of schema ``ROWS``; raises as :func:`rows_table`."""
        return rows_table(location, self.paths, self.labels, self.sizes, self.splits)


def make_source(
    location: str,
    layout: str,
    rows: pa.Table,
    reader: Reader,
    *,
    class_names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Source:
    """Return the source of ``rows``, its class names found.

    Raises:
        SourceError: there are no rows.
    """
    if rows.num_rows == 0:
        raise SourceError(f"{location}: {layout}, but no labelled image in it; check that this is the folder you meant")
    if class_names is None:
        class_names = class_order(pc.unique(single_labels(rows["label"])).to_pylist())
    return Source(location, layout, rows, reader, tuple(class_names), tuple(notes), tuple(warnings))


Cell = str | list[str] | None
"""A row's labels as written in a table; None where nothing is."""


_SEPARATORS = (";", "|")
_RECURRING = 0.75


def several_labels(cells: Sequence[Cell], separator: str | None) -> tuple[list[list[str]] | None, str | None]:
    """Return the labels of every row where rows have several, else None; and what was decided, in one sentence.

    Text is split without being asked only where the parts are seen to be labels of their own: three quarters of them
    also occur beside other parts or alone. ``tench; Tinca tinca`` stays one class.

    Args:
        cells: one a row.
        separator: of labels in text; empty for one label a row; None to detect ``;`` and ``|``.
    """
    if any(isinstance(cell, list) for cell in cells):
        lists = [cell if isinstance(cell, list) else split_text(cell, separator) for cell in cells]
        return lists, "several labels a row, as lists"
    texts = [cell for cell in cells if isinstance(cell, str)]
    found = next((mark for mark in _SEPARATORS if any(mark in text for text in texts)), None)
    if separator is None and found and _joins_labels(texts, found):
        separator = found
    if separator:
        note = f"several labels a row, separated by {separator!r} (if it is one: --label-separator '')"
        return [split_text(text if isinstance(text, str) else None, separator) for text in cells], note
    if separator is None and found:
        return None, f"labels with {found!r} count as one class each (if they are several: --label-separator {found!r})"
    return None, None


def split_text(text: str | None, separator: str | None) -> list[str]:
    """Return the labels in ``text``, each once, in their order; none in None or empty text."""
    parts = (text or "").split(separator) if separator else [text or ""]
    return list(dict.fromkeys(part for part in map(str.strip, parts) if part))


def _joins_labels(texts: Sequence[str], mark: str) -> bool:
    """Say whether most parts of the texts that hold ``mark`` occur in more than one distinct text."""
    distinct = set(texts)
    counts = Counter(part for text in distinct for part in split_text(text, mark))
    parts = {part for text in distinct if mark in text for part in split_text(text, mark)}
    return sum(counts[part] > 1 for part in parts) >= _RECURRING * max(len(parts), 1)
