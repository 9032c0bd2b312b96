"""Predictions of any number of images: as a table in memory, or written as they come and gone on with."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sagitta.dataset import plural
from sagitta.errors import SourceError
from sagitta.evaluation.asked import Asked
from sagitta.evaluation.inputs import Inputs, inputs_for
from sagitta.evaluation.output import STANDARD_OUTPUT, Table, check_output, partial_of, table_to
from sagitta.evaluation.sorting import Sorter, check_apart
from sagitta.models import preload
from sagitta.pool import progress
from sagitta.terminal import show

if TYPE_CHECKING:
    from sagitta.evaluation.predictor import Predicted, Predictor

_ASKED = Asked()


@dataclass(frozen=True)
class Summary:
    """What became of some images.

    Attributes:
        images: how many there are.
        unreadable: of which so many could not be read.
        first: name and reason of the first of these; None where there is none.
        reduced: what decoding lost, and of how many.
        notes: what a person has to know, one sentence each.
    """

    images: int
    unreadable: int
    first: tuple[str, str] | None
    reduced: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what a person has to know, one line each; none where all is well."""
        lines = [f"reduced: {words}, in {plural(count, 'image')}" for words, count in self.reduced.items()]
        if self.first is not None:
            name, reason = self.first
            lines.append(
                f"{self.unreadable:,} of {self.images:,} images could not be read, the first is {name}: {reason}"
            )
        return [*self.notes, *lines]


class _Tally:
    """Sums up chunks.

    Args:
        inputs: all images.
        told: what :meth:`add` has returned of those before.
    """

    def __init__(self, inputs: Inputs, told: Mapping[str, Any] = {}) -> None:
        self._inputs = inputs
        self.unreadable: int = told.get("unreadable", 0)
        self.first: tuple[str, str] | None = None
        if told.get("first") is not None:
            self.first = told["first"][0], told["first"][1]
        self.reduced, self.striking = (Counter[str](told.get(name, {})) for name in ("reduced", "striking"))

    def add(self, found: "Predicted") -> dict[str, Any]:
        """Take note of a chunk; returns the sum of all so far, in words."""
        self.unreadable += len(found.errors)
        self.reduced.update(found.reduced)
        self.striking.update(found.striking)
        if self.first is None and found.errors:
            number = min(found.errors)
            self.first = self._inputs.name(number), found.errors[number]
        sums = {"reduced": dict(self.reduced), "striking": dict(self.striking)}
        return {"unreadable": self.unreadable, "first": self.first, **sums}

    def summary(self, notes: Sequence[str]) -> Summary:
        """Return the sum.

        Raises:
            SourceError: no image could be read.
        """
        total = len(self._inputs)
        if self.unreadable == total and self.first is not None:
            raise SourceError(f"none of the {total} images is readable; {': '.join(self.first)}")
        return Summary(total, self.unreadable, self.first, self.reduced, (*self._inputs.notes, *notes))


def predict(run: Path, paths: Sequence[str | Path], asked: Asked = _ASKED, *, split: str | None = None) -> pa.Table:
    """Classify images with a run's best checkpoint, or by the mean of its members' probabilities.

    On a terminal, standard error shows how far it is.

    Args:
        run: run directory or checkpoint file.
        paths: see :mod:`sagitta.evaluation.inputs`.
        asked: what is wanted of each.
        split: of datasets, all by default.

    Returns:
        One row an image, in the order given: ``path``; ``class`` and ``probability`` of the most probable class;
        ``class_2``, ``probability_2`` … of the next, ``top_k`` in all; ``error``, null where the image was readable.
        Where the model gives several labels: ``classes`` and ``probabilities``, lists of all labels whose probability
        reaches the label's threshold, the most probable first. What else is asked for stands before ``error``; and,
        where the run knows it, ``unfamiliar``: the share of known images that look less unusual, from 0.99 on none of
        the classes.

    Raises:
        ConfigError: there is no such run, or a number is below 1.
        SourceError: a path does not exist, or no image is readable.
    """
    inputs, predictor = _opened(run, paths, asked, split)
    schema = predictor.schema
    batches, tally = [], _Tally(inputs)
    with progress("predicting", len(inputs), show=True) as advance:
        for found in predictor.predict(inputs):
            batches.append(found.table)
            tally.add(found)
            advance(len(found.numbers))
    tally.summary(predictor.notes(inputs, tally.striking))
    return pa.Table.from_batches(batches, schema)


def predict_into(
    run: Path,
    paths: Sequence[str | Path],
    output: Path,
    asked: Asked = _ASKED,
    *,
    split: str | None = None,
    sort_into: Path | None = None,
    copy: bool = False,
) -> Summary:
    """Write what :func:`predict` returns, chunk by chunk, in the memory of a few of them.

    What was interrupted goes on where it was, see :mod:`sagitta.evaluation.output`.

    Args:
        run: run directory or checkpoint file.
        paths: see :mod:`sagitta.evaluation.inputs`.
        output: ``.csv``, ``.parquet`` or ``.jsonl``; ``-`` writes CSV to standard output, and ``-.jsonl``
            JSON lines, where nothing goes on.
        asked: what is wanted of each.
        split: of datasets, all by default.
        sort_into: folder in which each image gets a second name by its class, see :mod:`sagitta.evaluation.sorting`.
        copy: it gets a copy there.

    Raises:
        SagittaError: as :func:`predict` does.
        OSError: it cannot be written there.
    """
    check_output(output)
    if sort_into is not None:
        check_apart(sort_into, paths)
    inputs, predictor = _opened(run, paths, asked, split)
    schema = predictor.schema
    sorter = None if sort_into is None else Sorter(sort_into, inputs, predictor.model.class_names, copy)
    key = predictor.key(inputs) | {"sorted": None if sort_into is None else str(sort_into)}
    with table_to(output, key, schema) as table:
        if left := _what_was_there(table, output, len(inputs)):
            show(f"sagitta: {left}", sys.stderr)
        tally = _Tally(inputs, table.told)
        bar = output not in STANDARD_OUTPUT or not sys.stdout.isatty()
        with progress("predicting", len(inputs) - table.before, show=bar) as advance:
            for found in predictor.predict(inputs, table.before):
                if sorter is not None:
                    sorter.put(found)
                table.add(found.table, tally.add(found))
                advance(len(found.numbers))
        try:
            summary = tally.summary(predictor.notes(inputs, tally.striking))
        except SourceError:
            table.remove()
            raise
        table.finish()
        return summary


def _opened(run: Path, paths: Sequence[str | Path], asked: Asked, split: str | None) -> "tuple[Inputs, Predictor]":
    asked.check()
    inputs = inputs_for(run, paths, split)
    preload()  # what could be refused without it has been
    from sagitta.evaluation.predictor import Predictor

    predictor = Predictor(run, asked)
    if told := predictor.hasten(inputs):
        show(f"sagitta: {told}", sys.stderr)
    return inputs, predictor


def _what_was_there(table: Table, output: Path, total: int) -> str:
    """Return what an earlier process left, in words; empty where that is nothing."""
    if table.before:
        return f"{table.before:,} of {total:,} rows were there from before, and it goes on behind them"
    if table.other:
        return f"{partial_of(output)} was of another table (other {' and '.join(table.other)}), so it is begun anew"
    return ""
