"""What Sagitta does, one function a command, and a run that was opened.

Nothing here ends the process or prints a result: an error is a :class:`sagitta.SagittaError`, and what is returned
shows itself in a notebook. While something long runs, a few lines say how far it is.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from sagitta.errors import ConfigError
from sagitta.settings import Settings, Values, keys_of, seconds_of, settings_of
from sagitta.terminal import show

if TYPE_CHECKING:
    import pyarrow as pa

    from sagitta.dataset import ShardSet, Verified
    from sagitta.diagnosis import Findings
    from sagitta.evaluation import Evaluation, Explanations
    from sagitta.models import Classifier
    from sagitta.training import Fitted

PathLike = str | Path
Numbers = str | int | Sequence[float] | None
"""``LOW,HIGH``, ``auto`` or ``3,2,1`` as on the command line, or the numbers."""
_LEAST = 2.0
"""Seconds that a report has at least, whatever time was given."""


def convert(
    source: PathLike,
    out: PathLike,
    *,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    group: str | None = None,
    layout: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    label_separator: str | None = None,
    resize: int | None = None,
    quality: int | None = None,
    range: Numbers = None,
    bands: Numbers = None,
    restart_markers: bool = False,
    shard_size: int | None = None,
    workers: int | None = None,
    on_bad: Literal["quarantine", "fail"] | None = None,
    min_images: int | None = None,
    allow_group_overlap: bool = False,
    drop_duplicates: bool = False,
    fix: PathLike | None = None,
) -> "ShardSet":
    """Turn images into a dataset of standard Parquet that every tool opens; returns it, open.

    Args:
        source: folder, archive, table, ``hf://USER/NAME`` or a built-in name.
        out: the folder to make.
        val: share of rows for val where the source has none (0.1).
        test: likewise for test (0.1 where no split is given).
        seed: of the stratified split.
        group: table's column whose equal values stay in one split.
        layout: how the source is laid out, where the detection is wrong.
        path_column: table's column with the file; likewise the next two with class and split.
        label_column: see there.
        split_column: see there.
        label_separator: between several labels in one cell; empty for one label; detected by default.
        resize: make the shorter side so many pixels long; never enlarges.
        quality: JPEG quality, 1 to 100, of re-encoded images.
        range: the values of samples of more than 8 bits that become black and white, such as ``(0, 4095)``; ``auto``
            takes the data's percentiles.
        bands: one or three of the stored bands, as grey or as red, green and blue, such as ``(3, 2, 1)``.
        restart_markers: let training decode only the tiles of a JPEG that a crop needs; lossless.
        shard_size: bytes.
        workers: processes; all cores by default. Never changes the output.
        on_bad: quarantine images that are unreadable or missing, or fail; by default only the missing ones of a table
            are refused.
        min_images: leave out classes with fewer readable images.
        allow_group_overlap: take given splits though a group has rows in several of them.
        drop_duplicates: leave out all but one of the images of equal pixels; of several splits, those of test stay,
            then those of val.
        fix: reviewed findings of :func:`doctor`: rows of action ``drop`` and ``relabel`` are done.

    Raises:
        SagittaError: the source cannot be read or split, or ``out`` exists.
    """
    from sagitta.conversion import ConvertOptions
    from sagitta.conversion import convert as convert_source
    from sagitta.dataset import ShardSet
    from sagitta.files import user_cache
    from sagitta.sources import SourceOptions, open_source

    target = _path(out)
    columns = SourceOptions(
        layout=layout, label_column=label_column, label_separator=label_separator, path_column=path_column,
        split_column=split_column, group_column=group, keep_missing=on_bad == "quarantine",
    )  # fmt: skip
    size: dict[str, Any] = {} if shard_size is None else {"shard_size": shard_size}
    options = ConvertOptions(
        val=val, test=test, seed=seed, resize=resize, quality=quality, range=_text(range), bands=_text(bands),
        restart_markers=restart_markers,
        workers=workers, on_bad=on_bad, min_images=min_images, allow_group_overlap=allow_group_overlap,
        drop_duplicates=drop_duplicates, fix=None if fix is None else str(_path(fix)), **size,
    )  # fmt: skip
    opened = open_source(str(source), columns, cache=user_cache())
    show(opened.describe())
    convert_source(opened, target, options, progress=True)
    return ShardSet.open(target)


def verify(dataset: PathLike) -> "Verified":
    """Make sure that a converted dataset is what was written, to the last bit; returns how much that is.

    Raises:
        DatasetError: something is damaged: names the file, the row or column where that is known, and what to do. Where
            there is more than one, each has been printed on a line of its own.
    """
    from sagitta.dataset import verify as read_all
    from sagitta.errors import DatasetError

    found = read_all(_path(dataset), show=True)
    if len(found.damage) > 1:
        for line in found.damage:
            show(line)
    if found.damage:
        raise DatasetError(str(found))
    return found


def doctor(
    source: PathLike,
    *,
    model: str | None = None,
    pretrained: bool = False,
    weights: PathLike | None = None,
    run: "PathLike | Run | None" = None,
    image_size: int | None = None,
    out: PathLike | None = None,
    sheet: PathLike | None = None,
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
) -> "Findings":
    """Look for what is wrong with a dataset: leaks, copies, odd images, cues, label errors; returns it, worst first.

    Args:
        source: a converted dataset, or anything that :func:`convert` takes, converted once into a cache.
        model: network of timm or torchvision, by whose features label errors are looked for.
        pretrained: with the weights that timm or torchvision publishes.
        weights: with those of a file, a checkpoint or a run.
        run: with the network and the weights of a run, in place of the last three.
        image_size: pixels a side of its input, by default that of the weights.
        out: file for the findings, ``.csv`` or ``.parquet``.
        sheet: PNG to write, of the worst of each kind.
        val: as for :func:`fit`, and so the next ten.
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

    Raises:
        SagittaError: the source cannot be read, or the network does not fit.
    """
    from sagitta.diagnosis import check_name, examine, findings_sheet
    from sagitta.evaluation import quiet
    from sagitta.files import check_place

    for place in (out, sheet):
        if place is not None:
            check_place(_path(place))
    if out is not None:
        check_name(_path(out))
    candidate = _looked_through(model, _plain(weights), _plain(run), pretrained=pretrained)
    options = {
        "val": val,
        "test": test,
        "group": group,
        "range": _text(range),
        "bands": _text(bands),
        "allow_group_overlap": allow_group_overlap,
        "min_images": min_images,
        "layout": layout,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "label_separator": label_separator,
    }
    with quiet():
        data = settings_of(source, options).image_data(verbose=True)
        data.prepare_data()
        data.setup()
        findings = examine(data, candidate, image_size=image_size, verbose=True)
    if out is not None:
        findings.write(_path(out))
    if sheet is not None:
        findings_sheet(findings, data.shards, _path(sheet))
    return findings


def _looked_through(model: str | None, weights: str | None, run: str | None, *, pretrained: bool) -> Any:
    """Return the network by whose features label errors are looked for, or None where none is named."""
    from sagitta.models import open_weights
    from sagitta.training import Candidate

    if run is not None:
        if model is not None or weights is not None or pretrained:
            raise ConfigError("--run names network and weights; leave --model, --weights and --pretrained out")
        return Candidate(open_weights(run).model(), run)
    if weights is not None:
        if pretrained:
            raise ConfigError("pretrained and weights: give one of the two")
        return Candidate(open_weights(weights).model() if model is None else model, weights)
    if model is None and pretrained:
        raise ConfigError("--pretrained: of which network? Give its name with --model")
    if model is not None and not pretrained:
        raise ConfigError(f"--model {model}: of which weights? Give --weights FILE, or --pretrained")
    return None if model is None else Candidate(model)


def fit(
    source: PathLike | None = None,
    *,
    model: str | None = None,
    pretrained: bool | None = None,
    weights: "PathLike | Run | None" = None,
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
    resume: "PathLike | Run | None" = None,
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
    from sagitta.diagnosis import Glance
    from sagitta.training import fit as fit_settings
    from sagitta.training import fit_folds, fit_in_time, resumable, with_data

    given = {
        "model": model,
        "pretrained": pretrained,
        "weights": _plain(weights),
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
        "range": _text(range),
        "bands": _text(bands),
        "allow_group_overlap": allow_group_overlap,
        "min_images": min_images,
        "layout": layout,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "label_separator": label_separator,
    }
    run = None if resume is None else _path(resume)
    before = None if run is None else resumable(run)
    chosen = settings_of(source, given, before, settings)
    if run is not None:
        if out is not None:
            raise ConfigError(f"--out and --resume: a run is gone on with where it is, in {run}; leave --out away")
        chosen = with_data(run, chosen)
    if chosen.time is not None:
        if run is not None:
            raise ConfigError("--time and --resume: a run that was planned for a time is resumed without it")
        fitted = fit_in_time(chosen, began, None if out is None else _path(out), look=Glance())
        return _reported(fitted, began, seconds_of(str(chosen.time)))
    several = chosen.data["folds"] is not None and chosen.data["fold"] is None
    glance = Glance()
    fitted = (fit_folds if several else fit_settings)(chosen, None if out is None else _path(out), run, look=glance)
    glance.judge(fitted.run)
    return _reported(fitted, began)


def _reported(fitted: "Fitted", began: float, seconds: float | None = None) -> "Run":
    """Return a finished fit as a run with its report; one that was given a time takes no more than is left of it."""
    taken = monotonic() - began
    if fitted.result:  # a fast_dev_run leaves nothing to look at
        from sagitta.reporting import leave_report

        leave_report(fitted.run, taken, None if seconds is None else max(_LEAST, seconds - taken))
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
    from sagitta.diagnosis import Glance
    from sagitta.reporting import leave_report
    from sagitta.training import probe_run

    options = {
        "image_size": image_size,
        "val": val,
        "test": test,
        "group": group,
        "range": _text(range),
        "bands": _text(bands),
        "allow_group_overlap": allow_group_overlap,
        "min_images": min_images,
        "layout": layout,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "label_separator": label_separator,
    }
    candidates = _candidates(model, weights)
    settings = settings_of(source, options)
    images = settings_of(source, {"batch_size": batch_size}).get("data.batch_size")
    if images == "auto":
        raise ConfigError("--batch-size auto: leave it out, and what is fast on the device is taken")
    glance, place = Glance(), None if out is None else _path(out)
    path = probe_run(settings, candidates, place, batch_size=images, refit=refit, embed=embed, look=glance)
    glance.judge(path)
    leave_report(path, monotonic() - began)
    return Run(path)


def _candidates(model: str | Sequence[str], weights: PathLike | Sequence[PathLike | None] | None) -> list[Any]:
    """Return the networks with their weights, matched by order; those without a file take the published weights."""
    from sagitta.training import Candidate

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
    return [Candidate(name, file) for name, file in zip(names, files, strict=True)]


def ensemble(runs: "Sequence[PathLike | Run]", *, out: PathLike | None = None) -> "Run":
    """Make some runs one that averages their probabilities; returns it, tested on the data of the first.

    The weights are found on rows that none of the runs was trained on, and are equal where that is not surely better.

    Args:
        runs: at least two, of the same classes; networks and image sizes may differ.
        out: run directory to make, which holds copies of the checkpoints; by default ``runs/ensemble-1`` and so on.

    Raises:
        SagittaError: the runs do not fit together; nothing is left behind then.
    """
    began = monotonic()
    from sagitta.reporting import leave_report
    from sagitta.training import ensemble as make_ensemble

    if isinstance(runs, str | os.PathLike):
        raise ConfigError("an ensemble needs at least two runs: give a list of them")
    made = make_ensemble([_path(run) for run in runs], None if out is None else _path(out))
    leave_report(made.run, monotonic() - began)
    return Run(made.run, test=made.evaluation)


def evaluate(
    run: "PathLike | Run",
    source: PathLike | None = None,
    *,
    split: Literal["train", "val", "test"] | None = None,
    batch_size: int | None = None,
    devices: int | str | Sequence[int] = "auto",
    flip: bool = False,
    layout: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    label_separator: str | None = None,
) -> "Evaluation":
    """Evaluate a run's best checkpoint, or a checkpoint file; classes are matched by name, or refused.

    Other data than the run's is never divided: every image of it counts, or every one of the split that is chosen.
    Each test is recorded in the run's directory, whose report is written anew; but for one of ``val``. What is returned
    says in ``tested`` what was evaluated, and how many of the images the model was trained on.

    Args:
        run: run directory or checkpoint file.
        source: other data than the run's own: a folder of test images, or anything that :func:`convert` takes.
        split: of data that has several; by default ``test``, or ``val``, and figures named so, where there is no test.
        batch_size: images a device and batch (64).
        devices: as Lightning's Trainer takes it.
        flip: take the mean of the probabilities of each image and its mirror image.
        layout: as for :func:`convert`, and so the next four.
        path_column: see there.
        label_column: see there.
        split_column: see there.
        label_separator: see there.

    Raises:
        SagittaError: there is no such run, the data cannot be read, or has classes that the model does not know.
    """
    began = monotonic()
    from sagitta.evaluation import evaluate as evaluate_run
    from sagitta.reporting import leave_report

    options = {
        "batch_size": batch_size,
        "layout": layout,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "label_separator": label_separator,
    }
    where, purpose = None if source is None else str(source), "val" if split == "val" else "test"
    how: dict[str, Any] = {"purpose": purpose, "devices": devices, "flip": flip}
    evaluation = evaluate_run(_path(run), where, split, keys_of(options), **how)
    if evaluation.folder is not None:
        leave_report(evaluation.folder.parents[1], monotonic() - began)
    return evaluation


def predict(
    run: "PathLike | Run",
    paths: PathLike | Sequence[PathLike],
    *,
    top_k: int = 5,
    every: bool = False,
    embed: bool = False,
    columns: str | None = None,
    split: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str | None = None,
    flip: bool = False,
    accuracy: float | None = None,
    coverage: float | None = None,
) -> Any:
    """Classify images; returns one row an image with class, probability and the runners-up.

    A pandas DataFrame where pandas is installed, else an Arrow table; the columns are those of
    :func:`sagitta.evaluation.predict`.

    Args:
        run: run directory or checkpoint file.
        paths: image files, folders of them, patterns such as ``photos/**/*.jpg``, tars and zips, or datasets.
        top_k: how many classes a row.
        every: a column ``p:CLASS`` for the probability of every class.
        embed: a column ``features``: what the network's last layer is given.
        columns: a template in place of the usual columns, such as ``id,label``.
        split: of datasets, all by default.
        batch_size: images at a time, by default what is fast on the device.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        precision: as Lightning names it; by default that of the training, and on a CPU float32.
        flip: take the mean of the probabilities of each image and its mirror image.
        accuracy: to be reached by what is answered, such as 0.99; ``abstain`` says where there is no answer.
        coverage: share of images whose class is in ``set``, such as 0.9.

    Raises:
        SagittaError: there is no such run or file, no image is readable, or what is asked for cannot be promised.
    """
    how: dict[str, Any] = {
        "top_k": top_k, "every": every, "embed": embed, "columns": columns, "split": split, "batch_size": batch_size,
        "device": device, "precision": precision, "flip": flip, "accuracy": accuracy, "coverage": coverage,
    }  # fmt: skip
    table = predict_table(run, paths, **how)
    return table.to_pandas() if find_spec("pandas") else table


def explain(
    run: "PathLike | Run", paths: PathLike | Sequence[PathLike], *, class_name: str | None = None, nearest: int = 5
) -> "Explanations":
    """Show what speaks for a class in images, and the training images that are most like them; in a notebook, pictures.

    Args:
        run: run directory or checkpoint file.
        paths: as for :func:`predict`.
        class_name: by default the most probable one, and of several labels each that is given.
        nearest: how many training images of each; 0 looks for none.

    Raises:
        SagittaError: there is no such run, class or file, no image is readable, or the network has no positions.
    """
    from sagitta.evaluation import explain as explain_images

    found, notes = explain_images(_path(run), _listed(paths), class_name=class_name, nearest=nearest)
    for note in notes:
        show(note)
    return found


def predict_table(
    run: "PathLike | Run", paths: PathLike | Sequence[PathLike], *, split: str | None = None, **asked: Any
) -> "pa.Table":
    """Do what :func:`predict` does, as an Arrow table.

    Raises:
        SagittaError: as :func:`predict`.
    """
    from sagitta.evaluation import Asked
    from sagitta.evaluation import predict as predict_images

    return predict_images(_path(run), _listed(paths), Asked(**asked), split=split)


def _listed(paths: Any) -> list[str | Path]:
    """Return one path or several as a list, as they were given: a text may be a pattern.

    Raises:
        ConfigError: something else was given, such as an open image.
    """
    try:
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        return [path if isinstance(path, str) else Path(path) for path in given]
    except TypeError:
        kind = type(paths).__name__
        raise ConfigError(f"paths of type {kind}: give a file, a folder, or a list of files and folders") from None


def report(
    runs: "PathLike | Run | Sequence[PathLike | Run]", *, out: PathLike | None = None, images: bool = True
) -> Path:
    """Write one HTML page about a run, or about several side by side; returns the file, which loads nothing.

    Several runs are compared on the images that they were tested on: scores with intervals, paired tests, and where
    they disagree. A part that has nothing to show says why in one line.

    Args:
        runs: a run, or several.
        out: the file; by default ``report.html`` in the run, and of several ``comparison.html`` beside the first.
        images: show pictures of the data; without them the page can be shared where the data cannot.

    Raises:
        ConfigError: there is no such run, one is named twice, or ``out`` is a file that is no report.
    """
    from sagitta.reporting import write_report

    return write_report(_runs(runs), None if out is None else _path(out), images)


def figures(runs: "PathLike | Run | Sequence[PathLike | Run]", folder: PathLike, *, images: bool = True) -> list[Path]:
    """Write each figure of a report as SVG and PNG, and the table in Markdown and LaTeX; returns the files.

    PNG needs ``resvg-py``: ``pip install 'sagitta[report]'``; without it there are the SVG alone.

    Args:
        runs: a run, or several, whose figures lie in a folder each.
        folder: is made if need be.
        images: write a picture of the worst mistakes, too.

    Raises:
        ConfigError: there is no such run.
    """
    from sagitta.reporting import write_figures

    return write_figures(_runs(runs), _path(folder), images=images)


def _runs(runs: Any) -> list[Path]:
    return [_path(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]


@dataclass(frozen=True)
class Run:
    """A run directory, opened.

    Attributes:
        path: the directory.
        test: the test that ended the fit, in full, of val where there is no test set; None for a run that was opened
            again.

    Raises:
        ConfigError: there is no run in ``path``.
    """

    path: Path
    test: "Evaluation | None" = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        from sagitta.run import RUN_FILE

        object.__setattr__(self, "path", _path(self.path))
        if not (self.path / RUN_FILE).is_file():
            raise ConfigError(f"{self.path}: no such run; a run directory holds {RUN_FILE}")

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def record(self) -> dict[str, Any]:
        """``run.json``: command, versions, hardware, seed, dataset, result."""
        from sagitta.run import read_record

        return read_record(self.path)

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics by their logged names, such as ``test_acc``."""
        return dict(self.record.get("result", {}))

    @property
    def class_names(self) -> tuple[str, ...]:
        """What each output means, in label order."""
        return tuple(self.record["dataset"]["class_names"])

    @property
    def settings(self) -> Settings:
        """The resolved settings; ``fit(settings=run.settings)`` repeats the run."""
        from sagitta.run import CONFIG_FILE

        return Settings.read(self.path / CONFIG_FILE)

    @property
    def history(self) -> "pa.Table":
        """What was logged: ``step``, ``epoch`` and a column for each metric, null where a step has none of it."""
        from sagitta.run import history_table

        return history_table(self.path)

    def classifier(self) -> "Classifier":
        """Return the best checkpoint's model, or the mean of the members, on the CPU, in evaluation mode.

        Raises:
            ConfigError: the run has no checkpoint, or members that read images in different ways.
        """
        from sagitta.evaluation import one_classifier

        return one_classifier(self.path)

    def predict(self, paths: PathLike | Sequence[PathLike], **how: Any) -> Any:
        """Classify images, see :func:`sagitta.predict`."""
        return predict(self, paths, **how)

    def explain(
        self, paths: PathLike | Sequence[PathLike], *, class_name: str | None = None, nearest: int = 5
    ) -> "Explanations":
        """Show what speaks for a class in images, see :func:`sagitta.explain`."""
        return explain(self, paths, class_name=class_name, nearest=nearest)

    @property
    def report_file(self) -> Path | None:
        """The page about the run, if it is there."""
        from sagitta.run import REPORT_FILE

        return path if (path := self.path / REPORT_FILE).is_file() else None

    def report(self, *, out: PathLike | None = None, images: bool = True) -> Path:
        """Write the page about the run, see :func:`sagitta.report`."""
        return report(self, out=out, images=images)

    def figures(self, folder: PathLike, *, images: bool = True) -> list[Path]:
        """Write the figures of the report, see :func:`sagitta.figures`."""
        return figures(self, folder, images=images)

    def evaluate(
        self, source: PathLike | None = None, *, split: Literal["train", "val", "test"] | None = None
    ) -> "Evaluation":
        """Evaluate on the run's own data or on others, see :func:`sagitta.evaluate`."""
        return evaluate(self, source, split=split)

    def text(self) -> str:
        """Return run history and run summary; after a fit the test in full, after a probe the table of networks."""
        from sagitta.run import history

        record = self.record
        told = {"probe", "out_of_fold", "ensemble"}
        parts = [history(self.path, self.metrics)] if told.isdisjoint(record) else []
        if "ensemble" in record:
            from sagitta.training import ensemble_text

            parts.append(ensemble_text(record["ensemble"]))
        if "out_of_fold" in record:
            from sagitta.training import folds_text

            parts.append(folds_text(record["out_of_fold"]))
        if "tried" in record:
            from sagitta.training import tried_text

            parts.append(f"\nTried in {record['time']}\n{tried_text(record['tried'])}")
        if "probe" in record:
            from sagitta.training import probe_notes, probe_text

            parts.append(probe_text(record["probe"]))
            parts += probe_notes(record["probe"])
        if self.test is not None:
            what = "Test" if "test_loss" in self.test.metrics else "Validation"
            parts.append(f"\n{what}, with 95 % intervals\n{self.test.text()}")
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        from sagitta.run import sparklines

        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{value:.4f}</td><td style='text-align:left'>{lines}</td></tr>"
            for name, value, lines in ((n, v, sparklines(self.path).get(n, "")) for n, v in self.metrics.items())
        )
        names = self.class_names
        shown = ", ".join(map(escape, names[:10])) + (", …" if len(names) > 10 else "")
        title = f"<b>{escape(str(self.path))}</b>: {len(names)} classes ({shown})"
        return f"{title}<table><tr><th>metric</th><th>value</th><th>course</th></tr>{rows}</table>"


def _plain(run: "PathLike | Run | None") -> Any:
    return None if run is None else str(run.path if isinstance(run, Run) else run)


def _path(place: Any) -> Path:
    """Return where a run is, or anything else on disk.

    Raises:
        ConfigError: it is neither a path nor a run, or its name is not UTF-8, which no record could hold.
    """
    try:
        path = Path(place)
    except TypeError:
        raise ConfigError(f"{place!r} of type {type(place).__name__}: give a path, or a Run") from None
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{str(path)!a}: the name is not valid UTF-8; name another, or rename it") from None
    return path


def _text(numbers: Numbers) -> str | None:
    if numbers is None or isinstance(numbers, str):
        return numbers
    return ",".join(map(str, numbers)) if isinstance(numbers, Iterable) else str(numbers)
