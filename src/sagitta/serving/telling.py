"""What a model found -> what a client reads: plain dictionaries for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sagitta.serving.engine import Engine, Floats, Found


class Row(NamedTuple):
    """What a model found of one image.

    Attributes:
        probabilities: (classes,); None where it could not be read.
        further: what else is said of it.
        error: why it could not.
    """

    probabilities: Floats | None
    further: Mapping[str, Any]
    error: str | None = None


def rows(found: Found, count: int) -> list[Row]:
    """Return what was found of each of ``count`` images."""
    places = iter(range(len(found.probabilities)))
    told = []
    for place in range(count):
        if (error := found.errors.get(place)) is not None:
            told.append(Row(None, {}, error))
            continue
        row = next(places)
        told.append(Row(found.probabilities[row], {name: values[row] for name, values in found.further.items()}))
    return told


def answer(row: Row, engine: Engine, top_k: int) -> dict[str, Any]:
    """Return what a client reads of an image.

    Of one label an image: ``class``, ``probability`` and ``top``, the most probable first. Of several: ``classes`` and
    ``probabilities``, those that reach their thresholds, and ``top``. Then, where known, ``abstain``, ``set`` and
    ``unfamiliar``. Of an image that could not be read: ``error`` alone.
    """
    if row.probabilities is None:
        return {"error": row.error}
    shares, names = row.probabilities, engine.names
    order = np.argsort(-shares, kind="stable")
    told: dict[str, Any]
    if engine.thresholds is None:
        told = {"class": names[order[0]], "probability": shortest(shares[order[0]])}
    else:
        given = order[(shares >= np.array(engine.thresholds))[order]].tolist()
        told = {"classes": [names[each] for each in given], "probabilities": [shortest(shares[each]) for each in given]}
    top = order[:top_k].tolist()
    told["top"] = [{"class": names[each], "probability": shortest(shares[each])} for each in top]
    return told | {name: _plain(value) for name, value in row.further.items()}


def shortest(value: Any) -> float:
    """Return the number with the fewest digits that is this float32, as `sagitta predict` writes it."""
    return float(str(np.float32(value)))


def _plain(value: Any) -> Any:
    return shortest(value) if isinstance(value, float | np.floating) else value


def unreadable(found: Sequence[Row]) -> bool:
    """Return whether no image could be read."""
    return all(row.error is not None for row in found)
