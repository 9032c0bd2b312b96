"""Real names for classes that are numbers or WordNet ids, from a file beside the images that lists them."""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from sagitta.dataset import Source, is_list
from sagitta.sources.base import IMAGE_SUFFIXES, suffix
from sagitta.sources.tree import Tree

_LISTS = re.compile(
    r"(?i)(?:synsets?|classes|class_?names|labels?|names|categories|words|wnids|.*synset.*(?:mapping|words).*)\.txt"
)
_MAPS = re.compile(r"(?i).*(?:map|names?|class(?:es)?|index|labels?|categor(?:y|ies)).*\.json")
_TABLES = re.compile(r"(?i).*(?:names|map|classes|labels).*\.csv")
_IDS = re.compile(r"-?\d+|n\d{8}")
_MOST_BYTES = 2**22


def with_real_names(tree: Tree, source: Source) -> Source:
    """Return ``source`` with its classes called by the names in a file of the tree, in the order of their numbers.

    That is done where all classes are numbers or WordNet ids and the file, ``synsets.txt``, ``classes.txt``,
    ``LOC_synset_mapping.txt``, ``label_map.json`` or the like, gives each of them a name of its own.
    """
    ids = source.class_names
    if not all(_IDS.fullmatch(name) for name in ids):
        return source
    for file in tree.sizes:
        base = file.rpartition("/")[2]
        if file.count("/") > 1 or tree.sizes[file] > _MOST_BYTES:
            continue
        if _LISTS.fullmatch(base) or _MAPS.fullmatch(base) or _TABLES.fullmatch(base):
            names = _names_for(ids, _mapping(tree.reader.read(file), suffix(base)))
            if names is not None:
                return _renamed(source, names, f"classes named by {file}")
    return source


def _names_for(ids: tuple[str, ...], mapping: Mapping[str, str]) -> dict[str, str] | None:
    """Return id -> name where every id has one, all different; lines may count from 0 or from 1."""
    if "0" in mapping and "0" not in ids and str(len(mapping)) in ids and str(len(mapping)) not in mapping:
        mapping = {str(int(number) + 1): name for number, name in mapping.items()}
    names = {key: mapping.get(_number(key), "") for key in ids}
    whole = all(names.values()) and len(set(names.values())) == len(ids)
    return names if whole and any(not _IDS.fullmatch(name) for name in names.values()) else None


def _mapping(data: bytes, kind: str) -> dict[str, str]:
    """Return id -> name from a file's bytes; empty where it holds something else."""
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
            return {str(number): name.strip() for number, (name,) in enumerate(rows)}
        return {_number(row[0]): row[1].strip() for row in rows if len(row) == 2}
    if any(suffix(line.split()[0]) in IMAGE_SUFFIXES for line in lines):
        return {}
    pairs = [line.split(None, 1) for line in lines]
    if all(len(pair) == 2 and _IDS.fullmatch(pair[0]) for pair in pairs) and len({pair[0] for pair in pairs}) > 1:
        return {_number(key): name.strip() for key, name in pairs}
    return {str(number): line for number, line in enumerate(lines)}


def _of_json(data: object) -> dict[str, str]:
    if isinstance(data, list):
        return {str(number): name for number, name in enumerate(data) if isinstance(name, str)}
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
