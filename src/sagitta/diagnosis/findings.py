"""What was found about a dataset: one table for the terminal, for files, for the report and for `convert --fix`.

========================================  =========================================================================
``split, path, hash``                     the image, as its source names it; null where a finding is about more
``kind, severity``                        see :data:`KINDS`; ``serious``, ``doubtful`` or ``note``
``evidence, score``                       in words, and a number by which those of a kind are ordered, the worst highest
``other_split, other_path, other_hash``   the image that it is like
``action``                                proposed: ``drop``, ``relabel``, ``review`` or ``none``
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


_REVIEW = "look at them, say drop or relabel in the file of --out, and convert with --fix FILE"
_DROP = "convert the source with --drop-duplicates, which keeps what is there under two labels"

KINDS: Mapping[str, Kind] = {
    "exact-leak": Kind(
        "serious", "image has an exact copy in another split", "images have an exact copy in another split", _DROP
    ),
    "near-leak": Kind(
        "serious", "image has a near copy in another split", "images have a near copy in another split", _REVIEW
    ),
    "group-leak": Kind("serious", "group is in several splits", "groups are in several splits", "mend the splits"),
    "label-conflict": Kind(
        "serious", "image has a copy under another label", "images have a copy under another label", _REVIEW
    ),
    "unreadable": Kind("serious", "image cannot be decoded", "images cannot be decoded", "convert the source again"),
    "cue": Kind(
        "serious", "cue gives the class away without the picture", "cues give the class away without the picture",
        "a model will learn it: make all classes' images alike in it, or expect less on other images",
    ),
    "label-error": Kind(
        "doubtful", "label is probably wrong", "labels are probably wrong",
        "say relabel in the file of --out where the proposed one is right, and convert with --fix FILE",
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
_ORDER = {kind: place for place, kind in enumerate(KINDS)}
_LEAKS = ("exact-leak", "near-leak", "group-leak")
_MARKS = {"serious": "!!", "doubtful": "! ", "note": "  "}
_MOST_HTML = 20


def finding(kind: str, evidence: str, **fields: Any) -> dict[str, Any]:
    """Return a row of ``FINDINGS``.

    Args:
        kind: of ``KINDS``, which gives the severity.
        evidence: in words.
        fields: further columns; the action is ``review`` where none is given.
    """
    return {"kind": kind, "severity": KINDS[kind].severity, "evidence": evidence, "action": "review"} | fields


def table_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return findings as a table of ``FINDINGS``, the worst first."""

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return _ORDER[row["kind"]], -(row.get("score") or 0.0), row.get("path") or "", row.get("other_path") or ""

    return pa.Table.from_pylist(sorted(rows, key=place), schema=FINDINGS)


@dataclass(frozen=True)
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
        told = plural(count, what.one, what.many)
        return f"{told}{', such as' if count > 1 else ':'} {shown}. To do: {what.advice}"

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

    def __str__(self) -> str:
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
