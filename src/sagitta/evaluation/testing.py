"""A run and data to what is known about its predictions."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from sagitta.evaluation.result import Evaluation, judge
from sagitta.loading import ImageData, Loader
from sagitta.models import Classifier, load_classifier
from sagitta.run import append_test_log, find_checkpoint


def quiet() -> None:
    """Silence what Lightning says about this machine and about DataLoader settings that we do not use."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*lower value for log_every_n_steps.*",
        ".*Checkpoint directory .* exists.*",
        ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 on torch 2.15
        ".*WeightAveraging callback with a model that overrides.*",  # it is about sharded models, which we have not
    ):
        warnings.filterwarnings("ignore", message)


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate.

    Attributes:
        devices: as Lightning's Trainer takes it.
        precision: likewise; None is float32. That of the training gives the values that ended it.
        flip: take the mean of the probabilities of each image and its mirror image.
    """

    devices: str = "auto"
    precision: Any = None
    flip: bool = False


def evaluate(
    run: Path, source: str, split: str, options: EvaluateOptions = EvaluateOptions(), **settings: Any
) -> Evaluation:
    """Evaluate a run's best checkpoint, or one checkpoint file, on a split; a test is recorded in the run.

    Args:
        run: run directory or checkpoint file.
        source: the data; its labels are matched to the model's classes by name.
        split: ``val`` or ``test``.
        options: how.
        settings: further arguments of :class:`ImageData`.

    Raises:
        ConfigError: there is no such run, or the data has classes that the model does not know.
        SagittaError: the data cannot be read.
    """
    checkpoint = find_checkpoint(run)
    classifier = load_classifier(checkpoint)
    classifier.flip = options.flip
    data = ImageData(source, class_names=classifier.class_names, preprocessing=classifier.preprocessing, **settings)
    trainer = pl.Trainer(
        devices=options.devices,
        precision=options.precision,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    evaluate_split = trainer.test if split == "test" else trainer.validate
    logged = evaluate_split(classifier, data, verbose=False)[0]
    loader: Any = trainer.test_dataloaders if split == "test" else trainer.val_dataloaders
    evaluation = evaluate_predictions(classifier, loader, logged, f"{split}_")
    if split == "test" and run.is_dir():
        record_test(run, source, checkpoint, evaluation, flip=options.flip)
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
    thresholds = np.array(classifier.thresholds) if classifier.multilabel else None
    return judge(probabilities, labels, loader.paths(rows), classifier.class_names, logged, prefix, thresholds)
