"""What every source becomes: a table of rows, a reader of their bytes, and class names in label order."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from sagitta.schema import SPLITS, SourceError, is_list

ROWS = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("size", pa.int64()),
    ]
)
"""``path`` is unique, '/'-separated and relative to the source; ``label`` a class name, or a list of them where rows
have several labels; ``split`` null or one of train, val, test; ``group`` null or the value of the group column;
``size`` the stored image's bytes (an estimate for arrays and Parquet)."""

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif",
    ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".tga", ".qoi",
})  # fmt: skip
"""Lower-case suffixes that mark a file as an image."""

_SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


class Reader(Protocol):
    """Reads the stored images of a source; picklable, and opens its files lazily in each process."""

    def read(self, path: str) -> bytes:
        """Return the image file's bytes for a row's ``path``.

        Raises:
            ImageError: the bytes cannot be had from the file that holds them.
            OSError: that file cannot be opened or read.
        """


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
    """

    layout: str | None = None
    label_column: str | None = None
    label_separator: str | None = None
    path_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None

    def names_columns(self) -> bool:
        """Return whether any column is named, which only tables have."""
        columns = (self.label_column, self.path_column, self.split_column, self.group_column)
        return any((*columns, self.label_separator))


@dataclass(frozen=True)
class Source:
    """Labelled images as somebody has them.

    Attributes:
        location: as the user named it.
        layout: what was detected, for people.
        rows: of schema ``ROWS``, in a deterministic order: by path; natural order for arrays and Parquet.
        reader: bytes of a row's path.
        class_names: in label order: the source's own where it defines one, else sorted; integers numerically.
        notes: what was left out or decided, one sentence each.
    """

    location: str
    layout: str
    rows: pa.Table
    reader: Reader
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def multilabel(self) -> bool:
        """Whether a row may have several labels, or none."""
        return is_list(self.rows.schema.field("label").type)

    def describe(self) -> str:
        """Return one line: what was detected, how much of it, what was left out, and how to override."""
        counts = Counter(self.rows["split"].to_pylist())
        splits = ", ".join(f"{name} {counts[name]:,}" for name in SPLITS if counts[name])
        images = f"{plural(self.rows.num_rows, 'image')} in {plural(len(self.class_names), 'class', 'classes')}"
        line = f"{self.location}: {self.layout}, {images}{f' ({splits})' if splits else ''}"
        return "; ".join([line, *self.notes, "another layout: --layout NAME"])


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return ``count`` with its noun: ``1 file``, ``2,000 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def examples(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, comma-separated, with an ellipsis where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def suffix(name: str) -> str:
    """Return the lower-case extension of a '/'-separated name, with its dot, or ''."""
    stem, dot, extension = name.rpartition("/")[2].rpartition(".")
    return dot + extension.lower() if stem else ""


def split_of(text: str | None) -> str | None:
    """Return the split that ``text`` names, in any case, or None: ``Validation`` is val, ``dev`` is nothing."""
    return _SPLIT_WORDS.get(text.strip().lower()) if text else None


def split_of_file(name: str) -> str | None:
    """Return the split that a file or else its nearest folder begins with: data/train-0.parquet, trainLabels.csv."""
    for part in reversed(name.split("/")):
        word = re.match(r"[A-Z]?[a-z]+|[A-Z]+", part)
        if word and (split := split_of(word.group())):
            return split
    return None


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


def single_labels(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return every label of every row, one after the other."""
    return pc.list_flatten(labels) if is_list(labels.type) else labels


def make_source(
    location: str,
    layout: str,
    rows: pa.Table,
    reader: Reader,
    *,
    class_names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Source:
    """Return the source of ``rows``, its class names found and a lone split dropped.

    Where every row is of one split (the test batch of CIFAR alone), that is no split at all: the split column becomes
    null, so that conversion divides the rows.

    Raises:
        SourceError: there are no rows.
    """
    if rows.num_rows == 0:
        raise SourceError(f"{location}: {layout}, but no labelled image in it; check that this is the folder you meant")
    splits = pc.unique(rows["split"]).to_pylist()
    if len(splits) == 1 and splits[0] is not None:
        rows = rows.set_column(2, ROWS.field("split"), pa.nulls(rows.num_rows, pa.string()))
        notes = [*notes, f"all of it is {splits[0]}, so it counts as not split"]
    if class_names is None:
        class_names = class_order(pc.unique(single_labels(rows["label"])).to_pylist())
    return Source(location, layout, rows, reader, tuple(class_names), tuple(notes))
