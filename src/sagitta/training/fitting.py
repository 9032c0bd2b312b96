"""From settings to a finished run: everything is checked, then data, model, callbacks and Trainer come together."""

import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from sagitta.clock import extra
from sagitta.errors import ConfigError, SagittaError
from sagitta.evaluation import (
    Evaluation,
    choose_split,
    judge_as_predicted,
    keep_seen,
    new_trainer,
    quiet,
    read_seen,
    record_test,
    run_test,
    seen_of,
)
from sagitta.files import remedy as remedy_of
from sagitta.loading import ImageData
from sagitta.models import SMOOTHED, Classifier, check_network, dry_run, load_classifier, open_weights, threads_for
from sagitta.ranks import check_alike, connected, is_first_process, launched, shared
from sagitta.run import (
    CONFIG_FILE,
    LAST_CHECKPOINT,
    MEMBERS,
    PACE_FILE,
    check_free,
    forget_end,
    held,
    history_table,
    new_run_directory,
    read_record,
    save_config,
    write_record,
)
from sagitta.settings import Settings, device_of, short_name
from sagitta.signals import Ended, Interrupted, interruption_of, raised
from sagitta.training.callbacks import StepSeed, WeightEMA
from sagitta.training.checkpoints import Checkpoints
from sagitta.training.checks import Look, check_devices, check_loggers, check_numbers, check_splits
from sagitta.training.divergence import DivergenceError, StopDiverged, anomalies_named
from sagitta.training.flags import (
    check_batches,
    check_flags,
    check_words,
    determinism_named,
    profiler_in,
    train_batches,
)
from sagitta.training.headfirst import (
    REFITTED,
    KeepHead,
    check_first_weights,
    end_with_best,
    find_head,
    solve_first,
)
from sagitta.training.interruption import EndWhenAsked
from sagitta.training.logs import WholeCSVLogger
from sagitta.training.resume import continuation, is_begun
from sagitta.training.trust import Unseen, calibrate, remember, validate_kept
from sagitta.training.tuning import find_batch_size, find_lr
from sagitta.training.watch import EpochBar, EpochLines, PredictionImages, Throughput, say, say_beginning, say_core

PROFILE = "profile"
"""Folder of a run for what ``--trainer.profiler`` finds out."""


@dataclass(frozen=True)
class Fitted:
    """A finished fit.

    Attributes:
        run: its directory.
        result: the final metrics by their logged names; empty after a ``fast_dev_run``.
        evaluation: the test in full, of val where there is no test set; None after a ``fast_dev_run``.
    """

    run: Path
    result: dict[str, float]
    evaluation: Evaluation | None


def fit(
    settings: Settings,
    out: Path | None = None,
    resume: Path | None = None,
    *,
    member_of: Path | None = None,
    callbacks: Sequence[pl.Callback] = (),
    look: Look | None = None,
    verbose: bool = True,
) -> Fitted:
    """Train, then test the best checkpoint; what nobody set is decided by a recipe, or measured.

    All that can be known is checked before the source is converted, and the rest before there is a run directory.

    Args:
        settings: of data, model and trainer.
        out: run directory to make; by default the first free ``runs/NAME-1``, ``-2`` and so on.
        resume: run directory whose last checkpoint is gone on from; it takes the place of ``out``.
        member_of: the run whose member this becomes, which an interruption names.
        callbacks: of the Trainer, which no configuration names.
        look: at the data of a run that begins; the first process does.
        verbose: say what the source is.

    Raises:
        SagittaError: data, model and settings do not fit together; there is no run directory then.
    """
    with quiet(), ExitStack() as together:
        trial = trial_of(settings)
        together.enter_context(connected(trial))
        check_free(out)  # each process knows its rank now
        if resume is not None:
            together.enter_context(held(resume))
        before = None if resume is None else continuation(resume, settings)
        if before is not None and before.is_finished:
            say(f"{resume}: is finished, nothing is left to do; a larger --epochs goes on with it")
            return Fitted(before.run, read_record(before.run)["result"], None)
        checkpoint = None if before is None else before.checkpoint
        check_before_conversion(settings, checkpoint, trial)
        world = trial.num_devices * trial.num_nodes
        if member_of is not None and world > 1:
            raise ConfigError("--folds: each member is trained on one device; give --devices 1")
        say_core()
        told = member_of is not None and any((member_of / MEMBERS).iterdir())  # by an earlier member
        data = settings.image_data(verbose=verbose and is_first_process() and not told)
        data.prepare_data()
        data.setup("fit")
        check_alike("data", data.info.fingerprint, f"{settings.source} has other images or labels here")
        if settings.undecided():
            say(f"recipe: {settings.recipe(data.shards).reason}")
        settings = _measured(settings.resolve(data.shards), data)
        settings.apply_to(data)
        if before is not None:
            before.check(data, world)
        pl.seed_everything(settings.seed, verbose=False)
        classifier = _classifier(settings, checkpoint)
        classifier.prepare(data, device=device_of(settings.trainer["accelerator"]))
        _check_before_training(settings, data, classifier, world)
        going_on = before.prepare(settings) if before is not None else []
        looked = look(data) if look is not None and resume is None and is_first_process() else None
        run = resume or Path(shared("run", lambda: str(new_run_directory(out, settings.source))))
        if resume is None:
            together.enter_context(held(run))
        check_alike("seen", str(run.is_dir()), f"no {run.absolute()} here; name an --out that all see")
        forget_end(run)
        save_config(run / CONFIG_FILE, settings.to_yaml())
        say_beginning(data, classifier, settings.trainer["max_epochs"], run)
        if looked is not None:
            looked(member_of or run)
        pixels = data.batch_size * math.prod(data.preprocessing.size)
        together.enter_context(ended_early(member_of or run))
        together.enter_context(_diverged(run, member_of or run))
        together.enter_context(launched(trial, lambda: _how_to_go_on(run)))
        with threads_for(pixels):
            if checkpoint is not None:
                return _train(settings, data, classifier, run, checkpoint, callbacks=[*callbacks, *going_on])
            first = check_first_weights(settings.model["weights"], classifier, data)
            seen = seen_of(data.shards.splits, trained=("train",), chose=("val",))
            keep_seen(run, seen, first)
            head = solve_first(data, classifier, verbose=is_first_process())
            return _train(settings, data, classifier, run, head=head, callbacks=callbacks)


def trial_of(settings: Settings) -> pl.Trainer:
    """Return a Trainer like the one that will train, on devices that it can have."""
    check_words(settings)
    callbacks = [*_callbacks(settings), Checkpoints(Path(), settings.keep)]
    trainer = _trainer(settings, callbacks=callbacks, logger=CSVLogger("."))
    check_devices(settings, trainer)
    return trainer


def check_before_conversion(settings: Settings, checkpoint: Path | None, trial: pl.Trainer) -> None:
    """Refuse what is known to fail from the settings, and the Trainer of :func:`trial_of` that they give, alone."""
    check_numbers(settings, checkpoint)
    check_loggers(settings.logger)
    settings.image_data()
    settings.to_yaml()
    if checkpoint is None:
        name, weights = settings.model["name"], settings.model["weights"]
        if weights is not None and settings.model["pretrained"]:
            raise ConfigError("pretrained and weights: give one of the two")
        if weights is not None:
            opened = open_weights(weights)
            name = opened.model() if name == "auto" else name
        if name != "auto":
            check_network(name, pretrained=settings.model["pretrained"])
    check_flags(settings, trial)


def _check_before_training(settings: Settings, data: ImageData, classifier: Classifier, world: int) -> None:
    """Refuse what is known to fail now that data and model are there, on ``world`` devices."""
    check_splits(settings, data)
    check_batches(settings, data, world)
    dry_run(classifier, data.batch_size)


def _classifier(settings: Settings, checkpoint: Path | None) -> Classifier:
    if checkpoint is None:
        return Classifier(**settings.model, seed=settings.seed)
    # Its weights come from the checkpoint, so the file that it began with may have gone.
    before = load_classifier(checkpoint)
    return Classifier(
        **{**settings.model, "pretrained": False, "weights": None, "stages": before.hparams.get("stages")},
        seed=settings.seed,
        class_names=before.class_names,
        preprocessing=None if before.preprocessing is None else before.preprocessing.to_dict(),
        multilabel=before.multilabel,
    )


def _measured(settings: Settings, data: ImageData) -> Settings:
    """Return settings with batch size and learning rate as measured in the place of ``auto``; say a line on each."""
    steps = ((find_batch_size, "data.batch_size"), (find_lr, "model.lr"))  # in this order: the rate depends on the size
    for find, key in steps:
        if settings.get(key) != "auto":
            continue
        guess = settings.changed({k: None for _, k in steps if settings.get(k) == "auto"}).resolve(data.shards)
        data.batch_size = guess.data["batch_size"]

        def build(guess: Settings = guess) -> Classifier:
            classifier = Classifier(**{**guess.model, "schedule": "constant", "class_weights": None})
            classifier.prepare(data, device=device_of(guess.trainer["accelerator"]))
            return classifier

        def found(find: Any = find, build: Any = build, guess: Settings = guess) -> float:
            value, line = find(build, data, guess.trainer_arguments())
            say(line)
            return float(value)

        value = shared(key, found)
        settings = settings.changed({key: int(value) if key == "data.batch_size" else value})
    return settings


def _train(
    settings: Settings,
    data: ImageData,
    classifier: Classifier,
    run: Path,
    checkpoint: Path | None = None,
    head: float | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Fitted:
    kept = Checkpoints(run / "checkpoints", settings.keep)
    begin = [] if head is None else [KeepHead(kept.folder, head)]
    if settings.trainer["max_epochs"] == 0 and not begin:
        shutil.rmtree(run)
        raise ConfigError(
            "--epochs 0: is for a solved head alone, and none is solved here: the weights are random or bring a head "
            "that fits, or no class has two images; give at least 1"
        )
    every = settings.trainer["log_every_n_steps"]
    trainer = _trainer(
        settings,
        callbacks=[*_callbacks(settings, run), *callbacks, *begin, kept, EndWhenAsked(kept)],
        default_root_dir=run,
        logger=list(_loggers(settings, run)),
        # Lightning's 50 would leave a small dataset without a curve.
        log_every_n_steps=max(1, min(50, train_batches(settings, data) // 4)) if every is None else every,
        profiler=profiler_in(run / PROFILE, settings.trainer_arguments()["profiler"]),
    )
    if checkpoint is None:  # else it stands there, and a resume that is refused changes nothing
        write_record(run, seed=settings.seed, dataset=data.answers())
    try:
        if settings.trainer["max_epochs"] == 0:
            begin[0].keep(trainer, classifier)
        else:
            with anomalies_named(trainer), determinism_named():
                trainer.fit(classifier, data, ckpt_path=checkpoint, weights_only=True)
    except MisconfigurationException as error:
        if not any(run.rglob("*.ckpt")):
            shutil.rmtree(run)
        raise ConfigError(f"the Trainer refuses: {' '.join(str(error).split())}") from None
    if reports := sorted((run / PROFILE).glob("*")):
        say(f"profile: {', '.join(map(str, reports))}")
    if settings.trainer["fast_dev_run"]:
        say("fast_dev_run: training and validation pass; nothing is kept of them, and nothing was tested")
        return Fitted(run, {}, None)
    best = Path(kept.best_model_path) if kept.best_model_path else None
    path, first = best or run / "checkpoints" / LAST_CHECKPOINT, find_head(run)
    if first is None and not path.is_file():  # steps or time ended it before a validation, which is when one is written
        trainer.save_checkpoint(path)
    judge_as_predicted(trainer, classifier)
    result = validated(run)
    if first is not None:
        path, chosen, unseen = end_with_best(trainer, classifier, data, first, best, refit=settings.refit)
        result |= chosen
        with extra():
            _trust(trainer, data, run, path, unseen)
    elif best is not None:
        with extra():
            unseen = validate_kept(trainer, classifier, data, path)
            _trust(trainer, data, run, path, unseen)
        judged = unseen.evaluation.metrics | {"val_loss": unseen.evaluation.metrics["val_log_loss"]}
        result |= {name: value for name, value in judged.items() if name in result}
    evaluation = None
    seen = read_seen(run)
    chosen_split = choose_split(data, None, own=True)
    if path.name.startswith(REFITTED) and chosen_split.split == "val":
        say("there is no test split, and the head that is kept knows val: nothing is left to judge it by")
    elif settings.trainer["limit_test_batches"] != 0:
        evaluation = run_test(trainer, classifier, data, chosen_split, seen, ckpt_path=path, weights_only=True)
        evaluation = record_test(run, data.source, path.name, evaluation) or evaluation
    result |= evaluation.metrics if evaluation else {}
    write_record(run, best_checkpoint=os.path.relpath(path, run), epochs=trainer.current_epoch, result=result)
    return Fitted(run, result, evaluation)


def _trust(trainer: pl.Trainer, data: ImageData, run: Path, checkpoint: Path, unseen: Unseen) -> None:
    """Calibrate the checkpoint that is kept, and note what its model knows; the first process does, for all."""
    if is_first_process():
        classifier = load_classifier(checkpoint)
        calibrate(run, checkpoint, classifier, unseen)
        remember(run, checkpoint, classifier, data, trainer.current_epoch, frozen=read_record(run).get("mixture") == 0)
    trainer.strategy.barrier()


@contextmanager
def ended_early(run: Path) -> Iterator[None]:
    """Say how to go on where a run is interrupted, or cannot be written any more; the first process does, for all."""
    try:
        with raised():
            yield
    except Ended:
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        number = interruption_of(error).number
        if not is_first_process():
            raise Ended(128 + number) from None
        raise Interrupted(_how_to_go_on(run), number) from None
    except BrokenPipeError:  # what it says, not what it writes
        raise
    except OSError as error:
        if error.filename is None:  # in what Lightning has open
            error.filename = str(run)
        raise SagittaError(f"{remedy_of(error)}; {_how_to_go_on(run)}") from None


@contextmanager
def _diverged(run: Path, whole: Path) -> Iterator[None]:
    """Say how to go on where a training diverges, a member with the run that it belongs to."""
    try:
        yield
    except DivergenceError as error:
        rate = f" {short_name('model.lr')} RATE" if short_name("model.lr") in error.reason else ""
        raise DivergenceError(error.reason, run, f"{_how_to_go_on(whole)}{rate}") from None


def _how_to_go_on(run: Path) -> str:
    if is_begun(run):
        return f"what was done up to its last checkpoint is kept: sagitta fit --resume {run}"
    return f"there is no checkpoint yet; it begins anew with: sagitta fit --resume {run}"


def _trainer(settings: Settings, *, callbacks: Iterable[pl.Callback] = (), **arguments: Any) -> pl.Trainer:
    """Return Lightning's Trainer by the settings and what is given besides.

    Raises:
        ConfigError: Lightning refuses a value, or the machine has no such accelerator.
    """
    given = settings.trainer_arguments()
    own = given.pop("callbacks", None) or []
    own = own if isinstance(own, list) else [own]
    given["enable_model_summary"] = bool(given.get("enable_model_summary"))
    if given.get("enable_progress_bar") is None:
        given["enable_progress_bar"] = sys.stdout.isatty() and sys.stderr.isatty()
    bar = given["enable_progress_bar"] and not any(isinstance(callback, ProgressBar) for callback in own)
    return new_trainer(**given | arguments, callbacks=[*callbacks, *own, *([EpochBar()] if bar else [])])


def validated(run: Path) -> dict[str, float]:
    """Return the metrics of the epoch, and of the validation in it, with the lowest loss on ``val``, or of the last."""
    table = history_table(run).to_pydict()
    epochs = table["epoch"]
    losses = table.get("val_loss", [])
    smoothed = table.get(SMOOTHED, [])
    if [loss is None for loss in smoothed] == [loss is None for loss in losses]:
        losses = smoothed
    known = [row for row, loss in enumerate(losses) if loss is not None]
    best = min(known, key=losses.__getitem__, default=None)
    result = {}
    for name, values in table.items():
        if name.startswith("train_") and not name.endswith("_step"):
            there = [row for row, value in enumerate(values) if value is not None]
            of_epoch = [row for row in there if best is not None and epochs[row] == epochs[best]]
            result[name] = values[(of_epoch or there)[-1]]
        elif name.startswith("val_") and best is not None and values[best] is not None:
            result[name] = values[best]
    return result


def _callbacks(settings: Settings, run: Path | None = None) -> Iterable[pl.Callback]:
    yield StepSeed(settings.seed)
    yield StopDiverged()
    yield PredictionImages()
    yield EpochLines()
    yield Throughput(None if run is None else run / PACE_FILE)
    if settings.ema:  # after PredictionImages: at the end of a validation it puts the last weights back
        yield WeightEMA(settings.ema)
    if settings.patience:
        # Not strict: steps or time may end before the first validation.
        yield EarlyStopping("val_loss", patience=settings.patience, strict=False)


def _loggers(settings: Settings, run: Path) -> Iterable[Logger]:
    names = settings.logger.split(",")
    yield WholeCSVLogger(run, "lightning_logs")
    if "tensorboard" in names:
        yield TensorBoardLogger(run, "tensorboard")
    if "wandb" in names:
        yield WandbLogger(run.name, save_dir=run, project="sagitta")
