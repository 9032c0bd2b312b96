"""Classifier: any network by name, as a plain LightningModule with one shared step.

The checkpoint carries the class names and the preprocessing as hyper-parameters, so whoever opens it knows what an
output means and what the input has to be.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection

from sagitta.augment import THUMBNAIL, Preprocessing
from sagitta.metrics import classification_metrics
from sagitta.networks import SIMPLE_CNN, build_network
from sagitta.schema import ConfigError

Schedule = Literal["one-cycle", "constant"]


class Classifier(pl.LightningModule):
    """An image classifier for any DataModule or DataLoader of ``(images, labels)``.

    Number of classes, class names, channels and preprocessing are taken from the DataModule where it knows them
    (``ImageData`` does); with ordinary DataLoaders give ``num_classes``.

    Args:
        name: see :func:`build_network`; ``auto`` takes simple-cnn for thumbnails and resnet18 for photos.
        pretrained: begin with timm's published weights and a new head.
        optimizer: any name that timm's optimizer factory knows: adamw, adam, sgd, lamb, muon …
        lr: learning rate, the highest one with the one-cycle schedule; by default 3e-3 for simple-cnn, else 1e-3.
        weight_decay: not applied to biases and normalisation layers.
        schedule: ``one-cycle`` (Smith & Topin 2018: warm-up, then cosine to zero) or ``constant``.
        num_classes: number of outputs, at least 2.
        class_names: what each output means.
        preprocessing: :meth:`Preprocessing.to_dict`, what the network's input has to be.

    Raises:
        ConfigError: a value is out of range, there is no such model, or (when training begins) the number of classes is
            nowhere to be found.
    """

    def __init__(
        self,
        name: str = "auto",
        *,
        pretrained: bool = False,
        optimizer: str = "adamw",
        lr: float | None = None,
        weight_decay: float = 0.01,
        schedule: Schedule = "one-cycle",
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if lr is not None and lr <= 0:
            raise ConfigError(f"learning rate {lr}: must be above 0")
        if num_classes is None and class_names is not None:
            num_classes = len(class_names)
        self.save_hyperparameters(
            {
                "name": name,
                "pretrained": pretrained,
                "optimizer": optimizer,
                "lr": lr,
                "weight_decay": weight_decay,
                "schedule": schedule,
                "num_classes": num_classes,
                "class_names": None if class_names is None else list(class_names),
                "preprocessing": None if preprocessing is None else dict(preprocessing),
            }
        )
        self.network: nn.Module | None = None
        self.metrics = nn.ModuleDict()
        if num_classes is not None and (preprocessing is not None or name != "auto"):
            self._build()

    @property
    def class_names(self) -> list[str]:
        """What each output means; the label's number where no names are known."""
        return self.hparams["class_names"] or [str(label) for label in range(self.hparams["num_classes"])]

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the network's input has to be, where it is known."""
        fields = self.hparams["preprocessing"]
        return None if fields is None else Preprocessing.from_dict(fields)

    def configure_model(self) -> None:
        """Build the network from what the DataModule knows; called by Lightning before training and testing."""
        data = getattr(self._trainer, "datamodule", None)
        if self.hparams["class_names"] is None and (names := getattr(data, "class_names", None)) is not None:
            self.hparams["class_names"] = list(names)
        if self.hparams["num_classes"] is None:
            self.hparams["num_classes"] = getattr(data, "num_classes", None)
        found = getattr(data, "preprocessing", None)
        if self.hparams["preprocessing"] is None and isinstance(found, Preprocessing):
            self.hparams["preprocessing"] = found.to_dict()
        if self.network is None:
            self._build()

    def _build(self) -> None:
        num_classes = self.hparams["num_classes"]
        if num_classes is None:
            raise ConfigError("the number of classes is not known: give Classifier(num_classes=…) or an ImageData")
        size, channels = (
            (self.preprocessing.size, self.preprocessing.channels) if self.preprocessing else ((224, 224), 3)
        )
        if self.hparams["name"] == "auto":
            self.hparams["name"] = SIMPLE_CNN if max(size) <= THUMBNAIL else "resnet18"
        if self.hparams["lr"] is None:
            self.hparams["lr"] = 3e-3 if self.hparams["name"] == SIMPLE_CNN else 1e-3
        self.network = build_network(
            self.hparams["name"], num_classes, channels, size, pretrained=self.hparams["pretrained"]
        )
        for stage in ("train", "val", "test"):
            self.metrics[f"{stage}_metrics"] = classification_metrics(num_classes, f"{stage}_")
            # Not Lightning's own mean: over ranks with unequal batches that one is not the mean over images.
            self.metrics[f"{stage}_loss"] = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalised float images (B, C, H, W)."""
        if self.network is None:
            self.configure_model()
        assert self.network is not None
        logits: Tensor = self.network(images)
        return logits

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        metrics, mean_loss = self.metrics[f"{stage}_metrics"], self.metrics[f"{stage}_loss"]
        assert isinstance(metrics, MetricCollection)
        assert isinstance(mean_loss, MeanMetric)
        metrics.update(logits, labels)
        mean_loss.update(loss.detach(), len(labels))
        training = stage == "train"
        if training:
            self.log("train_loss_step", loss, on_step=True, on_epoch=False, prog_bar=True)
        epoch = {f"{stage}_loss_epoch" if training else f"{stage}_loss": mean_loss, **dict(metrics.items())}
        self.log_dict(epoch, on_step=False, on_epoch=True, prog_bar=not training, batch_size=len(labels))
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean cross-entropy of a batch and log ``train_loss``, ``train_acc``, ``train_f1``."""
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``val_loss``, ``val_acc``, ``val_f1`` over the epoch."""
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``test_loss``, ``test_acc``, ``test_f1`` over the epoch."""
        self._step(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return class probabilities (B, num_classes) of a batch of images, with or without labels."""
        images = batch[0] if isinstance(batch, list | tuple) else batch
        return cast(Tensor, self(images).softmax(dim=1))

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with its schedule stepping every batch.

        Raises:
            ConfigError: timm's factory does not know the optimizer.
        """
        import timm.optim

        name, lr = self.hparams["optimizer"], self.hparams["lr"]
        if name not in timm.optim.list_optimizers():
            near = difflib.get_close_matches(name, timm.optim.list_optimizers(), n=5)
            raise ConfigError(f"no optimizer {name!r}; near: {', '.join(near)}")
        optimizer = timm.optim.create_optimizer_v2(self, opt=name, lr=lr, weight_decay=self.hparams["weight_decay"])
        steps = self.trainer.estimated_stepping_batches
        if self.hparams["schedule"] == "constant" or steps == float("inf"):
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def load_classifier(path: str | Path) -> Classifier:
    """Open a checkpoint of a :class:`Classifier`, on the CPU, in evaluation mode; nothing in it is executed.

    Raises:
        ConfigError: there is no such file, it is damaged, or it is a checkpoint of another model.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch.load names no exception types for damaged files
        raise ConfigError(f"{path}: not a readable checkpoint ({type(error).__name__}); is it complete?") from None
    fields = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else {}
    if not {"name", "num_classes", "class_names", "preprocessing"} <= set(fields):
        raise ConfigError(
            f"{path}: a checkpoint of another model, not of sagitta.Classifier; load it with the code that wrote it"
        )
    classifier = Classifier(**{**fields, "pretrained": False})  # its weights follow at once
    try:
        classifier.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, KeyError) as error:
        raise ConfigError(
            f"{path}: the weights do not fit model {fields['name']!r}: {str(error).splitlines()[0]}"
        ) from None
    return classifier.eval()
