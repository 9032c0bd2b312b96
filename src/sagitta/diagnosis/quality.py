"""Images that are odd by themselves: blank, dark, bright, blurred, tiny, huge, of an odd shape, too small for a model.

Limits are such that in ordinary photos hardly any is named; they are absolute but for blur, which is measured against
the dataset: a dataset of clouds is not blurred.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sagitta.diagnosis.duplicates import named
from sagitta.diagnosis.findings import finding
from sagitta.diagnosis.looks import Looks
from sagitta.diagnosis.rows import Rows

_BLANK = 2.0  # grey levels of deviation
_DARK, _BRIGHT = 40.0, 215.0  # 95th percentile below, 5th above
_BLURRED, _OUTLYING = 0.085, 2.5  # Laplacian by deviation; robust deviations of its logarithm below the median
_SHARP_SIDE = 96  # pixels from which blur can be told from few pixels
_TINY, _HUGE = 32, 40_000_000  # pixels of the shorter side, and of the whole
_ODD = 3.0  # times as long as wide
_ENLARGED = 1.5  # times, by which an image loses nothing that a model would miss
_USUAL = 0.1  # share of a dataset that is like that, from which it is no oddity


def quality_findings(rows: Rows, looks: Looks, input_side: int | None) -> Iterator[dict[str, Any]]:
    """Yield a finding for each odd image.

    Args:
        rows: of the dataset.
        looks: at some of them; sizes are known of all.
        input_side: pixels of the shorter side of a model's input, where one is named.
    """
    for row, reason in looks.failed.items():
        yield finding("unreadable", reason, **named(rows, row))
    spread, low, high, mean = (looks.measure(name) for name in ("spread", "low", "high", "mean"))
    blank = spread < _BLANK
    found = {
        "blank": (blank, spread, "one grey level, {0:.0f} of 255", mean),
        "dark": (~blank & (high < _DARK), high, "95 % of it is darker than {0:.0f} of 255", high),
        "bright": (~blank & (low > _BRIGHT), low, "95 % of it is brighter than {0:.0f} of 255", low),
        "blurred": _blur(rows, looks, ~blank),
    }
    for kind, (which, score, words, values) in found.items():
        for place in np.flatnonzero(which).tolist() if kind == "blank" or which.sum() < _USUAL * len(which) else []:
            row = int(looks.rows[place])
            yield finding(kind, words.format(values[place]), **named(rows, row), score=float(score[place]))
    yield from _sizes(rows, input_side)


def _blur(rows: Rows, looks: Looks, shown: Any) -> tuple[Any, Any, str, Any]:
    """Return which images are blurred, how much, and how that is said."""
    sharpness = looks.measure("sharpness")
    judged = shown & (rows.geometry[looks.rows, :2].min(axis=1) >= _SHARP_SIDE)
    logs = np.log(np.maximum(sharpness, 1e-4))
    median = np.median(logs[judged]) if judged.any() else 0.0
    deviation = 1.4826 * np.median(np.abs(logs[judged] - median)) if judged.any() else 1.0
    which = judged & (sharpness < _BLURRED) & (logs < median - _OUTLYING * max(deviation, 0.1))
    words = f"hardly an edge: sharpness {{0:.3f}}, of the dataset {np.exp(median):.3f}"
    return which, sharpness, words, sharpness


def _sizes(rows: Rows, input_side: int | None) -> Iterator[dict[str, Any]]:
    sides = rows.geometry[:, :2]
    short, long, area = sides.min(axis=1), sides.max(axis=1), sides.prod(axis=1)
    aspect = long / np.maximum(short, 1)
    known = short > 0
    usual_side, usual_aspect = (float(np.median(each[known])) if known.any() else 0.0 for each in (short, aspect))
    found = {
        "tiny": (known & (short < _TINY) & (short < 0.5 * usual_side), short),
        "huge": (area > _HUGE, area),
        "odd-aspect": (known & (aspect > max(_ODD, 1.5 * usual_aspect)), aspect),
    }
    if input_side is not None:
        found["small-for-model"] = (known & (_ENLARGED * short < input_side), short)
    for kind, (which, score) in found.items():
        needed = f", the model takes {input_side}" if kind == "small-for-model" else ""
        for row in np.flatnonzero(which).tolist():
            evidence = f"{sides[row, 1]}x{sides[row, 0]} pixels{needed}"
            yield finding(kind, evidence, **named(rows, row), score=float(score[row]), action="none")
