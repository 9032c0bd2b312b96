"""Data to a run: a network that is trained, a head on features, or a mean of runs."""

import os
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Literal

from sagitta.clock import extra_counted
from sagitta.errors import ConfigError
from sagitta.models import preload
from sagitta.run import check_free, resumable, weights_file
from sagitta.settings import Settings, Values, check_early, seconds_of, settings_of
from sagitta.verbs.opened import Run
from sagitta.verbs.places import Numbers, PathLike, numbers_text, path_of, plain

if TYPE_CHECKING:
    from sagitta.training import Fitted


_LEAST = 2.0
"""Seconds that a report has at least, whatever time was given."""


def fit(
    source: PathLike | None = None,
    *,
    model: str | None = None,
    pretrained: bool | None = None,
    weights: PathLike | None = None,
    tune: Literal["full", "head", "gradual"] | None = None,
    epochs: int | None = None,
    time: str | None = None,
    lr: float | Literal["auto"] | None = None,
    batch_size: int | Literal["auto"] | None = None,
    image_size: int | None = None,
    patience: int | None = None,
    ema: float | None = None,
    mixup: float | None = None,
    cutmix: float | None = None,
    class_weights: Literal["balanced"] | None = None,
    refit: bool | None = None,
    keep: int | None = None,
    folds: int | None = None,
    seed: int | None = None,
    devices: int | str | Sequence[int] | None = None,
    precision: str | None = None,
    logger: str | None = None,
    val: float | None = None,
    test: float | None = None,
    group: str | None = None,
    range: Numbers = None,
    bands: Numbers = None,
    allow_group_overlap: bool | None = None,
    min_images: int | None = None,
    layout: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    label_separator: str | None = None,
    settings: Settings | Values | PathLike | None = None,
    out: PathLike | None = None,
    resume: PathLike | None = None,
) -> "Run":
    """Train, validate and test a classifier; what is not given is decided by a recipe for the situation.

    The same settings end with the same weights as ``sagitta fit`` does, whose short options these are.

    Args:
        source: a converted dataset, or anything that :func:`convert` takes, converted once into a cache.
        model: network of timm or torchvision.
        pretrained: begin with the weights that timm or torchvision publishes.
        weights: begin with those of a file, a checkpoint or a run.
        tune: what of it is trained.
        epochs: at most so many; 0 leaves the solved head of pretrained weights as it is.
        time: wall time of the whole, such as ``10m``: the best that can be had in it is found by a short list of things
            to try, kept as ``tried`` in the record; instead of ``epochs``, ``folds`` and ``resume``.
        lr: highest learning rate; ``auto`` measures.
        batch_size: images a device and batch; ``auto`` measures.
        image_size: pixels a side.
        patience: epochs without a better val_loss before stopping; 0 never stops early.
        ema: decay of the weights' moving average a step; 0 for none.
        mixup: alpha of MixUp, 0 for none.
        cutmix: likewise of CutMix.
        class_weights: ``balanced`` lets rare classes count more.
        refit: fit a head that is kept as solved to a given ``val``, too; to one that Sagitta made, it always is.
        keep: how many checkpoints of the best epochs are kept (1), their weights alone.
        folds: cross-validate: train and val are divided anew, by class and group, and a member a fold is trained; the
            run predicts with their mean, and its figures of train and val are out of fold.
        seed: of weights, order and augmentation.
        devices: as Lightning's Trainer takes it.
        precision: likewise.
        logger: csv, tensorboard, wandb, or several with commas.
        val: share of rows for val where the source has none.
        test: likewise for test.
        group: table's column whose equal values stay in one split; the next nine as for :func:`convert`.
        range: see there.
        bands: see there.
        allow_group_overlap: see there.
        min_images: see there.
        layout: see there.
        path_column: see there.
        label_column: see there.
        split_column: see there.
        label_separator: see there.
        settings: the basis: settings, any values by dotted names (``{"trainer.max_steps": 100}``), or a YAML file such
            as ``RUN/config.yaml``.
        out: run directory to make; by default the first free ``runs/NAME-1``, ``-2`` and so on.
        resume: run to go on with, in its directory.

    Raises:
        SagittaError: something does not fit together; nothing is left behind then.
    """
    began = monotonic()
    given = {
        "model": model,
        "pretrained": pretrained,
        "weights": plain(weights),
        "tune": tune,
        "epochs": epochs,
        "time": time,
        "lr": lr,
        "batch_size": batch_size,
        "image_size": image_size,
        "patience": patience,
        "ema": ema,
        "mixup": mixup,
        "cutmix": cutmix,
        "class_weights": class_weights,
        "refit": refit,
        "keep": keep,
        "folds": folds,
        "seed": seed,
        "devices": devices,
        "precision": precision,
        "logger": logger,
        "val": val,
        "test": test,
        "group": group,
        "range": numbers_text(range),
        "bands": numbers_text(bands),
        "allow_group_overlap": allow_group_overlap,
        "min_images": min_images,
        "layout": layout,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "label_separator": label_separator,
    }
    run, place = None if resume is None else path_of(resume), None if out is None else path_of(out)
    before = None if run is None else resumable(run)
    from sagitta.training import check_loggers

    early = check_early(plain(source), given, before, settings, data=run is None)
    check_loggers(early["logger"])
    if run is not None and place is not None:
        raise ConfigError(f"--out and --resume: a run is gone on with where it is, in {run}; leave --out away")
    check_free(place)
    if weights is not None and run is None and early["time"] is None:  # else there may be several
        weights_file(path_of(weights))
    preload()
    from sagitta.diagnosis import Glance
    from sagitta.training import fit as fit_settings
    from sagitta.training import fit_folds, fit_in_time, with_data

    chosen = settings_of(plain(source), given, before, settings)
    if run is not None:
        chosen = with_data(run, chosen)
    if chosen.time is not None:
        if run is not None:
            raise ConfigError("--time and --resume: a run that was planned for a time is resumed without it")
        with extra_counted() as extra:
            fitted = fit_in_time(chosen, began, place, look=Glance())
        return _reported(fitted, began, extra.seconds, seconds_of(str(chosen.time)))
    several = chosen.data["folds"] is not None and chosen.data["fold"] is None
    glance = Glance()
    with extra_counted() as extra:
        fitted = (fit_folds if several else fit_settings)(chosen, place, run, look=glance)
        glance.judge(fitted.run)
    return _reported(fitted, began, extra.seconds)


def _reported(fitted: "Fitted", began: float, spent: float, seconds: float | None = None) -> "Run":
    """Return a finished fit as a run with its report; one that was given a time takes no more than is left of it."""
    taken = monotonic() - began
    if fitted.result:  # a fast_dev_run leaves nothing to look at
        from sagitta.reporting import leave_report

        leave_report(fitted.run, taken, None if seconds is None else max(_LEAST, seconds - taken), spent)
    return Run(fitted.run, test=fitted.evaluation)


def probe(
    source: PathLike,
    model: str | Sequence[str],
    *,
    weights: PathLike | Sequence[PathLike | None] | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    val: float | None = None,
    test: float | None = None,
    group: str | None = None,
    range: Numbers = None,
    bands: Numbers = None,
    allow_group_overlap: bool | None = None,
    min_images: int | None = None,
    layout: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    label_separator: str | None = None,
    refit: bool = False,
    embed: bool = False,
    out: PathLike | None = None,
) -> "Run":
    """Fit a linear head on the features of pretrained networks, in seconds; the best becomes a run.

    Args:
        source: as for :func:`fit`.
        model: networks of timm or torchvision: one, several, or several with commas.
        weights: their files or runs, in the same order; None takes the published weights.
        image_size: pixels a side, by default that of the weights.
        batch_size: images at a time, by default what is fast on the device.
        val: as for :func:`fit`, and so the next eleven.
        test: see there.
        group: see there.
        range: see there.
        bands: see there.
        allow_group_overlap: see there.
        min_images: see there.
        layout: see there.
        path_column: see there.
        label_column: see there.
        split_column: see there.
        label_separator: see there.
        refit: fit the head to a ``val`` that the source gives, too; to one that Sagitta made, it always is.
        embed: keep all features as Parquet in the run directory.
        out: run directory to make.

    Raises:
        SagittaError: something does not fit together; nothing is left behind then.
    """
    began = monotonic()
    options = {
        "image_size": image_size,
        "val": val,
        "test": test,
        "group": group,
        "range": numbers_text(range),
        "bands": numbers_text(bands),
        "allow_group_overlap": allow_group_overlap,
        "min_images": min_images,
        "layout": layout,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "label_separator": label_separator,
    }
    named, place = _named(model, weights), None if out is None else path_of(out)
    check_early(plain(source), options | {"batch_size": batch_size})
    check_free(place)
    for _, file in named:
        if file is not None:
            weights_file(path_of(file))
    preload()
    from sagitta.diagnosis import Glance
    from sagitta.reporting import leave_report
    from sagitta.training import Candidate, probe_run

    candidates = [Candidate(name, file) for name, file in named]
    settings = settings_of(plain(source), options)
    images = settings_of(plain(source), {"batch_size": batch_size}).get("data.batch_size")
    if images == "auto":
        raise ConfigError("--batch-size auto: leave it out, and what is fast on the device is taken")
    glance = Glance()
    with extra_counted() as extra:
        path = probe_run(settings, candidates, place, batch_size=images, refit=refit, embed=embed, look=glance)
        glance.judge(path)
    leave_report(path, monotonic() - began, None, extra.seconds)
    return Run(path)


def _named(
    model: str | Sequence[str], weights: PathLike | Sequence[PathLike | None] | None
) -> list[tuple[str, str | None]]:
    """Return the networks with their weights, matched by order; those without a file take the published weights."""
    listed = [weights] if weights is None or isinstance(weights, str | os.PathLike) else weights
    try:
        names = [name for name in (model.split(",") if isinstance(model, str) else map(os.fspath, model)) if name]
        files = [file or None for each in listed for file in (os.fspath(each).split(",") if each else [None])]
    except TypeError:
        raise ConfigError(
            f"model {model!r}, weights {weights!r}: give names of networks, and files in their order"
        ) from None
    files = [] if files == [None] else files
    if not names or len(files) > len(names):
        raise ConfigError(f"--model names {len(names)} networks and --weights {len(files)} files; give one for each")
    files += [None] * (len(names) - len(files))
    return list(zip(names, files, strict=True))


def ensemble(runs: Sequence[PathLike], *, out: PathLike | None = None) -> "Run":
    """Make some runs one that averages their probabilities; returns it, tested on the data of the first.

    The weights are found on rows that none of the runs was trained on, and are equal where that is not surely better.

    Args:
        runs: at least two, of the same classes; networks and image sizes may differ.
        out: run directory to make, which holds copies of the checkpoints; by default ``runs/ensemble-1`` and so on.

    Raises:
        SagittaError: the runs do not fit together; nothing is left behind then.
    """
    began = monotonic()
    if isinstance(runs, str | os.PathLike):
        raise ConfigError("an ensemble needs at least two runs: give a list of them")
    places, target = [path_of(run) for run in runs], None if out is None else path_of(out)
    from sagitta.training import check_several

    check_several(places, target)
    preload()
    from sagitta.reporting import leave_report
    from sagitta.training import ensemble as make_ensemble

    made = make_ensemble(places, target)
    leave_report(made.run, monotonic() - began)
    return Run(made.run, test=made.evaluation)
