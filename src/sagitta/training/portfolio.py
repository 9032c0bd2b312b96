"""`sagitta fit --time 10m`: the best classifier that can be had in a wall time, by a short list of things to try.

With pretrained weights, from the cheapest on, each only where what was measured says that it fits:

1. the head, solved on the features of images as large as those of the weights; where ``--model A,B`` names several
   networks, of each, and the one of the lowest log loss of rows that the heads have not seen goes on;
2. its head for larger images, one size after the other until one is not surely better: by this loss, and more than one
   standard error of the paired difference;
3. all weights, fine-tuned from the best of them for as many epochs as fit, see :mod:`sagitta.training.headfirst`: the
   head is kept where that gained nothing.

From scratch there is the recipe, with as many epochs as fit. What becomes the run is an ordinary one, whose
``config.yaml`` repeats it without a clock; ``tried`` of ``run.json`` says what was tried, and what it was worth.
"""

import itertools
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np

from sagitta.dataset import plural
from sagitta.errors import ConfigError
from sagitta.evaluation import quiet
from sagitta.loading import ImageData
from sagitta.models import Classifier, Floats, dry_run, extract, prepare
from sagitta.run import BEGAN, check_free, read_record, write_record
from sagitta.settings import Settings, device_of, seconds_of, short_name
from sagitta.terminal import table
from sagitta.training.checks import Look, check_splits
from sagitta.training.divergence import DivergenceError
from sagitta.training.fitting import Fitted, check_before_conversion, fit, trial_of, validated
from sagitta.training.head import estimate, log_losses, surely_better
from sagitta.training.headfirst import VALIDATIONS, check_first_weights, solvable
from sagitta.training.pace import CAREFUL, Clock, Deadline, Pace, measure, plan_epochs, seconds_after
from sagitta.training.solving import features_for, solve
from sagitta.training.watch import say, say_core

_LARGER, _SMALLER = (1.25, 1.5), (0.75, 0.5)  # times the side of the weights' images
_MULTIPLE = 32  # of pixels, which every network takes
_SHARE = 1 / 3  # of the time that is left, which the features of larger images may take
_LONG, _LONGER = 2, 4  # times the epochs of the recipe, at most: of pretrained weights, and from scratch
_BATCHES = 8  # by which the pace of features is measured
_TRIAL = 0.05  # share of the time that a trial may take
_REST = 0.1  # likewise of what comes behind the features, where there is nothing else

_NO_EPOCH: dict[str, Any] = {"trainer.max_epochs": 0}

_CLASHING = {
    "trainer.max_epochs": None,
    "trainer.max_steps": -1,
    "trainer.max_time": None,
    "trainer.fast_dev_run": False,
    "trainer.limit_train_batches": None,
    "data.folds": None,
}
"""Settings that say how long to train, and their values where nobody has set them."""


@dataclass(frozen=True)
class _Made:
    """Data and model by some settings.

    Attributes:
        settings: with what is open.
        resolved: with nothing open.
        data: set up.
        classifier: prepared for it.
    """

    settings: Settings
    resolved: Settings
    data: ImageData
    classifier: Classifier

    @property
    def begun(self) -> bool:
        """Whether it does not begin from scratch."""
        return self.settings.model["pretrained"] or self.settings.model["weights"] is not None

    @property
    def size(self) -> int:
        return max(self.data.preprocessing.size)

    def rows(self, *splits: str) -> int:
        return sum(len(self.data.shards.splits.get(name, ())) for name in splits)


@dataclass(frozen=True)
class _Judged:
    """A solved head: what it says of rows that it has not seen, and what it took.

    Attributes:
        made: what it stands in.
        losses: (N,) log loss of each such row, of ``train`` out of fold and of ``val``.
        rate: images a second whose features were computed; None where all were in the cache.
        seconds: in all.
        head_seconds: of these, for the head alone.
        val_loss: of ``val``.
        val_acc: likewise.
    """

    made: _Made
    losses: Floats
    rate: float | None
    seconds: float
    head_seconds: float
    val_loss: float
    val_acc: float


def fit_in_time(settings: Settings, began: float, out: Path | None = None, *, look: Look | None = None) -> Fitted:
    """Fit the best that ``settings.time`` is long enough for.

    Args:
        settings: see :func:`sagitta.training.fit`; how long to train is not among them. Model and weights may be
            several, with commas and in the same order.
        began: when the clock began, by :func:`time.monotonic`, unless a command began earlier.
        out: run directory to make.
        look: see :func:`sagitta.training.fit`.

    Raises:
        ConfigError: another setting says how long to train, or several devices are asked for.
        SagittaError: as :func:`sagitta.training.fit`; there is no run directory then.
    """
    clock = Clock(seconds_of(str(settings.time)), BEGAN.get() or began)
    _check(settings)
    check_free(out)
    settings, given = settings.changed({"time": None}), settings.time
    with quiet():
        networks = _networks(settings)
        for each in networks:
            trial = trial_of(each)
            check_before_conversion(each, None, trial)
            if trial.num_devices * trial.num_nodes > 1:
                raise ConfigError("--time: what is tried is measured on one device; give --devices 1")
        say_core()
        made = _make(networks[0], verbose=True)
        heads, best = _solve_heads(made, networks[1:], clock)
        chosen = made if best is None else best.made
        changes, deadline = _plan(chosen, best, clock)
        before = clock.left
        fitted = _fit(chosen.settings, changes, out, deadline, look, solved=best is not None)
    tried = _tried(fitted.run, heads, best, chosen, deadline.epochs, before - clock.left)
    write_record(fitted.run, time=given, tried=tried)
    if clock.left < 0:
        say(f"time:  {-clock.left:.0f} s more than the {given} that were given")
    return fitted


def _fit(
    settings: Settings,
    changes: Mapping[str, Any],
    out: Path | None,
    deadline: Deadline,
    look: Look | None,
    *,
    solved: bool,
) -> Fitted:
    """Return the fit by the plan; where that diverges, what is there without it: a solved head.

    Raises:
        DivergenceError: there is none.
    """
    try:
        return fit(settings.changed(changes), out, callbacks=[deadline], look=look, verbose=False)
    except DivergenceError as error:
        if not solved or error.run is None:
            raise
        say(f"time:  fine-tuning diverged, so the head is kept: {error.reason}")
        shutil.rmtree(error.run)
        return fit(settings.changed(_NO_EPOCH), out, look=look, verbose=False)


def _check(settings: Settings) -> None:
    """Refuse what contradicts, and what would be measured at the cost of an unknown time."""
    for key, usual in _CLASHING.items():
        if settings.get(key) != usual:
            raise ConfigError(f"--time and {short_name(key)} both say how long to train; leave one of them out")
    for key in ("data.batch_size", "model.lr"):
        if settings.get(key) == "auto":
            raise ConfigError(f"--time and {short_name(key)} auto: that takes a time of its own; give a number or none")


def _networks(settings: Settings) -> list[Settings]:
    """Return the settings of each network that is named."""
    names, weights = settings.model["name"].split(","), settings.model["weights"]
    if len(names) == 1:
        return [settings]
    files = [None] * len(names) if weights is None else weights.split(",")
    if len(files) != len(names):
        raise ConfigError(f"--model names {len(names)} networks and --weights {len(files)} files; give one for each")
    if weights is None and not settings.model["pretrained"]:
        raise ConfigError("--model: several networks are compared by their weights; give --pretrained or --weights")
    return [
        settings.changed({"model.name": name, "model.weights": file}) for name, file in zip(names, files, strict=True)
    ]


def _make(settings: Settings, *, verbose: bool = False) -> _Made:
    """Return data and model, as a fit would make them.

    Raises:
        ConfigError: they do not fit together.
    """
    data = settings.image_data(verbose=verbose)
    data.prepare_data()
    data.setup("fit")
    check_splits(settings, data)
    resolved = settings.resolve(data.shards)
    resolved.apply_to(data)
    pl.seed_everything(settings.seed, verbose=False)
    classifier = Classifier(**resolved.model, seed=settings.seed)
    classifier.prepare(data, device=device_of(settings.trainer["accelerator"]))
    check_first_weights(resolved.model["weights"], classifier, data, verbose=False)  # the fit will say it
    dry_run(classifier, data.batch_size)
    return _Made(settings, resolved, data, classifier)


def _solve_heads(made: _Made, others: Sequence[Settings], clock: Clock) -> tuple[list[_Judged], _Judged | None]:
    """Return the heads that were solved and the best one: none from scratch, and of weights that bring a head.

    Args:
        made: of the first network.
        others: settings of further ones.
        clock: it ends the list, but for the first head.
    """
    if not solvable(made.data, made.classifier):
        return [], None
    heads = [_solve_first(made, clock)]
    heads += filter(None, (_solve_if_it_fits(settings, 0.0, clock) for settings in others))
    best = min(heads, key=lambda head: float(head.losses.mean()))
    for size in [] if made.settings.data["image_size"] else _sides(best.made.size, _LARGER):
        cost = 0.0 if best.rate is None else best.made.rows("train", "val") / best.rate * (size / best.made.size) ** 2
        larger = _solve_if_it_fits(best.made.settings.changed({"data.image_size": size}), cost, clock)
        if larger is None:
            break
        heads.append(larger)
        if not surely_better(larger.losses, best.losses):
            if larger.losses.mean() < best.losses.mean():
                say(f"time:  images of {size} pixels are better by less than one standard error, so smaller ones stay")
            break
        best = larger
    return heads, best


def _solve_first(made: _Made, clock: Clock) -> _Judged:
    """Return the head on images as large as those of the weights, or on smaller ones where only these fit."""
    began = time.monotonic()
    rate, seconds = _forecast(made, clock)
    left = clock.left - _REST * clock.seconds
    if (short := seconds - left) > 0:
        sizes = [] if made.settings.data["image_size"] else _sides(made.size, _SMALLER)
        fitting = [size for size in sizes if seconds * (size / made.size) ** 2 < left]
        say(
            f"time:  the features of images of {made.size} pixels take about {short:.1f} s more than are left; "
            + (f"those of {max(fitting)} fit" if fitting else "it is the least that gives a classifier")
        )
        if fitting:
            made = _make(made.settings.changed({"data.image_size": max(fitting)}))
            rate, _ = _forecast(made, clock)
    return _solve(made, rate, began)


def _solve_if_it_fits(settings: Settings, cost: float, clock: Clock) -> _Judged | None:
    """Return the head of another network or size; None where it would take too much of the time, or cannot be.

    Args:
        settings: of it.
        cost: seconds that its features may be expected to take; 0 where nothing is known of them.
        clock: see there.
    """
    began = time.monotonic()
    what = f"{settings.model['name']} on images of {settings.data['image_size'] or 'its own'} pixels"
    if clock.left <= 0 or cost > _SHARE * clock.left:
        say(f"time:  {what}: not tried, about {cost:.1f} of {max(0, clock.left):.1f} s")
        return None
    try:
        made = _make(settings)
    except ConfigError as error:
        say(f"time:  {what}: not tried, {error}")
        return None
    if not solvable(made.data, made.classifier):
        return None
    rate, cost = _forecast(made, clock)
    if cost > _SHARE * clock.left:
        say(f"time:  {what}: not tried, about {cost:.1f} of {max(0, clock.left):.1f} s")
        return None
    return _solve(made, rate, began)


def _sides(size: int, times: Sequence[float]) -> list[int]:
    """Return other sides of images in pixels, in the order of ``times``."""
    sides = dict.fromkeys(max(1, round(size * each / _MULTIPLE)) * _MULTIPLE for each in times)
    return [side for side in sides if (side > size) == (times[0] > 1) and side != size]


def _forecast(made: _Made, clock: Clock) -> tuple[float | None, float]:
    """Return images a second, and the seconds that features, and validation and test like them, take at least.

    It is measured on a few images, whose features are kept; None and 0 where all are in the cache.
    """
    body, store = features_for(made.classifier, made.data, made.data.preprocessing, ("train",))
    ends, images = [time.monotonic()], [0]
    with closing(extract(store, prepare(body), made.data.shards, "train", made.data.preprocessing)) as counts:
        for count in itertools.islice(counts, _BATCHES):
            ends.append(time.monotonic())
            images.append(count)
            if ends[-1] - ends[0] > _TRIAL * clock.seconds:
                break
    if len(ends) == 1:
        return None, 0.0
    first = min(1, len(ends) - 2)  # the first batch warms up, where there is another
    rate = sum(images[first + 1 :]) / max(ends[-1] - ends[first], 1e-6)
    splits = made.data.shards.splits
    missing = sum(len(store.missing(splits[name].content_hashes)) for name in ("train", "val"))
    return rate, (missing + made.rows("val", "test")) / rate


def _solve(made: _Made, rate: float | None, began: float) -> _Judged:
    """Solve a head on ``train``, and judge it on rows that it has not seen; it took all the time from ``began`` on."""
    how: Any = {"fitted": ("train",), "others": ("val",), "verbose": True}
    solved = solve(made.classifier, made.data, made.data.preprocessing, **how)
    labels = np.asarray(made.data.shards.splits["val"].labels, np.int64)
    logits = solved.logits(made.data, "val")
    losses = np.concatenate([log_losses(solved.head.logits, solved.labels), log_losses(logits, labels)])
    accuracy, loss = estimate(logits, labels)
    seconds = time.monotonic() - began
    return _Judged(made, losses, rate, seconds, solved.head_seconds, loss, accuracy.value)


def _plan(made: _Made, head: _Judged | None, clock: Clock) -> tuple[dict[str, Any], Deadline]:
    """Return the settings that say how long to train, and what ends the training in time."""
    if head is not None and made.settings.model["tune"] == "head":
        return _NO_EPOCH, Deadline(clock.ends)
    rows = {name: made.rows(name) for name in ("train", "val", "test")}
    checks = VALIDATIONS if made.begun else 0
    most = (_LONG if made.begun else _LONGER) * made.resolved.trainer["max_epochs"]
    again = 0.0 if head is None else 2 * head.head_seconds  # in the run, and on train and val where it is kept

    def epochs(pace: Pace) -> int:
        return plan_epochs(clock.left - again, pace, **rows, checks=checks, most=most)

    # Training takes about three times as long as features do: where those leave no room, nothing is measured.
    hopeless = head is not None and head.rate is not None and not epochs(Pace(head.rate / 2, head.rate))
    pace = None if hopeless else measure(made.resolved, made.data, made.classifier, _TRIAL * clock.seconds)
    wanted = 0 if pace is None else epochs(pace)
    left = f"{max(0, clock.left):.0f} s left"
    if head is not None and not wanted:
        say(f"time:  {left}, too few for an epoch of fine-tuning; the head is kept")
    if pace is None or (head is not None and not wanted):
        return _NO_EPOCH, Deadline(clock.ends)
    val, test = rows["val"], rows["test"]
    ends = clock.ends - again - seconds_after(pace, val=val, test=test, checks=checks)
    deadline = Deadline(ends, validation=val / pace.evaluation, following=checks + test / max(1, val))
    if wanted:
        say(f"time:  {plural(wanted, 'epoch')} of about {rows['train'] / pace.training:.1f} s; {left}")
        return {"trainer.max_epochs": wanted}, deadline
    batch = made.resolved.data["batch_size"]
    steps = max(1, int(CAREFUL * (ends - time.monotonic()) * pace.training / batch))
    say(f"time:  {left}, too few for an epoch, so it has {plural(steps, 'step')}")
    share = min(1.0, (steps + 0.5) / max(1, rows["train"] // batch))  # of 1 step Lightning would make 100 %
    return {"trainer.max_epochs": 1, "trainer.limit_train_batches": share}, deadline


def _tried(
    run: Path, heads: Sequence[_Judged], best: _Judged | None, chosen: _Made, epochs: int, seconds: float
) -> list[dict[str, Any]]:
    """Return what ``run.json`` says of each thing that was tried, in its order."""
    record, result = read_record(run), validated(run)
    tuned = record.get("mixture") != 0
    tried = []
    for head in heads:
        judged = {"val_loss": head.val_loss, "val_acc": head.val_acc}
        kept = head is best and not tuned
        tried.append(_row(f"head of {head.made.classifier.name}", head.made, 0, head.seconds, judged, kept=kept))
    if "val_loss" in result:
        what = f"{'fine-tuning' if chosen.begun else 'training'} of {chosen.classifier.name}"
        tried.append(_row(what, chosen, epochs, seconds, record["result"] if tuned else result, kept=tuned))
    return tried


def _row(
    what: str, made: _Made, epochs: int, seconds: float, result: Mapping[str, float], *, kept: bool
) -> dict[str, Any]:
    return {
        "what": what,
        "image_size": made.size,
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "val_loss": result["val_loss"],
        "val_acc": result.get("val_acc"),
        "kept": kept,
    }


def tried_text(record: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of what was tried.

    Args:
        record: ``tried`` of ``run.json``.
    """
    rows = [
        [
            each["what"],
            str(each["image_size"]),
            str(each["epochs"]),
            f"{each['seconds']:.1f} s",
            f"{each['val_loss']:.4f}",
            "-" if each["val_acc"] is None else f"{each['val_acc']:.1%}",
            "kept" if each["kept"] else "",
        ]
        for each in record
    ]
    return "\n".join(table(["tried", "pixels", "epochs", "time", "val_loss", "val_acc", ""], rows))
