"""`sagitta fit --folds N`: cross-validation. A member a fold, each row judged by the one not trained on it, one run.

Each member is an ordinary run in ``RUN/members``, with its fold as val. The run itself predicts with the mean of their
probabilities; what it says of train and val is out of fold::

    RUN/out_of_fold/    predictions.parquet: path, fold, label, predicted, probabilities, and digest of the image, null
                        where the weights that its member began with were trained on it; per_class.csv
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sagitta.dataset import plural
from sagitta.errors import ConfigError, SagittaError
from sagitta.evaluation import (
    Evaluation,
    Seen,
    Tempered,
    Tested,
    arrays_of,
    digest_column,
    evaluate,
    judge,
    keep_seen,
    open_model,
    read_seen,
    validate,
)
from sagitta.files import file_hash
from sagitta.loading import ImageData
from sagitta.models import Estimate
from sagitta.run import (
    CONFIG_FILE,
    MEMBERS,
    OUT_OF_FOLD,
    check_free,
    find_checkpoint,
    new_run_directory,
    read_record,
    save_config,
    write_record,
)
from sagitta.settings import Settings, read_values, short_name
from sagitta.terminal import table
from sagitta.training.checks import Look
from sagitta.training.fitting import Fitted, ended_early, fit
from sagitta.training.trust import MEAN_IS_CAREFUL, Unseen, keep_unseen
from sagitta.training.watch import say

PREFIX = "out_of_fold_"
"""Begins the names of figures of train and val, each row predicted by the member that was not trained on it."""
_SHOWN = ("acc", "map", "log_loss")


def fit_folds(
    settings: Settings, out: Path | None = None, resume: Path | None = None, *, look: Look | None = None
) -> Fitted:
    """Train a member a fold, judge each row by the one that was not trained on it, and test their mean.

    What the recipe decides for the first member, or is measured for it, holds for all.

    Args:
        settings: with ``data.folds``; see :func:`sagitta.training.fit`.
        out: run directory to make.
        resume: such a run that was interrupted; its finished members are not trained again.
        look: at the data before the first member, whose val is a fold.

    Raises:
        SagittaError: as :func:`sagitta.training.fit`; there is no run directory then, unless a member has learned.
    """
    check_free(out)
    if resume is not None:
        _check_division(settings, resume)
    run = resume or new_run_directory(out, settings.source)
    (run / MEMBERS).mkdir(exist_ok=True)
    try:
        with ended_early(run):
            if resume is None:
                save_config(run / CONFIG_FILE, settings.to_yaml())
                write_record(run, seed=settings.seed)
            places = [run / MEMBERS / str(fold) for fold in range(1, settings.data["folds"] + 1)]
            for fold, place in enumerate(places, 1):
                _train(settings, run, fold, place, look if fold == 1 else None)
                if settings.trainer["fast_dev_run"]:
                    return Fitted(run, {}, None)
            return _finish(_decided(settings, run), run, places)
    except SagittaError:
        if resume is None and not any(run.rglob("*.ckpt")):
            shutil.rmtree(run, ignore_errors=True)
        raise


def _check_division(settings: Settings, run: Path) -> None:
    """Refuse to go on with other folds than those of the members that are trained."""
    before = read_values(run / CONFIG_FILE)
    for key in ("seed", "data.folds"):
        if before.get(key) != settings.get(key):
            was, now = before.get(key), settings.get(key)
            if was is None:
                raise ConfigError(f"{run}: began without {short_name(key)}; leave it out, or begin another run")
            raise ConfigError(
                f"{run}: began with {short_name(key)} {was}, not {now}, and its members are divided by that; leave it "
                "out, or begin another run"
            )


def _check_data(data: ImageData, places: Sequence[Path]) -> None:
    """Refuse members that were trained on other data than is there now: their folds would not be parts of one whole."""
    for place in places:
        if read_record(place).get("dataset", {}).get("fingerprint") != data.info.fingerprint:
            raise ConfigError(
                f"{place}: was trained before images, labels or the options of {data.source} changed; begin another run"
            )


def _train(settings: Settings, run: Path, fold: int, place: Path, look: Look | None) -> None:
    """Train a member, or go on with it where it was interrupted, unless it is finished."""
    if "best_checkpoint" in read_record(place):
        return
    begun = (place / CONFIG_FILE).is_file()
    if not begun:
        shutil.rmtree(place, ignore_errors=True)
    say(f"fold {fold} of {settings.data['folds']}")
    own = _decided(settings, run).changed({"data.fold": fold})
    fit(own, None if begun else place, place if begun else None, member_of=run, look=look)


def _decided(settings: Settings, run: Path) -> Settings:
    """Return settings with what was decided or measured for the first member in the place of what is open."""
    first = run / MEMBERS / "1" / CONFIG_FILE
    if not first.is_file():
        return settings
    found = read_values(first)
    return settings.changed(
        {key: found[key] for key in found if settings.get(key) in (None, "auto") and key != "data.fold"}
    )


def _finish(settings: Settings, run: Path, places: Sequence[Path]) -> Fitted:
    """Judge the members out of fold, record them, and test their mean where there is a test set."""
    data = settings.image_data()
    data.prepare_data()
    data.setup()
    _check_data(data, places)
    seen = [read_seen(place) for place in places]
    keep_seen(run, reduce(Seen.__or__, [each for each in seen if each is not None]))
    judged, about = _out_of_fold(run, places, data, seen)
    checkpoints = [find_checkpoint(place) for place in places]
    members = [
        {
            "run": place.relative_to(run).as_posix(),
            "weight": 1 / len(places),
            "checkpoint": path.relative_to(place).as_posix(),
            "checksum": file_hash(path),
        }
        for place, path in zip(places, checkpoints, strict=True)
    ]
    save_config(run / CONFIG_FILE, settings.to_yaml())
    own = read_record(places[0])["dataset"]  # the data here has not met a model, which decides these
    answers = data.answers() | {name: own[name] for name in ("transforms", "normalisation")}
    write_record(run, dataset=answers, members=members, result=judged.metrics, **about)
    given = {split.path(row): name for name, split in data.shards.splits.items() for row in range(len(split))}
    splits = [given[path] for path in judged.predictions["path"].to_pylist()]
    keep_unseen(run, Unseen(judged, splits, "out-of-fold"), judged, _of_members(judged))
    evaluation = None
    if "test" in data.shards.splits and settings.trainer["limit_test_batches"] != 0:
        evaluation = evaluate(run, None, "test", {}, devices=1, verbose=False)
    result = judged.metrics | (evaluation.metrics if evaluation else {})
    write_record(run, result=result)
    return Fitted(run, result, evaluation)


def _of_members(judged: Evaluation) -> Tempered:
    """Return that the mean of the members has no temperature of its own."""
    return Tempered(
        1.0,
        judged.predictions.num_rows,
        f"each member has its own, and no row is new to all of them; {MEAN_IS_CAREFUL}",
    )


def _out_of_fold(
    run: Path, places: Sequence[Path], data: ImageData, seen: Sequence[Seen | None]
) -> tuple[Evaluation, dict[str, Any]]:
    """Return the evaluation of all rows of train and val, and what ``run.json`` says of it; writes the predictions."""
    found = [validate(place) for place in places]
    first = open_model(places[0])
    names, task = first.class_names, first.task
    pairs = [arrays_of(evaluation.predictions, task, names) for evaluation, _ in found]
    probabilities, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    sizes = [len(digests) for _, digests in found]
    folds = np.repeat(np.arange(1, len(places) + 1), sizes)
    paths = [path for evaluation, _ in found for path in evaluation.predictions["path"].to_pylist()]
    thresholds = task.thresholds(torch.from_numpy(probabilities), torch.from_numpy(labels))
    judged = judge(task, probabilities, labels, paths, names, {}, PREFIX, thresholds or ())
    noted = [digest_column(own, each) for each, (_, own) in zip(seen, found, strict=True)]
    rows = judged.predictions.add_column(1, "fold", pa.array(folds, pa.int32()))
    replace(judged, predictions=rows.append_column("digest", pa.chunked_array(noted))).write(run / OUT_OF_FOLD)
    before = sum(column.null_count for column in noted)
    tested = Tested(
        data.source,
        "out of fold",
        len(paths),
        sum(map(len, data.shards.splits.values())),
        data.info.fingerprint,
        trained_on=before,
        notes=(
            f"out of fold: each by the one of {len(places)} members that was not trained on it; it chose that member's "
            "checkpoint",
        ),
        warnings=_doubts(labels, folds, names),
    )
    about = {
        "images": len(paths),
        "scores": _plain(judged.scores, PREFIX),
        "members": [
            {"run": place.relative_to(run).as_posix(), "images": size, "scores": _plain(evaluation.scores, "val_")}
            for place, size, (evaluation, _) in zip(places, sizes, found, strict=True)
        ],
        "lines": tested.lines(),
    }
    named = None if thresholds is None else dict(zip(names, thresholds, strict=True))
    return judged, {"thresholds": named, "out_of_fold": about}


def _doubts(labels: Any, folds: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Name the classes whose rows are all in one fold: the member that judges them has never been shown the class."""
    shown = [labels == label if labels.ndim == 1 else labels[:, label] > 0 for label in range(len(names))]
    alone = [name for name, rows in zip(names, shown, strict=True) if len(np.unique(folds[rows])) == 1]
    if not alone:
        return ()
    some = ", ".join(alone[:5]) + (", …" if len(alone) > 5 else "")
    there = plural(len(alone), "class is", "classes are")
    return (f"{there} in one fold only ({some}): out of fold nothing knew of it",)


def _plain(scores: Mapping[str, Estimate], prefix: str) -> dict[str, list[float]]:
    return {name.removeprefix(prefix): [each.value, each.low, each.high] for name, each in scores.items()}


def folds_text(about: Mapping[str, Any]) -> str:
    """Return what was judged out of fold, in all and by member, with 95 % intervals.

    Args:
        about: ``out_of_fold`` of ``run.json``.
    """
    shown = [name for name in _SHOWN if name in about["scores"]]
    rows = [
        [each["run"], f"{each['images']:,}", *(_cell(each["scores"].get(name)) for name in shown)]
        for each in about["members"]
    ]
    foot = ["all, out of fold", f"{about['images']:,}", *(_cell(about["scores"][name]) for name in shown)]
    wide = max(len(PREFIX + name) for name in about["scores"])
    scores = [f"{PREFIX + name:<{wide}} {_cell(score)}" for name, score in sorted(about["scores"].items())]
    return "\n".join([*about["lines"], "", *scores, "", *table(["member", "images", *shown], rows, foot=foot)])


def _cell(score: Sequence[float] | None) -> str:
    return "-" if score is None else f"{score[0]:.4f}  {score[1]:.4f} to {score[2]:.4f}"
