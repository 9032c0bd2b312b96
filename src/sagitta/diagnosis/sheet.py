"""A picture of the worst findings: a line of images a kind, those that are alike side by side."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from sagitta.dataset import ShardSet
from sagitta.diagnosis.findings import KINDS, Findings
from sagitta.diagnosis.rows import Rows
from sagitta.errors import ImageError
from sagitta.files import write_atomic
from sagitta.images import Tile, decode, fitted, grid

_COLUMNS, _SIDE, _LINES = 8, 144, 2  # tiles a line, pixels of one, lines that a name may take
_RED = (200, 30, 30)


def captions(row: Mapping[str, Any]) -> list[str]:
    """Return what stands under an image: its name, its split and label, and the class that is proposed for it."""
    proposed = row.get("proposed_label")
    first = [f"is it {proposed}?"] if proposed else []
    return [*first, Path(row["path"]).name, f"{row['split']}: {row['label'] or ''}"]


def findings_sheet(findings: Findings, shards: ShardSet, path: Path) -> None:
    """Write a PNG of the worst findings of each kind that are about an image.

    Raises:
        DatasetError: an image's file cannot be read.
        OSError: ``path`` cannot be written.
    """
    known = Rows(shards)
    places = {key: row for row, key in enumerate(zip(known.split.tolist(), known.paths, strict=True))}

    def tile(split: str | None, name: str | None, lines: list[str], *, worst: bool) -> Tile | None:
        if split is None or name is None or (split, name) not in places:
            return None
        own, number = known.where(places[split, name])
        try:
            image = Image.fromarray(decode(own.image(number)))
        except ImageError:
            image = Image.new("RGB", (1, 1), "gray")
        return Tile(fitted(image, _SIDE), lines, _RED if worst else None)

    def line(rows: list[dict[str, Any]]) -> Iterator[Tile | None]:
        told = set()
        for row in rows:
            this, other = (row["split"], row["path"]), (row["other_split"], row["other_path"])
            if (pair := frozenset((this, other))) in told:  # of two labels each is a finding, of the same two images
                continue
            told.add(pair)
            yield tile(*this, captions(row), worst=True)
            if other in places:
                like = {"split": other[0], "path": other[1], "label": known.label(places[other])}
                yield tile(*other, captions(like), worst=False)

    tiles: list[Tile | None] = []
    heads = []
    for kind, count in findings.kinds.items():
        rows = findings.of(kind).slice(0, _COLUMNS).to_pylist()
        shown = list(line([row for row in rows if row["split"] and row["path"]]))[:_COLUMNS]
        if any(shown):
            tiles += [*shown, *[None] * (_COLUMNS - len(shown))]
            heads.append(f"{KINDS[kind].many}\n{count:,} found")
    encoded = io.BytesIO()
    note = "" if heads else "no finding is about an image"
    grid(tiles, _COLUMNS, side=_SIDE, heads=heads, note=note, lines=_LINES).save(encoded, "PNG")
    write_atomic(path, encoded.getvalue())
