"""Plots as inline SVG: axes, lines, bars and cells as plain text, coloured by the page's style sheet.

A figure is drawn about as large as it is shown on a phone, 440 pixels, so that its letters are readable everywhere.
What a pointer or an arrow key should tell stands beside it as data, see :class:`Figure`.
"""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sagitta.reporting.escaping import escaped, visible

WIDTH, HEIGHT = 440, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 22, 12, 44
COLOURS = 8
"""Classes ``s0`` to ``s7`` of the style sheet; a plot with more series begins again, dashed."""

STANDALONE = """
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;fill:#3c4654}
.grid{stroke:#e2e5ea}.axis{stroke:#8b95a3}.line{fill:none;stroke-width:2;stroke-linejoin:round}.mark{stroke:#8b95a3}
.ideal{stroke:#8b95a3;stroke-dasharray:4 4}.thin{stroke-width:1}.dash{stroke-dasharray:5 4}.cell{fill:#0b66a8}
.cell.off{fill:#c8500a}.faint{fill:#5f6b7a}.count{fill:#000}.band{opacity:.18}.whisker{stroke-width:1.5}
.s0{stroke:#0b66a8}.s1{stroke:#c8500a}.s2{stroke:#00805c}.s3{stroke:#a03d8f}.s4{stroke:#8a6a00}.s5{stroke:#2f7f97}
.s6{stroke:#666}.s7{stroke:#7a4a2b}.f0{fill:#0b66a8}.f1{fill:#c8500a}.f2{fill:#00805c}.f3{fill:#a03d8f}
.f4{fill:#8a6a00}.f5{fill:#2f7f97}.f6{fill:#666}.f7{fill:#7a4a2b}
"""
"""The style of a figure that stands alone; that of the page is in ``page.css``, which knows the same classes."""


def breadth(words: str) -> float:
    """Return about how many pixels text takes at 12 pixels a letter, rather too many."""
    return sum(map(_breadth, words))


def _breadth(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 13.0
    if letter in "mwMW@%…—":
        return 11.0
    if letter in "fijlrtI.,:;'|!()[] -":
        return 4.4
    return 8.4 if letter.isupper() else 7.0


def shortened(words: str, most: float = 145.0) -> str:
    """Return text in which everything can be seen, cut where it takes more than so many pixels."""
    words = visible(words)
    if breadth(words) <= most:
        return words
    room = most - breadth("…")
    return words[: next(end for end in range(len(words) + 1) if breadth(words[: end + 1]) > room)] + "…"


@dataclass(frozen=True)
class Series:
    """A line: its name, and its points (N,) each; a y that is not finite leaves a gap.

    Attributes:
        words: of each point, in place of its number, where a pointer is on it.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    words: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        name: of its file.
        title: for people.
        body: what stands inside of ``<svg>``.
        size: width and height of its view box.
        text: what it shows, for those who do not see it.
        hover: of a plot of lines: ``box`` (left, top, right, bottom), ``x`` and ``y`` (ends of the axes), ``series``.
        legend: names of the series, whose colours are in order.
    """

    name: str
    title: str
    body: str
    size: tuple[float, float]
    text: str
    hover: dict[str, Any] | None = None
    legend: Sequence[tuple[str, int, bool]] = field(default=())

    def inline(self) -> str:
        """Return the drawing for a page, which holds the style."""
        width, height = self.size
        return (
            f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escaped(self.text)}" '
            f'preserveAspectRatio="xMidYMid meet">{self.body}</svg>'
        )

    def standalone(self) -> str:
        """Return the drawing as a file of its own, on white, with its legend above."""
        width, height = self.size
        above = 24 if self.legend else 0
        parts, x = [], 12.0
        for name, colour, dashed in self.legend:
            shown = shortened(name)
            parts.append(
                f'<line x1="{x:g}" x2="{x + 18:g}" y1="14" y2="14" class="line s{colour}{" dash" * dashed}"/>'
                f'<text x="{x + 23:g}" y="18">{escaped(shown)}</text>'
            )
            x += 40 + breadth(shown)
        width = max(width, x if self.legend else 0)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height + above:g}" '
            f'viewBox="0 0 {width:g} {height + above:g}"><title>{escaped(self.title)}</title>'
            f'<style>{STANDALONE}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}'
            f'<g transform="translate(0 {above})">{self.body}</g></svg>\n'
        )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two ends, at most so many."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / max(most - 1, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(first * step + index * step, 12) for index in range(int((high - first * step) / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a number as people read it: four digits, or a power of ten where it is tiny or huge."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.2g}"


def percent(value: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * value:.4g}%"


@dataclass(frozen=True)
class Axes:
    """Two axes with round numbers, and where a value lies on them.

    Attributes:
        x: ends of the horizontal axis.
        y: ends of the vertical one.
        logarithmic: of ``y``.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    logarithmic: bool = False
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the area between the axes."""
        return _LEFT, _TOP, self.width - _RIGHT, self.height - _BOTTOM

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies."""
        left, top, right, bottom = self.box
        (x0, x1), (y0, y1) = self.x, map(self._scaled, self.y)
        across = (x - x0) / ((x1 - x0) or 1)
        up = (self._scaled(y) - y0) / ((y1 - y0) or 1)
        return left + across * (right - left), bottom - up * (bottom - top)

    def _scaled(self, y: float) -> float:
        return math.log10(max(y, 1e-300)) if self.logarithmic else y

    def _rows(self) -> list[float]:
        if not self.logarithmic:
            return ticks(*self.y, most=6)
        first, last = (math.floor(math.log10(self.y[0])), math.ceil(math.log10(self.y[1])))
        powers = [10.0**power for power in range(first, last + 1)]
        return [each for each in powers if self.y[0] * 0.999 <= each <= self.y[1] * 1.001] or list(self.y)

    def drawn(
        self,
        x_label: str,
        y_label: str,
        x_words: Callable[[float], str] = number,
        y_words: Callable[[float], str] = number,
        *,
        whole: bool = False,
    ) -> str:
        """Return grid, axes, numbers and labels.

        Args:
            x_label: below the horizontal axis.
            y_label: beside the vertical one.
            x_words: how its numbers are written.
            y_words: likewise.
            whole: only whole numbers stand below.
        """
        left, top, right, bottom = self.box
        parts = []
        for value in self._rows():
            _, y = self.at(self.x[0], value)
            parts.append(f'<line class="grid" x1="{left}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{escaped(y_words(value))}</text>')
        below = [value for value in ticks(*self.x, most=7) if not whole or value == int(value)]
        for value in below:
            x, _ = self.at(value, self.y[0])
            parts.append(f'<text x="{x:.1f}" y="{bottom + 17:g}" text-anchor="middle">{escaped(x_words(value))}</text>')
        parts.append(f'<line class="axis" x1="{left}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}"/>')
        middle = (left + right) / 2
        parts.append(
            f'<text class="faint" x="{middle:g}" y="{self.height - 8:g}" text-anchor="middle">{x_label}</text>'
        )
        y_middle = (top + bottom) / 2
        turned = f'transform="translate(12 {y_middle:g}) rotate(-90)"'
        parts.append(f'<text class="faint" {turned} text-anchor="middle">{y_label}</text>')
        return "".join(parts)

    def path(self, x: Sequence[float], y: Sequence[float]) -> str:
        """Return the ``d`` of a line through the points, with gaps."""
        words, pen = [], "M"
        for each, value in zip(x, y, strict=True):
            if not math.isfinite(value):
                pen = "M"
                continue
            across, down = self.at(each, value)
            words.append(f"{pen}{across:.1f} {down:.1f}")
            pen = "L"
        return "".join(words)


def spread(values: Sequence[float], *, zero: bool = False) -> tuple[float, float]:
    """Return the ends of an axis that holds all finite values, with some room; below 0 only where a value is."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if zero:
        low = min(low, 0.0)
    room = (high - low) * 0.05 or abs(high) * 0.1 or 0.5
    if low >= 0:  # of what is never below 0, no axis is
        return (0.0 if zero else max(0.0, low - room)), high + room
    return low - room, high + room


def line_plot(
    name: str,
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    x: tuple[float, float] | None = None,
    y: tuple[float, float] | None = None,
    x_words: Callable[[float], str] = number,
    y_words: Callable[[float], str] = number,
    logarithmic: bool = False,
    whole: bool = False,
    under: Callable[[Axes], str] | None = None,
    text: str = "",
) -> Figure:
    """Draw lines over one another.

    Args:
        name: of the file.
        title: for people.
        series: at least one.
        x_label: below.
        y_label: at the left.
        x: ends of the axis; by default those of the points.
        y: likewise.
        x_words: how a number of that axis is written.
        y_words: likewise.
        logarithmic: the vertical axis.
        whole: only whole numbers stand below.
        under: draws what lies under the lines.
        text: what it shows, for those who do not see it; the series' ends by default.
    """
    every_x = [value for each in series for value in each.x]
    every_y = [value for each in series for value in each.y if not logarithmic or value > 0]
    finite = [value for value in every_y if math.isfinite(value)]
    logarithmic = logarithmic and bool(finite)
    ends = (min(every_x, default=0.0), max(every_x, default=1.0))
    axes = Axes(
        x or (ends if ends[1] > ends[0] else (ends[0] - 0.5, ends[0] + 0.5)),
        y or ((min(finite) * 0.8, max(finite) * 1.25) if logarithmic else spread(every_y)),
        logarithmic,
    )
    parts = [axes.drawn(x_label, y_label, x_words, y_words, whole=whole), under(axes) if under else ""]
    legend = []
    for index, each in enumerate(series):
        colour, dashed = index % COLOURS, each.dashed or index >= COLOURS
        look = f"s{colour}{' dash' if dashed else ''}"
        shown = [(a, b) for a, b in zip(each.x, each.y, strict=True) if math.isfinite(b)]
        parts.append(f'<path class="line {look}" d="{axes.path(each.x, each.y)}"/>')
        if len(shown) == 1:
            across, down = axes.at(*shown[0])
            parts.append(f'<circle class="f{colour}" cx="{across:.1f}" cy="{down:.1f}" r="3.5"/>')
        legend.append((each.name, colour, dashed))
    return Figure(
        name,
        title,
        "".join(parts),
        (axes.width, axes.height),
        text or f"{title}. {_told(series, y_words)}",
        _hover(axes, series, x_label, x_words, y_words),
        legend,
    )


def _told(series: Sequence[Series], words: Callable[[float], str]) -> str:
    told = []
    for each in series:
        finite = [value for value in each.y if math.isfinite(value)]
        if finite:
            told.append(f"{each.name}: from {words(finite[0])} to {words(finite[-1])}")
    return "; ".join(told)


def _hover(
    axes: Axes,
    series: Sequence[Series],
    x_label: str,
    x_words: Callable[[float], str],
    y_words: Callable[[float], str],
) -> dict[str, Any]:
    """Return what a pointer tells: places in the drawing, and words."""
    told = []
    for index, each in enumerate(series):
        points = []
        for place, (x, y) in enumerate(zip(each.x, each.y, strict=True)):
            if math.isfinite(y):
                across, down = axes.at(x, y)
                words = each.words[place] if each.words else y_words(y)
                points.append([round(across, 1), round(down, 1), x_words(x), words])
        told.append({"name": each.name, "colour": index % COLOURS, "points": points})
    return {"box": list(axes.box), "label": x_label, "series": told}
