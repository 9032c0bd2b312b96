"""The files that a dataset left out: those that nobody could read, and those that somebody wanted left out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sagitta.dataset.parquet import read_table
from sagitta.dataset.schema import QUARANTINE_FILE, DatasetInfo, plural

_WANTED = ("the same pixels as", "dropped by", "class ")  # how the reasons of the others begin


def unreadable_files(root: Path, info: DatasetInfo) -> Iterator[dict[str, Any]]:
    """Yield ``path``, ``label`` and ``reason`` of what could not be read when a dataset was converted.

    Args:
        root: folder of the dataset, or the file of one of others.
        info: of it.

    Raises:
        DatasetError: the quarantine table is missing or damaged.
    """
    if not info.quarantined:
        return
    for row in read_table(root / QUARANTINE_FILE, ["path", "label", "reason"]).to_pylist():
        if not row["reason"].startswith(_WANTED):
            yield row


def left_out_lines(root: Path, info: DatasetInfo) -> list[str]:
    """Return what a person has to know of what a dataset left out, one sentence each; arguments as above."""
    unreadable = sum(1 for _ in unreadable_files(root, info))
    wanted = info.quarantined - unreadable
    lines = []
    if unreadable:
        lines.append(f"{plural(unreadable, 'image')} could not be read when it was converted; none is counted here")
    if wanted:
        lines.append(f"{plural(wanted, 'image')} left out when it was converted: copies, small classes, or by review")
    return lines
