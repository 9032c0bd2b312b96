"""Rows that are left out or get another label at conversion, though they can be read: copies, and reviewed findings.

Splits are decided before, so what is mended moves no other row to another split, and a finding names its row by split,
path and hash. Of images of equal pixels in several splits those of ``test`` stay, then those of ``val``: what is
dropped from ``train`` costs a little to learn from, what is dropped from ``test`` would make its figures others.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sagitta.conversion.options import ConvertOptions
from sagitta.dataset import plural, read_table
from sagitta.errors import ConfigError, DatasetError, SourceError

_NEEDED = ("split", "path", "hash", "action")
_READ = (*_NEEDED, "label", "proposed_label", "kind")
_ACTIONS = ("drop", "relabel", "review", "none", "")
STAYS = {"test": 2, "val": 1}
"""Which of two alike stays, by its split: the one of the higher number; of any other split it is 0."""

Labels = list[Any]
"""A class name a row, or a list of them where rows have several."""


@dataclass(frozen=True)
class Mended:
    """What became of N rows.

    Attributes:
        labels: of each row, as it is now.
        dropped: why a row is left out, by row.
        notes: what was done, one sentence each.
        warnings: what could not be done, likewise.
    """

    labels: Labels
    dropped: Mapping[int, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def mend(rows: pa.Table, splits: npt.NDArray[np.str_], names: Sequence[str], options: ConvertOptions) -> Mended:
    """Do what ``fix`` and ``drop_duplicates`` ask for.

    Args:
        rows: with ``path``, ``label``, ``source_hash`` and, with ``drop_duplicates``, ``pixels``.
        splits: (N,) split of each.
        names: of the classes.
        options: of the conversion.

    Raises:
        ConfigError: the findings cannot be read, contradict themselves, or name an image or a class that is not there.
        SourceError: a class has no image left.
    """
    labels: Labels = rows["label"].to_pylist()
    dropped: dict[int, str] = {}
    notes: list[str] = []
    warnings: list[str] = []
    before = _classes(labels, range(len(labels)))
    if options.fix is not None:
        labels, dropped, notes = _fixed(rows, splits, labels, names, Path(options.fix))
    if options.drop_duplicates:
        copies, differing = _copies(rows, splits, labels, dropped)
        dropped = {**dropped, **copies}
        notes.append(f"--drop-duplicates left out {plural(len(copies), 'image')} of equal pixels")
        if differing:
            warnings.append(
                f"{plural(differing, 'image is', 'images are')} there twice under different labels, and kept, "
                "also where that leaks: which is right? See sagitta doctor, and decide with --fix"
            )
    lost = before - _classes(labels, [row for row in range(len(labels)) if row not in dropped])
    if lost:
        raise SourceError(f"class {min(lost)!r} has no image left after what was dropped or relabelled; keep one")
    return Mended(labels, dropped, tuple(notes), tuple(warnings))


def _classes(labels: Labels, rows: Sequence[int]) -> set[str]:
    return {name for row in rows for name in (labels[row] if isinstance(labels[row], list) else [labels[row]])}


def _copies(
    rows: pa.Table, splits: npt.NDArray[np.str_], labels: Labels, dropped: Mapping[int, str]
) -> tuple[dict[int, str], int]:
    """Return why copies are left out, by row, and how many are kept since another one has another label."""
    alike: dict[str, list[int]] = defaultdict(list)
    for row, pixels in enumerate(rows["pixels"].to_pylist()):
        if row not in dropped:
            alike[pixels].append(row)
    paths, differing = rows["path"].to_pylist(), 0
    found: dict[int, str] = {}
    for group in (group for group in alike.values() if len(group) > 1):
        named: dict[str, list[int]] = defaultdict(list)
        for row in group:
            named[_name(labels[row])].append(row)
        differing += len(named) - 1
        for same in named.values():
            stays = max(same, key=lambda row: (STAYS.get(str(splits[row]), 0), -row))
            found |= {row: f"the same pixels as {paths[stays]} ({splits[stays]})" for row in same if row != stays}
    return found, differing


def _fixed(
    rows: pa.Table, splits: npt.NDArray[np.str_], labels: Labels, names: Sequence[str], path: Path
) -> tuple[Labels, dict[int, str], list[str]]:
    """Return the labels with the reviewed ones in their places, why rows are dropped, and what was done."""
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(splits.tolist(), rows["source_hash"].to_pylist(), strict=True)):
        places[key].append(row)
    paths, known = rows["path"].to_pylist(), set(names)
    before, labels = labels, list(labels)
    dropped: dict[int, str] = {}
    relabelled: dict[int, Any] = {}
    for line, found in _reviewed(path):
        where = f"{path}, row {line}"
        name = found["path"]
        among = places.get((found["split"], found["hash"]), [])
        # A dataset that is converted again names its images by file and row, and then as their source did.
        same = [row for row in among if paths[row] == name]
        same = same or [row for row in among if name and paths[row].endswith(f"/{name}")]
        if not name:
            raise ConfigError(f"{where}: {found['action']} names no image; such a finding takes no action but review")
        if not same:
            raise ConfigError(
                f"{where}: no image {name} of this hash in {found['split']}; it was found in other data, or with other "
                "options: make it anew with sagitta doctor, of what is converted now"
            )
        row = _meant(where, found, same, before, {*dropped, *relabelled})
        if found["action"] == "drop":
            dropped[row] = f"dropped by {path.name}: {found['kind']}"
        else:
            label = _label(where, found["proposed_label"], known, several=isinstance(labels[row], list))
            if relabelled.get(row, label) != label:
                raise ConfigError(f"{where}: {name} is relabelled twice, to different labels; leave one of them")
            relabelled[row] = label
        if row in dropped and row in relabelled:
            raise ConfigError(f"{where}: {name} is both dropped and relabelled; leave one of them")
    for place, label in relabelled.items():
        labels[place] = label
    done = f"{plural(len(dropped), 'image')} dropped and {len(relabelled):,} relabelled by {path.name}"
    return labels, dropped, [done]


def _name(label: Any) -> str:
    """Return a label as findings have it: classes in the order of the alphabet, where there are several."""
    return ";".join(sorted(label)) if isinstance(label, list) else str(label)


def _meant(where: str, found: Mapping[str, str], same: Sequence[int], labels: Labels, taken: set[int]) -> int:
    """Return which of some rows of equal split, bytes and path a finding is about; its label tells where that differs.

    Raises:
        ConfigError: they have several labels, and the finding has none of them.
    """
    if len({_name(labels[row]) for row in same}) > 1:
        same = [row for row in same if _name(labels[row]) == ";".join(sorted(found["label"].split(";")))]
        if not same:
            raise ConfigError(
                f"{where}: {found['path']} may be one of several labels; give the one that is meant in a column label"
            )
    return next((row for row in same if row not in taken), same[0])


def _label(where: str, text: str, known: set[str], *, several: bool) -> Any:
    found = text.split(";") if several else [text]
    if unknown := [name for name in found if name not in known]:
        raise ConfigError(
            f"{where}: relabel to {unknown[0]!r}, which is none of the classes; give one as proposed_label"
        )
    return found if several else text


def _reviewed(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield number and columns of each row to act on, as a spreadsheet numbers them: the head of a CSV is row 1."""
    for line, found in _read(path):
        found["action"] = found["action"].strip().lower()
        if found["action"] not in _ACTIONS:
            raise ConfigError(f"{path}, row {line}: action {found['action']!r}; give drop, relabel, review or none")
        if found["action"] in ("drop", "relabel"):
            yield line, found


def _read(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield number and text of each row, of the columns that matter; one that may lack is empty then.

    Raises:
        ConfigError: the file is missing, is neither, or lacks a column.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of findings; make one: sagitta doctor DATASET --out {path}")
    try:
        if path.suffix.lower() == ".parquet":
            table = read_table(path)
            _check_columns(path, table.column_names)
            table = table.select([name for name in _READ if name in table.column_names])
            for line, found in enumerate(table.to_pylist(), 2):
                yield line, {name: _text(found.get(name)) for name in _READ}
        else:
            yield from _csv_rows(path, _decoded(path.read_bytes()))
    except (DatasetError, csv.Error, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as findings: {str(error).splitlines()[0]}") from None


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV as spreadsheets save it: with other marks between cells, and short of empty ones."""
    first = text.partition("\n")[0]
    mark = max(",;\t", key=first.count)
    cells = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    names = [name.strip() for name in next(cells, [])]
    _check_columns(path, names)
    for line, row in enumerate(cells, 2):
        if len(row) > len(names) and any(row[len(names) :]):
            raise ConfigError(
                f"{path}, row {line}: {len(row)} cells below {len(names)} names; "
                f"put text that has {mark!r} in it between quotes"
            )
        if any(row):
            found = dict(zip(names, row, strict=False))
            yield line, {name: found.get(name, "") for name in _READ}


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if lacking := [name for name in _NEEDED if name not in names]:
        raise ConfigError(f"{path}: no column {lacking[0]}; findings have {', '.join(_READ)}, as sagitta doctor writes")
    if twice := [name for name in _READ if names.count(name) > 1]:
        raise ConfigError(f"{path}: two columns are named {twice[0]}; leave one of them")


def _decoded(data: bytes) -> str:
    """Return text of UTF-8, with a mark or without, or of UTF-16 with its mark.

    Raises:
        DatasetError: it is of another encoding, or a spreadsheet's own file.
    """
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        if not data.startswith(b"PK\x03\x04"):  # a zip, such as xlsx and ods are
            return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise DatasetError("it is not UTF-8; have the spreadsheet save it as CSV UTF-8")


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)
