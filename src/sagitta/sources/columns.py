"""Which columns of a table hold the file, the class and the group, told by their names and by their values."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from sagitta.dataset import is_list, is_no_label, plural, split_of
from sagitta.sources.base import IMAGE_SUFFIXES, Cell, examples, suffix
from sagitta.sources.matching import Finder

PATH_COLUMNS = (
    "path", "filepath", "filename", "file", "imagepath", "image", "imagename", "img", "imgpath", "imgname", "id",
    "imageid", "imgid", "idcode", "fname", "imageindex", "imageurl", "imagegcsuri", "sourceref", "uri", "url",
    "isicid", "photo", "photoid", "picture", "uuid", "key", "relpath",
)  # fmt: skip
_COUNTS = frozenset({"id", "key", "uuid"})
"""Path columns that may as well number the rows, where another one names the files: ``7`` is not ``7.jpg`` then."""
_ASIDE = re.compile(r"(?:^|_)(?:masks?|seg|segmentations?|thumb|thumbnails?|preview|depth|heatmap|overlay)(?:_|$)")
"""Words in the names of columns whose files accompany the images."""
_LABELS = (
    "label", "labels", "class", "classname", "classes", "labelname", "category", "categoryname", "target", "choice",
    "displayname", "classid", "labelid", "categoryid", "classlabel", "categorylabel", "groundtruth",
)  # fmt: skip
_TOPICS = (
    "breed", "species", "variety", "diagnosis", "dx", "findinglabels", "finding", "findings", "diagnostic", "disease",
    "tags", "tag", "level", "grade", "cultivar", "attributeids",
)  # fmt: skip
LABEL_COLUMNS = (*_LABELS, *_TOPICS)
SURE_LABELS = frozenset(LABEL_COLUMNS) - {"tags", "tag", "level", "grade"}
"""Those that say class whatever else there is; a grade may be the photo's."""
_BOXES = re.compile(
    r"(?:.*\.)?(?:x_?min|y_?min|x_?max|y_?max|bbox(?:_?[xywh]\d?)?|bounding_?box(?:es)?|encoded_?pixels|rle|polygon"
    r"|segmentation|coordinates|roi\.[xy]\d)",
    re.IGNORECASE,
)
_GROUPS = re.compile(
    r"(?:patient|subject|lesion|video|site|session|seq|sequence|individual|specimen|slide|study|participant|donor|hospital"
    r"|burst|clip)(?:id|ids|no|nr|num|number|name)?"
    r"|(?:case|person|scene|animal|plant|tree|camera|location|track|group)(?:id|ids|no|nr|num|number)"
)
"""What rows of one thing have in common; an animal or a scene without its number may be the class."""
_OTHER = re.compile(
    r"(?:.*_)?(?:id|url|uri|time|date|at|fold|split|score|confidence|spacing|use|set)"
    r"|(?:image_)?(?:width|height|depth|channels|size|bytes|format|mode)|age(?:_.*)?|sex|gender|view(?:_.*)?"
    r"|(?:annotat|created|updated|image_details|anatom|is_valid|is_test|is_train|follow_up|unnamed).*|index|licen[cs]e"
    r"|source|photographer|lat|lon|latitude|longitude|md5|sha\d*|hash|[xywhn]|count|partition|subset|usage|phase|dx_type"
    r"|localization|row|race|ethnicity|country|comments?|notes?|evaluation_status|orientation|dataset|dataset_type"
    r"|original_?image_?.*|(?:location|sequence|camera|station)(?:_.*)?"
)
"""What is known of images and is no class, and names of split columns."""
_RANKS = frozenset({"kingdom", "phylum", "class", "order", "family", "genus", "species"})
_YES, _NO = {"1", "1.0", "true"}, {"0", "0.0", "false", "-1", "-1.0"}
_SHARE = re.compile(r"0?\.\d+(?:[eE]-?\d+)?|[01](?:\.0*)?|\d(?:\.\d+)?[eE]-\d+")
_MOST_CLASSES, _MOST_SPLITS = 5000, 20


def plain(name: str) -> str:
    """Return a column's name for comparison: ``Patient ID`` and ``patient_id`` are ``patientid``."""
    return re.sub(r"[^a-z0-9]", "", name.lower()) or name.strip().lower()


def _is_other(name: str) -> bool:
    """Say whether a column's name is of what is no class."""
    return _OTHER.fullmatch(_under(name)) is not None or _GROUPS.fullmatch(plain(name)) is not None


def _under(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def texts(column: pa.ChunkedArray) -> list[str | None]:
    """Return a column's values as text, whatever means nothing as None.

    Raises:
        pa.ArrowInvalid: its values are neither text nor numbers, or :class:`pa.ArrowNotImplementedError`.
    """
    return [text.strip() or None if text else None for text in pc.cast(column, pa.string()).to_pylist()]


@dataclass(frozen=True)
class Labels:
    """What a table says of its labels.

    Attributes:
        column: the column, or None.
        flags: columns of 0 and 1, one a class, where there is no such column.
        doubt: why neither can be told though labels seem to be there, in words; None where there is no doubt.
    """

    column: str | None = None
    flags: tuple[str, ...] = ()
    doubt: str | None = None

    def __bool__(self) -> bool:
        return self.column is not None or bool(self.flags)

    def __str__(self) -> str:
        if self.column is not None:
            return f"class in {self.column!r}"
        return f"{plural(len(self.flags), 'class', 'classes')} by 0 and 1 in {examples([repr(n) for n in self.flags])}"

    def flagged(self, table: pa.Table) -> list[Cell]:
        """Return each row's classes of those in ``flags``: text where every row has exactly one, else lists."""
        names = [name.strip() for name in self.flags]
        columns = [texts(table.column(table.column_names.index(name))) for name in self.flags]
        rows = [
            [name for name, value in zip(names, row, strict=True) if value and value.lower() in _YES]
            for row in zip(*columns, strict=True)
        ]
        return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else [*rows]


class Columns:
    """The columns of a table, or of its first rows."""

    def __init__(self, name: str, table: pa.Table, finder: Finder):
        self._name = name
        self._table = table
        self._finder = finder

    @cached_property
    def values(self) -> dict[str, list[str | None]]:
        """Name -> text of every column that is text or numbers; of equal names the first."""
        found: dict[str, list[str | None]] = {}
        for name, column in zip(self._table.column_names, self._table.columns, strict=True):
            if name not in found and not pa.types.is_nested(column.type) and not pa.types.is_binary(column.type):
                found[name] = texts(column)
        return found

    def path(self) -> str | None:
        """Return the column that names files of the tree, or None.

        Whole numbers count only in a column of a known name, and where files differ in them: an epoch is not ``7.jpg``.
        """
        return next(iter(self._paths), None)

    def rival(self, path: str) -> str | None:
        """Return a column that names files as surely as ``path``, but others (``image2`` by ``image1``); else None."""
        tied = [name for name, rank in self._paths.items() if name != path and rank[:5] == self._paths[path][:5]]
        if plain(path) in _COUNTS:
            tied += [name for name in self.values if name not in self._paths and self._numbers_files(name)]
        first = self._finder.find(self._name, self.values[path][:500])
        for name in tied:
            pairs = zip(first, self._finder.find(self._name, self.values[name][:500]), strict=True)
            if any(one and other and one != other for one, other in pairs):
                return name
        return None

    def _numbers_files(self, name: str) -> bool:
        """Say whether a column of whatever name holds whole numbers, all different, of which each names a file."""
        some = self.values[name][:500]
        if _is_other(name) or re.fullmatch(r"column \d+", name) or len(set(some)) < len(some):
            return False
        return all(value and _is_number(value) for value in some) and all(self._finder.find(self._name, some))

    @cached_property
    def _paths(self) -> dict[str, tuple[float, ...]]:
        """Column that names files -> how sure that is, the surest first."""
        ranks: dict[str, tuple[float, ...]] = {}
        for name, values in self.values.items():
            some = [value for value in values[:500] if value]
            if not some:
                continue
            known, named = plain(name) in PATH_COLUMNS, sum(map(_is_image, some)) * 2 > len(some)
            numbers = all(map(_is_number, some))
            if not known and not named and (len(set(some)) < len(some) or numbers):
                continue
            found = [files for files in self._finder.find(self._name, some) if files]
            single = any(len(files) == 1 for files in found)
            if not found or (numbers and not single) or (not known and not named and 2 * len(found) < len(some)):
                continue
            main, sure = not _ASIDE.search(_under(name)), known and plain(name) not in _COUNTS
            mostly = len(found) / len(some) >= 0.5
            ranks[name] = (named, mostly, main, sure, known, len(set(some)) / len(some), len(found))
        return dict(sorted(ranks.items(), key=lambda item: item[1], reverse=True))

    def nearly_path(self) -> tuple[str, str, str] | None:
        """Return a column of a known name, a value of it, and the file whose name is nearly that; else None."""
        for name, values in self.values.items():
            some = [value for value in values[:100] if value]
            if some and plain(name) in PATH_COLUMNS and len(set(some)) == len(some):
                near = [self._finder.near(value) for value in some]
                if sum(file is not None for file in near) * 2 > len(some) and self.labels(name, ()):
                    return next((name, value, file) for value, file in zip(some, near, strict=True) if file)
        return None

    def names_folders(self) -> str | None:
        """Return the column whose values are paths of folders, each of which holds images; else None."""
        for name, values in self.values.items():
            some = [value.strip("/") for value in values[:100] if value and "/" in value]
            if len(some) * 2 > len(values[:100]) and all(
                any(part in self._finder.folders for part in (value, value.partition("/")[2])) for value in some
            ):
                return name
        return None

    def numbers_folders(self) -> tuple[str, str] | None:
        """Return a column whose values are names of folders of images, with one that gives them classes; else None.

        Each folder is named once, and of the classes, in a column of a known name, there are fewer: a list of the class
        folders themselves has none such.
        """
        bases = {folder.rpartition("/")[2] for folder in self._finder.folders}
        for name, values in self.values.items():
            distinct = {value for value in values if value}
            label = self.labels(name, ()).column if len(values) == len(distinct) > 1 else None
            classes = set(self.values.get(label, ())) if label and plain(label) in LABEL_COLUMNS else set()
            if label and 1 < len(classes) <= len(values) / 2 and 2 * len(distinct & bases) > len(distinct):
                return name, label
        return None

    def split(self, label: str | None) -> str | None:
        """Return a column of whatever name whose values are all words for splits, two or more of these; else None."""
        for name, values in self.values.items():
            found = {split_of(value) for value in set(values) if value} if len(set(values)) < _MOST_SPLITS else {None}
            if name != label and len(found) > 1 and None not in found:
                return name
        return None

    def group(self, path: str, label: str | None) -> str | None:
        """Return a column that seems to say which rows belong together, or None."""
        for name, values in self.values.items():
            distinct = len({value for value in values if value})
            if name not in (path, label) and _GROUPS.fullmatch(plain(name)) and 1 < distinct < len(values):
                return name
        return None

    def labels(self, path: str, taken: Sequence[str | None]) -> Labels:
        """Return what tells the classes of the files in column ``path``, columns ``taken`` for something else aside."""
        names = [name for name in self._table.column_names if name != path and name not in taken]
        if boxes := [name for name in names if _BOXES.fullmatch(name.strip())]:
            files = self.values[path]
            if len(set(files)) < len(files) or not any(plain(name) in LABEL_COLUMNS for name in names):
                return Labels(doubt=f"{examples(boxes)} say where objects are (detection, segmentation)")
        if len(ranks := [name for name in names if plain(name) in _RANKS]) > 2 and "class" in map(plain, ranks):
            return Labels(doubt=f"{examples(ranks)} are ranks of a taxonomy")
        for known in (_LABELS, _TOPICS):
            named = sorted((n for n in names if plain(n.rpartition(".")[2]) in known), key=lambda n: _place(n, known))
            named = [name for name in named if self._holds_something(name)]
            if named:
                return self._of_several(named)
        if (target := self._target(names)) is not None:
            return Labels(target)
        names = [name for name in names if name in self.values and not _is_other(name)]
        if len(names) == 1 and self._is_few(names[0], most=len(self.values[path]) - 1):
            return Labels(names[0])
        return self._by_values(names)

    def _target(self, names: Sequence[str]) -> str | None:
        """Return the column ``y``, which often is what is to be told, or None; beside ``x`` it is a place."""
        found = {plain(name): name for name in names if name in self.values}
        return found["y"] if "y" in found and "x" not in found and self._is_few(found["y"]) else None

    def _holds_something(self, name: str) -> bool:
        if name in self.values:
            return not all(is_no_label(value) for value in self.values[name])
        column = self._table.column(self._table.column_names.index(name))
        return not is_list(column.type) or len(pc.list_flatten(column)) > 0

    def _of_several(self, named: Sequence[str]) -> Labels:
        """Return the one column of those named like a label: names rather than their numbers."""
        if len(named) == 1 or any(name not in self.values for name in named):
            return Labels(named[0])
        first = self.values[named[0]]
        for name in named[1:]:
            pairs = set(zip(first, self.values[name], strict=True))
            if not len(pairs) == len(set(first)) == len(set(self.values[name])):
                return Labels(doubt=f"{examples([repr(name) for name in named])} may each be the class")
        words = [name for name in named if not all(_is_number(value) for value in self.values[name] if value)]
        return Labels((words or named)[0])

    def _by_values(self, names: Sequence[str]) -> Labels:
        """Return flags of 0 and 1, or the only column of few values."""
        flags = [name for name in names if self._is_flag(name)]
        if len(flags) > 1 and any(self._cells(name) & _YES for name in flags):
            holds = {value for name in flags for value in self._cells(name)}
            unsure = [name for name in names if self._cells(name) <= _YES | _NO | {""}]
            if len(unsure) > len(flags) or (holds & {"-1", "-1.0"} and holds & {"0", "0.0"}):
                return Labels(doubt=f"{examples(unsure)} hold 1 and 0, but also -1 or nothing")
            if all(re.fullmatch(r"column \d+", name) for name in flags):
                return Labels(doubt="columns of 0 and 1 have no names, which would be the classes")
            if odd := self._beside_one(flags):
                rest = examples([name for name in flags if name != odd])
                return Labels(doubt=f"each row has exactly one of {rest}, so {odd!r} may be no class of theirs")
            return Labels(flags=tuple(flags))
        unsure = [name for name in names if self._cells(name) <= _YES | _NO | {""} and self._cells(name) & _YES]
        if len(unsure) > 1:
            return Labels(doubt=f"{examples(unsure)} hold 1 and 0, but also -1 or nothing")
        few = [name for name in names if self._is_few(name)]
        if len(few) > 1:
            return Labels(doubt=f"{examples([repr(name) for name in few])} may each be the class")
        if few and (shares := self._shares(names)):
            return Labels(doubt=f"{examples(shares)} are shares of each row, and {few[0]!r} may be the class")
        return Labels(few[0] if few else None)

    def no_flag(self, names: Sequence[str]) -> str | None:
        """Return the first of some columns that holds anything but 0 and 1, or what means them; else None."""
        return next((name for name in names if not self._is_flag(name)), None)

    def _beside_one(self, flags: Sequence[str]) -> str | None:
        """Return the only column of 0 and 1 without which each row has exactly one 1 in the others; else None."""
        rows = list(
            zip(*([(value or "").lower() in _YES for value in self.values[name]] for name in flags), strict=True)
        )
        if len(flags) < 3 or all(sum(row) == 1 for row in rows):
            return None
        odd = [name for place, name in enumerate(flags) if all(sum(row) - row[place] == 1 for row in rows)]
        return odd[0] if len(odd) == 1 else None

    def _shares(self, names: Sequence[str]) -> list[str]:
        """Return two columns or more of fractions that add up to 1 in each row, as votes do; else none."""
        found = [name for name in names if all(_SHARE.fullmatch(value or "") for value in self.values[name])]
        rows = zip(*(map(float, map(str, self.values[name])) for name in found), strict=True)
        return found if len(found) > 1 and all(abs(sum(row) - 1) < 0.02 for row in rows) else []

    def _is_flag(self, name: str) -> bool:
        return bool(self._cells(name)) and self._cells(name) <= _YES | _NO

    def _cells(self, name: str) -> set[str]:
        return {(value or "").lower() for value in self.values[name]}

    def _is_few(self, name: str, most: int | None = None) -> bool:
        """Say whether a column's values recur like classes and are neither splits, files nor measurements."""
        values = [value for value in self.values[name] if not is_no_label(value)]
        distinct = set(map(str, values))
        if not 1 < len(distinct) <= (most or min(_MOST_CLASSES, max(2, len(values) // 2))):
            return False
        if len(values) * 2 < len(self.values[name]):
            return False
        if any(re.fullmatch(r"-?\d*\.\d*[1-9]\d*(?:[eE]-?\d+)?", value) for value in distinct):
            return False
        return not all(split_of(value) for value in distinct) and not any(map(_is_image, distinct))


def _place(name: str, known: Sequence[str]) -> int:
    return known.index(plain(name.rpartition(".")[2]))


def _is_image(value: str) -> bool:
    return suffix(value.partition("?")[0] if "://" in value else value) in IMAGE_SUFFIXES


def _is_number(value: str) -> bool:
    return re.fullmatch(r"-?(?:0|[1-9]\d{0,5})(?:\.0+)?", value) is not None
