"""The head first, then the rest: how pretrained weights are fine-tuned without losing what they know.

1. The last linear layer is solved on frozen features, as `sagitta probe` does (LP-FT, Kumar et al. 2022): the gradients
   of a random head would destroy the features. It is fitted to ``train`` alone, so ``val`` can judge it.
2. All weights are trained from there.
3. ``val`` compares the weights of the beginning, those of the best epoch, and mixtures of the two (WiSE-FT, Wortsman et
   al. 2022). The head is kept unless another one is better by more than one standard error of the difference (the rule
   of Breiman et al. 1984, paired row by row).
4. Where ``val`` may be learned from, the head is solved on it, too, and mixed with the best epoch as it was found best.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from sagitta.dataset import plural
from sagitta.errors import ConfigError
from sagitta.evaluation import Digests, digests_of, keep_seen, read_seen, seen_of
from sagitta.loading import ImageData
from sagitta.models import Classifier, Floats, check_head, load_classifier, unfolded
from sagitta.ranks import is_first_process
from sagitta.run import CONFIG_FILE, read_record, run_of, write_record
from sagitta.settings import Settings
from sagitta.training.head import estimate, surely_better
from sagitta.training.solving import Solved, check_labelled, rows_to_fit, solve, write_checkpoint
from sagitta.training.trust import Unseen, of_val, out_of_fold, silently
from sagitta.training.watch import say

PREFIX = "image-classifier-head-"
REFITTED = "image-classifier-refitted-"
"""How the names of checkpoints begin whose head was solved before, and whose head knows ``val``."""
_SHARES = (0.25, 0.5, 0.75, 1.0)  # of the way from the head to the best epoch
VALIDATIONS = 1 + len(_SHARES)
"""Passes over ``val`` in which head, best epoch and mixtures are compared."""


def solve_first(data: ImageData, classifier: Classifier, *, verbose: bool) -> float | None:
    """Put a head solved on ``train`` into a pretrained network whose head is new; returns its loss on ``val``.

    None where no head can be solved:
    of several labels an image, of a network whose head is not one linear layer, and where no class has two images.

    Args:
        data: set up; its preprocessing is the model's.
        classifier: prepared for it.
        verbose: show progress, and say in a line what the head is worth.

    Raises:
        DatasetError: an image cannot be decoded.
    """
    if not solvable(data, classifier):
        return None
    solved = solve(classifier, data, data.preprocessing, fitted=("train",), others=("val",), verbose=verbose)
    accuracy, loss = estimate(solved.logits(data, "val"), np.asarray(data.shards.splits["val"].labels, np.int64))
    say(f"head:  {solved.head.method}, solved on frozen features: val_acc {accuracy.value:.4f}, val_loss {loss:.4f}")
    return loss


def solvable(data: ImageData, classifier: Classifier) -> bool:
    """Return whether a network has pretrained weights, and a new head that can be solved on this data."""
    if not classifier.new_head or classifier.network is None or data.multilabel:
        return False
    try:
        check_labelled(data, ("train",))
        check_head(classifier.network, classifier.name)
    except ConfigError:
        return False
    return True


class KeepHead(pl.Callback):
    """Keeps the weights with which a training begins; epochs that are no better than these end it early.

    Args:
        folder: of the checkpoints.
        loss: of the solved head on ``val``.
    """

    def __init__(self, folder: Path, loss: float) -> None:
        self.path, self.loss = folder / f"{PREFIX}val_loss={loss:.2f}.ckpt", loss

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write them, unless the training was resumed."""
        if trainer.global_step == 0 and not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(self.path, weights_only=True)
            for stopping in trainer.early_stopping_callbacks:
                stopping.best_score = torch.tensor(self.loss)

    def keep(self, trainer: pl.Trainer, classifier: Classifier) -> None:
        """Write them where nothing is trained."""
        trainer.strategy.connect(classifier)
        trainer.save_checkpoint(self.path, weights_only=True)


@dataclass(frozen=True)
class Mixture:
    """What is kept in the end.

    Attributes:
        share: of the way from the head, 0, to the best epoch, 1.
        weights: the network's.
        metrics: of ``val``, by full name.
        evaluated: probabilities and labels of ``val``, as :attr:`sagitta.models.Classifier.evaluated`.
        line: the choice in words.
    """

    share: float
    weights: Mapping[str, Tensor]
    metrics: dict[str, float]
    evaluated: tuple[Tensor, Tensor]
    line: str


def choose_mixture(
    trainer: pl.Trainer, classifier: Classifier, data: ImageData, head: Path, best: Path | None
) -> Mixture:
    """Compare head, best epoch and what lies between on ``val``; on several devices each finds the same.

    Args:
        trainer: that has trained.
        classifier: its model, whose weights are changed.
        data: set up.
        head: checkpoint of the beginning.
        best: checkpoint of the epoch with the lowest ``val_loss``; None where no epoch was finished.
    """
    if best is None:
        with silently(trainer):
            classifier.load_state_dict(weights := _weights(head))
            _, metrics, evaluated = _losses(trainer, classifier, data)
            return Mixture(0.0, weights, metrics, evaluated, "the head is kept as it was solved")
    first, last = (_weights(path) for path in (head, best))
    found: dict[float, tuple[Floats, dict[str, float], tuple[Tensor, Tensor]]] = {}
    with silently(trainer):
        for share in (0.0, *_SHARES):
            classifier.load_state_dict(_mixed(first, last, share))
            found[share] = _losses(trainer, classifier, data)
    means = {share: float(losses.mean()) for share, (losses, _, _) in found.items()}
    lowest = min(means, key=means.__getitem__)
    share = lowest if surely_better(found[lowest][0], found[0.0][0]) else 0.0
    told = f"val_loss {means[0.0]:.4f} of the head, {means[1.0]:.4f} of the best epoch"
    if share == 0:
        line = f"fine-tuning gained nothing over the head; the head is kept ({told})"
    elif share == 1:
        line = f"fine-tuning gained over the head: the best epoch is kept ({told})"
    else:
        line = f"fine-tuning gained over the head; {share:g} of the way to the best epoch is kept ({told}, " + (
            f"{means[share]:.4f} there)"
        )
    return Mixture(share, _mixed(first, last, share), *found[share][1:], line)


def find_head(run: Path) -> Path | None:
    """Return the checkpoint of the beginning, where there was a solved head."""
    return next((run / "checkpoints").glob(f"{PREFIX}*.ckpt"), None)


def end_with_best(
    trainer: pl.Trainer, classifier: Classifier, data: ImageData, head: Path, best: Path | None, *, refit: bool
) -> tuple[Path, dict[str, float], Unseen]:
    """Return the checkpoint of what is best of solved head, best epoch and their mixtures, and its metrics of val.

    And what it says of rows that it has not learned from.

    Where that is allowed, the head is then solved on ``train`` and ``val``, and mixed with the best epoch as before: of
    few images a class those of ``val`` may be worth more than the training. It is a checkpoint of its own: a run that
    is resumed compares with the head that has not seen ``val``.

    Args:
        trainer: that has trained.
        classifier: its model, whose weights are changed.
        data: set up.
        head: checkpoint of the beginning, in its run.
        best: checkpoint of the epoch with the lowest ``val_loss``; None where there was none.
        refit: fit the head to a given ``val``, too.
    """
    mixture = choose_mixture(trainer, classifier, data, head, best)
    say(mixture.line)
    run, loss = head.parent.parent, mixture.metrics["val_loss"]
    classifier.evaluated, classifier.temperature = mixture.evaluated, 1.0
    unseen = of_val(trainer, classifier, data)
    path = best if best is not None and mixture.share else head
    if mixture.share < 1 and "val" in rows_to_fit(data, refit=refit):
        say("the head is fitted to train and val now; figures of val are of the one before")
        path = head.with_name(f"{REFITTED}val_loss={loss:.2f}.ckpt")
        if is_first_process():
            solved = _refit(head, best, mixture.share, path, data)
            if not mixture.share:  # of a mixture there are no rows out of fold: those of the one before stand in
                unseen = out_of_fold(data, solved)
        keep_seen(run, seen_of(data.shards.splits, trained=("train", "val"), chose=()))
        trainer.strategy.barrier()
    elif 0 < mixture.share < 1:
        path = head.with_name(f"image-classifier-mixture-val_loss={loss:.2f}.ckpt")
        classifier.load_state_dict(mixture.weights)
        trainer.save_checkpoint(path, weights_only=True)
    write_record(run, mixture=mixture.share)
    return path, mixture.metrics, unseen


def _refit(head: Path, best: Path | None, share: float, path: Path, data: ImageData) -> Solved:
    """Write the checkpoint of a head that is solved once more, on ``train`` and ``val``, mixed with the best epoch."""
    classifier = load_classifier(head)
    solved = solve(classifier, data, data.preprocessing, fitted=("train", "val"), others=())
    if best is not None and share:
        first = {name: tensor.cpu() for name, tensor in classifier.state_dict().items()}
        classifier.load_state_dict(_mixed(first, _weights(best), share))
    write_checkpoint(classifier, path)
    return solved


def check_first_weights(
    weights: str | None, classifier: Classifier, data: ImageData, *, verbose: bool = True
) -> str | None:
    """Say where the first weights know ``val``, which then judges nothing; a head that knows it is solved anew.

    Returns the weights below such a head, or the same weights: what else they have seen counts.

    Args:
        weights: as the settings name them.
        classifier: that has them; its head counts as new where it is to be solved anew.
        data: set up.
        verbose: say it.
    """
    tell = say if verbose else lambda _line: None
    if weights is None or "val" not in data.shards.splits:
        return weights
    known = digests_of(data.shards.splits["val"])
    below = _below_heads(weights)
    if count := _trained_on(below, known):
        tell(
            f"warning: the first weights were trained on {plural(count, 'image')} of val: all val_ figures and what "
            "follows from them, such as the choice of the best epoch, mean little; take other weights, or another val"
        )
    if classifier.new_head:
        return below
    if not count and (count := _trained_on(weights, known)):
        tell(f"head:  that of {weights} was fitted to {plural(count, 'image')} of val; another is solved without them")
        classifier.new_head = True
        return below
    return weights


def _trained_on(weights: str | None, known: Digests) -> int:
    """Return how many images, by their digests, weights were trained on, where that is known."""
    seen = None if weights is None else read_seen(Path(weights))
    return 0 if seen is None else seen.count(known, "trained")


def _below_heads(weights: str | None) -> str | None:
    """Return what heads were solved on: what a run began with whose head alone was fitted; of any other, itself."""
    run = None if weights is None else run_of(Path(weights))
    record = {} if run is None else read_record(run)
    if run is None or not ("probe" in record or record.get("mixture") == 0):
        return weights
    before: str | None = Settings.read(run / CONFIG_FILE).model["weights"]
    return _below_heads(before)


def _weights(path: Path) -> dict[str, Tensor]:
    return unfolded(torch.load(path, map_location="cpu", weights_only=True))


def _mixed(first: Mapping[str, Tensor], last: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    return {
        name: torch.lerp(first[name], tensor.to(first[name].dtype), share) if tensor.is_floating_point() else tensor
        for name, tensor in last.items()
    }


def _losses(
    trainer: pl.Trainer, classifier: Classifier, data: ImageData
) -> tuple[Floats, dict[str, float], tuple[Tensor, Tensor]]:
    """Return the log loss of each row of ``val`` (N,), by class as the training weighs it, metrics, and predictions."""
    trainer.validate(classifier, data, verbose=False)
    assert classifier.evaluated is not None
    probabilities, labels = (tensor.cpu() for tensor in classifier.evaluated)
    losses = -probabilities[torch.arange(len(labels)), labels].clamp(min=1e-30).log().numpy()
    mean = float(losses.mean())
    if (weights := classifier.loss_weights) is not None:
        losses *= weights.float().cpu()[labels].numpy()
    values = classifier.task.values(probabilities, labels, classifier.thresholds)
    return losses, {"val_loss": mean} | {f"val_{name}": value for name, value in values.items()}, classifier.evaluated
