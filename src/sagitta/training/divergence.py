"""A training whose loss is not finite any more: it is stopped with one line, and none of its weights are kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from sagitta.errors import SagittaError
from sagitta.loading import Loader
from sagitta.settings import short_name

_NEVER = 2**62
_SHOWN = 3  # paths


class DivergenceError(SagittaError):
    """Loss or weights of a training are not finite; the message says where, and what to try.

    Attributes:
        reason: where, and what to try.
        run: the run directory, where there is one.
    """

    def __init__(self, reason: str, run: Path | None = None, then: str = "") -> None:
        super().__init__(f"{reason}; {then}" if then else reason)
        self.reason, self.run = reason, run


class StopDiverged(pl.Callback):
    """Stops where the loss of a training batch, or of ``val``, is not finite; no checkpoint gets such weights.

    On a CPU every loss is looked at before its gradients are computed, so the weights are still those of the step
    before. A GPU would have to be waited for at every step, and several devices have to stop at the same step: there
    the number of the first bad batch is noted on the device, and read every ``log_every_n_steps``, when Lightning waits
    for the loss anyway, and before anything is validated or saved.

    Works with any LightningModule that logs ``val_loss``; it stands in front of what saves checkpoints.

    Raises:
        DivergenceError: from the hooks.
    """

    def __init__(self) -> None:
        self._batch = 0
        self._images: Any = None
        self._first: Tensor | None = None  # bad batch of the epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last epoch."""
        self._first = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember what the next loss is of."""
        self._batch, self._images = batch_idx, batch[0] if isinstance(batch, list | tuple) else None

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Look at the loss, or note on the device whether it is finite."""
        finite = loss.detach().isfinite().all()
        if self._sees_at_once(trainer, loss):
            if not finite:
                raise DivergenceError(self.line(trainer, f"the loss is {loss.detach().mean():g}"))
            return
        number = torch.where(finite, _NEVER, self._batch)
        self._first = number if self._first is None else torch.minimum(self._first, number)

    @staticmethod
    def _sees_at_once(trainer: pl.Trainer, loss: Tensor) -> bool:
        return loss.device.type == "cpu" and trainer.world_size == 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read what was noted, as often as losses are logged."""
        self._images = None
        every: int = getattr(trainer, "log_every_n_steps", 0)
        if (batch_idx + 1) % (every or _NEVER) == 0:
            self._read(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read what was noted."""
        self._read(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the loss of ``val``, in the check before training, too."""
        if trainer.state.fn != "fit":
            return
        loss = trainer.callback_metrics.get("val_loss")
        if loss is not None and not loss.isfinite().all():
            when = "before training" if trainer.sanity_checking else f"epoch {trainer.current_epoch + 1}"
            raise DivergenceError(f"{when}: val_loss is {float(loss):g}; try {_remedies(trainer)}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read what was noted."""
        self._read(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let no weights be saved to go on from that are not finite: a last step may spoil them with a finite loss."""
        self._read(trainer)
        # Of averaged weights, these are the average, or it is yet to take their place.
        weights = checkpoint["state_dict"] | checkpoint.get("current_model_state", {})
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise DivergenceError(self.line(trainer, f"{name} is not finite any more"))

    def _read(self, trainer: Any) -> None:
        """Stop every device if the loss of one was not finite."""
        if self._first is None:
            return
        # Lightning's reduction changes the tensor that it is given.
        first = (
            self._first if trainer.world_size == 1 else trainer.strategy.reduce(self._first.clone(), reduce_op="min")
        )
        if int(first) < _NEVER:
            self._batch = int(first)
            raise DivergenceError(self.line(trainer, "the loss is not finite"))

    def line(self, trainer: Any, what: str) -> str:
        """Return epoch, batch and its images, what is wrong with them, and what to try."""
        epoch, loader = trainer.current_epoch, trainer.train_dataloader
        where = f"epoch {epoch + 1}, batch {self._batch + 1}"
        if not isinstance(loader, Loader):
            return f"{where}: {what}; try {_remedies(trainer)}"
        paths = loader.paths(loader.rows_of(epoch, self._batch))
        if bad := self._not_finite(paths):
            return f"{where}: {what}, as the pixels of {_some(bad)} are not finite: see the transform of training"
        return f"{where} ({len(paths)} images, {_some(paths)}): {what}; try {_remedies(trainer)}"

    def _not_finite(self, paths: Sequence[str]) -> list[str]:
        """Return the paths of those images of the batch that are not finite themselves."""
        if not isinstance(self._images, Tensor) or len(self._images) != len(paths):
            return []
        finite = self._images.detach().flatten(1).isfinite().all(dim=1).tolist()
        return [path for path, good in zip(paths, finite, strict=True) if not good]


@contextmanager
def anomalies_named(trainer: Any) -> Iterator[None]:
    """Tell in one line, too, what ``detect_anomaly`` finds: a gradient that is not finite, of a loss that is.

    Raises:
        DivergenceError: instead of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        guard = next((each for each in trainer.callbacks if isinstance(each, StopDiverged)), None)
        if guard is None or "returned nan values" not in str(error):
            raise
        raise DivergenceError(guard.line(trainer, str(error).rstrip("."))) from error


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:_SHOWN]) + (", …" if len(paths) > _SHOWN else "")


def _remedies(trainer: Any) -> str:
    """Return what may help, the likeliest first."""
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    remedies = [f"a lower {short_name('model.lr')}" + (f" (in this step it was {max(rates):.1e})" if rates else "")]
    if "16" in str(trainer.precision):
        remedies.insert(0, f"{short_name('trainer.precision')} 32-true instead of {trainer.precision}")
    if not trainer.gradient_clip_val:
        remedies.append(f"{short_name('trainer.gradient_clip_val')} 1")
    return " or ".join(remedies)
