"""What predictions and a dataset show, as plots: see :mod:`sagitta.reporting.analysis` for the numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

from sagitta.reporting.analysis import Bin, Coverage, calibration_error, thinned
from sagitta.reporting.escaping import escaped
from sagitta.reporting.matrix import Matrix
from sagitta.reporting.svg import Axes, Figure, Series, breadth, line_plot, number, percent, shortened, ticks

_MOST_POINTS = 200


def reliability_plot(bins: Mapping[str, Sequence[Bin]], key: str = "") -> Figure:
    """Draw how often decisions are right, by the probability that they are given, of one or two models.

    Args:
        bins: by a name, such as ``before`` and ``after``.
        key: of the file's name.
    """
    series = []
    for index, (name, own) in enumerate(bins.items()):
        words = [
            f"{percent(each.right[0])} right ({percent(each.right[1])} to {percent(each.right[2])}), of {each.count:,}"
            for each in own
        ]
        lines = [each.mean for each in own], [each.right[0] for each in own]
        series.append(Series(name, *lines, dashed=index < len(bins) - 1, words=words))

    def under(axes: Axes) -> str:
        (x0, y0), (x1, y1) = axes.at(0, 0), axes.at(1, 1)
        parts = [f'<line class="ideal" x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}"/>']
        colour = len(bins) - 1
        most = max((each.count for each in last), default=1)
        for each in last:
            left, right = axes.at(each.low, 0)[0] + 1, axes.at(each.high, 0)[0] - 1
            tall = 34 * each.count / most
            parts.append(
                f'<rect class="f{colour} band" x="{left:.1f}" y="{y0 - tall:.1f}" width="{right - left:.1f}" '
                f'height="{tall:.1f}"/>'
            )
            x, low = axes.at(each.mean, each.right[1])
            _, high = axes.at(each.mean, each.right[2])
            _, middle = axes.at(each.mean, each.right[0])
            parts.append(
                f'<line class="whisker s{colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
                f'<circle class="f{colour}" cx="{x:.1f}" cy="{middle:.1f}" r="3.2"/>'
            )
        return "".join(parts)

    last = list(bins.values())[-1]
    errors = "; ".join(f"calibration error {name}: {calibration_error(own):.3f}" for name, own in bins.items())
    return line_plot(
        f"reliability{key}", "Reliability", series, "probability given", "share that is right",
        x=(0, 1), y=(0, 1), x_words=percent, y_words=percent, under=under, text=f"Reliability diagram. {errors}",
    )  # fmt: skip


def coverage_plot(curves: Mapping[str, Coverage], key: str = "") -> Figure:
    """Draw accuracy against the share of images that are answered, the most certain first."""
    series = []
    for name, curve in curves.items():
        places = thinned(len(curve.share), _MOST_POINTS)
        share, accuracy, threshold = curve.share[places], curve.accuracy[places], curve.threshold[places]
        words = [f"{percent(a)} right, from probability {t:.3f} on" for a, t in zip(accuracy, threshold, strict=True)]
        series.append(Series(name, share.tolist(), accuracy.tolist(), words=words))
    low = min((min(each.y) for each in series), default=0.0)
    floor = max(0.0, min(low - 0.02, 0.98 * low))
    return line_plot(
        f"coverage{key}", "Coverage against accuracy", series, "share of the images that are answered", "accuracy",
        x=(0, 1), y=(floor, 1.0 + 0.02 * (1 - floor)), x_words=percent, y_words=percent,
    )  # fmt: skip


def confusion_plot(matrix: Matrix, key: str = "") -> Figure:
    """Draw a confusion matrix: classes in rows, predictions in columns, darker where the share of the row is larger.

    Of a part, what is right is left out, and what is shown of how much stands below.
    """
    classes, whole = len(matrix.names), matrix.whole
    side = (34 if classes <= 12 else 24 if classes <= 24 else 15) if whole else 24
    words = [shortened(name) for name in matrix.names]
    wide = max(map(breadth, words), default=0.0)
    left, strengths, parts = 16 + wide, matrix.strengths, []
    for row in range(classes):
        y = row * side
        middle = f'x="{left - 6:.1f}" y="{y + side / 2 + 4:g}"'
        parts.append(f'<text {middle} text-anchor="end">{escaped(words[row])}</text>')
        for column in range(classes):
            if whole or row != column:
                corner = left + column * side, y, side
                look = "cell" if row == column else "cell off"
                parts.append(_square(int(matrix.counts[row, column]), float(strengths[row, column]), look, corner))
    down = classes * side
    for column, word in enumerate(words):
        x = left + column * side + side / 2
        parts.append(
            f'<text transform="translate({x + 4:.1f} {down + 8}) rotate(-60)" text-anchor="end">{escaped(word)}</text>'
        )
    deep = down + 20 + 0.87 * wide
    told = ["columns: predicted; rows: true class"]
    if not whole:
        told = [matrix.title, f"{told[0]}; colour: share of all images of the true class; right ones are left out"]
    for place, line in enumerate(told):
        parts.append(f'<text class="faint" x="{left:.1f}" y="{deep + 8 + 17 * place:.0f}">{escaped(line)}</text>')
    right = int(np.trace(matrix.counts))
    text = f"Confusion matrix of {classes} classes: {right:,} of {int(matrix.counts.sum()):,} right"
    size = left + max(classes * side, *map(breadth, told)) + 16, deep + 17 * len(told)
    return Figure(f"confusion{key}", matrix.title, "".join(parts), size, text if whole else matrix.title)


def _square(count: int, strength: float, look: str, corner: tuple[float, float, int]) -> str:
    """Return a cell of a matrix at left, top and side, with its number where there is room."""
    x, y, side = corner
    box = f'x="{x:.1f}" y="{y:g}" width="{side - 1}" height="{side - 1}"'
    found = f'<rect class="cell" fill-opacity="0.05" {box}/>'
    if count:
        found += f'<rect class="{look}" fill-opacity="{0.1 + 0.55 * strength:.2f}" {box}/>'
        if side >= 24:
            middle = f'x="{x + (side - 1) / 2:.1f}" y="{y + side / 2 + 4:g}"'
            found += f'<text class="count" {middle} text-anchor="middle">{count}</text>'
    return found


def counts_plot(counts: Mapping[str, Sequence[int]], names: Sequence[str], most: int = 24) -> Figure:
    """Draw the images of each class as stacked bars, by split, the largest class first.

    Args:
        counts: (classes,) of each split.
        names: of the classes.
        most: bars; of more classes some are shown, spread evenly over their order.
    """
    totals = np.sum(list(counts.values()), axis=0)
    order = np.argsort(-totals, kind="stable")
    order = order[thinned(len(order), most)]
    words = {label: shortened(names[label]) for label in order.tolist()}
    tall, left = 17, 16 + max(map(breadth, words.values()), default=0.0)
    width, highest = 440.0, max(int(totals.max(initial=1)), 1)
    room = width - left - 54
    parts = []
    for row, label in enumerate(order.tolist()):
        y, x = row * tall, left
        parts.append(f'<text x="{left - 6:.1f}" y="{y + 12}" text-anchor="end">{escaped(words[label])}</text>')
        for colour, own in enumerate(counts.values()):
            wide = room * own[label] / highest
            parts.append(f'<rect class="f{colour}" x="{x:.1f}" y="{y + 2}" width="{wide:.1f}" height="{tall - 5}"/>')
            x += wide
        parts.append(f'<text class="faint" x="{x + 5:.1f}" y="{y + 12}">{int(totals[label]):,}</text>')
    some = f" ({len(order)} of {len(names)}, from the largest to the smallest)" if len(order) < len(names) else ""
    legend = [(name, colour, False) for colour, name in enumerate(counts)]
    text = f"Images of each class, from {highest:,} to {int(totals.min(initial=0)):,}"
    size = (width, len(order) * tall + 6.0)
    return Figure("class_counts", f"Images of each class{some}", "".join(parts), size, text, None, legend)


def scores_plot(scores: Mapping[str, tuple[float, float, float]], title: str, name: str, *, share: bool) -> Figure:
    """Draw one score of several runs with its interval, one below the other."""
    ends = [end for score in scores.values() for end in score]
    low, high = min(ends), max(ends)
    room = (high - low) * 0.08 or 0.01
    axes = Axes((low - room, high + room), (0, 1), width=440, height=40 + 26 * len(scores) + 16)
    words = {run: shortened(run, 120) for run in scores}
    left = 16 + max(map(breadth, words.values()))
    parts = []

    def at(value: float) -> float:
        return left + (value - axes.x[0]) / (axes.x[1] - axes.x[0]) * (440 - 20 - left)

    for row, (run, (value, start, end)) in enumerate(scores.items()):
        y = 14 + 26 * row
        colour = row % 8
        parts.append(
            f'<text x="{left - 8:.1f}" y="{y + 4}" text-anchor="end">{escaped(words[run])}</text>'
            f'<line class="whisker s{colour}" x1="{at(start):.1f}" x2="{at(end):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="f{colour}" cx="{at(value):.1f}" cy="{y}" r="4.5"/>'
        )
    bottom = 14 + 26 * len(scores)
    for value in thinned_ticks(axes.x):
        word = percent(value) if share else number(value)
        parts.append(f'<text x="{at(value):.1f}" y="{bottom + 14}" text-anchor="middle">{word}</text>')
        parts.append(f'<line class="grid" x1="{at(value):.1f}" x2="{at(value):.1f}" y1="2" y2="{bottom}"/>')
    told = "; ".join(f"{run}: {number(v)} ({number(a)} to {number(b)})" for run, (v, a, b) in scores.items())
    return Figure(name, title, "".join(parts), (440, bottom + 22), f"{title}. {told}")


def thinned_ticks(ends: tuple[float, float]) -> list[float]:
    """Return a few round numbers between two ends."""
    return ticks(*ends, most=5)
