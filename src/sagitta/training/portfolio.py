"""`sagitta fit --time 10m`: the best classifier that can be had in a wall time, by a short list of things to try.

With pretrained weights, from the cheapest on, each only where what was measured says that it fits:

1. the head, solved on the features of images as large as those of the weights;
2. the head for larger images, one size after the other until one is not surely better: by the log loss of rows that
   the heads have not seen, and more than one standard error of the paired difference;
3. all weights, fine-tuned from the best of them for as many epochs as fit, see :mod:`sagitta.training.headfirst`: the
   head is kept where that gained nothing.

From scratch there is the recipe, with as many epochs as fit. What becomes the run is an ordinary one, whose
``config.yaml`` repeats it without a clock; ``tried`` of ``run.json`` says what was tried, and what it was worth.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from sagitta.dataset import plural
from sagitta.errors import ConfigError
from sagitta.evaluation import quiet
from sagitta.loading import ImageData
from sagitta.models import Classifier, FeatureStore, Floats, Ints, dry_run, extract, prepare, split_head
from sagitta.run import BEGAN, check_free, read_metrics, read_record, write_record
from sagitta.settings import Settings, device_of, seconds_of, short_name
from sagitta.terminal import table
from sagitta.training.fitting import Fitted, check_before_conversion, fit
from sagitta.training.head import estimate
from sagitta.training.headfirst import VALIDATIONS, solvable, surely_better
from sagitta.training.pace import CAREFUL, END, Deadline, Pace, measure, plan_epochs
from sagitta.training.solving import solve
from sagitta.training.watch import say, say_core

_LARGER = (1.25, 1.5)  # times the side of the weights' images
_MULTIPLE = 32  # of pixels, which every network takes
_SHARE = 1 / 3  # of the time that is left, which the features of larger images may take
_LONG, _LONGER = 2, 4  # times the epochs of the recipe, at most: of pretrained weights, and from scratch
_BATCHES = 8  # by which the pace of features is measured
_TRIAL = 0.05  # share of the time that a trial may take

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
class _Clock:
    """The time that is given, in seconds, and when it began, by :func:`time.monotonic`."""

    seconds: float
    began: float

    @property
    def left(self) -> float:
        return self.began + self.seconds - time.monotonic()


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


def fit_in_time(settings: Settings, out: Path | None = None) -> Fitted:
    """Fit the best that ``settings.time`` is long enough for; the clock began with the command, or begins now.

    Args:
        settings: see :func:`sagitta.training.fit`; how long to train is not among them.
        out: run directory to make.

    Raises:
        ConfigError: another setting says how long to train, or several devices are asked for.
        SagittaError: as :func:`sagitta.training.fit`; there is no run directory then.
    """
    clock = _Clock(seconds_of(str(settings.time)), BEGAN.get() or time.monotonic())
    _check(settings)
    check_free(out)
    settings, given = settings.changed({"time": None}), settings.time
    with quiet():
        trial = check_before_conversion(settings, None)
        if trial.num_devices * trial.num_nodes > 1:
            raise ConfigError("--time: what is tried is measured on one device; give --devices 1")
        say_core()
        made = _make(settings, verbose=True)
        heads = _solve_heads(made, clock)
        best = _best(heads)
        chosen = made if best is None else best.made
        changes, ends = _plan(chosen, best, clock)
        deadline, before = Deadline(ends), clock.left
        fitted = fit(chosen.settings.changed(changes), out, callbacks=[deadline])
    tried = _tried(fitted.run, heads, best, chosen, deadline.epochs, before - clock.left)
    write_record(fitted.run, time=given, tried=tried)
    if clock.left < 0:
        say(f"time:  {-clock.left:.0f} s more than the {given} that were given")
    return fitted


def _check(settings: Settings) -> None:
    """Refuse what contradicts, and what would be measured at the cost of an unknown time."""
    for key, usual in _CLASHING.items():
        if settings.get(key) != usual:
            raise ConfigError(f"--time and {short_name(key)} both say how long to train; leave one of them out")
    for key in ("data.batch_size", "model.lr"):
        if settings.get(key) == "auto":
            raise ConfigError(f"--time and {short_name(key)} auto: that takes a time of its own; give a number or none")


def _make(settings: Settings, *, verbose: bool = False) -> _Made:
    """Return data and model, as a fit would make them.

    Raises:
        ConfigError: they do not fit together.
    """
    data = settings.image_data(verbose=verbose)
    data.prepare_data()
    data.setup("fit")
    resolved = settings.resolve(data.shards)
    resolved.apply_to(data)
    pl.seed_everything(settings.seed, verbose=False)
    classifier = Classifier(**resolved.model, seed=settings.seed)
    classifier.prepare(data, device=device_of(settings.trainer["accelerator"]))
    dry_run(classifier, data.batch_size)
    return _Made(settings, resolved, data, classifier)


def _solve_heads(made: _Made, clock: _Clock) -> list[_Judged]:
    """Return the heads that were solved, by size of image: none from scratch, and of weights that bring one."""
    if not solvable(made.data, made.classifier):
        return []
    rate = _feature_rate(made)
    if (short := _seconds(made, rate) - clock.left) > 0:
        say(f"time:  the features of all images take about {short:.0f} s more than are left; less gives no classifier")
    heads = [_solve(made, rate)]
    for size in [] if made.settings.data["image_size"] else _larger(made.size):
        try:
            larger = _make(made.settings.changed({"data.image_size": size}))
        except ConfigError:  # a network of one size
            break
        rate = _feature_rate(larger)
        if (needed := _seconds(larger, rate)) > _SHARE * clock.left:
            say(f"time:  images of {size} pixels are not tried: {needed:.0f} of the {clock.left:.0f} s that are left")
            break
        heads.append(_solve(larger, rate))
        if _best(heads) is not heads[-1]:
            break
    return heads


def _larger(size: int) -> list[int]:
    """Return sides of larger images, in pixels."""
    sizes = {round(size * times / _MULTIPLE) * _MULTIPLE for times in _LARGER}
    return sorted(each for each in sizes if each > size)


def _feature_rate(made: _Made) -> float | None:
    """Return images a second, measured on a few whose features are kept; None where all are in the cache."""
    assert made.classifier.network is not None
    body, _ = split_head(made.classifier.network, made.classifier.name)
    store = FeatureStore(made.classifier.name, body, made.data.preprocessing)
    ends, images = [time.monotonic()], [0]
    with closing(extract(store, prepare(body), made.data.shards, "train", made.data.preprocessing)) as counts:
        for count in itertools.islice(counts, _BATCHES):
            ends.append(time.monotonic())
            images.append(count)
    first = min(1, len(ends) - 2)  # the first batch warms up, where there is another
    return sum(images[first + 1 :]) / max(ends[-1] - ends[first], 1e-6) if len(ends) > 1 else None


def _seconds(made: _Made, rate: float | None) -> float:
    """Return how long features, and validation and test by them, take at least; nothing of what is in the cache."""
    return 0.0 if rate is None else (made.rows("train", "val") + made.rows("val", "test")) / rate


def _solve(made: _Made, rate: float | None) -> _Judged:
    """Solve a head on ``train``, and judge it on rows that it has not seen."""
    began = time.monotonic()
    how: Any = {"fitted": ("train",), "others": ("val",), "verbose": True}
    solved = solve(made.classifier, made.data, made.data.preprocessing, **how)
    labels = np.asarray(made.data.shards.splits["val"].labels, np.int64)
    logits = solved.logits(made.data, "val")
    losses = np.concatenate([_losses(solved.head.logits, solved.labels), _losses(logits, labels)])
    accuracy, loss = estimate(logits, labels)
    seconds = time.monotonic() - began
    return _Judged(made, losses, rate, seconds, solved.head_seconds, loss, accuracy.value)


def _losses(logits: Floats, labels: Ints) -> Floats:
    """Return the log loss of each row (N,) of logits (N, classes)."""
    found: Floats = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels), reduction="none"
    ).numpy()
    return found


def _best(heads: Sequence[_Judged]) -> _Judged | None:
    """Return the head to go on from: a later one, which costs more, where it is surely better than those before."""
    best: _Judged | None = None
    for head in heads:
        if best is None or surely_better(head.losses, best.losses):
            best = head
    return best


def _plan(made: _Made, head: _Judged | None, clock: _Clock) -> tuple[dict[str, Any], float]:
    """Return the settings that say how long to train, and when the last epoch has to end, by ``time.monotonic``."""
    rows = {name: made.rows(name) for name in ("train", "val", "test")}
    weights = made.settings.model["pretrained"] or made.settings.model["weights"] is not None
    most = (_LONG if weights else _LONGER) * made.resolved.trainer["max_epochs"]
    again = 0.0 if head is None else 2 * head.head_seconds  # in the run, and on train and val where it is kept

    def epochs(pace: Pace) -> int:
        checks = VALIDATIONS if weights else 0
        return plan_epochs(clock.left - again, pace, **rows, checks=checks, most=most)

    # Training takes about three times as long as features do, so that where those leave no room nothing is measured.
    if head is not None and head.rate is not None and not epochs(Pace(head.rate / 2, head.rate)):
        pace, wanted = Pace(head.rate / 2, head.rate), 0
    else:
        pace = measure(made.resolved, made.data, made.classifier, _TRIAL * clock.seconds)
        wanted = epochs(pace)
    changes: dict[str, Any] = {"trainer.max_epochs": wanted}
    end = (VALIDATIONS * rows["val"] * weights + rows["test"]) / pace.evaluation + END + again
    if wanted:
        say(f"time:  {plural(wanted, 'epoch')} of {rows['train'] / pace.training:.0f} s in the {clock.left:.0f} s left")
    elif head is not None:
        say(f"time:  {max(0, clock.left):.0f} s left, too few for an epoch of fine-tuning; the head is kept")
    else:
        steps = max(1, int(CAREFUL * (clock.left - end) * pace.training / made.resolved.data["batch_size"]))
        changes = {"trainer.max_epochs": 1, "trainer.limit_train_batches": steps}
        say(f"time:  {clock.left:.0f} s left, too few for an epoch; {plural(steps, 'step')} of one are taken")
    return changes, clock.began + clock.seconds - end


def _tried(
    run: Path, heads: Sequence[_Judged], best: _Judged | None, chosen: _Made, epochs: int, seconds: float
) -> list[dict[str, Any]]:
    """Return what ``run.json`` says of each thing that was tried, in its order."""
    tuned = read_record(run).get("mixture") != 0
    rows = [
        _row("head", head.made.size, 0, head.seconds, head.val_loss, head.val_acc, kept=head is best and not tuned)
        for head in heads
    ]
    losses = (found := read_metrics(run)).get("val_loss", [])
    if losses:
        at = min(range(len(losses)), key=losses.__getitem__)
        accuracy = next((found[name][at] for name in ("val_acc", "val_map") if name in found), None)
        what = "fine-tuning" if chosen.settings.model["pretrained"] or chosen.settings.model["weights"] else "training"
        rows.append(_row(what, chosen.size, epochs, seconds, losses[at], accuracy, kept=tuned))
    return rows


def _row(
    what: str, size: int, epochs: int, seconds: float, loss: float, accuracy: float | None, *, kept: bool
) -> dict[str, Any]:
    return {
        "what": what,
        "image_size": size,
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "val_loss": loss,
        "val_acc": accuracy,
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
