"""Greedy averaging of a run's checkpoints: a model soup (Wortsman et al. 2022)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from sagitta.data import ImageData
from sagitta.model import Classifier, load_classifier
from sagitta.run import find_checkpoint, write_record
from sagitta.schema import ConfigError
from sagitta.tasks import chosen_thresholds

SOUP = "checkpoints/soup.ckpt"

Weights = dict[str, Tensor]


class Ingredient(NamedTuple):
    """A checkpoint's score on validation, its name and its weights."""

    score: float
    name: str
    weights: Weights


def soup(run: Path, data: ImageData, devices: str = "auto") -> tuple[list[Ingredient], float]:
    """Average checkpoints as long as validation gets no worse; a better average becomes the run's best checkpoint.

    Checkpoints are tried from the best to the worst. The score is micro accuracy, or mean average precision of several
    labels. BatchNorm's statistics of an average are computed anew on training images. Where no average is as good as
    the best checkpoint alone, the run stays as it is.

    Args:
        run: run directory.
        data: what the run was trained on.
        devices: as Lightning's Trainer takes it.

    Returns:
        The checkpoints in the average, best first, and its score.

    Raises:
        ConfigError: there are fewer than two checkpoints.
    """
    paths = sorted((run / "checkpoints").glob("image-classifier-*.ckpt"))
    if len(paths) < 2:
        raise ConfigError(f"{run}: {len(paths)} checkpoint in it; an average needs at least two")
    kitchen = _Kitchen(load_classifier(find_checkpoint(run)), data, devices)
    weights = [dict(load_classifier(path).state_dict()) for path in paths]
    tried = [Ingredient(kitchen.score(state), path.name, state) for path, state in zip(paths, weights, strict=True)]
    first, *others = sorted(tried, key=lambda one: (-one.score, one.name))
    kept, best = [first], first.score
    for one in others:
        score = kitchen.score(mean_weights([each.weights for each in [*kept, one]]), refresh=True)
        if score >= best:
            kept, best = [*kept, one], score
    if len(kept) > 1:
        kitchen.score(mean_weights([each.weights for each in kept]), refresh=True)
        kitchen.save(run / SOUP)
        write_record(run, best_checkpoint=SOUP, soup=[each.name for each in kept])
    return kept, best


def mean_weights(states: Sequence[Weights]) -> Weights:
    """Return the mean of each floating-point tensor; of others the first model's."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in states[0].items()
    }


class _Kitchen:
    """One model and one Trainer, to try weights on."""

    def __init__(self, model: Classifier, data: ImageData, devices: str) -> None:
        self._model = model
        self._data = data
        self._trainer = pl.Trainer(
            devices=devices,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )

    def score(self, weights: Weights, *, refresh: bool = False) -> float:
        """Return the validation score of some weights; with ``refresh``, BatchNorm's statistics are computed anew.

        Where training froze them they are the same in every checkpoint, and stay.
        """
        model = self._model
        model.load_state_dict(weights)
        learned = not model.hparams["freeze_bn"] and any(isinstance(module, _BatchNorm) for module in model.modules())
        if refresh and learned:
            device = self._trainer.strategy.root_device
            batches = (self._data.on_after_batch_transfer(batch, 0) for batch in self._data.train_dataloader())
            update_bn(batches, model.to(device), device)
        values = self._trainer.validate(model, self._data, verbose=False)[0]
        return float(values["val_map" if model.multilabel else "val_acc"])

    def save(self, path: Path) -> None:
        """Write the weights scored last as a checkpoint, of several labels with thresholds of their own."""
        if self._model.multilabel and self._model.evaluated is not None:
            self._model.hparams["thresholds"] = chosen_thresholds(*self._model.evaluated)
        self._trainer.save_checkpoint(path, weights_only=True)
