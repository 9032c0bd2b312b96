"""The course of a training as plots: losses, scores, learning rate, and what was waited for; a run of members, too."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from sagitta.reporting.analysis import telling
from sagitta.reporting.gathering import Gathered
from sagitta.reporting.svg import Axes, Figure, Series, line_plot, number, percent

_MOST_POINTS = 240  # of a line
_WORDS = {
    "train_loss_epoch": "train", "train_loss": "train", "val_loss": "val", "val_smoothed_loss": "val, smoothed labels",
    "train_acc": "train", "val_acc": "val", "train_f1": "train F1", "val_f1": "val F1", "val_map": "val mean AP",
    "train_f1_micro": "train micro F1", "val_f1_micro": "val micro F1",
}  # fmt: skip
_TITLES = {"acc": "Accuracy", "map": "Mean average precision", "f1": "F1, mean of the classes"}


def curves(run: Gathered) -> list[Figure]:
    """Return the plots of what a run logged; none where it logged nothing more than once."""
    logs = {"": run.history} if run.history.num_rows else run.members
    kept = kept_epoch(run)
    figures = [_losses(logs, kept), *_scores(logs, kept), _rates(logs, run), *_pace(run)]
    return [figure for figure in figures if figure is not None]


def kept_epoch(run: Gathered) -> int | None:
    """Return which epoch's weights are kept, from 1; None where that is not one of those that were logged."""
    found = re.search(r"-epoch=(\d+)-", Path(run.record.get("best_checkpoint", "")).name)
    return int(found[1]) + 1 if found else None


def compared(runs: Mapping[str, Gathered], metric: str, title: str, label: str) -> Figure | None:
    """Return the course of one metric of several runs; None where none has logged it."""
    series = [each for name, run in runs.items() for each in _lines({name: run.history}, [metric])]
    if not series:
        return None
    words = percent if metric != "val_loss" else number
    return line_plot(f"curve_{metric}", title, series, "epoch", label, y_words=words, whole=True)


def _lines(logs: Mapping[str, pa.Table], metrics: list[str]) -> list[Series]:
    """Return a line a metric and log, over the epochs; a loss that training logs step by step lies between them."""
    lines = []
    for name, log in logs.items():
        for metric in metrics:
            if metric not in log.column_names:
                continue
            rows = log.select(["step", "epoch", metric]).to_pylist()
            points = [
                (row["epoch"] + 1, row[metric]) for row in rows if row[metric] is not None and row["epoch"] is not None
            ]
            if not points:
                continue
            points = _thinned(points)
            words = _WORDS.get(metric, metric)
            called = f"{name}" if name and len(metrics) == 1 else f"{words} {name}".strip()
            lines.append(Series(called, *_apart(points), dashed=metric == "val_smoothed_loss"))
    return lines


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return as many points as a line shows; none of the highest and lowest is left out."""
    return [points[place] for place in telling([y for _, y in points], _MOST_POINTS)]


def _apart(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _mark(kept: int | None) -> Callable[[Axes], str] | None:
    if kept is None:
        return None

    def under(axes: Axes) -> str:
        left, top, right, bottom = axes.box
        x, _ = axes.at(kept, axes.y[0])
        anchor, dx = ("end", -5) if x > (left + right) / 2 else ("start", 5)
        return (
            f'<line class="mark ideal" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom:g}"/>'
            f'<text class="faint" x="{x + dx:.1f}" y="{top + 10}" text-anchor="{anchor}">kept</text>'
        )

    return under


def _losses(logs: Mapping[str, pa.Table], kept: int | None) -> Figure | None:
    several = len(logs) > 1
    names = ["val_loss"] if several else ["train_loss_epoch", "val_loss", "val_smoothed_loss"]
    series = _lines(logs, names)
    if not series:
        return None
    values = [value for each in series for value in each.y if math.isfinite(value)]
    wide = bool(values) and min(values) > 0 and max(values) / min(values) > 30
    title = "Loss of val, by member" if several else "Loss"
    return line_plot(
        "curve_loss",
        title,
        series,
        "epoch",
        "loss",
        logarithmic=wide,
        whole=True,
        under=None if several else _mark(kept),
    )


def _scores(logs: Mapping[str, pa.Table], kept: int | None) -> list[Figure]:
    several = len(logs) > 1
    figures = []
    for metric in _TITLES:
        names = [f"val_{metric}"] if several else [f"train_{metric}", f"val_{metric}"]
        if series := _lines(logs, names):
            title = _TITLES[metric] + (" of val, by member" if several else "")
            under = None if several else _mark(kept)
            label = _TITLES[metric].split(",")[0].lower()
            figures.append(
                line_plot(f"curve_{metric}", title, series, "epoch", label, y_words=percent, whole=True, under=under)
            )
    return figures[:2] if several else figures


def _rates(logs: Mapping[str, pa.Table], run: Gathered) -> Figure | None:
    """Return the learning rates: over the steps where they were logged, else that of each epoch's end."""
    for log in logs.values():
        series = []
        for name in [name for name in log.column_names if name.startswith("lr")]:
            rows = [(row["step"], row[name]) for row in log.select(["step", name]).to_pylist() if row[name] is not None]
            if rows:
                series.append(Series(name.removeprefix("lr-") or name, *_apart(_thinned(rows))))
        if series:
            return line_plot("curve_lr", "Learning rate", series[:8], "step", "learning rate")
    if series := _of_pace(run, "lr", "at the end of the epoch"):
        return line_plot("curve_lr", "Learning rate", series, "epoch", "learning rate", whole=True)
    return None


def _of_pace(run: Gathered, column: str, name: str) -> list[Series]:
    rows = [(row["epoch"] + 1, row[column]) for row in run.pace if column in row]
    return [Series(name, *_apart(_thinned(rows)))] if rows else []


def _pace(run: Gathered) -> list[Figure]:
    """Return images a second and the share of waiting, by epoch."""
    figures = []
    if speed := _of_pace(run, "images_per_second", "training"):
        most = 1.1 * max(speed[0].y)
        figures.append(line_plot("throughput", "Throughput", speed, "epoch", "images/s", y=(0, most), whole=True))
    if waits := _of_pace(run, "wait_share", "waiting for data"):
        title = "Share of the time that waits for data"
        figures.append(line_plot("data_wait", title, waits, "epoch", "share", y=(0, 1), y_words=percent, whole=True))
    return figures
