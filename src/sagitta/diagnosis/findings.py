"""What was found about a dataset: one table for the terminal, for files, for the report and for `convert --fix`.

========================================  =========================================================================
``split, path, hash``                     the image, as its source names it; null where a finding is about more
``kind, severity``                        see :data:`KINDS`; ``serious``, ``doubtful`` or ``note``
``evidence, score``                       in words, and in a number, which is of a kind of its own: see :data:`SCORES`
``other_split, other_path, other_hash``   the image that it is like
``action``                                proposed for ``path``: ``drop``, ``relabel``, ``review`` or ``none``
``label, proposed_label``                 class names, several joined by semicolons
========================================  =========================================================================
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from sagitta.dataset import plural
from sagitta.errors import ConfigError
from sagitta.files import write_atomic
from sagitta.terminal import printable

FINDINGS = pa.schema(
    [
        ("split", pa.string()),
        ("path", pa.string()),
        ("hash", pa.string()),
        ("kind", pa.string()),
        ("severity", pa.string()),
        ("evidence", pa.string()),
        ("score", pa.float64()),
        ("other_split", pa.string()),
        ("other_path", pa.string()),
        ("other_hash", pa.string()),
        ("action", pa.string()),
        ("label", pa.string()),
        ("proposed_label", pa.string()),
    ]
)
FINDINGS_FILE = "findings.parquet"
"""Of a run: what was found about its data."""


class Kind(NamedTuple):
    """A kind of finding: how serious, what one and many of it are in words, and what to do."""

    severity: str
    one: str
    many: str
    advice: str


_REVIEW = "look at them, say drop or relabel in the FILE.csv of sagitta doctor --out, and convert with --fix FILE.csv"
_WRONG = (
    "look which of the two is wrong; in the FILE.csv of sagitta doctor --out, where each has its row, say relabel for "
    "it (to the proposed_label) or drop, and convert with --fix FILE.csv"
)
_DROP = "convert the source with --drop-duplicates, which keeps what is there under two labels"
_LEAKED = "; the copy in train goes, not that in val or test, so that their figures stay comparable"

KINDS: Mapping[str, Kind] = {
    "exact-leak": Kind(
        "serious", "image has an exact copy in another split", "images have an exact copy in another split",
        _DROP + _LEAKED,
    ),
    "near-leak": Kind(
        "serious", "image has a near copy in another split", "images have a near copy in another split",
        _REVIEW + _LEAKED,
    ),
    "group-leak": Kind("serious", "group is in several splits", "groups are in several splits", "mend the splits"),
    "label-conflict": Kind(
        "serious", "image has a copy under another label", "images have a copy under another label", _WRONG
    ),
    "unreadable": Kind("serious", "image cannot be decoded", "images cannot be decoded", "convert the source again"),
    "cue": Kind(
        "serious", "cue gives the class away without the picture", "cues give the class away without the picture",
        "a model will learn it: take all classes' images from one source, or crop, resize or re-encode them alike, "
        "or expect less on other images",
    ),
    "label-error": Kind(
        "doubtful", "label is probably wrong", "labels are probably wrong",
        "say relabel in the FILE.csv of sagitta doctor --out where proposed_label is right (or put the right class "
        "there), and convert with --fix FILE.csv",
    ),
    "exact-duplicate": Kind(
        "doubtful", "image has an exact copy in its split", "images have an exact copy in their split", _DROP
    ),
    "near-duplicate": Kind(
        "doubtful", "image has a near copy in its split", "images have a near copy in their split",
        "variants of one picture count as one: give them one --group, or drop some with --fix",
    ),
    "small-class": Kind(
        "doubtful", "class is too small to be learned or measured", "classes are too small to be learned or measured",
        "add images, or leave such classes out with --min-images",
    ),
    "imbalance": Kind("doubtful", "imbalance", "imbalances", "add images, or fit with --class-weights balanced"),
    "quarantined": Kind("doubtful", "file was left out", "files were left out", "mend them, and convert again"),
    "blank": Kind("doubtful", "image is blank", "images are blank", _REVIEW),
    "label-doubt": Kind(
        "note", "label is in doubt, of classes that the network cannot tell apart well",
        "labels are in doubt, of classes that the network cannot tell apart well",
        "a network that knows these classes better tells more",
    ),
    "small-for-model": Kind(
        "note", "image is smaller than the model's input", "images are smaller than the model's input",
        "they are enlarged: give a smaller --image-size, or larger images",
    ),
    "dark": Kind("note", "image is very dark", "images are very dark", _REVIEW),
    "bright": Kind("note", "image is very bright", "images are very bright", _REVIEW),
    "blurred": Kind("note", "image is blurred", "images are blurred", _REVIEW),
    "odd-aspect": Kind(
        "note", "image is of an odd shape", "images are of an odd shape",
        "a model sees a square from its middle, or half of it: crop what matters",
    ),
    "tiny": Kind("note", "image is tiny", "images are tiny", _REVIEW),
    "huge": Kind("note", "image is huge", "images are huge", "convert with --resize 512, and training reads less"),
    "reduced": Kind(
        "note", "loss in decoding", "losses in decoding", "see --range and --bands of sagitta convert"
    ),
}  # fmt: skip
"""Every kind of finding, the worst first."""
_LIKENESS = "share of details that agree, 0 to 1; 1 where the pixels are equal"
_PROBABILITY = "probability of the proposed class less that of the label, 0 to 1"
SCORES: Mapping[str, str] = {
    **dict.fromkeys(("exact-leak", "near-leak", "label-conflict", "exact-duplicate", "near-duplicate"), _LIKENESS),
    "group-leak": "images of the group",
    "cue": "share of the classes that it tells right, 0 to 1",
    **dict.fromkeys(("label-error", "label-doubt"), _PROBABILITY),
    "small-class": "images of the class",
    "imbalance": "times as many images in the largest class as in the smallest",
    "blank": "standard deviation of the grey levels, 0 to 127",
    "small-for-model": "pixels of the shorter side",
    "dark": "grey level, 0 to 255, that 95 % of the image are below",
    "bright": "grey level, 0 to 255, that 95 % of the image are above",
    "blurred": "sharpness: mean Laplacian by the deviation of the grey levels",
    "odd-aspect": "longer side by shorter side",
    "tiny": "pixels of the shorter side",
    "huge": "pixels of the whole",
    "reduced": "files",
}
"""What the score of a kind is; other kinds have none."""
_LOW = ("small-class", "blank", "small-for-model", "dark", "blurred", "tiny")
"""Kinds of which the lowest score is the worst."""
_ORDER = {kind: place for place, kind in enumerate(KINDS)}
_LEAKS = ("exact-leak", "near-leak", "group-leak")
_MARKS = {"serious": "!!", "doubtful": "! ", "note": "  "}
_MOST_HTML = 20


def finding(kind: str, evidence: str, **fields: Any) -> dict[str, Any]:
    """Return a row of ``FINDINGS``.

    Args:
        kind: of ``KINDS``, which gives the severity.
        evidence: in words; where no path is given, what to do is added, since there is no image to act on.
        fields: further columns; the action is ``review`` where none is given, ``none`` without a path.
    """
    if not fields.get("path"):
        evidence = f"{evidence}. No file to mend. To do: {KINDS[kind].advice}"
        fields = {"action": "none"} | fields
    return {"kind": kind, "severity": KINDS[kind].severity, "evidence": evidence, "action": "review"} | fields


def table_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return findings as a table of ``FINDINGS``, the worst first; of equal ones those with something proposed."""

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        score = row.get("score") or 0.0
        return (
            _ORDER[row["kind"]],
            score if row["kind"] in _LOW else -score,
            row.get("action") == "none",
            row.get("path") or "",
            row.get("other_path") or "",
        )

    return pa.Table.from_pylist(sorted(rows, key=place), schema=FINDINGS)


@dataclass(frozen=True, repr=False)
class Findings:
    """What was found about a dataset; shows itself in a terminal and in a notebook.

    Attributes:
        source: the dataset, as it was named.
        images: how many it has.
        table: of schema ``FINDINGS``, the worst first.
        notes: what was not looked for, and why, one sentence each.
    """

    source: str
    images: int
    table: pa.Table
    notes: tuple[str, ...] = ()

    def count(self, kind: str) -> int:
        """Return how many findings of a kind there are."""
        return int(pc.sum(pc.equal(self.table["kind"], kind)).as_py() or 0)

    @property
    def kinds(self) -> dict[str, int]:
        """How many of each kind that was found, the worst first."""
        return {kind: count for kind in KINDS if (count := self.count(kind))}

    @property
    def leaks(self) -> int:
        """How many findings say that ``train`` and what measures it share images or groups."""
        rows = self.table.select(["kind", "split", "other_split"]).to_pylist()
        return sum(row["kind"] in _LEAKS and "train" in (row["split"], row["other_split"]) for row in rows)

    def of(self, kind: str) -> pa.Table:
        """Return the findings of one kind."""
        return self.table.filter(pc.equal(self.table["kind"], kind))

    def lines(self, only: Iterable[str] = tuple(KINDS)) -> list[str]:
        """Return a line a kind: how many, the worst of them, and what to do."""
        return [f"{_MARKS[KINDS[kind].severity]} {self._line(kind)}" for kind in only if self.count(kind)]

    def _line(self, kind: str) -> str:
        what, count, first = KINDS[kind], self.count(kind), self.of(kind).slice(0, 1).to_pylist()[0]
        shown = printable(f"{first['path']}: {first['evidence']}" if first["path"] else first["evidence"])
        told = f"{plural(count, what.one, what.many)}{', such as' if count > 1 else ':'} {shown}"
        return f"{told}. To do: {what.advice}" if first["path"] else told

    def text(self) -> str:
        """Return the findings as lines, the worst first, and what was not looked for."""
        kinds = list(self.kinds)
        serious = [kind for kind in kinds if KINDS[kind].severity == "serious"]
        head = f"{self.source}: {plural(self.images, 'image')}, "
        if not kinds:
            head += "nothing to find fault with"
        else:
            others = len(kinds) - len(serious)
            head += f"{plural(len(serious), 'serious kind')} of fault" if serious else "nothing serious"
            head += f", {others} to know of" if others else ""
        return "\n".join([head, *self.lines(), *(f"not looked for: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        return self.text()

    def write(self, path: Path) -> None:
        """Write the table as ``.parquet`` or ``.csv``, whole or not at all.

        Raises:
            ConfigError: the name ends otherwise.
            OSError: it cannot be written.
        """
        check_name(path)
        sink = pa.BufferOutputStream()
        if path.suffix.lower() == ".parquet":
            pq.write_table(self.table, sink)
        else:
            pa_csv.write_csv(self.table, sink)
        write_atomic(path, sink.getvalue().to_pybytes())

    def _repr_html_(self) -> str:
        names = ("kind", "split", "path", "evidence", "action")
        heads = "".join(f"<th>{name}</th>" for name in names)
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(row[name] or str())}</td>' for name in names)}</tr>"
            for row in self.table.slice(0, _MOST_HTML).to_pylist()
        )
        told = "".join(f"<li>{escape(line.strip())}</li>" for line in self.text().split("\n")[1:])
        head = escape(self.text().split("\n")[0])
        return f"<div><p>{head}</p><ul>{told}</ul><table><tr>{heads}</tr>{rows}</table></div>"


def check_name(path: Path) -> None:
    """Refuse a name for findings that tells no format.

    Raises:
        ConfigError: it ends neither in ``.csv`` nor in ``.parquet``.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigError(f"{path}: findings are written as .csv or .parquet; name such a file")
