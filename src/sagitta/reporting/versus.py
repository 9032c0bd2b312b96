"""The page of several runs: their figures side by side, whether a difference is real, and where they disagree."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from sagitta.clock import Clock
from sagitta.dataset import plural
from sagitta.models import Estimate
from sagitta.reporting.comparison import Paired, compare, disagreements, matched
from sagitta.reporting.curves import compared
from sagitta.reporting.datasheet import name_of_run
from sagitta.reporting.escaping import apart, phrase
from sagitta.reporting.gathering import Gathered, Judged
from sagitta.reporting.pictures import Album, Shelf, open_shelf
from sagitta.reporting.plots import scores_plot
from sagitta.reporting.results import LABELS, metrics_of, words_of
from sagitta.reporting.single import model_of
from sagitta.reporting.svg import Figure
from sagitta.run import REPORT_FILE

_TILES = 48
_SIDE = 160
_SURE = 0.05
_METRICS = ("acc", "map", "top5", "f1", "log_loss", "ece")


@dataclass(frozen=True)
class _Compared:
    """What is said of the images that all runs were tested on.

    Attributes:
        why: there is no paired test, and no picture; empty where there is.
        paired: the comparison of each two runs.
        tiles: images on which they disagree.
        common: how many images all were tested on.
        disagreeing: on how many of them they disagree.
        left: names of runs that were tested on others, too, and on how many.
    """

    why: dict[str, str]
    paired: Sequence[dict[str, Any]] = ()
    tiles: Sequence[dict[str, Any]] = ()
    common: int = 0
    disagreeing: int = 0
    left: Sequence[tuple[str, int]] = ()


class Versus:
    """The page of several runs.

    Args:
        runs: at least two.
        out: where the page will lie, for links to theirs.
        images: whether pictures are shown.
        clock: when to end.
    """

    def __init__(self, runs: Sequence[Gathered], out: Path, *, images: bool, clock: Clock) -> None:
        self.runs, self.out, self.clock = runs, out, clock
        self.images = images
        self.album = Album(clock, wanted=images)
        self.names = names_of([run.path for run in runs])
        self.judged = [run.judged[0] if run.judged else None for run in runs]

    def values(self) -> dict[str, Any]:
        """Return everything that the template shows."""
        compared = self._paired()
        shown = [name for name in _METRICS if any(each and name in each.scores for each in self.judged)]
        return {
            "title": Markup(" and ").join(map(apart, self.names)),
            "subtitle": Markup(", ").join(map(apart, self.names)),
            "notices": [*self._notices(), *_other_rows(compared)],
            "sections": [("summary", "Summary"), ("significance", "Significance"), ("disagree", "Disagreements"),
                         ("training", "Training"), ("settings", "Settings")],
            "metrics": [LABELS.get(name, name) for name in shown],
            "runs": [self._run(place, shown) for place in range(len(self.runs))],
            "overview": self.figures(),
            **vars(compared),
            "curves": self._curves(),
            "differences": differences([run.settings for run in self.runs]),
            "album": self.album,
        }  # fmt: skip

    def _notices(self) -> list[str]:
        """Return what the page of each run says of its figures, too: that it was trained on images of its test."""
        found: list[str] = []
        for name, run, judged in zip(self.names, self.runs, self.judged, strict=True):
            notes = [run.missing["test"]] if judged is None else judged.notes
            found += [phrase("{}: {}", name, note) for note in notes]
        return found

    def figures(self) -> list[Figure]:
        """Return the plots of scores that all runs have."""
        found = []
        rows = {(each.fingerprint, tuple(sorted(each.paths))) for each in self.judged if each is not None}
        which = "" if len(rows) == 1 else ", each run on its own images"
        for name in ("acc", "map", "log_loss"):
            scores = {
                run: (each.scores[name].value, each.scores[name].low, each.scores[name].high)
                for run, each in zip(self.names, self.judged, strict=True)
                if each is not None and name in each.scores
            }
            if len(scores) > 1:
                title = f"{LABELS[name]}, with 95 % intervals{which}"
                found.append(scores_plot(scores, title, f"compare_{name}", share=name != "log_loss"))
        return found

    def _curves(self) -> list[Figure]:
        named = dict(zip(self.names, self.runs, strict=True))
        wanted = (("val_loss", "Loss of val", "loss"), ("val_acc", "Accuracy of val", "accuracy"))
        found = [compared(named, metric, title, label) for metric, title, label in wanted]
        return [figure for figure in found if figure is not None]

    def _run(self, place: int, shown: Sequence[str]) -> dict[str, Any]:
        run, judged = self.runs[place], self.judged[place]
        cards = {} if judged is None else {card["name"]: card for card in metrics_of(judged.scores)}
        empty = {"value": "", "low": "", "high": ""}
        scores = []
        for name in shown:
            number = judged.scores[name].value if judged is not None and name in judged.scores else -1
            scores.append({**cards.get(name, empty), "number": number})
        report = run.path / REPORT_FILE
        link = _address(report, self.out.absolute().parent) if report.is_file() else ""
        basis = "nothing" if judged is None else f"{judged.title}, {len(judged):,} images"
        return {"name": self.names[place], "model": model_of(run), "basis": basis, "scores": scores, "link": link}

    def _paired(self) -> "_Compared":
        """Return paired tests and images of disagreement, or why there are none."""
        why = {"paired": "", "pictures": "" if self.images else "left out with --no-images"}
        judged = [each for each in self.judged if each is not None]
        if len(judged) < len(self.runs):
            why["paired"] = "Not all of the runs have predictions, so there is nothing to pair."
            return _Compared(why)
        shelves = [
            open_shelf(run.path, run.config, each.source)[0] for run, each in zip(self.runs, judged, strict=True)
        ]
        found_rows, reason = matched(judged, shelves)
        if found_rows is None:
            why["paired"] = f"No paired test: {reason}."
            return _Compared(why)
        orders = found_rows.orders
        right = [each.right[order] for each, order in zip(judged, orders, strict=True)]
        losses = [each.losses[order] for each, order in zip(judged, orders, strict=True)]
        found = compare(right, losses)
        sure = [each.certainty[order] for each, order in zip(judged, orders, strict=True)]
        rows = disagreements(right, sure, _TILES)
        hits = np.stack(right)
        shelf = next((each for each in shelves if each is not None), None)
        which = shelves.index(shelf) if shelf is not None else 0
        if shelf is None and self.images:
            why["pictures"] = "the data cannot be opened"
        paths = [judged[which].paths[orders[which][row]] for row in rows.tolist()]
        self.album.take(shelf, paths, _SIDE)
        tiles = [self._tile(judged, orders, row, path, shelf) for row, path in zip(rows.tolist(), paths, strict=True)]
        words = [self._words(each, len(found)) for each in found]
        left = [(name, count) for name, count in zip(self.names, found_rows.left, strict=True) if count]
        return _Compared(why, words, tiles, len(right[0]), int((hits.any(axis=0) & ~hits.all(axis=0)).sum()), left)

    def _tile(
        self, judged: Sequence[Judged], orders: Sequence[Any], row: int, path: str, shelf: Shelf | None
    ) -> dict[str, Any]:
        given = []
        truth = ""
        for name, each, order in zip(self.names, judged, orders, strict=True):
            own = int(order[row])
            truth, words, chance, _ = words_of(each, own)
            given.append(
                {"run": name, "words": words, "chance": f"{100 * chance:.0f}%", "right": bool(each.right[own])}
            )
        return {"path": path, "truth": truth, "given": given, "picture": self.album.number(shelf, path)}

    def _words(self, paired: Paired, comparisons: int) -> dict[str, Any]:
        p = min(1.0, paired.p * comparisons)
        first, second = self.names[paired.first], self.names[paired.second]
        if p >= _SURE:
            verdict = "these images do not tell them apart"
        else:
            verdict = phrase("{} is more accurate", second if paired.accuracy.value > 0 else first)
        return {
            "first": first, "second": second,
            "both": f"{paired.both:,}", "only_first": f"{paired.only_first:,}",
            "only_second": f"{paired.only_second:,}", "neither": f"{paired.neither:,}",
            "accuracy": f"{100 * paired.accuracy.value:+.1f}", "accuracy_range": _ends(paired.accuracy, 100, 1),
            "loss": f"{paired.loss.value:+.3f}", "loss_range": _ends(paired.loss, 1, 3),
            "p": _p(paired.p), "corrected": _p(p) if comparisons > 1 else "", "verdict": verdict,
        }  # fmt: skip


def _other_rows(compared: _Compared) -> list[str]:
    """Return in one sentence what of the runs' tests is not compared, if anything."""
    if not compared.left:
        return []
    left = [phrase("{} was tested on {}", name, plural(count, "other")) for name, count in compared.left]
    return [
        phrase(
            "The runs were not tested on the same images: {}. The figures in the table are of each run's own; the "
            "paired comparison is of the {} that all were tested on.",
            Markup(", ").join(left),
            f"{compared.common:,}",
        )
    ]


def _address(file: Path, folder: Path) -> str:
    """Return the address of a file for a page in a folder, in which no sign of a name means anything else."""
    return quote(Path(os.path.relpath(file, folder)).as_posix(), errors="surrogateescape")


def _ends(estimate: Estimate, scale: float, digits: int) -> str:
    return f"{scale * estimate.low:+.{digits}f} to {scale * estimate.high:+.{digits}f}"


def _p(value: float) -> str:
    return "below 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return how runs are called: by their folders, with those above where several are called the same."""
    names = [name_of_run(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    return (
        [str(path) for path in paths]
        if len(set(map(str, paths))) == len(paths)
        else [f"{i + 1}: {n}" for i, n in enumerate(names)]
    )


def differences(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ, by dotted names, with the value of each configuration."""
    values = [_dotted(each) for each in settings]
    keys = dict.fromkeys(key for each in values for key in each)
    rows = [(key, ["-" if each.get(key) is None else str(each[key]) for each in values]) for key in keys]
    return [(key, row) for key, row in rows if len(set(row)) > 1]


def _dotted(values: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _dotted(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
