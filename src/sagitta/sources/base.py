"""What every source becomes: a table of rows, a reader of their bytes, and class names in label order."""

import ast
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from sagitta.dataset import ROWS, Reader, Source, class_order, is_list, single_labels
from sagitta.errors import ConfigError, SourceError

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif",
    ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo", ".tga", ".qoi",
})  # fmt: skip
"""Lower-case suffixes that mark a file as an image."""

SIDE_SUFFIXES = frozenset({
    ".csv", ".tsv", ".txt", ".json", ".jsonl", ".md", ".rst", ".xml", ".yaml", ".yml", ".toml", ".html", ".pdf",
    ".log", ".ini", ".cfg", ".py", ".ipynb", ".parquet", ".tfw", ".jgw", ".pgw", ".prj",
})  # fmt: skip
"""Lower-case suffixes of files that accompany images. Any other file in a class folder becomes a row; conversion keeps
or quarantines it."""

TEXT_SUFFIXES = SIDE_SUFFIXES | {".mat", ".xlsx", ".xls", ".lst", ".tab", ".ndjson", ".manifest"}
"""Those, and further ones of tables and lists: no cell of a table means such a file."""


@dataclass(frozen=True)
class SourceOptions:
    """What to impose where detection would choose otherwise.

    Attributes:
        layout: one of ``LAYOUTS``.
        label_column: column of a manifest or of image Parquet that holds the class; of a manifest also several of 0 and
            1, one a class, with commas between; likewise the others.
        label_separator: between several labels in one text; empty for one label a row; detected by default.
        path_column: column that names the image file.
        split_column: column that holds train, val or test; ``none`` for no column, whatever one looks like.
        group_column: column whose equal values must stay in one split.
        keep_missing: files that a table names and that are not there become rows, for conversion to quarantine;
            otherwise they are an error.
        one_class: file names may hold a single class, as those of images to be tested may.

    Raises:
        ConfigError: a name is no text, or empty, which a script's empty variable would be.
    """

    layout: str | None = None
    label_column: str | None = None
    label_separator: str | None = None
    path_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    keep_missing: bool = False
    one_class: bool = False

    def __post_init__(self) -> None:
        for name in ("layout", "label_column", "label_separator", "path_column", "split_column", "group_column"):
            value = getattr(self, name)
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
    """Return the source of ``rows``, its class names found; ``0.0`` is class ``0`` where all are whole numbers.

    Raises:
        SourceError: there are no rows, or a class name is none.
    """
    if rows.num_rows == 0:
        raise SourceError(f"{location}: {layout}, but no labelled image in it; check that this is the folder you meant")
    if class_names is None:
        names = pc.unique(single_labels(rows["label"])).to_pylist()
        if all(_WHOLE.fullmatch(name) for name in names) and any("." in name for name in names):
            rows = _as_whole_numbers(rows)
            names = pc.unique(single_labels(rows["label"])).to_pylist()
        class_names = class_order(names)
    if not class_names:
        raise SourceError(f"{location}: {layout}, but no label in any row; name another column with --label-column")
    _check_names(location, class_names)
    warnings = [*warnings, *_alike(class_names)]
    return Source(location, layout, rows, reader, tuple(class_names), tuple(notes), warnings=tuple(warnings))


_WHOLE = re.compile(r"-?[0-9]+(?:\.0+)?")


def _as_whole_numbers(rows: pa.Table) -> pa.Table:
    place = rows.column_names.index("label")
    labels = rows["label"].combine_chunks()
    whole = pc.replace_substring_regex(single_labels(rows["label"]), r"\.0+$", "").combine_chunks()
    if is_list(labels.type):
        whole = pa.ListArray.from_arrays(labels.offsets, whole)
    return rows.set_column(place, rows.schema.field(place), whole)


def _check_names(location: str, class_names: Sequence[str]) -> None:
    """Check that class names can be written in one line.

    Raises:
        SourceError: one holds a line break or another control character, or nothing but blanks.
    """
    for name in class_names:
        if not name.strip() or any(unicodedata.category(mark) == "Cc" for mark in name):
            raise SourceError(
                f"{location}: the class name {name!r} is blank or holds a line break or the like; rename it"
            )


def _alike(class_names: Sequence[str]) -> list[str]:
    """Return a warning for classes whose names differ in case, in what stands for a blank or cannot be seen, and such.

    ``Great_Dane`` and ``great dane`` are alike, and so are ``7``, ``07`` and ``7.0``, and Unicode's forms of one text.
    """
    same: defaultdict[str, list[str]] = defaultdict(list)
    for name in class_names:
        seen = "".join(mark for mark in unicodedata.normalize("NFKC", name) if unicodedata.category(mark) != "Cf")
        plain = _BLANKS.sub(" ", seen).strip().casefold() or name
        same[str(int(float(plain))) if _NUMBER.fullmatch(plain) else plain].append(name)
    twins = [" and ".join(map(ascii, names)) for names in same.values() if len(names) > 1]
    if not twins:
        return []
    return [
        f"classes that may be one: {examples(twins)} differ in case, blanks, hyphens, zeros or Unicode form; rename one"
    ]


_BLANKS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")
"""Blanks and what is written for one; in front of a number stands its sign."""
_NUMBER = re.compile(r"\d{1,15}(?:\.0+)?")


Cell = str | list[str] | None
"""A row's labels as written in a table; None where nothing is."""


_SEPARATORS = (";", "|")
_ASKED = (",", " ")
_JOINS = ("+", "/", "&", ":", "_", "-", " and ")
_RECURRING = 0.75
_PLURAL = re.compile(r"(?i).*(?:labels|tags|classes|categories|targets|attributes|findings|diagnoses|attribute_?ids)")
_BRACKETS = ("[]", "()", "{}")
_ESCAPE = r"""\\['"\\bnrtfu]"""
_ITEM = rf"""(?:'(?:[^'\\]|{_ESCAPE})*'|"(?:[^"\\]|{_ESCAPE})*"|-?(?:0|[1-9]\d*)(?:\.\d+)?|True|False)"""
_LIST = re.compile(rf"[\[(]\s*(?:{_ITEM}\s*(?:,\s*{_ITEM}\s*)*,?\s*)?[\])]")
_BITS = frozenset({"0", "1", "0.0", "1.0", "true", "false", "True", "False"})


def several_labels(
    cells: Sequence[Cell], separator: str | None, column: str = "", where: str = "the table"
) -> tuple[list[list[str]] | None, str | None]:
    """Return the labels of every row where rows have several, else None; and what was decided, in one sentence.

    Text is split at ``;`` and ``|`` without being asked only where the parts are seen to be labels of their own: three
    quarters of them also occur beside other parts or alone. ``tench; Tinca tinca`` stays one class; ``mass|nodule`` is
    asked for, since a name hardly holds that mark. Texts that are all written as lists, ``['mass', 'nodule']``, are.

    Args:
        cells: one a row.
        separator: of labels in text; empty for one label a row; None to detect ``;`` and ``|``.
        column: the cells' column; one called ``labels`` or ``tags`` may hold several.
        where: the table, for messages.

    Raises:
        SourceError: the parts seem to be labels of their own, but may be none; or lists hold 0 and 1 for each class.
    """
    if separator != "" and (written := _written_lists(cells, where, column)) is not None:
        refuse_flags(written, where, column)
        cells = written
    if any(isinstance(cell, list) for cell in cells):
        lists = [cell if isinstance(cell, list) else split_text(cell, separator) for cell in cells]
        return [list(dict.fromkeys(labels)) for labels in lists], "several labels a row, as lists"
    texts = sorted({cell for cell in cells if isinstance(cell, str)})
    found = next((mark for mark in _SEPARATORS if any(mark in text for text in texts)), None)
    if separator is None and found and _joins_labels(texts, found):
        separator = found
    if separator:
        note = f"several labels a row, separated by {separator!r} (if it is one: --label-separator '')"
        return [split_text(text if isinstance(text, str) else None, separator) for text in cells], note
    if separator == "":
        return None, None
    plural_name = _PLURAL.fullmatch(column) is not None
    for mark in ([found] if found else []) + [*_JOINS, *_ASKED]:
        may_be = _joins_classes if mark in _JOINS else partial(_may_join_labels, plural_name=plural_name)
        if mark == "|" or may_be(texts, mark):
            example = next(text for text in texts if mark in text)
            raise SourceError(
                f"{where}: column {column!r} may hold several labels a row, as in {example!r}: if so, "
                f"--label-separator {mark!r}; if that is one class, --label-separator ''"
            )
    if found:
        return None, f"labels with {found!r} count as one class each (if they are several: --label-separator {found!r})"
    return None, None


def refuse_flags(lists: Sequence[Sequence[object] | None], where: str, column: str) -> None:
    """Check that lists hold labels, not 0 or 1 at the place of each class.

    Raises:
        SourceError: all are of one length and hold nothing else, so that which class a place means is not said.
    """
    given = [found for found in lists if found]
    places = {len(found) for found in given}
    if len(places) == 1 and min(places) > 1 and all(str(value) in _BITS for found in given for value in found):
        raise SourceError(
            f"{where}: column {column!r} holds 0 and 1 at {min(places)} places, and which class each of them means is "
            "not said; write the names, or a column of 0 and 1 for each class"
        )


def _written_lists(cells: Sequence[Cell], where: str, column: str) -> list[list[str]] | None:
    """Return what texts such as ``["a", "b"]``, ``('a', 'b')`` or ``[1, 2]`` hold, or None where they are no lists.

    Raises:
        SourceError: all are in brackets, but not as JSON or Python writes a list: ``['a' 'b']``, ``{a,b}``.
    """
    texts = [cell for cell in cells if cell]
    if not texts or not all(isinstance(text, str) and text[0] + text[-1] in _BRACKETS for text in texts):
        return None
    found = {text: _written_list(text) for text in texts if isinstance(text, str)}
    if strange := next((text for text, labels in found.items() if labels is None), None):
        if strange[0] == "(":
            return None
        raise SourceError(
            f"{where}: column {column!r} holds {strange!r}, which is no list as JSON or Python writes it; write a;b, "
            "or if that is one class, --label-separator ''"
        )
    return [list(found.get(cell) or ()) if isinstance(cell, str) else [] for cell in cells]


def _written_list(text: str) -> list[str] | None:
    """Return the texts and numbers of a list as JSON or Python writes it; None where it is another thing."""
    if not _LIST.fullmatch(text) or (text[0] == "(" and "," not in text):
        return None
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError):
            return [label for value in parse(text) if (label := str(value).strip())]
    return None


def split_text(text: str | None, separator: str | None) -> list[str]:
    """Return the labels in ``text``, each once, in their order; none in None or empty text."""
    parts = (text or "").split(separator) if separator else [text or ""]
    return list(dict.fromkeys(part for part in map(str.strip, parts) if part))


def _joins_labels(texts: Sequence[str], mark: str) -> bool:
    """Say whether most parts of the texts that hold ``mark`` occur in more than one distinct text."""
    counts = Counter(part for text in texts for part in split_text(text, mark))
    parts = {part for text in texts if mark in text for part in split_text(text, mark)}
    return sum(counts[part] > 1 for part in parts) >= _RECURRING * max(len(parts), 1)


def _joins_classes(texts: Sequence[str], mark: str) -> bool:
    """Say whether most texts that hold ``mark`` are made of parts that are whole texts, too: a_b beside a and b."""
    whole = {text for text in texts if re.search(r"[^\W\d_]", text)}  # 1-2 is a range, 1/2 a half
    joined = [parts for text in texts if len(parts := split_text(text, mark)) > 1]
    return 2 * sum(whole.issuperset(parts) for parts in joined) > len(joined)


def _may_join_labels(texts: Sequence[str], mark: str, *, plural_name: bool) -> bool:
    """Say whether parts of texts seem to be labels: they recur, in a column of that name or now here and now there.

    ``golden retriever`` beside ``labrador retriever`` is none: what recurs keeps its place.
    """
    places: defaultdict[str, set[int]] = defaultdict(set)
    counts: Counter[str] = Counter()
    joined = [parts for text in texts if len(parts := split_text(text, mark)) > 1]
    for text in texts:
        for place, part in enumerate(split_text(text, mark)):
            places[part].add(place if len(split_text(text, mark)) > 1 else -1)
            counts[part] += 1
    if plural_name:
        return any(counts[part] > 1 for parts in joined for part in parts)
    free = [parts for parts in joined if any(len(places[part]) > 1 for part in parts)]
    return bool(joined) and len(free) * 2 > len(joined)
