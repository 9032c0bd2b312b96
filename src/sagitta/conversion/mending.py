"""Rows that are left out or get another label at conversion, though they can be read: copies, and reviewed findings.

Splits are decided before, so what is mended moves no other row to another split, and a finding names its row by split,
path and hash. Of images of equal pixels in several splits those of ``test`` stay, then those of ``val``: what is
dropped from ``train`` costs a little to learn from, what is dropped from ``test`` would make its figures others.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from sagitta.conversion.options import ConvertOptions
from sagitta.dataset import plural, read_table
from sagitta.errors import ConfigError, DatasetError, SourceError

_NEEDED = ("split", "path", "hash", "action", "proposed_label", "kind")
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
            named[str(labels[row])].append(row)
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
    labels = list(labels)
    dropped: dict[int, str] = {}
    relabelled: dict[int, Any] = {}
    for line, found in _reviewed(path):
        where = f"{path}, row {line}"
        name = found["path"]
        among = places.get((found["split"], found["hash"]), [])
        # A dataset that is converted again names its images by file and row, and then as their source did.
        same = [row for row in among if paths[row] == name]
        same = same or [row for row in among if paths[row].endswith(f"/{name}")]
        if not same:
            raise ConfigError(
                f"{where}: no image {name} of this hash in {found['split']}; it was found in other data, or with other "
                "options: make it anew with sagitta doctor, of what is converted now"
            )
        row = same[0]
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


def _label(where: str, text: str, known: set[str], *, several: bool) -> Any:
    found = text.split(";") if several else [text]
    if unknown := [name for name in found if name not in known]:
        raise ConfigError(
            f"{where}: relabel to {unknown[0]!r}, which is none of the classes; give one as proposed_label"
        )
    return found if several else text


def _reviewed(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield number and columns of each row to act on; the first one behind the head of a CSV has number 2."""
    for line, found in enumerate(_read(path).to_pylist(), 2):
        found = {name: (found[name] or "").strip() if name == "action" else found[name] or "" for name in _NEEDED}
        if found["action"] not in _ACTIONS:
            raise ConfigError(f"{path}, row {line}: action {found['action']!r}; give drop, relabel, review or none")
        if found["action"] in ("drop", "relabel"):
            yield line, found


def _read(path: Path) -> pa.Table:
    """Return the columns that are needed, all of text.

    Raises:
        ConfigError: the file is missing, is neither, or lacks a column.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of findings; make one: sagitta doctor DATASET --out {path}")
    try:
        if path.suffix.lower() == ".parquet":
            table = read_table(path)
        else:
            texts = pa_csv.ConvertOptions(column_types=dict.fromkeys(_NEEDED, pa.string()))
            table = pa_csv.read_csv(path, convert_options=texts)
    except (DatasetError, pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as findings: {str(error).splitlines()[0]}") from None
    if lacking := [name for name in _NEEDED if name not in table.column_names]:
        raise ConfigError(
            f"{path}: no column {lacking[0]}; findings have {', '.join(_NEEDED)}, as sagitta doctor writes"
        )
    return table.select(_NEEDED)
