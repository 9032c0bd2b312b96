"""Rows that none of some runs was trained on, as their digests say, with what each run predicts of them.

They are those of val; of a run that was judged out of fold, the rows of its folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sagitta.dataset import read_table
from sagitta.errors import ConfigError, SagittaError
from sagitta.evaluation.members import Model
from sagitta.evaluation.overlap import digest_column, read_seen
from sagitta.evaluation.result import PREDICTIONS_FILE, arrays_of
from sagitta.evaluation.testing import validate
from sagitta.run import OUT_OF_FOLD

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Common:
    """Rows that none of some runs was trained on, in one order.

    Attributes:
        probabilities: (runs, N, classes), the classes in one order.
        labels: (N,), or (N, classes) of 0 and 1.
        paths: (N,) of the images.
    """

    probabilities: Array
    labels: Array
    paths: list[str]

    def likelihoods(self) -> Array:
        """Return what :func:`sagitta.evaluation.weighing.weigh` takes, (N, k, runs)."""
        several = self.labels.ndim == 2
        true = self.labels if several else self.labels[:, None]
        own = (
            np.where(true > 0, self.probabilities, 1 - self.probabilities)
            if several
            else np.stack([np.take_along_axis(each, true, axis=1) for each in self.probabilities])
        )
        return np.moveaxis(own, 0, 2).astype(np.float64)


def common_rows(runs: Sequence[Path], models: Sequence[Model]) -> tuple[Common | None, str]:
    """Return the rows that none of the runs was trained on; or None, and why there are none, in one sentence.

    Args:
        runs: directories.
        models: of each; the first one's order of the classes counts.
    """
    try:
        tables = [_unseen(run) for run in runs]
    except SagittaError as error:
        return None, f"no unseen rows can be had: {error}"
    names, task = models[0].class_names, models[0].task
    firsts = [np.unique(table["digest"].to_numpy(), return_index=True) for table in tables]
    shared = reduce(np.intersect1d, [digests for digests, _ in firsts])
    if not len(shared):
        return None, (
            "there is no row that all of the runs have in their val, or out of fold, and none was trained on; a head "
            "that was fitted to val, too, has none: runs of probe or of --folds have, and fits of data with a given val"
        )
    probabilities, labels = [], []
    for (digests, rows), every, model in zip(firsts, tables, models, strict=True):
        own = every.take(rows[np.searchsorted(digests, shared)])
        columns = [model.class_names.index(name) for name in names]
        probabilities.append(arrays_of(own, task, model.class_names)[0][:, columns])
        labels.append(task.numbers_of(own["label"].to_pylist(), names))
    agree = np.array([(each == labels[0]).reshape(len(shared), -1).all(axis=1) for each in labels]).all(axis=0)
    if not agree.any():
        return None, "the runs were given different labels of the rows that none was trained on"
    first = tables[0]["path"].take(firsts[0][1][np.searchsorted(firsts[0][0], shared)]).to_pylist()
    paths = [path for path, same in zip(first, np.asarray(agree), strict=True) if same]
    return Common(np.stack(probabilities)[:, agree], labels[0][agree], paths), ""


def _unseen(run: Path) -> pa.Table:
    """Return predictions of the rows that a run was not trained on, with their digests.

    Raises:
        ConfigError: nobody noted what it was trained on.
        SagittaError: its data cannot be read.
    """
    if (file := run / OUT_OF_FOLD / PREDICTIONS_FILE).is_file():
        found = read_table(file)
        if "digest" not in found.column_names:
            raise ConfigError(f"{run} did not note which images it judged out of fold; make it again")
        return found.filter(pc.is_valid(found["digest"]))
    seen = read_seen(run)
    if seen is None:
        raise ConfigError(f"{run} did not note what it was trained on")
    evaluation, digests = validate(run)
    table = evaluation.predictions.append_column("digest", digest_column(digests, seen))
    return table.filter(pc.is_valid(table["digest"]))
