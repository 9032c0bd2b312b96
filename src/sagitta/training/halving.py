"""Short fine-tunings of the best heads, for ``--time``: what a head is worth does not always say how a network learns.

Two rungs of successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943): all heads; then those that are not surely
worse than the best one, two at most, each fine-tuned for the same few epochs by the recipe's own schedule. What ``val``
prefers has the rest of the time, from the beginning: a schedule of few epochs has ended where a longer one goes on.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sagitta.clock import Clock
from sagitta.dataset import plural
from sagitta.evaluation import quiet_trainer
from sagitta.training.callbacks import StepSeed
from sagitta.training.candidates import Judged, make
from sagitta.training.head import surely_better
from sagitta.training.headfirst import VALIDATIONS, KeepHead, choose_mixture
from sagitta.training.pace import Deadline, Pace, followed, measure
from sagitta.training.solving import solve
from sagitta.training.watch import say

TRIAL = 0.05
"""Share of the time that the measuring of a pace may take."""
_SHARE = 1 / 4  # of the time that is left, for all short fine-tunings
_AT_MOST = 1 / 2  # likewise, on a machine that has become slower meanwhile
_SHORT = 1 / 3  # of the recipe's epochs, at most: of more little is left to be learned by the long one
_MOST = 2  # candidates


@dataclass(frozen=True)
class Short:
    """A short fine-tuning.

    Attributes:
        head: with which it began.
        epochs: how many.
        seconds: in all.
        val_loss: of what was best of head, last epoch and their mixtures.
        val_acc: likewise.
        pace: of the network on these images, as slow as the fine-tuning was.
    """

    head: Judged
    epochs: int
    seconds: float
    val_loss: float
    val_acc: float
    pace: Pace


def tune_shortly(heads: Sequence[Judged], best: Judged, clock: Clock) -> list[Short]:
    """Return a short fine-tuning of each head that is not surely worse than the best; none where there is no other.

    Args:
        heads: that were solved.
        best: of them.
        clock: where a quarter of what is left is too short for an epoch of each, nothing is tried.
    """
    close = [head for head in heads if head is not best and not surely_better(best.losses, head.losses)]
    rivals = [best, *sorted(close, key=lambda head: float(head.losses.mean()))][:_MOST]
    if len(rivals) == 1 or best.made.settings.model["tune"] == "head":
        return []
    names = " and ".join(_name(head) for head in rivals)
    left = clock.left
    if left <= 0:
        return []
    paces = [measure(head.made.resolved, head.made.data, head.made.classifier, TRIAL / _MOST * left) for head in rivals]
    once = sum(
        head.head_seconds + (1 + VALIDATIONS) * head.made.rows("val") / pace.evaluation
        for head, pace in zip(rivals, paces, strict=True)
    )
    each = sum(_epoch_seconds(head, pace) for head, pace in zip(rivals, paces, strict=True))
    left = clock.left
    most = max(1, int(_SHORT * best.made.resolved.trainer["max_epochs"]))
    epochs = min(most, int((_SHARE * left - once) / each))
    if epochs < 1:
        say(
            f"time:  the heads of {names} are about equally good; an epoch of each takes about {once + each:.0f} of "
            f"{left:.0f} s, too much to find out which learns more, so the better head goes on"
        )
        return []
    say(f"time:  the heads of {names} are about equally good; {plural(epochs, 'epoch')} of each say which goes on")
    allowed = _AT_MOST * left / len(rivals)
    shorts = [_tune(head, pace, epochs, allowed) for head, pace in zip(rivals, paces, strict=True)]
    first = min(shorts, key=lambda short: short.val_loss)
    told = ", ".join(f"{short.val_loss:.4f} of {_name(short.head)}" for short in shorts)
    say(f"time:  {_name(first.head)} goes on: val_loss {told}")
    return shorts


def _tune(head: Judged, pace: Pace, epochs: int, seconds: float) -> Short:
    """Fine-tune it for so many seconds at most, and judge what became of it as a run would."""
    began = time.monotonic()
    planned = _epoch_seconds(head, pace)
    deadline = Deadline(began + seconds, epoch=planned)
    made = make(head.made.settings)  # its weights as they were before its pace was measured
    solve(made.classifier, made.data, made.data.preprocessing, fitted=("train",), others=("val",))
    with TemporaryDirectory() as folder:
        keep, last = KeepHead(Path(folder), head.val_loss), Path(folder) / "last.ckpt"
        trainer = quiet_trainer(
            **followed(made.resolved),
            devices=1,
            max_epochs=epochs,
            check_val_every_n_epoch=epochs,
            num_sanity_val_steps=0,
            callbacks=[StepSeed(made.resolved.seed), keep, deadline],
        )
        trainer.fit(made.classifier, made.data)
        trainer.save_checkpoint(last, weights_only=True)
        metrics = choose_mixture(trainer, made.classifier, made.data, keep.path, last).metrics
    seconds, pace = time.monotonic() - began, pace.slower(deadline.slower)
    return Short(head, epochs, seconds, metrics["val_loss"], metrics["val_acc"], pace)


def _epoch_seconds(head: Judged, pace: Pace) -> float:
    return head.made.rows("train") / pace.training


def _name(head: Judged) -> str:
    return f"{head.made.classifier.name} at {head.made.size} pixels"
