"""The end of a run: its probabilities are calibrated on rows that it has not learned from, and what it knows is noted.

Both are done to the checkpoint that is kept, and to nothing that a training goes on from.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from sagitta.dataset import plural, write_table
from sagitta.evaluation import (
    FEWEST_KNOWN,
    VALIDATION_FILE,
    Evaluation,
    Tempered,
    arrays_of,
    calibration_text,
    evaluate_validation,
    familiar_with,
    figures,
    find_temperature,
    judge,
    lacking_beyond_chance,
    lacking_text,
    tempered,
    tempered_thresholds,
    write_familiar,
)
from sagitta.loading import ImageData
from sagitta.models import (
    SINGLE_LABEL,
    Classifier,
    Floats,
    Ints,
    can_fold,
    fold_temperature,
    vectors_of,
)
from sagitta.ranks import is_first_process
from sagitta.run import write_record
from sagitta.training.head import ENOUGH
from sagitta.training.solving import Solved
from sagitta.training.watch import say

BANK, KNOWN = 2000, 500
"""Training images whose features are kept, and others that are compared with them, at most."""
FEW_BANK, FEW_KNOWN = 200, 100
"""And at least, whatever little was trained."""
_SHARE = 20  # of the images that an epoch shows, so many times fewer are looked at for it


MEAN_IS_CAREFUL = "their mean is rather less certain than it is right"
"""Where calibrated members disagree, their mean is under-confident (Rahaman and Thiery 2021, arXiv 2007.08792)."""


@dataclass(frozen=True)
class Unseen:
    """What a model says of rows that it has not learned from.

    Attributes:
        evaluation: of the probabilities as they were trained.
        splits: that the rows are from (N,).
        fitted_on: ``val``; or ``out-of-fold``, each row by a model that has not seen it.
        reason: why there is to be no temperature; else empty.
        lacking: classes of which there is no row, where that is no chance: nothing is found out about them.
    """

    evaluation: Evaluation
    splits: Sequence[str]
    fitted_on: Literal["val", "out-of-fold"]
    reason: str = ""
    lacking: Sequence[str] = ()


def out_of_fold(data: ImageData, solved: Solved) -> Unseen:
    """Return what heads said of the rows that they were not solved on, in the place of the one that knows them all."""
    probabilities = SINGLE_LABEL.probabilities(torch.from_numpy(solved.head.logits)).numpy()
    evaluation = judge(SINGLE_LABEL, probabilities, solved.labels, solved.paths, data.class_names, {}, "val_")
    sizes = [len(data.shards.splits[name]) for name in solved.fitted]
    splits = np.repeat(np.array(solved.fitted, object), sizes)[solved.head.judged]
    few = len(solved.labels) < ENOUGH * data.num_classes
    reason = f"less than {ENOUGH} rows a class: heads out of fold are too unlike the one that is kept" if few else ""
    return Unseen(evaluation, splits.tolist(), "out-of-fold", reason)


@contextmanager
def silently(trainer: Any) -> Iterator[None]:
    """Have the Trainer log nothing and call nobody meanwhile."""
    loggers, callbacks = trainer.loggers, trainer.callbacks
    trainer.loggers, trainer.callbacks = [], []
    try:
        yield
    finally:
        trainer.loggers, trainer.callbacks = loggers, callbacks


def of_val(trainer: pl.Trainer, classifier: Classifier, data: ImageData) -> Unseen:
    """Return what a model said of ``val`` in its last validation outside of a fit."""
    evaluation = evaluate_validation(trainer, classifier, data)
    return all_of_val(evaluation, data)


def all_of_val(evaluation: Evaluation, data: ImageData) -> Unseen:
    """Return what a model said of ``val``, with the classes that it says nothing of."""
    return Unseen(evaluation, ["val"] * evaluation.predictions.num_rows, "val", lacking=lacking_in_val(data))


def lacking_in_val(data: ImageData) -> tuple[str, ...]:
    """Return the classes of which ``val`` has no image, where that is no chance; none where there is no val."""
    if not {"train", "val"} <= data.shards.splits.keys():
        return ()
    train, val = (data.shards.splits[name].labels for name in ("train", "val"))
    names = data.info.class_names
    counts = np.bincount(train, minlength=len(names)) if train.ndim == 1 else train.sum(axis=0)
    return lacking_beyond_chance(counts / max(len(train), 1), val, names)


def validate_kept(trainer: pl.Trainer, classifier: Classifier, data: ImageData, checkpoint: Path) -> Unseen:
    """Return what the model of a checkpoint says of ``val``, as it was trained; called on every device."""
    if is_first_process():
        fold_temperature(checkpoint, classifier, 1.0, None)
    trainer.strategy.barrier()
    with silently(trainer):
        trainer.validate(classifier, data, ckpt_path=checkpoint, verbose=False, weights_only=True)
    return of_val(trainer, classifier, data)


def calibrate(run: Path, checkpoint: Path, classifier: Classifier, unseen: Unseen) -> Evaluation:
    """Find the temperature of a checkpoint, fold it in, and keep the rows and figures; says it in a line.

    Returns the evaluation of the rows with it.

    Args:
        run: its directory.
        checkpoint: of weights, which is replaced; never one that a training goes on from.
        classifier: of the same network and thresholds.
        unseen: rows that its model has not learned from.
    """
    task, names = classifier.task, classifier.class_names
    found = _temperature(classifier, unseen)
    new = tempered_thresholds(classifier.thresholds, found.value) if task.multilabel else None
    fold_temperature(checkpoint, classifier, found.value, new)
    after = tempered(unseen.evaluation, task, names, found.value, "val_", classifier.thresholds)
    keep_unseen(run, unseen, after, found)
    return after


def keep_unseen(run: Path, unseen: Unseen, after: Evaluation, found: Tempered) -> None:
    """Write the rows and figures of a calibration; says in a line what became of it.

    Args:
        run: its directory.
        unseen: the rows, with what was said of them before.
        after: of the same rows, as the run predicts.
        found: the temperature.
    """
    table = after.predictions.select(["path", "label", "predicted", "probabilities"])
    table = table.add_column(1, "split", pa.array(unseen.splits, pa.string()))
    write_table(run / VALIDATION_FILE, table)
    record = {
        "temperature": found.value,
        "rows": found.rows,
        "fitted_on": unseen.fitted_on,
        "reason": found.reason,
        "lacking": list(unseen.lacking),
        "before": figures(unseen.evaluation),
        "after": figures(after),
    }
    write_record(run, calibration=record)
    say(calibration_text(record))


def _temperature(classifier: Classifier, unseen: Unseen) -> Tempered:
    rows = unseen.evaluation.predictions.num_rows
    if unseen.reason:
        return Tempered(1.0, rows, unseen.reason)
    if unseen.lacking:
        return Tempered(1.0, rows, f"{unseen.fitted_on} has {lacking_text(unseen.lacking)}")
    if not can_fold(classifier):
        return Tempered(1.0, rows, f"model {classifier.name!r} does not end in one linear layer, which would hold it")
    probabilities, labels = arrays_of(unseen.evaluation.predictions, classifier.task, classifier.class_names)
    return find_temperature(classifier.task, probabilities, labels)


def remember(
    run: Path, checkpoint: Path, classifier: Classifier, data: ImageData, epochs: int, *, frozen: bool
) -> None:
    """Note what the model of a checkpoint knows, by a sample of images; or say why it cannot be.

    Args:
        run: its directory.
        checkpoint: of it.
        classifier: that it holds; a temperature makes no difference.
        data: set up.
        epochs: that were trained, in proportion to which it may take time.
        frozen: nothing but the head was trained, so the features know no image.
    """
    shown = epochs * len(data.shards.splits["train"]) // _SHARE
    most = min(BANK, max(FEW_BANK, shown)), min(KNOWN, max(FEW_KNOWN, shown // 4))
    bank, known = divided(data, *most, frozen=frozen)
    if (reason := unable(data, classifier, known)) is not None:
        say(f"predictions come without `unfamiliar`: {reason}")
        return
    vectors = [
        np.concatenate([vectors_of(classifier, data.shards, split, rows) for split, rows in some.items() if len(rows)])
        for some in (bank, known)
    ]
    note_familiar(run, checkpoint, *vectors)


def divided(data: ImageData, bank: int, known: int, *, frozen: bool) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Return rows by split of which the features are kept, and others that are compared with them, at most so many.

    Where the features know no image, a fifth of those of ``train`` stand in for what ``val`` lacks. A val that lacks
    classes is none to compare with: all images of these would look unusual.
    """
    train, val = sample(data, "train", bank), sample(data, "val", 0 if lacking_in_val(data) else known)
    lacking = min(known - len(val), len(train) // 5) if frozen else 0
    held = np.zeros(len(train), np.bool_)
    held[np.linspace(0, len(train), lacking, endpoint=False).astype(np.int64)] = True
    return {"train": train[~held]}, {"val": val, "train": train[held]}


def note_familiar(run: Path, checkpoint: Path, bank: Floats, known: Floats) -> None:
    """Write what a model knows by its features of training images (N, D), and of others (M, D)."""
    if np.isfinite(bank).all() and np.isfinite(known).all():
        write_familiar(run, familiar_with(bank, known), checkpoint.name)


def unable(data: ImageData, classifier: Classifier, known: Mapping[str, Ints]) -> str | None:
    """Return why it cannot be told what a model knows, by such images to compare with; else None."""
    if (count := sum(map(len, known.values()))) < FEWEST_KNOWN:
        if lacking := lacking_in_val(data):
            return f"val has {lacking_text(lacking)}, so all images of these would look unusual"
        return f"{plural(count, 'image')} to compare with, and {FEWEST_KNOWN} are needed"
    if not can_fold(classifier):
        return (
            f"model {classifier.name!r} does not end in one linear layer, so there is no telling what its features are"
        )
    return None


def sample(data: ImageData, split: str, most: int) -> Ints:
    """Return so many rows of a split at most, sorted; of one label an image, of each class in turn."""
    if split not in data.shards.splits:
        return np.empty(0, np.int64)
    labels = data.shards.splits[split].labels
    order = np.random.default_rng(data.seed).permutation(len(labels))
    if labels.ndim == 1 and len(labels) > most:
        order = order[_in_turn(labels[order])]
    rows: Ints = np.sort(order[:most])
    return rows


def _in_turn(labels: npt.NDArray[Any]) -> Ints:
    """Return the order (N,) that takes one row of each class, then a second one of each, and so on."""
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    found: Ints = by_class[np.argsort(turn, kind="stable")]
    return found
