"""What is measured of an epoch: sums while fitting, all predictions where those are needed."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from sagitta.models.metrics import Predictions
from sagitta.models.task import Task

SMOOTHED = "val_smoothed_loss"
"""Loss of ``val`` on labels that are as smooth as in training. A model that has learned to give its class 91 % has a
``val_loss`` of 0.1 at least, and above that where it errs less and less: only this one says which epoch is best."""


class Measures(nn.Module):
    """The metrics of a model's three stages; over all devices exact, whatever their number.

    While fitting, metrics are summed up batch by batch where the task allows it; outside of a fit, every prediction is
    kept, and the metrics are computed from all of them at once.

    Args:
        task: one label an image, or several.
        num_classes: number of outputs.
    """

    def __init__(self, task: Task, num_classes: int) -> None:
        super().__init__()
        self.task = task
        summed = {f"{stage}_metrics": task.metrics(num_classes, stage) for stage in ("train", "val")}
        self.summed = nn.ModuleDict({name: metrics for name, metrics in summed.items() if metrics is not None})
        # Not Lightning's own mean: over ranks with unequal batches that one is not the mean over images. And not
        # torchmetrics' usual one: that leaves out batches whose loss is not a number.
        names = ("train_loss", "val_loss", "test_loss", SMOOTHED)
        self.losses = nn.ModuleDict({name: MeanMetric(nan_strategy=math.nan) for name in names})
        self.predictions = Predictions()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Go to another device, but never to another precision: in bfloat16 a sum of rows would end at 256."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch gives it no types
        self._widen()
        return self

    def _widen(self) -> None:
        """Have float32 again: what moves a metric, as every log of Lightning does, gives it torch's default, too."""
        for mean in self.losses.values():
            assert isinstance(mean, MeanMetric)
            if mean.dtype != torch.float32:
                mean.set_dtype(torch.float32)

    def update(
        self,
        stage: str,
        loss: Tensor,
        logits: Tensor,
        labels: Tensor,
        *,
        fitting: bool,
        smoothed: Tensor | None = None,
    ) -> dict[str, Any]:
        """Take in a batch; returns what is to be logged of its epoch, by name.

        Args:
            stage: ``train``, ``val`` or ``test``.
            loss: mean over the batch.
            logits: (B, classes), detached.
            labels: or shares of them, as MixUp makes them.
            fitting: the stage is part of a fit.
            smoothed: mean over the batch of the loss on smoothed labels, if that is wanted, too.
        """
        self._widen()
        mean_loss: Any = self.losses[f"{stage}_loss"]
        mean_loss.update(loss.detach(), len(labels))
        logged = {"train_loss_epoch" if stage == "train" else f"{stage}_loss": mean_loss}
        if smoothed is not None:
            mean_smoothed: Any = self.losses[SMOOTHED]
            mean_smoothed.update(smoothed.detach(), len(labels))
            logged[SMOOTHED] = mean_smoothed
        probabilities, labels = self.task.probabilities(logits), self.task.labels(labels)
        if fitting and f"{stage}_metrics" in self.summed:
            summed: Any = self.summed[f"{stage}_metrics"]
            summed.update(probabilities, labels)
            return logged | dict(summed.items())
        self.predictions.update(probabilities, labels)
        return logged

    def unfinished(self) -> dict[str, dict[str, Tensor]]:
        """Return the sums of a training epoch that is not over, by metric, over all devices; called on each of them."""
        states = {}
        for name, metric in self.of_training().items():
            with metric.sync_context():
                states[name] = {key: torch.as_tensor(value).clone() for key, value in metric.metric_state.items()}
        return states

    def resume(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take up such sums, on one device for them all."""
        for name, metric in self.of_training().items():
            for key, value in states[name].items():
                setattr(metric, key, value.to(metric.device))
            metric._update_count = max(1, metric._update_count)  # or it warns where no batch comes any more

    def of_training(self) -> dict[str, Metric]:
        """Return the metrics of a training epoch, as they are logged."""
        summed: Any = self.summed["train_metrics"]
        loss: Any = self.losses["train_loss"]
        return {"train_loss_epoch": loss} | dict(summed.items())

    def gather(self) -> tuple[Tensor, Tensor] | None:
        """Return the probabilities (N, classes) and labels that were kept since the last call, rank by rank, if any."""
        if not self.predictions.update_called:
            return None
        probabilities, labels = self.predictions.compute()
        self.predictions.reset()
        return probabilities, labels.reshape(-1) if labels.ndim == 0 else labels  # torchmetrics squeezes a single one
