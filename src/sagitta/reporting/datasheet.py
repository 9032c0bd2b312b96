"""What a page shows of the data: how much there is of what, how it was prepared, and what the doctor found in it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sagitta.dataset import SPLITS, unreadable_files
from sagitta.reporting.escaping import phrase
from sagitta.reporting.gathering import Gathered
from sagitta.reporting.pictures import Album, Shelf
from sagitta.reporting.plots import counts_plot
from sagitta.reporting.svg import Figure

_EXAMPLE_CLASSES, _EXAMPLES = 60, 72  # classes that get an example, and pictures of all
_MOST_FINDINGS = 200  # lines of a table
_SUSPECTS, _COPIES = 24, 12  # pictures
_SIDE = 96
_LABEL_KINDS = ("label-error", "label-doubt")


def data_of(run: Gathered, shelf: Shelf | None, why: str, album: Album) -> dict[str, Any]:
    """Return what the data section shows.

    Args:
        run: the run.
        shelf: its data, where it can be opened.
        why: else why not.
        album: of the page.
    """
    noted = run.record.get("dataset", {})
    splits = dict(noted.get("splits", {}))
    figure = class_counts(shelf)
    values: dict[str, Any] = {
        "why": why,
        "splits": [(name, f"{splits[name]:,}") for name in SPLITS if name in splits],
        "total": f"{sum(splits.values()):,}" if splits else None,
        "classes": len(run.names),
        "fingerprint": noted.get("fingerprint"),
        "questions": _questions(noted),
        "counts": figure,
        "warnings": [],
        "facts": [],
        "examples": [],
    }
    if shelf is not None:
        info = shelf.info
        values["warnings"] = list(info.warnings)
        values["facts"] = _facts(shelf)
        values["examples"] = _examples(shelf, album)
        if noted.get("fingerprint") not in (None, info.fingerprint):
            values["warnings"].insert(0, "the data has changed since the run was made: it is shown as it is now")
    return values


def class_counts(shelf: Shelf | None) -> Figure | None:
    """Return the plot of images a class and split."""
    if shelf is None:
        return None
    names, counts = shelf.info.class_names, {}
    for name, split in shelf.shards.splits.items():
        labels = split.labels
        counts[name] = (labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=len(names))).tolist()
    return counts_plot(counts, names)


def _facts(shelf: Shelf) -> list[tuple[str, str]]:
    info = shelf.info
    facts = [("channels", "grey" if info.channels == 1 else "colour")]
    if max(info.max_size):
        low, high = info.min_size, info.max_size
        facts.append(("smallest height and width", f"{low[0]} x {low[1]}"))
        facts.append(("largest height and width", f"{high[0]} x {high[1]}"))
    facts.append(("labels an image", "several, or none" if info.multilabel else "one"))
    unreadable = sum(1 for _ in unreadable_files(shelf.shards.root, info))
    facts.append(("left out as unreadable", f"{unreadable:,}"))
    if info.quarantined > unreadable:
        facts.append(("left out as copies, by review or of small classes", f"{info.quarantined - unreadable:,}"))
    facts += [(f"reduced: {words}", f"{count:,} images") for words, count in info.reduced.items()]
    return facts


def _questions(noted: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the four questions with what the record answers."""
    made = dict(noted.get("preparation", {}))
    splits = {"rule": made.pop("splits", None), "images": noted.get("splits")}
    return [
        ("Which splits?", splits),
        ("Which transforms?", noted.get("transforms")),
        ("Which normalisation?", noted.get("normalisation")),
        ("How was it prepared?", made or None),
    ]


def _examples(shelf: Shelf, album: Album) -> list[dict[str, Any]]:
    """Return some images of each class: of few classes several, of many some classes with one each."""
    split = shelf.shards.splits.get("train") or next(iter(shelf.shards.splits.values()))
    names, labels = shelf.info.class_names, split.labels
    shown = np.unique(np.linspace(0, len(names) - 1, min(_EXAMPLE_CLASSES, len(names))).round().astype(int)).tolist()
    each = max(1, min(6, _EXAMPLES // max(len(shown), 1)))
    found = []
    for label in shown:
        rows = np.flatnonzero(labels[:, label] if labels.ndim == 2 else labels == label)
        places = np.unique(np.linspace(0, max(len(rows) - 1, 0), min(each, len(rows))).round().astype(int))
        found.append((names[label], len(rows), [shelf.path(split.name, int(row)) for row in rows[places]]))
    album.take(shelf, [path for _, _, paths in found for path in paths], _SIDE)
    return [
        {
            "name": name,
            "count": count,
            "pictures": [(album.number(shelf, path), phrase("example of {}: {}", name, path)) for path in paths],
        }
        for name, count, paths in found
        if any(album.number(shelf, path) is not None for path in paths)
    ]


def findings_of(run: Gathered, shelf: Shelf | None, album: Album) -> dict[str, Any] | None:
    """Return what the doctor found: how much of what, a table, and pictures of images with probable copies."""
    if run.findings is None:
        return None
    rows = _ordered(run.findings)
    counts = Counter((row["kind"], row["severity"]) for row in rows)  # in the order of the rows: the worst first
    others = [row for row in rows if row["kind"] not in _LABEL_KINDS]
    pairs = [row for row in others if row["path"] and row["other_path"]][:_COPIES]
    album.take(shelf, [path for row in pairs for path in (row["path"], row["other_path"])], _SIDE)
    return {
        "total": len(rows),
        "counts": [(kind, severity, count) for (kind, severity), count in counts.items()],
        "rows": [_line(row, shelf, album) for row in others[:_MOST_FINDINGS]],
        "left": max(0, len(others) - _MOST_FINDINGS),
    }


def suspects_of(run: Gathered, shelf: Shelf | None, album: Album) -> list[dict[str, Any]] | None:
    """Return the images whose labels are probably wrong or in doubt, the surest first; None where nobody looked."""
    if run.findings is None:
        return None
    rows = [row for row in _ordered(run.findings) if row["kind"] in _LABEL_KINDS][:_SUSPECTS]
    album.take(shelf, [row["path"] for row in rows if row["path"]], _SIDE)
    return [_line(row, shelf, album) for row in rows]


_WORST_FIRST = {"serious": 0, "doubtful": 1, "note": 2}


def _ordered(findings: pa.Table) -> list[dict[str, Any]]:
    """Return the findings with every column that is known, severe and sure ones first."""
    columns = ("split", "path", "kind", "severity", "evidence", "score", "other_split", "other_path", "action", "label")
    rows = findings.to_pylist()
    whole = [{name: row.get(name) for name in (*columns, "proposed_label")} for row in rows]
    return sorted(whole, key=lambda row: (_WORST_FIRST.get(str(row["severity"]), 1), -(row["score"] or 0.0)))


def _line(row: Mapping[str, Any], shelf: Shelf | None, album: Album) -> dict[str, Any]:
    words = {name: "" if row[name] is None else str(row[name]) for name in row if name != "score"}
    picture = album.number(shelf, row["path"]) if row["path"] else None
    other = album.number(shelf, row["other_path"]) if row["other_path"] else None
    score = "" if row["score"] is None else f"{row['score']:.3g}"
    return {**words, "score": score, "picture": picture, "other_picture": other}


def reproduction_of(run: Gathered) -> dict[str, Any]:
    """Return how the run is made once more."""
    record = run.record
    hardware = dict(record.get("hardware", {}))
    accelerators = hardware.pop("accelerators", [])
    facts: list[tuple[str, str]] = [("directory", record.get("directory", "")), ("seed", str(record.get("seed", "")))]
    facts.append(("data's fingerprint", record.get("dataset", {}).get("fingerprint", "")))
    facts.append(("weights", record.get("best_checkpoint", "") or _members(record)))
    facts.append(("hardware", _hardware(hardware, accelerators)))
    if "epochs" in record:
        facts.append(("epochs", str(record["epochs"])))
    return {
        "command": record.get("command", ""),
        "again": f"sagitta fit --config {run.path / 'config.yaml'}" if run.kind == "fit" and run.config else "",
        "facts": [(name, value) for name, value in facts if value],
        "versions": sorted(record.get("versions", {}).items()),
        "config": run.config,
    }


def _members(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{each['run']} x {each['weight']:.3g}" for each in record.get("members", []))


def _hardware(hardware: Mapping[str, Any], accelerators: Sequence[str]) -> str:
    words = [f"{hardware['cpus']} CPU cores ({hardware.get('machine', '')})"] if "cpus" in hardware else []
    return ", ".join([*words, *(accelerators or (["no accelerator"] if words else []))])


def name_of_run(path: Path) -> str:
    """Return what a run is called."""
    return path.resolve().name
