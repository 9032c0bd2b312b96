"""What a table says of each image: columns by name, from probabilities and features, by pure functions.

========================  =========================================================================================
``path``                  the image, as it was named
``file``, ``id``          its last part; the same without its extension
``class``, ``label``      the most probable class; of several labels, all that reach their thresholds
``number``                the number of that class, or of those labels
``probability``           of it, or of each of them
``class_2`` …             the next most probable, and so ``probability_2`` …
``p:CLASS``               the probability of a class; ``all`` in a template stands for every one, named as the class
``features``              what the network's last layer is given
``error``                 why the image could not be read; null where it could
========================  =========================================================================================

Further columns, such as whether to abstain, come from functions of probabilities and features: :class:`Further`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sagitta.errors import ConfigError
from sagitta.evaluation.asked import Column
from sagitta.models import Floats, Task, vectors_array


class Further(Protocol):
    """Columns beside the usual ones, by a function of each batch alone.

    Attributes:
        needs_features: else it may be given None.
    """

    @property
    def needs_features(self) -> bool:
        """Whether the function cannot do without features."""
        ...

    def __call__(self, probabilities: Floats, features: Floats | None) -> Mapping[str, pa.Array]:
        """Return columns (R,) by name, always the same, of probabilities (R, classes) and features (R, D)."""
        ...


@dataclass(frozen=True)
class Answers:
    """Turns the outputs of a model into the columns that are asked for.

    Attributes:
        task: one label an image, or several.
        class_names: of the outputs.
        thresholds: from which each of several labels is given.
        top_k: how many classes a row, where there is one label.
        every: whether every class has a column.
        embed: whether features are a column.
        template: the columns, where they are not the usual ones; see :func:`sagitta.evaluation.asked.read_template`.
        further: what gives further columns.
    """

    task: Task
    class_names: Sequence[str]
    thresholds: Sequence[float]
    top_k: int = 5
    every: bool = False
    embed: bool = False
    template: Sequence[Column] | None = None
    further: Sequence[Further] = ()

    @property
    def needs_features(self) -> bool:
        """Whether features are needed."""
        named = self.template is not None and any(what == "features" for _, what in self.template)
        return self.embed or named or any(each.needs_features for each in self.further)

    def columns(self, further: Sequence[str]) -> list[Column]:
        """Return the columns in their order; those of ``further`` by these names."""
        if self.template is not None:
            return [column for each in self.template for column in self._all(each)]
        names = ["class", "probability"]
        if self.task.multilabel:
            names = ["classes", "probabilities"]
        else:
            ranks = range(2, min(self.top_k, len(self.class_names)) + 1)
            names += [f"{kind}_{rank}" for rank in ranks for kind in ("class", "probability")]
        names += [f"p:{name}" for name in self.class_names] if self.every else []
        names = ["path", *names, *further, *(["features"] if self.embed else []), "error"]
        return [(name, name) for name in names]

    def _all(self, column: Column) -> list[Column]:
        return [(name, f"p:{name}") for name in self.class_names] if column[1] == "all" else [column]

    def table(
        self, names: Sequence[str], errors: Mapping[int, str], probabilities: Floats, features: Floats | None
    ) -> pa.RecordBatch:
        """Return one row an image.

        Args:
            names: of the images, (N,).
            errors: why images have no probabilities, by their position among them.
            probabilities: (R, classes) of the others.
            features: (R, D), where they are needed.

        Raises:
            ConfigError: the template asks for what there is not.
        """
        readable = np.array([place not in errors for place in range(len(names))], np.bool_)
        rows = pa.array(np.cumsum(readable) - 1, pa.int64(), mask=~readable)
        found = self._found(probabilities, features)
        further = {name: column for each in self.further for name, column in each(probabilities, features).items()}
        texts = {
            "path": lambda: pa.array(names, pa.string()),
            "file": lambda: pa.array([_file(name) for name in names], pa.string()),
            "id": lambda: pa.array([id_of(name) for name in names], pa.string()),
            "error": lambda: pa.array([errors.get(place) for place in range(len(names))], pa.string()),
        }
        columns, titles = [], []
        for title, what in self.columns(list(further)):
            if what in texts:
                column = texts[what]()
            elif what in further:
                column = further[what].take(rows)
            elif what in found:
                column = found[what]().take(rows)
            else:
                known = [*texts, *further, *(name for name in found if not name.startswith("p:")), "label", "all"]
                raise ConfigError(
                    f"--columns: {what!r} is no column; there are {', '.join(known)}, and p:CLASS for the probability "
                    "of a class"
                )
            columns.append(column)
            titles.append(title)
        return pa.RecordBatch.from_arrays(columns, titles)

    def _found(self, probabilities: Floats, features: Floats | None) -> dict[str, Callable[[], pa.Array]]:
        """Return what gives the columns (R,) that come from the model."""
        found = self._labels(probabilities) if self.task.multilabel else self._top(probabilities)
        for number, name in enumerate(self.class_names):
            found[f"p:{name}"] = lambda number=number: pa.array(  # type: ignore[misc]
                np.ascontiguousarray(probabilities[:, number]), pa.float32()
            )
        if features is not None:
            found["features"] = lambda: vectors_array(features)
        return found

    def _top(self, probabilities: Floats) -> dict[str, Callable[[], pa.Array]]:
        ranks = len(self.class_names)
        best = _order(probabilities, min(self.top_k, ranks) if self.template is None else ranks)
        titles = np.array(self.class_names, object)
        rows = np.arange(len(probabilities))
        found: dict[str, Callable[[], pa.Array]] = {"number": lambda: pa.array(best[:, 0], pa.int64())}
        for rank in range(best.shape[1]):
            end = "" if rank == 0 else f"_{rank + 1}"
            found[f"class{end}"] = lambda rank=rank: pa.array(titles[best[:, rank]], pa.string())  # type: ignore[misc]
            found[f"probability{end}"] = lambda rank=rank: pa.array(  # type: ignore[misc]
                probabilities[rows, best[:, rank]], pa.float32()
            )
        return found

    def _labels(self, probabilities: Floats) -> dict[str, Callable[[], pa.Array]]:
        given = self.task.decide(probabilities, self.thresholds)
        best = [
            sorted(np.flatnonzero(flags).tolist(), key=lambda label: -row[label])
            for row, flags in zip(probabilities, given, strict=True)
        ]
        names = self.class_names
        texts = pa.list_(pa.string())
        shares = [[float(row[label]) for label in labels] for row, labels in zip(probabilities, best, strict=True)]
        titles = [[names[label] for label in labels] for labels in best]
        found: dict[str, Callable[[], pa.Array]] = {"number": lambda: pa.array(best, pa.list_(pa.int64()))}
        for what in ("class", "classes"):
            found[what] = lambda: pa.array(titles, texts)
        for what in ("probability", "probabilities"):
            found[what] = lambda: pa.array(shares, pa.list_(pa.float32()))
        return found


def _order(probabilities: Floats, ranks: int) -> npt.NDArray[np.int64]:
    """Return the numbers (R, ranks) of the most probable classes, the first of equal ones first."""
    order: npt.NDArray[np.int64] = np.argsort(-probabilities, axis=1, kind="stable")[:, :ranks]
    return order


def _file(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def id_of(name: str) -> str:
    """Return the last part of an image's name without its extension."""
    file = _file(name)
    stem, dot, _ = file.rpartition(".")
    return stem if dot and stem else file
