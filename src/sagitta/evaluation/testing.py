"""A run and data to what is known about its predictions."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from sagitta.dataset import left_out_lines, plural
from sagitta.errors import ConfigError, SagittaError
from sagitta.evaluation.calibration import beside_uncalibrated
from sagitta.evaluation.handlers import KeepHandlers
from sagitta.evaluation.members import Model, open_model, unfinished
from sagitta.evaluation.overlap import Digests, Seen, Use, digests_of, read_seen
from sagitta.evaluation.precision import judged_in
from sagitta.evaluation.result import Evaluation, Tested, judge, mean_of
from sagitta.evaluation.testlog import record_test
from sagitta.images import Reduction
from sagitta.loading import ImageData, Loader
from sagitta.models import Classifier, limit_threads, reuse_memory
from sagitta.ranks import is_first_process, launched
from sagitta.run import (
    CONFIG_FILE,
    find_source,
    has_ended,
    read_record,
    run_of,
)
from sagitta.settings import Settings, own_source
from sagitta.signals import Ended, interruption_of

Purpose = Literal["test", "val"]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence meanwhile what Lightning says about this machine and about DataLoader settings that we do not use.

    Where Lightning is interrupted, it ends the program and no longer listens to Ctrl-C: both are undone.
    """
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [logger.level for logger in loggers]
    heard = signal.getsignal(signal.SIGINT)
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*lower value for log_every_n_steps.*",
                ".*Checkpoint directory .* exists.*",
                ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 on torch 2.15
                ".*WeightAveraging callback with a model that overrides.*",  # about sharded models, which we have not
                ".*GPU available but not used.*",
                ".*could not find the monitored key.*",  # steps or time may end before the first validation
            ):
                warnings.filterwarnings("ignore", message)
            if not is_first_process():  # which says it for all
                warnings.simplefilter("ignore")
            yield
    except Ended:
        raise
    except SystemExit as error:
        raise interruption_of(error) from None
    finally:
        if heard is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, heard)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def new_trainer(**arguments: Any) -> pl.Trainer:
    """Return Lightning's Trainer.

    Raises:
        ConfigError: Lightning refuses an argument, or the machine has no such device.
    """
    limit_threads()
    reuse_memory()
    try:
        return pl.Trainer(**arguments | {"callbacks": [KeepHandlers(), *(arguments.get("callbacks") or [])]})
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError, ArithmeticError) as error:
        raise ConfigError(f"the Trainer refuses: {' '.join(str(error).split())}") from None


def quiet_trainer(**arguments: Any) -> pl.Trainer:
    """Return a Trainer that writes and prints nothing.

    Raises:
        ConfigError: as :func:`new_trainer` does.
    """
    silent = ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar")
    return new_trainer(**dict.fromkeys(silent, False), **arguments)


def evaluate(
    run: Path,
    source: str | None,
    split: str | None,
    changes: Mapping[str, Any],
    *,
    purpose: Purpose = "test",
    devices: Any = "auto",
    flip: bool = False,
    verbose: bool = True,
) -> Evaluation:
    """Evaluate a run's best checkpoint, its members, or one checkpoint file, on data that is never divided for it.

    A test is recorded in the run; a validation is not.

    Args:
        run: run directory or checkpoint file.
        source: the data, whose labels are matched to the model's classes by name; None takes that of the run.
        split: of data that has several; see :func:`choose_split`.
        changes: settings of the data, by dotted names; without a source the run's own are the basis.
        purpose: ``test`` or ``val``: what rows without a split count as.
        devices: as Lightning's Trainer takes it; members that read images differently take one.
        flip: take the mean of the probabilities of each image and its mirror image.
        verbose: print what was detected of the data.

    Raises:
        ConfigError: there is no such run or split, or the data has classes that the model does not know.
        SagittaError: the data cannot be read.
    """
    model, folder = open_model(run, flip=flip), run_of(run)
    evaluation, _ = _measure(run, model, source, split, changes, purpose, devices, verbose=verbose)
    if purpose == "test" and folder is not None:
        assert evaluation.tested is not None
        return record_test(folder, evaluation.tested.source, model.name, evaluation, flip=flip) or evaluation
    return evaluation


def validate(run: Path) -> tuple[Evaluation, Digests]:
    """Return the evaluation of a run on its own val, and the digests (N,) of the images that people gave.

    Raises:
        SagittaError: as :func:`evaluate` does.
    """
    evaluation, data = _measure(run, open_model(run), None, "val", {}, "val", 1, verbose=False)
    assert evaluation.tested is not None
    return evaluation, digests_of(data.shards.splits[evaluation.tested.split])[:, 0]


def _measure(
    run: Path,
    model: Model,
    source: str | None,
    split: str | None,
    changes: Mapping[str, Any],
    purpose: Purpose,
    devices: Any,
    *,
    verbose: bool,
) -> tuple[Evaluation, ImageData]:
    """Return the evaluation of a model, and the data; see :func:`evaluate`."""
    folder = run_of(run)
    own = None if folder is None or not (folder / CONFIG_FILE).is_file() else Settings.read(folder / CONFIG_FILE)
    settings = _data_settings(model.first, own, run, source, purpose)
    # The size is the model's, and so is the batch size on other data: it changes nothing but memory.
    settings = settings.changed({"data.image_size": None, "data.batch_size": None, **changes})
    data = settings.image_data(verbose=verbose and is_first_process())
    with quiet():
        data.prepare_data()
        data.setup("test")
        chosen = choose_split(data, split, purpose, own=source is None)
        notes = [*chosen.notes, *_of_the_run(folder, model, data, own=source is None)]
        seen = read_seen(run)
        if seen is None and source is not None:
            notes.append("nobody noted which images the model has learned from, so some of these may be among them")
        chosen = replace(chosen, notes=tuple(notes))
        found = []
        for part in model.parts:
            # One process at a time can start those of several devices.
            some = devices if len(model.parts) == 1 else 1
            precision = judged_in(part.precision, cpu=not torch.accelerator.is_available())
            trainer = quiet_trainer(devices=some, precision=precision)
            with launched(trainer, lambda: "the same command begins again"):
                found.append(run_test(trainer, part.classifier, data, chosen, seen))
    if len(found) == 1:
        return found[0], data
    orders = [part.classifier.class_names for part in model.parts]
    shares = [part.share for part in model.parts]
    return mean_of(found, shares, model.task, orders, model.first.thresholds, chosen.prefix), data


def other_settings(source: str, purpose: Purpose, reduction: Reduction | None) -> Settings:
    """Return the settings of other data than a run's, of which every row is kept in its split.

    Args:
        source: the data.
        purpose: what its images are for, where it says nothing of splits.
        reduction: of the run's model: its deep samples and bands become what that was trained on.
    """
    options = {} if reduction is None else reduction.options()
    pixels = {f"data.convert.{name}": value for name, value in options.items()}
    return Settings.of({"source": source, "data.convert.purpose": purpose} | pixels)


def own_settings(run: Path, name_it: str = "put it back there") -> Settings:
    """Return the settings of a run, whose data is looked for where the run was made, too.

    Args:
        run: run directory.
        name_it: how a person names other data; not every command takes some.

    Raises:
        ConfigError: it has no configuration, or its data is not there any more.
    """
    settings = Settings.read(run / CONFIG_FILE)
    return settings.changed({"source": find_source(run, settings.source, name_it)})


def _data_settings(
    classifier: Classifier, own: Settings | None, run: Path, source: str | None, purpose: Purpose
) -> Settings:
    """Return the settings of the data: of others, every row is kept in its split; those of the run, as it had them."""
    if source is not None:
        how = classifier.preprocessing
        return other_settings(source, purpose, None if how is None else how.reduction)
    source = own_source(run)
    assert own is not None
    return own.changed({"source": source})


@dataclass(frozen=True)
class Chosen:
    """The rows to evaluate.

    Attributes:
        split: by the data's own name.
        prefix: of the names of the figures: ``train_``, ``val_`` or ``test_``.
        notes: what a person has to know of the choice, one sentence each.
    """

    split: str
    prefix: str
    notes: tuple[str, ...] = ()


def choose_split(data: ImageData, split: str | None, purpose: Purpose = "test", *, own: bool) -> Chosen:
    """Return which rows are evaluated.

    All of them where the data has one split, whatever its name; else ``split``, by default that of the purpose. Where
    there is no test, the figures are those of val, and named so.

    Args:
        data: set up.
        split: of data that has several.
        purpose: ``test`` or ``val``.
        own: it is the data of the run, so that val has chosen the checkpoint.

    Raises:
        ConfigError: the data has several splits, but not the one asked for.
    """
    names = list(data.shards.splits)
    if len(names) == 1:
        called = f"{data.source} calls all of its rows {names[0]}"
        return Chosen(names[0], f"{purpose}_", () if names[0] == purpose else (called,))
    wanted = split or purpose
    if wanted in names:
        chose = own and wanted == "val"
        return Chosen(wanted, f"{wanted}_", ("these images chose the checkpoint",) if chose else ())
    if split is None and wanted == "test" and "val" in names:
        also = ", which also chose the checkpoint" if own else ""
        return Chosen("val", "val_", (f"there is no test set: the figures are those of val{also}",))
    raise ConfigError(
        f"{data.source}: no split {wanted!r}, only {' and '.join(names)}; choose one with sagitta test --split"
    )


def _of_the_run(folder: Path | None, model: Model, data: ImageData, *, own: bool) -> list[str]:
    """Return what a person has to know of the run that is evaluated, one sentence each."""
    if folder is None:
        return []
    record, notes = read_record(folder), []
    if not has_ended(record):
        notes.append(unfinished(model))
    before = record.get("dataset", {}).get("fingerprint")
    if own and before not in (None, data.info.fingerprint):
        notes.append("the data is not what the run was trained on: images or labels have changed since")
    return notes


def run_test(
    trainer: pl.Trainer,
    classifier: Classifier,
    data: ImageData,
    chosen: Chosen,
    seen: Seen | None,
    **arguments: Any,
) -> Evaluation:
    """Test a model in a Trainer, and return everything about its predictions.

    Args:
        trainer: what its loggers note is named ``test_``, so they are left out where the figures are of other rows.
        classifier: the model.
        data: set up.
        chosen: from :func:`choose_split`.
        seen: what the model was trained on, where it is known.
        arguments: of ``Trainer.test``, such as ``ckpt_path``.
    """
    data.tested_split = chosen.split
    if chosen.prefix != "test_":
        trainer.loggers = []
    logged = trainer.test(classifier, data, verbose=False, **arguments)[0]
    renamed = {f"{chosen.prefix}{name.removeprefix('test_')}": value for name, value in logged.items()}
    loader: Any = trainer.test_dataloaders
    return evaluate_predictions(classifier, loader, trainer.num_test_batches[0], renamed, data, chosen, seen)


def evaluate_predictions(
    classifier: Classifier,
    loader: Loader,
    most: float,
    logged: Mapping[str, float],
    data: ImageData,
    chosen: Chosen,
    seen: Seen | None,
) -> Evaluation:
    """Return everything about the predictions of a classifier's last test.

    Args:
        classifier: its ``evaluated`` holds the predictions of every row, over all devices.
        loader: what it was evaluated on.
        most: batches that there were at most.
        logged: what the Trainer returned, by full names.
        data: that the loader is of.
        chosen: of it.
        seen: what the model was trained on, where it is known.

    Raises:
        SagittaError: a prediction is not finite.
    """
    assert classifier.evaluated is not None
    probabilities, labels = (tensor.float().cpu().numpy() for tensor in classifier.evaluated)
    trainer = classifier.trainer
    world = trainer.world_size
    batches = int(min(len(loader), most))  # --trainer.limit_test_batches
    rows = np.concatenate([loader.evaluated_rows(rank, world, batches) for rank in range(world)])
    order = np.argsort(rows, kind="stable")
    rows, probabilities, labels = rows[order], probabilities[order], labels[order]
    if not (finite := np.isfinite(probabilities).all(axis=1)).all():
        first = loader.paths(rows[~finite][:1])[0]
        raise SagittaError(
            f"the model's outputs are not finite for {plural(int((~finite).sum()), 'image')} of {len(rows):,}, such as "
            f"{first}: its training diverged, or its precision is too low; take another checkpoint of the run, or fit "
            "again with a lower --lr"
        )
    names, thresholds = classifier.class_names, classifier.thresholds
    prefix = chosen.prefix
    judged = judge(classifier.task, probabilities, labels, loader.paths(rows), names, logged, prefix, thresholds)
    if classifier.temperature != 1 and not classifier.flip:  # the mean of two is none of either's
        judged = beside_uncalibrated(judged, classifier.task, names, classifier.temperature, prefix)
    return replace(judged, tested=describe(data, chosen, rows, labels, names, seen))


def evaluate_validation(trainer: pl.Trainer, classifier: Classifier, data: ImageData) -> Evaluation:
    """Return everything about the predictions of a classifier's last validation outside of a fit."""
    loader: Any = trainer.val_dataloaders
    most = trainer.num_val_batches[0]
    return evaluate_predictions(classifier, loader, most, {}, data, Chosen("val", "val_"), None)


def describe(
    data: ImageData,
    chosen: Chosen,
    rows: npt.NDArray[np.int64],
    labels: npt.NDArray[Any],
    names: Sequence[str],
    seen: Seen | None,
) -> Tested:
    """Return what was tested.

    Args:
        data: set up.
        chosen: of it.
        rows: (N,) of the split.
        labels: (N,) in the model's order, or (N, classes) of 0 and 1.
        names: of the model's classes.
        seen: what the model was trained on, where it is known.
    """
    digests = None if seen is None else digests_of(data.shards.splits[chosen.split], rows)
    # That val has chosen the checkpoint goes without saying where the figures are named so.
    known: tuple[Use, ...] = ("trained",) if chosen.prefix == "val_" else ("trained", "chose")
    counts = {use: seen.count(digests, use) for use in known} if seen is not None and digests is not None else {}
    return Tested(
        data.source,
        chosen.split,
        len(rows),
        sum(map(len, data.shards.splits.values())),
        data.info.fingerprint,
        _classes(labels, data.info.class_names, names),
        counts.get("trained"),
        counts.get("chose"),
        (*chosen.notes, *left_out_lines(data.shards.root, data.info)),
        data.info.warnings,
    )


def _classes(labels: npt.NDArray[Any], own: Sequence[str], names: Sequence[str]) -> str:
    """Say which of the model's classes are there, and whether their order is another one; nothing where all agrees."""
    there = len(np.unique(labels)) if labels.ndim == 1 else int(labels.any(axis=0).sum())
    known = [name for name in names if name in set(own)]
    some = f"{there} of the model's {len(names)} classes" if there < len(names) else ""
    order = "" if tuple(own) == tuple(names) else "classes matched by name"
    return "; ".join(filter(None, (some, order + (", other order" if order and known != list(own) else ""))))
