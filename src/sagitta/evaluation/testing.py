"""A run and data to what is known about its predictions."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only

from sagitta.errors import ConfigError
from sagitta.evaluation.result import Evaluation, judge
from sagitta.loading import Loader
from sagitta.models import Classifier, limit_threads, load_classifier
from sagitta.run import CONFIG_FILE, append_test_log, find_checkpoint, is_first_process
from sagitta.settings import Settings


@contextmanager
def quiet() -> Iterator[None]:
    """Silence meanwhile what Lightning says about this machine and about DataLoader settings that we do not use."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [logger.level for logger in loggers]
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
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def new_trainer(**arguments: Any) -> pl.Trainer:
    """Return Lightning's Trainer.

    Raises:
        ConfigError: Lightning refuses an argument, or the machine has no such device.
    """
    limit_threads()
    try:
        return pl.Trainer(**arguments)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError(f"the Trainer refuses: {' '.join(str(error).split())}") from None


def quiet_trainer(**arguments: Any) -> pl.Trainer:
    """Return a Trainer that writes and prints nothing.

    Raises:
        ConfigError: as :func:`new_trainer` does.
    """
    silent = ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar")
    return new_trainer(**dict.fromkeys(silent, False), **arguments)


def evaluate(
    run: Path, source: str | None, split: str, changes: Mapping[str, Any], *, devices: Any = "auto", flip: bool = False
) -> Evaluation:
    """Evaluate a run's best checkpoint, or one checkpoint file, on a split; a test is recorded in the run.

    Args:
        run: run directory or checkpoint file.
        source: the data, whose labels are matched to the model's classes by name; None takes that of the run.
        split: ``val`` or ``test``.
        changes: settings of the data, by dotted names; without a source the run's own are the basis.
        devices: as Lightning's Trainer takes it.
        flip: take the mean of the probabilities of each image and its mirror image.

    Raises:
        ConfigError: there is no such run, or the data has classes that the model does not know.
        SagittaError: the data cannot be read.
    """
    checkpoint = find_checkpoint(run)
    classifier = load_classifier(checkpoint)
    classifier.flip = flip
    config = run / CONFIG_FILE
    own = Settings.read(config) if config.is_file() else None
    if source is None and own is None:
        raise ConfigError(f"{run}: no configuration that names the data; give DATA")
    settings = own if source is None else Settings.of({"source": source})
    assert settings is not None
    # The size is the model's, and so is the batch size on other data: it changes nothing but memory.
    settings = settings.changed({"data.image_size": None, "data.batch_size": None, **changes})
    data = settings.image_data(verbose=is_first_process())
    # The precision of the training gives the values that ended it.
    precision = None if own is None else own.trainer["precision"]
    with quiet():
        trainer = quiet_trainer(devices=devices, precision=precision)
        evaluate_split = trainer.test if split == "test" else trainer.validate
        logged = evaluate_split(classifier, data, verbose=False)[0]
    loader: Any = trainer.test_dataloaders if split == "test" else trainer.val_dataloaders
    evaluation = evaluate_predictions(classifier, loader, logged, f"{split}_")
    if split == "test" and run.is_dir():
        record_test(run, data.source, checkpoint, evaluation, flip=flip)
    return evaluation


@rank_zero_only
def record_test(run: Path, source: str, checkpoint: Path, evaluation: Evaluation, *, flip: bool = False) -> None:
    """Add a test to the run directory, on the first rank only."""
    append_test_log(run, source, checkpoint, evaluation.log(), flip=flip)
    evaluation.write(run)


def evaluate_predictions(
    classifier: Classifier, loader: Loader, logged: Mapping[str, float], prefix: str
) -> Evaluation:
    """Return everything about the predictions of a classifier's last validation or test.

    Args:
        classifier: its ``evaluated`` holds the predictions of every row, over all devices.
        loader: what it was evaluated on.
        logged: what the Trainer returned.
        prefix: of the names, ``val_`` or ``test_``.
    """
    assert classifier.evaluated is not None
    probabilities, labels = (tensor.float().cpu().numpy() for tensor in classifier.evaluated)
    trainer = classifier.trainer
    world, limits = trainer.world_size, trainer.num_test_batches if prefix == "test_" else trainer.num_val_batches
    batches = int(min(len(loader), limits[0]))  # --trainer.limit_test_batches
    rows = np.concatenate([loader.evaluated_rows(rank, world, batches) for rank in range(world)])
    order = np.argsort(rows, kind="stable")
    rows, probabilities, labels = rows[order], probabilities[order], labels[order]
    names, thresholds = classifier.class_names, classifier.thresholds
    return judge(classifier.task, probabilities, labels, loader.paths(rows), names, logged, prefix, thresholds)
