"""A picture of the worst findings: a line of images a kind, those that are alike side by side."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from sagitta.dataset import ShardSet
from sagitta.diagnosis.findings import KINDS, Findings
from sagitta.errors import ImageError
from sagitta.files import write_atomic
from sagitta.images import Tile, decode, fitted, grid

_COLUMNS, _SIDE = 8, 128
_RED = (200, 30, 30)


def findings_sheet(findings: Findings, shards: ShardSet, path: Path) -> None:
    """Write a PNG of the worst findings of each kind that are about an image.

    Raises:
        DatasetError: an image's file cannot be read.
        OSError: ``path`` cannot be written.
    """
    places = {
        (name, split.path(row)): (split, row) for name, split in shards.splits.items() for row in range(len(split))
    }

    def tile(split: str | None, name: str | None, lines: list[str], *, worst: bool) -> Tile | None:
        if split is None or name is None or (split, name) not in places:
            return None
        own, row = places[split, name]
        try:
            image = Image.fromarray(decode(own.image(row)))
        except ImageError:
            image = Image.new("RGB", (1, 1), "gray")
        return Tile(fitted(image, _SIDE), lines, _RED if worst else None)

    def line(rows: list[dict[str, Any]]) -> Iterator[Tile | None]:
        for row in rows:
            label = f"{row['label']} -> {row['proposed_label']}" if row["proposed_label"] else row["label"] or ""
            yield tile(row["split"], row["path"], [Path(row["path"]).name, f"{row['split']}: {label}"], worst=True)
            if row["other_path"]:
                name, split = row["other_path"], row["other_split"]
                yield tile(split, name, [Path(name).name, split], worst=False)

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
    grid(tiles, _COLUMNS, side=_SIDE, heads=heads, note=note).save(encoded, "PNG")
    write_atomic(path, encoded.getvalue())
