"""Real names for classes that are numbers or WordNet ids, from a file beside the images that lists them."""

import csv
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from sagitta.dataset import Source, is_list
from sagitta.sources.base import IMAGE_SUFFIXES, suffix
from sagitta.sources.columns import LABEL_COLUMNS, plain
from sagitta.sources.tree import Tree

_LISTS = re.compile(
    r"(?i)(?:synsets?|classes|class_?names|labels?|names|categories|words|wnids|.*synset.*(?:mapping|words).*)\.txt"
)
_MAPS = re.compile(r"(?i).*(?:map|names?|class(?:es)?|index|labels?|categor(?:y|ies)).*\.json")
_TABLES = re.compile(r"(?i).*(?:names|map|classes|labels).*\.csv")
_IDS = re.compile(r"-?\d+|n\d{8}")
_TITLES = frozenset({"name", "names", "classnames", "labelnames", "categories", "categorynames"})
_MOST_BYTES = 2**22


def with_real_names(tree: Tree, source: Source) -> Source:
    """Return ``source`` with its classes called by the names in a file of the tree, in the order of their numbers.

    That is done where all classes are numbers or WordNet ids and the file, ``synsets.txt``, ``classes.txt``,
    ``LOC_synset_mapping.txt``, ``label_map.json`` or the like, gives each of them a name of its own. Lines without a
    number are counted from 0 or from 1; where no class is the first or the last of them, nobody can know which, and a
    warning says so; likewise where two files give other names.
    """
    ids = source.class_names
    if not all(_IDS.fullmatch(name) for name in ids):
        return source
    unsure: list[str] = []
    taken: dict[str, dict[str, str]] = {}
    for file in tree.sizes:
        base = file.rpartition("/")[2]
        if file.count("/") > 1 or tree.sizes[file] > _MOST_BYTES:
            continue
        if _LISTS.fullmatch(base) or _MAPS.fullmatch(base) or _TABLES.fullmatch(base):
            listed = _listed(tree.reader.read(file), suffix(base))
            begin = _first_number(ids, listed) if isinstance(listed, list) else 0
            if begin is None:
                unsure.append(
                    f"{file}: counts from 0 or from 1, which no label tells (none is 0 or {len(listed)}), so classes "
                    "keep their numbers; write NUMBER NAME in each line"
                )
                continue
            names = _names_for(ids, _numbered(listed, begin) if isinstance(listed, list) else listed)
            if names is not None:
                taken[file] = names
    first, *others = taken or [""]
    if other := next((file for file in others if not _alike(taken[file], taken[first])), None):
        unsure, taken = [f"{first} and {other} name the classes differently, so they keep their numbers; keep one"], {}
    if taken:
        return _renamed(source, taken[first], f"classes named by {first}")
    return replace(source, warnings=(*source.warnings, *unsure[:1])) if unsure else source


def _alike(names: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Say whether two files call classes the same, but for further words: ``tench`` and ``tench, Tinca tinca``."""
    return all(name in others[key] or others[key] in name for key, name in names.items())


def _first_number(ids: Collection[str], names: Sequence[str]) -> int | None:
    """Return the number of the first of ``names``, or None where it may be 0 as well as 1."""
    numbers = {int(number) for number in ids if number.isdecimal()}
    if not numbers or len(numbers) < len(ids) or max(numbers) > len(names):
        return 0  # of too few names no number has its own
    return 0 if 0 in numbers else 1 if len(names) in numbers else None


def _numbered(names: Sequence[str], first: int) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names, first)}


def _names_for(ids: tuple[str, ...], mapping: Mapping[str, str]) -> dict[str, str] | None:
    """Return id -> name where every id has one, all different."""
    names = {key: mapping.get(_number(key), "") for key in ids}
    whole = all(names.values()) and len(set(names.values())) == len(ids)
    return names if whole and any(not _IDS.fullmatch(name) for name in names.values()) else None


def _listed(data: bytes, kind: str) -> dict[str, str] | list[str]:
    """Return id -> name from a file's bytes, or names in their order; empty where it holds something else."""
    try:
        text = data.decode("utf-8-sig")
        if kind == ".json":
            return _of_json(json.loads(text))
    except ValueError:
        return {}
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if kind == ".csv":
        rows = list(csv.reader(lines))
        if all(len(row) == 1 for row in rows):
            return _untitled([name.strip() for (name,) in rows])
        return {_number(row[0]): row[1].strip() for row in rows if len(row) == 2}
    if any(suffix(line.split()[0]) in IMAGE_SUFFIXES for line in lines):
        return {}
    pairs = [line.split(None, 1) for line in lines]
    if all(len(pair) == 2 and _IDS.fullmatch(pair[0]) for pair in pairs) and len({pair[0] for pair in pairs}) > 1:
        return {_number(key): name.strip() for key, name in pairs}
    return _untitled(lines)


def _untitled(names: list[str]) -> list[str]:
    """Return names without the column's own, which a table of one column begins with."""
    return names[1:] if names and (plain(names[0]) in LABEL_COLUMNS or plain(names[0]) in _TITLES) else names


def _of_json(data: object) -> dict[str, str] | list[str]:
    if isinstance(data, list):
        return data if all(isinstance(name, str) for name in data) else []
    if not isinstance(data, dict):
        return {}
    if all(isinstance(value, int) for value in data.values()):
        return {str(value): name for name, value in data.items()}
    named = {key: value[-1] if isinstance(value, list) and value else value for key, value in data.items()}
    return {_number(key): name for key, name in named.items() if isinstance(name, str)}


def _number(text: str) -> str:
    """Return a whole number without leading zeros, and any other text as it is."""
    return str(int(text)) if text.strip().isdecimal() else text.strip()


def _renamed(source: Source, names: Mapping[str, str], note: str) -> Source:
    place = source.rows.column_names.index("label")
    labels = source.rows["label"].combine_chunks()
    flat = labels.values if is_list(labels.type) else labels
    new = pa.array([names.get(name) for name in flat.to_pylist()], pa.string())
    if is_list(labels.type):
        new = pa.ListArray.from_arrays(labels.offsets, new)
    rows = source.rows.set_column(place, source.rows.schema.field("label"), new)
    return replace(
        source, rows=rows, class_names=tuple(names[key] for key in source.class_names), notes=(*source.notes, note)
    )
