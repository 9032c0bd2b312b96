"""`sagitta fit` and `sagitta test`: data, model, callbacks, loggers and the Trainer, together in a run directory."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from sagitta.dataset import SPLITS
from sagitta.errors import ConfigError
from sagitta.evaluation import Evaluation, evaluate_predictions, record_test
from sagitta.loading import ImageData
from sagitta.models import Classifier
from sagitta.run import CHECKPOINT_NAME, find_checkpoint, history, read_metrics, write_record
from sagitta.training.callbacks import StepSeed, WeightEMA
from sagitta.training.watch import EpochLines, PredictionImages, Throughput

LOGGERS = ("csv", "tensorboard", "wandb")


@dataclass(frozen=True)
class FitOptions:
    """What a run needs besides data, model and trainer.

    Attributes:
        run: the run directory.
        seed: of weights, order and augmentation.
        loggers: of ``LOGGERS``; csv is always written.
        patience: stop after so many epochs without a better val_loss; 0 never stops early.
        ema: decay of the weights' moving average a step; 0 for none.
        checkpoint: continue from this file.
    """

    run: Path
    seed: int
    loggers: tuple[str, ...]
    patience: int
    ema: float = 0.0
    checkpoint: Path | None = None


def fit(
    data: ImageData, classifier: Classifier, trainer_arguments: Mapping[str, Any], options: FitOptions
) -> tuple[dict[str, float], Evaluation | None]:
    """Train, then test the best checkpoint.

    Returns:
        The final metrics by their logged names, and the test in full; none after a ``fast_dev_run``.

    Raises:
        SagittaError: data, model and options do not fit together.
    """
    best = ModelCheckpoint(
        options.run / "checkpoints", CHECKPOINT_NAME, monitor="val_loss", save_top_k=3, save_last=True
    )
    arguments = dict(trainer_arguments)
    if arguments.get("enable_progress_bar") is None:
        arguments["enable_progress_bar"] = sys.stderr.isatty()
    if arguments.get("log_every_n_steps") is None:  # Lightning's 50 would leave a small dataset without a curve
        arguments["log_every_n_steps"] = max(1, min(50, len(data.shards.splits["train"]) // data.batch_size // 4))
    arguments["enable_model_summary"] = bool(arguments.get("enable_model_summary"))
    arguments["callbacks"] = [best, *_callbacks(options), *(arguments.get("callbacks") or [])]
    trainer = pl.Trainer(default_root_dir=options.run, logger=list(_loggers(options)), **arguments)
    write_record(options.run, seed=options.seed, dataset=data.answers())
    trainer.fit(classifier, data, ckpt_path=options.checkpoint, weights_only=True)
    if arguments.get("fast_dev_run"):
        return {}, None
    checkpoint = Path(best.best_model_path or best.last_model_path)
    tested = trainer.test(classifier, data, ckpt_path=checkpoint, verbose=False, weights_only=True)[0]
    loader: Any = trainer.test_dataloaders
    evaluation = evaluate_predictions(classifier, loader, tested, "test_")
    record_test(options.run, data.source, checkpoint, evaluation)
    result = {**_validated(options.run), **evaluation.metrics}
    write_record(
        options.run,
        best_checkpoint=os.path.relpath(checkpoint, options.run),
        epochs=trainer.current_epoch,
        result=result,
    )
    return result, evaluation


@rank_zero_only
def print_beginning(data: ImageData, classifier: Classifier, epochs: int | None, run: Path) -> None:
    """Say in a few lines what is trained on what, from which weights, and where it goes."""
    size = "x".join(str(side) for side in (data.preprocessing.channels, *data.preprocessing.size))
    splits = data.shards.splits
    counts = ", ".join(f"{name} {len(splits[name])}" for name in SPLITS if name in splits)
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    print(f"data:  {data.num_classes} classes, {counts}; images {size}, fingerprint {data.info.fingerprint[:12]}")
    if classifier.weights_report:
        print(classifier.weights_report)
    print(
        f"model: {classifier.hparams['name']}, {parameters / 1e6:.2f} M parameters; up to {epochs} epochs; run {run}",
        flush=True,
    )


@rank_zero_only
def print_result(run: Path, result: Mapping[str, float], evaluation: Evaluation | None) -> None:
    """Print run history, run summary, the test in full, and where everything is."""
    print(history(run, result))
    if evaluation is not None:
        print(f"\nTest, with 95 % intervals\n{evaluation.text()}")
    print(f"\nEverything is in {run}, the best checkpoint is {find_checkpoint(run)}")
    print(f"Next: sagitta predict {run} PHOTOS…   or   sagitta test {run} OTHER_DATA")


def _validated(run: Path) -> dict[str, float]:
    """Return the last training metrics and the validation metrics of the epoch with the lowest ``val_loss``."""
    metrics = read_metrics(run)
    result = {
        name: values[-1] for name, values in metrics.items() if name.startswith("train_") and not name.endswith("_step")
    }
    losses = metrics.get("val_loss", [])
    best = min(range(len(losses)), key=losses.__getitem__, default=None)
    if best is not None:
        result |= {
            name: values[best]
            for name, values in metrics.items()
            if name.startswith("val_") and len(values) == len(losses)
        }
    return result


def _callbacks(options: FitOptions) -> Iterable[pl.Callback]:
    yield StepSeed(options.seed)
    yield PredictionImages()
    yield EpochLines()
    yield Throughput()
    if options.ema:  # after PredictionImages: at the end of a validation it puts the last weights back
        yield WeightEMA(options.ema)
    if options.patience:
        yield EarlyStopping("val_loss", patience=options.patience)


def _loggers(options: FitOptions) -> Iterable[Logger]:
    unknown = set(options.loggers) - set(LOGGERS)
    if unknown:
        raise ConfigError(f"logger {', '.join(sorted(unknown))}: choose from {', '.join(LOGGERS)}")
    yield CSVLogger(options.run, "lightning_logs")
    try:
        if "tensorboard" in options.loggers:
            yield TensorBoardLogger(options.run, "tensorboard")
        if "wandb" in options.loggers:
            yield WandbLogger(options.run.name, save_dir=options.run, project="sagitta")
    except ModuleNotFoundError as error:
        raise ConfigError(f"logger: {error.name} is not installed; pip install 'sagitta[tensorboard,wandb]'") from None
