"""Figures and tables for a paper: SVG, PNG where ``resvg-py`` is installed, the table in Markdown and LaTeX.

::

    DIR/confusion.svg, reliability.svg, coverage.svg      of the first predictions of a run; of others with their names
    DIR/curve_loss.svg …                                  of its training
    DIR/class_counts.svg, map.svg                         of its data
    DIR/worst_mistakes.png                                pictures, unless these are not wanted
    DIR/compare_acc.svg …                                 of several runs, whose own figures lie in DIR/RUN/
    DIR/metrics.md, metrics.tex                           figures with 95 % intervals, a row a run
"""

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from sagitta.clock import Clock
from sagitta.errors import ImageError, SagittaError
from sagitta.evaluation import quiet
from sagitta.files import write_atomic
from sagitta.images import prediction_grid
from sagitta.reporting.curves import curves
from sagitta.reporting.datasheet import class_counts
from sagitta.reporting.escaping import latex, markdown
from sagitta.reporting.gathering import Gathered, gather
from sagitta.reporting.pictures import thumbnail
from sagitta.reporting.results import LABELS, figures_of, metrics_of, words_of, worst_rows
from sagitta.reporting.single import Single
from sagitta.reporting.svg import Figure
from sagitta.reporting.versus import Versus, names_of

_ZOOM = 3  # of a PNG: about 300 dots an inch at the width of a column
_WORST = 16
_SIDE = 192


def write_figures(runs: Sequence[Path], folder: Path, *, images: bool = True) -> list[Path]:
    """Write the figures of runs as files; returns them.

    Args:
        runs: their directories.
        folder: is made if need be; files of the same names are replaced.
        images: write a picture of the worst mistakes, too.

    Raises:
        ConfigError: there is no such run.
        OSError: nothing can be written there.
    """
    gathered = [gather(run) for run in runs]
    names = names_of(runs)
    written: list[Path] = []
    with quiet():
        for run, name in zip(gathered, names, strict=True):
            written += _of_run(run, folder if len(runs) == 1 else folder / name.replace("/", "_"), images=images)
        if len(runs) > 1:
            versus = Versus(gathered, folder / "comparison.html", images=False, clock=Clock())
            written += [path for figure in versus.figures() for path in _drawn(figure, folder)]
    written += _tables(gathered, names, folder)
    return written


def _of_run(run: Gathered, folder: Path, *, images: bool) -> list[Path]:
    single = Single(run, images=False, clock=Clock(), umap=True)
    figures = [figure for judged in run.judged for figure in figures_of(judged, single.temperature)]
    figures += curves(run)
    if (counts := class_counts(single.shelf)) is not None:
        figures.append(counts)
    if (atlas := single.atlas()) is not None:
        figures.append(_map(atlas))
    written = [path for figure in figures for path in _drawn(figure, folder)]
    return [*written, *(_mistakes(run, single, folder) if images else [])]


def _drawn(figure: Figure, folder: Path) -> list[Path]:
    """Write a figure as SVG, and as PNG where something can draw it."""
    text, path = figure.standalone(), folder / f"{figure.name}.svg"
    write_atomic(path, text)
    if not find_spec("resvg_py"):
        return [path]
    import resvg_py

    png = path.with_suffix(".png")
    write_atomic(png, bytes(resvg_py.svg_to_bytes(svg_string=text, zoom=_ZOOM)))
    return [path, png]


def _map(atlas: dict[str, Any]) -> Figure:
    """Return the map of the images, coloured by class, as a figure."""
    parts = []
    for x, y, label, *_ in atlas["points"]:
        colour = atlas["colours"].index(label) if label in atlas["colours"] else None
        look = 'fill="#9aa3af"' if colour is None else f'class="f{colour}"'
        parts.append(f'<circle {look} fill-opacity="0.7" cx="{x}" cy="{y}" r="3.2"/>')
    legend = [(atlas["classes"][label], place, False) for place, label in enumerate(atlas["colours"])]
    title = f"Map of {atlas['count']} images, {atlas['method']}"
    return Figure("map", title, "".join(parts), (atlas["width"], atlas["height"]), title, None, legend)


def _mistakes(run: Gathered, single: Single, folder: Path) -> list[Path]:
    """Write a picture of the worst mistakes of the first predictions, if there are any and the data is there."""
    if not run.judged or (shelf := single.shelf_of(run.judged[0])) is None:
        return []
    judged, tiles = run.judged[0], list[tuple[Image.Image, str, str, float]]()
    for row in worst_rows(judged, _WORST):
        found = shelf.find(judged.paths[row])
        if found is None:
            continue
        try:
            truth, given, chance, _ = words_of(judged, row)
            tiles.append((thumbnail(found[0].image(found[1]), _SIDE), truth, given, chance))
        except (ImageError, SagittaError):
            continue
    if not tiles:
        return []
    encoded = io.BytesIO()
    prediction_grid(tiles).save(encoded, "PNG")
    write_atomic(folder / "worst_mistakes.png", encoded.getvalue())
    return [folder / "worst_mistakes.png"]


def _tables(runs: Sequence[Gathered], names: Sequence[str], folder: Path) -> list[Path]:
    """Write what the runs reached, with intervals."""
    rows = []
    for run, name in zip(runs, names, strict=True):
        if run.judged:
            judged = run.judged[0]
            cells = {card["name"]: (card["value"], card["low"], card["high"]) for card in metrics_of(judged.scores)}
            rows.append((name, f"{judged.title} ({len(judged):,})", cells))
    if not rows:
        return []
    shown = [name for name in LABELS if any(name in cells for *_, cells in rows)]
    write_atomic(folder / "metrics.md", _markdown(rows, shown))
    write_atomic(folder / "metrics.tex", _latex(rows, shown))
    return [folder / "metrics.md", folder / "metrics.tex"]


_Rows = Sequence[tuple[str, str, dict[str, tuple[str, str, str]]]]


def _markdown(rows: _Rows, shown: Sequence[str]) -> str:
    lines = ["| run | images | " + " | ".join(LABELS[name] for name in shown) + " |"]
    lines.append("|---|---|" + "---:|" * len(shown))
    for name, basis, cells in rows:
        values = [f"{v} ({low} to {high})" for v, low, high in (cells.get(each, ("-", "", "")) for each in shown)]
        row = [markdown(name), markdown(basis), *(each.replace(" ( to )", "") for each in values)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, "", "In brackets: 95 % intervals.", ""])


def _latex(rows: _Rows, shown: Sequence[str]) -> str:
    lines = [r"% needs \usepackage{booktabs}", r"\begin{tabular}{ll" + "r" * len(shown) + "}", r"\toprule"]
    lines.append(" & ".join(["run", "images", *(latex(LABELS[name]) for name in shown)]) + r" \\")
    lines.append(r"\midrule")
    for name, basis, cells in rows:
        values = []
        for each in shown:
            value, low, high = (latex(word) for word in cells.get(each, ("--", "", "")))
            values.append(rf"{value} {{\footnotesize ({low}--{high})}}" if low else value)
        lines.append(" & ".join([latex(name), latex(basis), *values]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", "% in brackets: 95 % intervals", ""])
