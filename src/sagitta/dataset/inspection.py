"""What a dataset holds and how it was prepared: as plain text, as a contact sheet, and in a notebook."""

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from sagitta.dataset.parquet import check_footers, read_table
from sagitta.dataset.schema import QUARANTINE_FILE, SPLITS, DatasetInfo, SplitInfo, plural, single_labels
from sagitta.dataset.shards import ShardSet, Split
from sagitta.files import write_atomic
from sagitta.images import DEFAULT_QUALITY, Reduction, Tile, decode, fitted, grid
from sagitta.terminal import columns, printable, table, wrapped

_WIDTH = 100  # of lines that go to no terminal
_MOST_CLASSES = 20
_MOST_REASONS = 5
_SHEET_CLASSES = 12
_NOTEBOOK_CLASSES, _NOTEBOOK_IMAGES, _NOTEBOOK_BYTES = 6, 8, 200_000


def summarise(root: Path) -> str:
    """Return classes, counts, sizes, formats, quarantine and the four answers of a dataset, as text without colours.

    Lines are as wide as the terminal, or 100 characters where there is none.

    Raises:
        DatasetError: ``root`` is no finished dataset, or one of its files is missing or damaged.
    """
    info = DatasetInfo.read(root)
    check_footers(root, info)
    tables = {
        name: pa.concat_tables(
            read_table(root / file, ["label", "width", "height", "format", "mode"]) for file in split.files
        )
        for name, split in _ordered(info).items()
    }
    rows = pa.concat_tables(tables.values())
    head = (
        f"{root}: {rows.num_rows:,} images, {len(info.class_names)} classes, "
        f"{'grey' if info.channels == 1 else 'RGB'}, fingerprint {info.fingerprint}"
    )
    wide = columns() or _WIDTH
    parts = (wrapped(head, wide, "  "), _counts(info, tables), _sizes(rows), _answers(root, info, rows, wide))
    return "\n\n".join("\n".join(part) for part in parts)


def _ordered(info: DatasetInfo) -> dict[str, SplitInfo]:
    return {name: info.splits[name] for name in SPLITS if name in info.splits}


def _counts(info: DatasetInfo, tables: Mapping[str, pa.Table]) -> list[str]:
    """Return the table class x split, shortened where it is long."""
    classes = len(info.class_names)
    counts = {
        name: np.bincount(single_labels(table["label"]).to_numpy(), minlength=classes) for name, table in tables.items()
    }
    rows = [
        [printable(info.class_names[label]), *(f"{count[label]:,}" for count in counts.values())]
        for label in range(_shown(classes))
    ]
    total = ["total", *(f"{count.sum():,}" for count in counts.values())]
    more = _left_out(classes)
    return [*table(["class", *counts], rows, foot=total), *([more] if more else [])]


def _shown(classes: int) -> int:
    return classes if classes <= _MOST_CLASSES + 1 else _MOST_CLASSES


def _left_out(classes: int) -> str | None:
    more = classes - _shown(classes)
    return f"... and {more:,} more classes" if more else None


def _sizes(rows: pa.Table) -> list[str]:
    lines = []
    for side in ("width", "height"):
        values = rows[side].to_numpy()
        lines.append([side, *(f"{value:,.0f}" for value in (values.min(), np.median(values), values.max()))])
    return table(["pixels", "min", "median", "max"], lines)


def _answers(root: Path, info: DatasetInfo, rows: pa.Table, wide: int) -> list[str]:
    """Return formats, modes, what was left out, and the four questions that a dataset must answer."""
    provenance = info.provenance
    splits = ", ".join(f"{name} {split.rows:,}" for name, split in _ordered(info).items())
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (info.mean, info.std))
    versions = ", ".join(f"{name} {number}" for name, number in provenance.get("versions", {}).items())
    origin = f"from {provenance.get('source', 'an unknown source')}, {provenance.get('layout', 'of unknown layout')}"
    normalisation = f"mean {mean}, std {std} of training images, pixels scaled to 0..1"
    reduced = [f"{reason}, in {plural(files, 'file')}" for reason, files in info.reduced.items()]
    lines = {f"warning {number}": warning for number, warning in enumerate(info.warnings, 1)} | {
        "formats": _tally(rows["format"]),
        "modes": _tally(rows["mode"]),
        "quarantine": _quarantine(root, info),
        "which splits?": f"{splits}: {provenance.get('splits', 'rule unknown')}",
        "which transforms?": _transforms(provenance.get("options", {}), info.reduction),
        "reduced": "; ".join(reduced) or "nothing",
        "which normalisation?": normalisation if info.mean else "no train split, so no statistics",
        "how prepared?": "; ".join([origin, *provenance.get("notes", []), versions]),
    }
    room = max(map(len, lines)) + 2
    return [
        f"{name if first else '':<{room}}{part}"
        for name, text in lines.items()
        for first, part in ((number == 0, part) for number, part in enumerate(wrapped(text, wide - room)))
    ]


def _tally(values: pa.ChunkedArray | Sequence[str], most: int | None = None) -> str:
    counts = Counter(values.to_pylist() if isinstance(values, pa.ChunkedArray) else values)
    return ", ".join(f"{value} {count:,}" for value, count in counts.most_common(most))


def _quarantine(root: Path, info: DatasetInfo) -> str:
    if not info.quarantined:
        return "no file was left out"
    reasons = read_table(root / QUARANTINE_FILE, ["reason"])["reason"]
    others = len(pc.unique(reasons)) - _MOST_REASONS
    more = f"; and {others:,} more reasons" if others > 0 else ""
    common = "; ".join(
        f"{count:,} x {reason}" for reason, count in Counter(reasons.to_pylist()).most_common(_MOST_REASONS)
    )
    return f"{info.quarantined:,} left out, listed in {QUARANTINE_FILE}: {common}{more}"


def _transforms(options: Mapping[str, Any], reduction: Mapping[str, Any] | None) -> str:
    """Say what conversion did to the images, and what decoding does to all."""
    chosen = "" if reduction is None else f"made 8-bit by {Reduction.from_dict(reduction)}"
    resize, quality = options.get("resize"), options.get("quality")
    decoding = "decoding turns them upright by EXIF and makes them 8-bit RGB or grey"
    if resize is None and quality is None:
        return f"{f'{chosen}, as PNG' if chosen else 'none, the original bytes are stored'}; {decoding}"
    resized = f"shorter side reduced to {resize} pixels" if resize else ""
    encoded = f"{'all' if quality else 'these'} encoded as JPEG of quality {quality or DEFAULT_QUALITY}"
    return f"{', '.join(filter(None, (chosen, resized, encoded)))}; {decoding}"


def contact_sheet(root: Path, path: Path, *, per_class: int = 8) -> None:
    """Write a PNG with some training images of each class: one row a class, at most 12 classes spread over all.

    Where it leaves classes out, it says so. Without a training split the first one is shown.

    Args:
        root: the dataset.
        path: the picture to write, atomically.
        per_class: images in a row, spread evenly over the class.

    Raises:
        DatasetError: ``root`` is no finished dataset or is damaged.
        ImageError: an image cannot be decoded.
        OSError: ``path`` cannot be written.
    """
    with ShardSet.open(root) as shards:
        split = shards.splits.get("train") or next(iter(shards.splits.values()))
        sheet = _sheet(split, shards.info, _SHEET_CLASSES, per_class)
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    write_atomic(path, encoded.getvalue())


def as_html(shards: ShardSet) -> str:
    """Return what a notebook shows of a dataset: images of each class and split, and samples; below 300 KB.

    Raises:
        DatasetError: a file or a label is damaged.
        ImageError: a sample cannot be decoded.
    """
    info, splits = shards.info, shards.splits
    counts = {name: _label_counts(split.labels, len(info.class_names)) for name, split in splits.items()}
    shown = _shown(len(info.class_names))
    rows = [("<b>total</b>", *(f"{len(split):,}" for split in splits.values()))]
    rows += [
        (html.escape(info.class_names[label]), *(f"{count[label]:,}" for count in counts.values()))
        for label in range(shown)
    ]
    cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    heads = "".join(f"<th>{name}</th>" for name in ("class", *splits))
    more = f"<p>{left_out}</p>" if (left_out := _left_out(len(info.class_names))) else ""
    first = next(iter(splits.values()))
    sheet = _inline(_sheet(first, info, _NOTEBOOK_CLASSES, _NOTEBOOK_IMAGES, side=72))
    return (
        f"<div><p>{html.escape(repr(shards))}</p><table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>"
        f'{more}<img alt="samples of {first.name}" src="{sheet}"></div>'
    )


def _inline(sheet: Image.Image) -> str:
    """Return a picture as the text of a JPEG, in the best quality that is small enough."""
    for quality in (85, 60, 30, 10):
        encoded = io.BytesIO()
        sheet.save(encoded, "JPEG", quality=quality)
        if encoded.tell() < _NOTEBOOK_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _sheet(split: Split, info: DatasetInfo, classes: int, per_class: int, side: int = 128) -> Image.Image:
    """Return some images of at most so many classes, one line a class."""
    counts = _label_counts(split.labels, len(info.class_names))
    labels = _spread(np.flatnonzero(counts), classes)
    tiles: list[Tile | None] = []
    for label in labels:
        rows = np.flatnonzero(split.labels[:, label] if info.multilabel else split.labels == label)
        # Made small one by one: a hundred photos of 12 megapixels would take 3.5 GB.
        line = [Tile(fitted(Image.fromarray(decode(split.image(row))), side)) for row in _spread(rows, per_class)]
        tiles += [*line, *[None] * (per_class - len(line))]
    heads = [f"{printable(info.class_names[label])}\n{counts[label]:,} in {split.name}" for label in labels]
    note = f"{len(labels)} of {len(info.class_names):,} classes" if len(labels) < len(info.class_names) else ""
    return grid(tiles, per_class, side=side, heads=heads, note=note)


def _label_counts(labels: npt.NDArray[np.int64] | npt.NDArray[np.bool_], classes: int) -> npt.NDArray[np.int64]:
    """Return how many rows have each label, (classes,)."""
    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)


def _spread(values: npt.NDArray[np.int64], most: int) -> list[int]:
    """Return at most so many of the values, spread evenly over them."""
    places = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(np.int64))
    chosen: list[int] = values[places].tolist()
    return chosen
