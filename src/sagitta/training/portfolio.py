"""`sagitta fit --time 10m`: the best classifier that can be had in a wall time, by a short list of things to try.

With pretrained weights, from the cheapest on, each only where what was measured says that it fits:

1. the head, solved on the features of images as large as those of the weights; where ``--model A,B`` names several
   networks, of each, and the one of the lowest log loss of rows that the heads have not seen goes on;
2. its head for larger images, one size after the other until one is not surely better: by this loss, and more than one
   standard error of the paired difference;
3. all weights, from the best of them for as many epochs as fit, see :mod:`sagitta.training.headfirst`: the head is kept
   where that gained nothing.

That is successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943) of one rung. A second one, a few epochs from
each of two heads, chose what the heads had chosen, in seven of seven comparisons, for a quarter of the time (LOG.md).

From scratch there is the recipe, with as many epochs as fit. What becomes the run is an ordinary one, whose
``config.yaml`` repeats it without a clock; ``tried`` of ``run.json`` says what was tried, and what it was worth.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sagitta.clock import BEGAN, Clock
from sagitta.dataset import plural
from sagitta.errors import ConfigError
from sagitta.evaluation import quiet
from sagitta.run import check_free, read_record, write_record
from sagitta.settings import Settings, seconds_of, short_name
from sagitta.terminal import table
from sagitta.training.candidates import Judged, Made, make, solve_heads
from sagitta.training.checks import Look
from sagitta.training.divergence import DivergenceError
from sagitta.training.fitting import Fitted, check_before_conversion, fit, trial_of, validated
from sagitta.training.headfirst import VALIDATIONS
from sagitta.training.pace import CAREFUL, Deadline, Pace, measure, plan_epochs, seconds_after
from sagitta.training.trust import FEW_BANK, FEW_KNOWN
from sagitta.training.watch import say, say_core

_TRIAL = 0.05  # of the time, for the measuring of a pace
_LONG, _LONGER = 2, 4  # times the epochs of the recipe, at most: of pretrained weights, and from scratch

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
        made = make(networks[0], verbose=True)
        heads, best = solve_heads(made, networks[1:], clock)
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


def _plan(made: Made, head: Judged | None, clock: Clock) -> tuple[dict[str, Any], Deadline]:
    """Return the settings that say how long to train, and what ends the training in time.

    Args:
        made: what is trained.
        head: solved in it.
        clock: see there.
    """
    if head is not None and made.settings.model["tune"] == "head":
        return _NO_EPOCH, Deadline(clock.ends)
    rows = {name: made.rows(name) for name in ("train", "val", "test")}
    rows["test"] += min(rows["train"], FEW_BANK) + min(rows["val"], FEW_KNOWN)  # looked at once more, to be remembered
    checks = VALIDATIONS if made.begun else 1  # the kept epoch is validated once more, to be calibrated
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
    val, test, epoch = rows["val"], rows["test"], rows["train"] / pace.training
    after = again + seconds_after(pace, val=val, test=test, checks=checks)
    deadline = Deadline(clock.ends, epoch=epoch, validation=val / pace.evaluation, after=after)
    if wanted:
        say(f"time:  {plural(wanted, 'epoch')} of about {epoch:.1f} s; {left}")
        return {"trainer.max_epochs": wanted}, deadline
    batch = made.resolved.data["batch_size"]
    steps = max(1, int(CAREFUL * deadline.left * pace.training / batch))
    say(f"time:  {left}, too few for an epoch, so it has {plural(steps, 'step')}")
    deadline.epoch = steps * batch / pace.training
    share = min(1.0, (steps + 0.5) / max(1, rows["train"] // batch))  # of 1 step Lightning would make 100 %
    return {"trainer.max_epochs": 1, "trainer.limit_train_batches": share}, deadline


def _tried(
    run: Path,
    heads: Sequence[Judged],
    best: Judged | None,
    chosen: Made,
    epochs: int,
    seconds: float,
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
    what: str, made: Made, epochs: int, seconds: float, result: Mapping[str, float], *, kept: bool
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
