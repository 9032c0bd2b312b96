"""What a run keeps of its weights: those of the best epochs, and whatever is needed to go on from the last one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn

from sagitta.errors import ConfigError
from sagitta.models import SMOOTHED
from sagitta.run import LAST_CHECKPOINT


class Checkpoints(Checkpoint):
    """Keeps the weights of the epochs with the lowest loss on ``val``, and one checkpoint to go on from.

    ::

        image-classifier-epoch=05-val_loss=0.08.ckpt    weights as they were validated, and what they are for
        last.ckpt                                       the last finished epoch, with the optimizer and all else

    The loss is that of smoothed labels where training smooths them, see :data:`sagitta.models.SMOOTHED`; else, and
    where a run of version 0.1.0 is resumed, ``val_loss``.

    Lightning's ``ModelCheckpoint`` writes the optimizer's state beside the best weights, too, which makes them three
    times as large; of averaged weights it would leave out the average; and it forgets the best where a run has moved.

    Args:
        folder: of the checkpoints.
        keep: how many of the best.

    Raises:
        ConfigError: ``keep`` is below 1.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        if keep < 1:
            raise ConfigError(f"--keep {keep}: must be at least 1; the best weights are those that are tested")
        self.folder, self.keep = folder.absolute(), keep
        self._losses: dict[str, float] = {}  # of the files that are kept
        self._criterion: str | None = None

    @property
    def best_model_path(self) -> str:
        """The file of the lowest loss, by Lightning's name for it; empty before the first validation."""
        return str(self.folder / min(self._losses, key=self._losses.__getitem__)) if self._losses else ""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are among the best."""
        metrics = trainer.callback_metrics
        if "val_loss" not in metrics or trainer.sanity_checking or not _keeps(trainer):
            return
        self._criterion = self._criterion or (SMOOTHED if SMOOTHED in metrics else "val_loss")
        loss, value = (float(metrics[name].nan_to_num(torch.inf)) for name in ("val_loss", self._criterion))
        better = len(self._losses) < self.keep or value < max(self._losses.values())
        if not trainer.strategy.broadcast(better):
            return
        name = self._name(trainer.current_epoch, loss)
        with _as_validated(trainer):
            trainer.save_checkpoint(self.folder / name, weights_only=True)
        self._losses[name] = value
        for worse in sorted(self._losses, key=self._losses.__getitem__)[self.keep :]:
            del self._losses[worse]
            trainer.strategy.remove_checkpoint(self.folder / worse)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what a resumed run goes on from."""
        if _keeps(trainer):
            trainer.save_checkpoint(self.folder / LAST_CHECKPOINT, weights_only=False)

    def _name(self, epoch: int, loss: float) -> str:
        """Return a name that no other kept file has; one that a killed run left behind is replaced."""
        name, number = f"image-classifier-epoch={epoch:02d}-val_loss={loss:.2f}", 0
        while (found := f"{name}-v{number}.ckpt" if number else f"{name}.ckpt") in self._losses:
            number += 1
        return found

    @property
    def state_key(self) -> str:
        """That of what wrote the checkpoints of version 0.1.0."""
        return str(ModelCheckpoint(monitor="val_loss").state_key)

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the best files and their losses; no path, since a run may move."""
        return {"best_k_models": dict(self._losses), "criterion": self._criterion}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Know the best files again, as far as they are still there."""
        losses = {Path(path).name: float(loss) for path, loss in state_dict["best_k_models"].items()}
        there = [name for name in sorted(losses, key=losses.__getitem__) if (self.folder / name).is_file()]
        self._losses = {name: losses[name] for name in there[: self.keep]}
        self._criterion = state_dict.get("criterion", "val_loss")


def _keeps(trainer: Any) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.fast_dev_run


@contextmanager
def _as_validated(trainer: Any) -> Iterator[None]:
    """Have the weights in place meanwhile that were validated: where they are averaged, the average."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]
    for callback in averages:
        callback.on_validation_epoch_start(trainer, trainer.lightning_module)
    try:
        yield
    finally:
        for callback in averages:
            callback.on_validation_epoch_end(trainer, trainer.lightning_module)
