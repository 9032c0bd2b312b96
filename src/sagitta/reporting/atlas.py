"""The map of the embeddings for a page: points, what they are, and thumbnails of some."""

from typing import Any

import numpy as np

from sagitta.reporting.embedding import Features, flat
from sagitta.reporting.gathering import Gathered
from sagitta.reporting.pictures import Album, Shelf
from sagitta.reporting.svg import COLOURS

WIDTH, HEIGHT = 640, 440
_PICTURES = 150
_SIDE = 72
_EDGE = 12


def atlas_of(
    run: Gathered, features: Features, shelf: Shelf, album: Album, *, umap: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the template shows of a map, and what the script knows of its points.

    Args:
        run: whose predictions colour the points.
        features: of the rows.
        shelf: the data.
        album: of the page.
        umap: take UMAP where it is there.
    """
    places, method = flat(features.vectors, umap=umap)
    splits = shelf.shards.splits
    paths = [shelf.path(name, row) for name, row in zip(features.splits, features.rows, strict=True)]
    names = shelf.info.class_names
    labels = [_label(splits[name].labels[row], names) for name, row in zip(features.splits, features.rows, strict=True)]
    states = _states(run, paths)
    album.take(shelf, _evenly(paths, places), _SIDE)
    x = _EDGE + places[:, 0] * (WIDTH - 2 * _EDGE)
    y = HEIGHT - _EDGE - places[:, 1] * (HEIGHT - 2 * _EDGE)
    kinds = list(dict.fromkeys(features.splits))
    shown = sorted(set(labels))
    order = sorted(shown, key=lambda name: (-labels.count(name), name))[:COLOURS] if len(shown) > COLOURS else shown
    points = []
    for place, (path, label, split) in enumerate(zip(paths, labels, features.splits, strict=True)):
        picture = album.number(shelf, path)
        state, given = states.get(path, ("", ""))
        points.append(
            [round(float(x[place]), 1), round(float(y[place]), 1), shown.index(label), kinds.index(split), state, given,
             path, -1 if picture is None else picture]
        )  # fmt: skip
    values = {
        "method": method,
        "origin": features.origin,
        "count": len(points),
        "total": sum(len(split) for split in splits.values()),
        "width": WIDTH,
        "height": HEIGHT,
        "splits": kinds,
        "colours": [shown.index(name) for name in order],
        "classes": shown,
        "points": points,
        "judged": any(point[4] for point in points),
    }
    return values, {"points": points, "classes": shown, "splits": kinds, "colours": values["colours"]}


def _label(label: Any, names: Any) -> str:
    if np.ndim(label) == 0:
        return str(names[int(label)])
    given = [names[i] for i in np.flatnonzero(label)]
    return given[0] if len(given) == 1 else ("no label" if not given else "several labels")


def _states(run: Gathered, paths: list[str]) -> dict[str, tuple[str, str]]:
    """Return of each path whether it was judged right (``r``) or wrong (``w``), and what it was taken for."""
    wanted, found = set(paths), dict[str, tuple[str, str]]()
    for judged in run.judged:
        if judged.source is not None:
            continue
        words = judged.task.names_of(judged.decided, judged.names).to_pylist()
        for path, right, word in zip(judged.paths, judged.right.tolist(), words, strict=True):
            if path in wanted and path not in found:
                found[path] = "r" if right else "w", word if isinstance(word, str) else ", ".join(word)
    return found


def _evenly(paths: list[str], places: np.ndarray[Any, Any]) -> list[str]:
    """Return the paths of points spread over the map: the first one of each box of a grid, then the others."""
    boxes = np.floor(places * 12).astype(int)
    seen: set[tuple[int, int]] = set()
    first, others = list[str](), list[str]()
    for path, box in zip(paths, map(tuple, boxes.tolist()), strict=True):
        (others if box in seen else first).append(path)
        seen.add(box)
    return [*first, *others][:_PICTURES]
