"""Solved heads of networks and sizes of images, for ``--time``: what each is worth, and which is the best.

From the cheapest on: the head on images as large as those of the weights, of each network; then of the best for larger
images, one size after the other until one is not surely better, by more than one standard error of the paired
difference of the log loss of rows that the heads have not seen.
"""

import itertools
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np

from sagitta.clock import Clock
from sagitta.errors import ConfigError
from sagitta.loading import ImageData
from sagitta.models import Classifier, Floats, dry_run, extract, prepare
from sagitta.settings import Settings, device_of
from sagitta.training.checks import check_splits
from sagitta.training.head import estimate, log_losses, surely_better
from sagitta.training.headfirst import check_first_weights, solvable
from sagitta.training.solving import features_for, solve
from sagitta.training.watch import say

_LARGER, _SMALLER = (1.25, 1.5), (0.75, 0.5)  # times the side of the weights' images
_MULTIPLE = 32  # of pixels, which every network takes
_SHARE = 1 / 3  # of the time that is left, which the features of larger images may take
_BATCHES = 8  # by which the pace of features is measured
_TRIAL = 0.05  # share of the time that this may take
_REST = 0.1  # likewise of what comes behind the features, where there is nothing else


@dataclass(frozen=True)
class Made:
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
        """The longer side of its images, in pixels."""
        return max(self.data.preprocessing.size)

    def rows(self, *splits: str) -> int:
        """Return how many images these splits have; 0 of one that is not there."""
        return sum(len(self.data.shards.splits.get(name, ())) for name in splits)


@dataclass(frozen=True)
class Judged:
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

    made: Made
    losses: Floats
    rate: float | None
    seconds: float
    head_seconds: float
    val_loss: float
    val_acc: float


def make(settings: Settings, *, verbose: bool = False) -> Made:
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
    return Made(settings, resolved, data, classifier)


def solve_heads(made: Made, others: Sequence[Settings], clock: Clock) -> tuple[list[Judged], Judged | None]:
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
    for size in [] if made.settings.data["image_size"] else sides(best.made.size, _LARGER):
        cost = 0.0 if best.rate is None else best.made.rows("train", "val") / best.rate * (size / best.made.size) ** 2
        larger = _solve_if_it_fits(best.made.settings.changed({"data.image_size": size}), cost, clock)
        if larger is None:
            break
        heads.append(larger)
        if not surely_better(larger.losses, best.losses):
            if larger.losses.mean() < best.losses.mean():
                say(f"time:  images of {size} pixels are better by less than one standard error; none larger is tried")
            break
        best = larger
    return heads, best


def _solve_first(made: Made, clock: Clock) -> Judged:
    """Return the head on images as large as those of the weights, or on smaller ones where only these fit."""
    began = time.monotonic()
    rate, seconds = _forecast(made, clock)
    left = clock.left - _REST * clock.seconds
    if (short := seconds - left) > 0:
        sizes = [] if made.settings.data["image_size"] else sides(made.size, _SMALLER)
        fitting = [size for size in sizes if seconds * (size / made.size) ** 2 < left]
        say(
            f"time:  the features of images of {made.size} pixels take about {short:.1f} s more than are left; "
            + (f"those of {max(fitting)} fit" if fitting else "it is the least that gives a classifier")
        )
        if fitting:
            made = make(made.settings.changed({"data.image_size": max(fitting)}))
            rate, _ = _forecast(made, clock)
    return _solve(made, rate, began)


def _too_long(cost: float, left: float) -> str:
    """Return why a candidate is left out, by the seconds that it takes and those that are left."""
    if left <= 0:
        return "no time is left"
    return f"it takes about {cost:.1f} s, more than the {_SHARE * left:.1f} s, a third of what is left, that it may"


def _solve_if_it_fits(settings: Settings, cost: float, clock: Clock) -> Judged | None:
    """Return the head of another network or size; None where it would take too much of the time, or cannot be.

    Args:
        settings: of it.
        cost: seconds that its features may be expected to take; 0 where nothing is known of them.
        clock: see there.
    """
    began = time.monotonic()
    what = f"{settings.model['name']} on images of {settings.data['image_size'] or 'its own'} pixels"
    if clock.left <= 0 or cost > _SHARE * clock.left:
        say(f"time:  {what}: not tried, {_too_long(cost, clock.left)}")
        return None
    try:
        made = make(settings)
    except ConfigError as error:
        say(f"time:  {what}: not tried, {error}")
        return None
    if not solvable(made.data, made.classifier):
        return None
    rate, cost = _forecast(made, clock)
    if cost > _SHARE * clock.left:
        say(f"time:  {what}: not tried, {_too_long(cost, clock.left)}")
        return None
    return _solve(made, rate, began)


def sides(size: int, times: Sequence[float]) -> list[int]:
    """Return other sides of images in pixels, in the order of ``times``."""
    sides = dict.fromkeys(max(1, round(size * each / _MULTIPLE)) * _MULTIPLE for each in times)
    return [side for side in sides if (side > size) == (times[0] > 1) and side != size]


def _forecast(made: Made, clock: Clock) -> tuple[float | None, float]:
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
    missing = store.lacking(splits[name].content_hashes for name in ("train", "val"))
    return rate, (missing + made.rows("val", "test")) / rate


def _solve(made: Made, rate: float | None, began: float) -> Judged:
    """Solve a head on ``train``, and judge it on rows that it has not seen; it took all the time from ``began`` on."""
    how: Any = {"fitted": ("train",), "others": ("val",), "verbose": True}
    solved = solve(made.classifier, made.data, made.data.preprocessing, **how)
    labels = np.asarray(made.data.shards.splits["val"].labels, np.int64)
    logits = solved.logits(made.data, "val")
    losses = np.concatenate([log_losses(solved.head.logits, solved.labels), log_losses(logits, labels)])
    accuracy, loss = estimate(logits, labels)
    seconds = time.monotonic() - began
    return Judged(made, losses, rate, seconds, solved.head_seconds, loss, accuracy.value)
