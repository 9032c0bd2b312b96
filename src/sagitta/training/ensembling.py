"""`sagitta ensemble`: some runs become one, which averages their probabilities by weights found on unseen rows.

The new run stands alone: it holds copies of the checkpoints, as members that are runs themselves. Members of a run of
members become its own.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sagitta.errors import ConfigError, SagittaError
from sagitta.evaluation import (
    FAMILIAR_FILE,
    SEEN_FILE,
    Common,
    Evaluation,
    Model,
    Seen,
    Tempered,
    Weighed,
    common_rows,
    equal,
    evaluate,
    judge,
    keep_seen,
    open_model,
    quiet,
    read_seen,
    weigh,
)
from sagitta.files import file_hash
from sagitta.run import (
    CONFIG_FILE,
    MEMBERS,
    OUT_OF_FOLD,
    RUN_FILE,
    find_checkpoint,
    find_source,
    new_run_directory,
    read_record,
    save_config,
    write_record,
)
from sagitta.settings import Settings
from sagitta.terminal import table
from sagitta.training.fitting import Fitted
from sagitta.training.several import check_several
from sagitta.training.trust import MEAN_IS_CAREFUL, Unseen, keep_unseen

_SHOWN = ("acc", "map", "log_loss")
_COPIED = (CONFIG_FILE, RUN_FILE, SEEN_FILE, FAMILIAR_FILE)


def ensemble(runs: Sequence[Path], out: Path | None = None) -> Fitted:
    """Make some runs one that averages their probabilities, and test it on the data of the first.

    Args:
        runs: directories, at least two; of the same classes, whose order may differ.
        out: run directory to make; by default the first free ``runs/ensemble-1``, ``-2`` and so on.

    Raises:
        ConfigError: there are too few runs, one is given twice, or they do not fit together.
    """
    leaves = check_several(runs, out)
    models = _opened(runs)
    with quiet():
        common, reason = common_rows(runs, models)
        weighed = equal(len(runs)) if common is None else weigh(common.likelihoods())
        run = new_run_directory(out, "ensemble")
        try:
            members = _assemble(run, leaves, weighed.weights)
            about = {
                "runs": [str(each) for each in runs],
                "weights": list(weighed.weights),
                "rows": 0 if common is None else len(common.labels),
                "scores": None if common is None else _scores(models, common, weighed.weights),
                "lines": [_reason(common, weighed, reason), *_differences(runs)],
            }
            write_record(
                run,
                seed=read_record(runs[0]).get("seed"),
                dataset=read_record(runs[0]).get("dataset", {}) | {"class_names": _names(models, weighed.weights)},
                members=members,
                thresholds=_thresholds(models, common, weighed.weights),
                ensemble=about,
                result={},
            )
            _configure(run, runs[0])  # behind the record: without that, it would be a fit to go on with
            if common is not None:
                _keep_unseen(run, runs, models, common, weighed.weights)
            evaluation = _tested(run)
            result = evaluation.metrics if evaluation else {}
            write_record(run, result=result)
        except BaseException:
            shutil.rmtree(run)
            raise
    return Fitted(run, result, evaluation)


def _opened(runs: Sequence[Path]) -> list[Model]:
    """Return the models of the runs.

    Raises:
        ConfigError: they do not fit together; names what differs.
    """
    models = [open_model(run) for run in runs]
    first = models[0].first
    for run, model in zip(runs, models, strict=True):
        own = model.first
        if own.task.multilabel != first.task.multilabel:
            raise ConfigError(f"{run} gives {own.task.words} an image, but {runs[0]} {first.task.words}")
        if other := sorted(set(own.class_names) ^ set(first.class_names)):
            known = run if other[0] in own.class_names else runs[0]
            raise ConfigError(
                f"{run} and {runs[0]} know different classes: {len(other)} are in one of them only, such as "
                f"{other[0]!r} in {known}"
            )
        for part in model.parts:
            how, wanted = part.classifier.preprocessing, first.preprocessing
            if how is None or wanted is None:
                raise ConfigError(f"{run}: its checkpoint has no preprocessing; it was trained without ImageData")
            if how.reduction != wanted.reduction:
                raise ConfigError(
                    f"{run} was trained on images with {how.reduction or 'neither --range nor --bands'}, but {runs[0]} "
                    f"with {wanted.reduction or 'neither'}; train both alike"
                )
    return models


def _reason(common: Common | None, weighed: Weighed, reason: str) -> str:
    """Say in one line why the weights are what they are."""
    if common is None:
        return f"equal weights: {reason}"
    rows = f"{len(common.labels):,} rows that none of the runs was trained on"
    if weighed.gain is None:
        return f"equal weights: only {rows}, too few to find others"
    side = "lower" if weighed.gain > 0 else "higher"
    sure = f"{abs(weighed.gain):.4f} a row {side} than with equal ones, standard error {weighed.error:.4f}"
    if weighed.found:
        return f"weights found on {rows}; on such rows that they were not found on, log loss is {sure}"
    return f"equal weights: those found on {rows} are not surely better (log loss {sure})"


def _differences(runs: Sequence[Path]) -> list[str]:
    """Say where the data is not the same."""
    prints = {read_record(run).get("dataset", {}).get("fingerprint") for run in runs}
    if len(prints) == 1:
        return []
    return [f"the runs were trained on different data; tested is that of the first, {runs[0]}"]


def _assemble(
    run: Path, leaves: Sequence[Sequence[tuple[Path, float]]], weights: Sequence[float]
) -> list[dict[str, Any]]:
    """Copy what each member needs; returns what ``run.json`` says of them."""
    members = []
    weighted = [
        (place, share * weight) for group, weight in zip(leaves, weights, strict=True) for place, share in group
    ]
    for number, (place, weight) in enumerate(weighted, 1):
        checkpoint, target = find_checkpoint(place), run / MEMBERS / str(number)
        (target / "checkpoints").mkdir(parents=True)
        for name in _COPIED:
            if (place / name).is_file():
                shutil.copyfile(place / name, target / name)
        copied = target / "checkpoints" / checkpoint.name
        shutil.copyfile(checkpoint, copied)
        members.append(
            {
                "run": target.relative_to(run).as_posix(),
                "weight": weight,
                "from": str(place.absolute()),
                "checkpoint": copied.relative_to(target).as_posix(),
                "checksum": file_hash(copied),
            }
        )
    seen = [read_seen(run / str(member["run"])) for member in members]
    known = [each for each in seen if each is not None]
    if len(known) == len(seen):  # else what the whole has seen is not known
        keep_seen(run, reduce(Seen.__or__, known))
    return members


def _configure(run: Path, first: Path) -> None:
    """Write a configuration that names the data of the first run, from here."""
    if not (first / CONFIG_FILE).is_file():
        return
    settings = Settings.read(first / CONFIG_FILE, {"data.folds": None, "data.fold": None})
    source = settings.source
    with suppress(ConfigError):  # it is not there any more: whoever tests the run names it
        source = find_source(first, source)
    save_config(run / CONFIG_FILE, settings.changed({"source": source}).to_yaml())


def _names(models: Sequence[Model], weights: Sequence[float]) -> list[str]:
    """Return the classes in the order of the first run that counts, which is that of the whole."""
    return next(model.class_names for model, weight in zip(models, weights, strict=True) if weight > 0)


def _thresholds(models: Sequence[Model], common: Common | None, weights: Sequence[float]) -> dict[str, float] | None:
    """Return the thresholds of several labels by name: best on unseen rows, else the mean of those of the runs."""
    names, task = models[0].class_names, models[0].task
    if not task.multilabel:
        return None
    if common is not None:
        mean = np.tensordot(np.array(weights), common.probabilities, axes=1)
        found = task.thresholds(torch.from_numpy(mean), torch.from_numpy(common.labels)) or ()
        return dict(zip(names, found, strict=True))
    own = [_by_name(model) for model in models]
    return {name: float(np.dot(weights, [each[name] for each in own])) for name in names}


def _by_name(model: Model) -> dict[str, float]:
    return dict(zip(model.class_names, model.first.thresholds, strict=True))


def _scores(models: Sequence[Model], common: Common, weights: Sequence[float]) -> list[dict[str, list[float]]]:
    """Return the scores of each run on the unseen rows, and at last those of their mean."""
    names, task = models[0].class_names, models[0].task
    every = [*common.probabilities, np.tensordot(np.array(weights), common.probabilities, axes=1)]
    thresholds = [
        *([own[name] for name in names] for own in map(_by_name, models)),
        list((_thresholds(models, common, weights) or {}).values()),
    ]
    paths, found = [""] * len(common.labels), []
    for probabilities, own in zip(every, thresholds, strict=True):
        scores = judge(task, probabilities.astype(np.float32), common.labels, paths, names, {}, "", own).scores
        found.append({name: [each.value, each.low, each.high] for name, each in scores.items()})
    return found


def _keep_unseen(
    run: Path, runs: Sequence[Path], models: Sequence[Model], common: Common, weights: Sequence[float]
) -> None:
    """Keep what the mean says of the rows that no run was trained on."""
    names, task = _names(models, weights), models[0].task
    columns = [models[0].class_names.index(name) for name in names]
    mean = np.tensordot(np.array(weights), common.probabilities, axes=1)[:, columns].astype(np.float32)
    labels = common.labels[:, columns] if common.labels.ndim == 2 else np.argsort(columns)[common.labels]
    own = _thresholds(models, common, weights)
    thresholds = [] if own is None else [own[name] for name in names]
    judged = judge(task, mean, labels, common.paths, names, {}, "val_", thresholds)
    found = Tempered(1.0, len(labels), f"each of the runs has its own; {MEAN_IS_CAREFUL}")
    noted = {name for each in runs for name in read_record(each).get("calibration", {}).get("lacking", ())}
    there = set(np.flatnonzero(labels.any(axis=0)) if labels.ndim == 2 else labels)
    lacking = [name for number, name in enumerate(names) if name in noted and number not in there]
    apart = any((each / OUT_OF_FOLD).is_dir() for each in runs)
    where: Literal["val", "out-of-fold"] = "out-of-fold" if apart else "val"
    keep_unseen(run, Unseen(judged, ["unseen"] * len(labels), where, lacking=lacking), judged, found)


def _tested(run: Path) -> Evaluation | None:
    """Return the test on the run's own data; None where it cannot be had."""
    try:
        return evaluate(run, None, None, {}, devices=1, verbose=False)
    except SagittaError as error:
        about = read_record(run)["ensemble"]
        write_record(run, ensemble=about | {"lines": [*about["lines"], f"not tested: {error}"]})
        return None


def ensemble_text(about: Mapping[str, Any]) -> str:
    """Return the runs with their weights, and their scores on the rows by which these were found.

    Args:
        about: ``ensemble`` of ``run.json``.
    """
    scores = about["scores"] or [{} for _ in range(len(about["runs"]) + 1)]
    shown = [name for name in _SHOWN if name in scores[-1]]
    cells = [[f"{each[name][0]:.4f}  {each[name][1]:.4f} to {each[name][2]:.4f}" for name in shown] for each in scores]
    rows = [
        [run, f"{weight:.3f}", *row]
        for run, weight, row in zip(about["runs"], about["weights"], cells[:-1], strict=True)
    ]
    title = f"run (of {about['rows']:,} unseen rows:)" if shown else "run"
    return "\n".join(
        [*about["lines"], "", *table([title, "weight", *shown], rows, foot=["their mean", "", *cells[-1]])]
    )
