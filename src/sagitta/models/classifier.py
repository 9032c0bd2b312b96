"""Classifier: any network by name, as a plain LightningModule with one shared step.

The checkpoint carries the class names and the preprocessing as hyper-parameters, so whoever opens it knows what an
output means and what the input has to be.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from sagitta.errors import ConfigError
from sagitta.loading import Preprocessing
from sagitta.models.metrics import Predictions, classification_metrics, multilabel_metrics
from sagitta.models.networks import build_network, layer_numbers
from sagitta.models.optim import (
    WARMUP,
    Schedule,
    Tune,
    balanced_weights,
    build_optimizer,
    build_schedule,
    drop_frozen_gradients,
    first_trainable,
    hold_statistics,
    set_trainable,
)
from sagitta.models.recipe import Situation, choose
from sagitta.models.task import chosen_thresholds, epoch_values, mean_logits, mix, probabilities_of
from sagitta.models.weights import SAGITTA_FIELDS, load_weights, open_weights, read_checkpoint

BY_RECIPE = ("name", "optimizer", "lr", "weight_decay", "schedule", "layer_decay", "label_smoothing", "freeze_bn")
"""Arguments of :class:`Classifier` that the recipe decides where they are None (the name: ``auto``)."""

_EPOCHS = 10  # by which gradual unfreezing goes where the number of epochs is not known


class Classifier(pl.LightningModule):
    """An image classifier for any DataModule or DataLoader of ``(images, labels)``.

    Number of classes, class names, channels and preprocessing are taken from the DataModule where it knows them
    (``ImageData`` does); with ordinary DataLoaders give ``num_classes``.

    What is None is decided by the recipe for the situation, see :func:`sagitta.models.recipe.choose`.

    Args:
        name: see :func:`build_network`; ``auto`` takes the recipe's.
        pretrained: begin with the weights that timm or torchvision publishes, and a new head.
        weights: begin with those of a file, a checkpoint or a run, see :mod:`sagitta.models.weights`.
        tune: what is trained: ``full``; ``head`` with the rest frozen, BatchNorm's statistics too; or ``gradual``, the
            head first and then layer by layer from the top.
        optimizer: any name that timm's optimizer factory knows: adamw, adam, sgd, lamb, muon …
        lr: highest learning rate, that of the head.
        weight_decay: not applied to biases and normalisation layers.
        schedule: ``one-cycle``, ``cosine`` or ``constant``, see :func:`sagitta.models.optim.build_schedule`.
        warmup: share of the steps in which the learning rate rises; by default the schedule's own.
        layer_decay: learning rate of each layer as a share of that of the layer above it, up to 1.0.
        freeze_bn: BatchNorm normalises in training too by the statistics that the weights came with; those of a few
            small, augmented batches are worse.
        label_smoothing: share of each training target that is spread over all classes, 0 to 1.
        mixup: alpha of MixUp's shares in training, 0 for none; see :func:`sagitta.models.task.mix`.
        cutmix: alpha of CutMix's shares, likewise.
        class_weights: ``balanced`` weights the training loss in inverse proportion to the classes' rows.
        channels_last: memory layout of images and weights; faster for convolutions on CPUs and GPUs alike.
        compile: run the network through ``torch.compile``.
        num_classes: number of outputs, at least 2.
        class_names: what each output means.
        preprocessing: :meth:`Preprocessing.to_dict`, what the network's input has to be.
        seed: of what is random in mixing, with epoch and batch.
        multilabel: an image has several labels, or none; by default what the DataModule says, else False.

    Attributes:
        flip: in evaluation, take the mean of the probabilities of each image and its mirror image.
        evaluated: probabilities (N, classes) and labels of the last validation or test, over all devices, rank by rank.
        weights_report: one line on what the weights file was and what of it fitted; empty without.

    Raises:
        ConfigError: a value is out of range, there is no such model, its weights do not fit, or (when training begins)
            the number of classes is nowhere to be found.
    """

    def __init__(
        self,
        name: str = "auto",
        *,
        pretrained: bool = False,
        weights: str | None = None,
        tune: Tune = "full",
        optimizer: str | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        schedule: Schedule | None = None,
        warmup: float | None = None,
        layer_decay: float | None = None,
        freeze_bn: bool | None = None,
        label_smoothing: float | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        class_weights: Literal["balanced"] | None = None,
        channels_last: bool = True,
        compile: bool = False,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        seed: int = 0,
        multilabel: bool | None = None,
    ) -> None:
        super().__init__()
        if num_classes is None and class_names is not None:
            num_classes = len(class_names)
        self.save_hyperparameters(
            {
                "name": name,
                "pretrained": pretrained,
                "weights": weights,
                "tune": tune,
                "optimizer": optimizer,
                "lr": lr,
                "weight_decay": weight_decay,
                "schedule": schedule,
                "warmup": warmup,
                "layer_decay": layer_decay,
                "freeze_bn": freeze_bn,
                "label_smoothing": label_smoothing,
                "mixup": mixup,
                "cutmix": cutmix,
                "class_weights": class_weights,
                "channels_last": channels_last,
                "compile": compile,
                "num_classes": num_classes,
                "class_names": None if class_names is None else list(class_names),
                "preprocessing": None if preprocessing is None else dict(preprocessing),
                "seed": seed,
                "multilabel": multilabel,
                "origin": None,
                "thresholds": None,
            }
        )
        _check(self.hparams)
        self.weights_report = ""
        self.network: nn.Module | None = None
        self.metrics = nn.ModuleDict()
        self.predictions = Predictions()
        self.evaluated: tuple[Tensor, Tensor] | None = None
        self.flip = False
        self.register_buffer("loss_weights", None, persistent=False)
        self.loss_weights: Tensor | None
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

    @property
    def multilabel(self) -> bool:
        """Whether an image has several labels, or none."""
        return bool(self.hparams["multilabel"])

    @property
    def thresholds(self) -> list[float]:
        """The probability from which each of several labels is given: best on validation, 0.5 before there was one."""
        return self.hparams["thresholds"] or [0.5] * self.hparams["num_classes"]

    def prepare(self, data: Any, *, device: str | None = None) -> None:
        self.hparams["class_names"] = self.hparams["class_names"] or list(data.class_names)
        self.hparams["num_classes"] = len(data.class_names)
        self.hparams["multilabel"] = data.multilabel
        self.hparams["preprocessing"] = self.hparams["preprocessing"] or data.preprocessing.to_dict()
        if self.network is None:
            self._build()

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
        several = getattr(data, "multilabel", None)
        if self.network is None:
            if self.hparams["multilabel"] is None:
                self.hparams["multilabel"] = several
            self._build()
        if several is not None and several != self.multilabel:
            kinds = ("one label", "several labels")
            raise ConfigError(f"the model gives {kinds[not several]} an image, but the dataset has {kinds[several]}")
        if self.hparams["class_weights"] and self.loss_weights is None:
            counts = getattr(data, "class_counts", None)
            if counts is None:
                raise ConfigError(
                    "class weights: the data does not say how many images its classes have; use ImageData"
                )
            self.loss_weights = balanced_weights(counts).to(self.device)
        if self._trainer is not None and self._trainer.state.fn == "fit":  # before DistributedDataParallel looks
            self._freeze()
            self.train()  # until training starts, or Lightning warns of modules in evaluation mode

    def _build(self) -> None:
        num_classes = self.hparams["num_classes"]
        if num_classes is None:
            raise ConfigError("the number of classes is not known: give Classifier(num_classes=…) or an ImageData")
        size, channels = (
            (self.preprocessing.size, self.preprocessing.channels) if self.preprocessing else ((224, 224), 3)
        )
        self._resolve(size)
        self.network = build_network(
            self.hparams["name"], num_classes, channels, size, pretrained=self.hparams["pretrained"]
        )
        if self.hparams["weights"] is not None:
            weights = open_weights(self.hparams["weights"])
            self.weights_report = load_weights(self.network, weights, self.hparams["class_names"])
            self.hparams["origin"] = {"file": weights.path.name, "sha256": weights.sha256}
        # Whoever opens a checkpoint of this has the weights already, and may not have their file.
        self.hparams["pretrained"], self.hparams["weights"] = False, None
        if self.hparams["channels_last"]:
            self.network.to(memory_format=torch.channels_last)
        if self.hparams["compile"]:
            self.network.compile()
        for stage in ("train", "val", "test"):
            if not self.multilabel:
                self.metrics[f"{stage}_metrics"] = classification_metrics(num_classes, f"{stage}_")
            elif stage == "train":  # the others come from all predictions at once, see _finish
                self.metrics["train_metrics"] = multilabel_metrics(num_classes, "train_")
            # Not Lightning's own mean: over ranks with unequal batches that one is not the mean over images.
            self.metrics[f"{stage}_loss"] = MeanMetric()

    def _resolve(self, size: tuple[int, int]) -> None:
        """Let the recipe decide what was left open."""
        situation = Situation(
            max(size),
            pretrained=self.hparams["pretrained"] or self.hparams["weights"] is not None,
            tune=self.hparams["tune"],
            model=self.hparams["name"],
            device="cpu" if self._trainer is None else self._trainer.strategy.root_device.type,
        )
        recipe = choose(situation)
        for name in BY_RECIPE:
            if self.hparams[name] in (None, "auto"):
                self.hparams[name] = getattr(recipe, name)

    def _first_trainable(self) -> int:
        assert self.network is not None
        trainer = self._trainer
        epochs = (trainer and trainer.max_epochs) or _EPOCHS
        epoch = 0 if trainer is None else trainer.current_epoch
        return first_trainable(self.hparams["tune"], epoch, epochs, max(layer_numbers(self.network).values()))

    def _freeze(self) -> None:
        """Freeze what this epoch does not train; a function of the epoch alone, so a resumed run is not confused."""
        if self.network is None:
            return
        if self.hparams["tune"] != "full":
            set_trainable(self.network, self._first_trainable(), hold_gradients=self._holds_gradients)
        if self.hparams["freeze_bn"]:
            hold_statistics(self.network)

    @property
    def _holds_gradients(self) -> bool:
        return self.hparams["tune"] == "gradual" and self._trainer is not None and self._trainer.world_size > 1

    def on_train_start(self) -> None:
        """Freeze also where a run is resumed in the middle of an epoch."""
        self._freeze()

    def on_train_epoch_start(self) -> None:
        """Unfreeze what this epoch adds."""
        self._freeze()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep frozen layers frozen where several devices had to compute their gradients."""
        if self._holds_gradients and self.network is not None:
            drop_frozen_gradients(self.network, self._first_trainable())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what the first weights were, and the thresholds that belong to these."""
        for name in ("origin", "thresholds"):
            self.hparams[name] = checkpoint.get("hyper_parameters", {}).get(name)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalised float images (B, C, H, W)."""
        if self.network is None:
            self.configure_model()
        assert self.network is not None
        if self.hparams["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(images)
        return logits

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        images, labels = batch
        training = stage == "train"
        logits = self(images) if training else self._evaluation_logits(images)
        loss = self._loss(logits, labels, training)
        mean_loss: Any = self.metrics[f"{stage}_loss"]
        mean_loss.update(loss.detach(), len(labels))
        epoch = {f"{stage}_loss_epoch" if training else f"{stage}_loss": mean_loss}
        epoch |= self._keep(logits.detach(), labels, stage)
        if training:
            self.log("train_loss_step", loss, on_step=True, on_epoch=False, prog_bar=True)
        self.log_dict(epoch, on_step=False, on_epoch=True, prog_bar=not training, batch_size=len(labels))
        return loss

    def _loss(self, logits: Tensor, labels: Tensor, training: bool) -> Tensor:
        """Cross-entropy, in training with smoothed labels and class weights; of several labels binary cross-entropy."""
        weight, smoothing = (self.loss_weights, self.hparams["label_smoothing"]) if training else (None, 0.0)
        if self.multilabel:
            return F.binary_cross_entropy_with_logits(logits, labels + smoothing * (0.5 - labels), weight)
        return F.cross_entropy(logits, labels, weight, label_smoothing=smoothing)

    def _evaluation_logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self(images)
        return mean_logits(logits, self(images.flip(-1)), multilabel=self.multilabel) if self.flip else logits

    def _keep(self, logits: Tensor, labels: Tensor, stage: str) -> dict[str, Any]:
        """Update an epoch's metrics and, where all of them are needed, predictions; returns the metrics to log."""
        probabilities = probabilities_of(logits, multilabel=self.multilabel)
        if stage != "train" and (self.multilabel or self.trainer.state.fn != "fit"):
            self.predictions.update(probabilities, labels)
        if f"{stage}_metrics" not in self.metrics:
            return {}
        metrics: Any = self.metrics[f"{stage}_metrics"]
        if labels.is_floating_point():  # several labels, or MixUp's shares of them
            labels = labels.round().long() if self.multilabel else labels.argmax(dim=1)
        metrics.update(probabilities, labels)
        return dict(metrics.items())

    def _finish(self, stage: str) -> None:
        """Gather an epoch's predictions where they were kept; of several labels, choose thresholds and log."""
        if not self.predictions.update_called:
            return
        self.evaluated = probabilities, labels = self.predictions.compute()
        self.predictions.reset()
        if self.multilabel:
            if self.trainer.state.fn == "fit":
                self.hparams["thresholds"] = chosen_thresholds(probabilities, labels)
            values = epoch_values(probabilities, labels, self.thresholds)
            self.log_dict({f"{stage}_{name}": value for name, value in values.items()}, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log ``val_map``, ``val_f1``, ``val_f1_micro`` of several labels; while training, choose their thresholds."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test_map``, ``test_f1``, ``test_f1_micro`` of several labels, at the thresholds of the validation."""
        self._finish("test")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean cross-entropy of a batch and log ``train_loss``, ``train_acc``, ``train_f1``.

        Of mixed images, the larger share counts as the label.
        """
        hparams = self.hparams
        if hparams["mixup"] or hparams["cutmix"]:
            key = (abs(hparams["seed"]), self.current_epoch, batch_idx)
            how = {"mixup": hparams["mixup"], "cutmix": hparams["cutmix"]}
            batch = mix(*batch, hparams["num_classes"], **how, key=key)
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
        return probabilities_of(self._evaluation_logits(images), multilabel=self.multilabel)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with its schedule stepping every batch.

        Raises:
            ConfigError: timm's factory does not know the optimizer.
        """
        assert self.network is not None
        hparams = self.hparams
        optimizer = build_optimizer(
            self.network, hparams["optimizer"], hparams["lr"], hparams["weight_decay"], hparams["layer_decay"]
        )
        steps = self.trainer.estimated_stepping_batches
        name: Schedule = "constant" if steps == float("inf") else hparams["schedule"]
        warmup = WARMUP[name] if hparams["warmup"] is None else hparams["warmup"]
        schedule = build_schedule(optimizer, name, int(min(steps, sys.maxsize)), warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _check(settings: Mapping[str, Any]) -> None:
    """Refuse numbers out of range, before anything is built."""
    if settings["lr"] is not None and settings["lr"] <= 0:
        raise ConfigError(f"learning rate {settings['lr']}: must be above 0")
    for name in ("warmup", "layer_decay", "label_smoothing"):
        if settings[name] is not None and not 0 <= settings[name] <= 1:
            raise ConfigError(f"{name} {settings[name]}: must be from 0 to 1")
    for name in ("mixup", "cutmix"):
        if settings[name] < 0:
            raise ConfigError(f"{name} {settings[name]}: must be 0 or more")
    if settings["pretrained"] and settings["weights"] is not None:
        raise ConfigError("pretrained and weights: give one of the two")


def load_classifier(path: str | Path) -> Classifier:
    """Open a checkpoint of a :class:`Classifier`, on the CPU, in evaluation mode; nothing in it is executed.

    Raises:
        ConfigError: there is no such file, it is damaged, or it is a checkpoint of another model.
    """
    checkpoint = read_checkpoint(path)
    fields = dict(checkpoint.get("hyper_parameters", {}))
    if not set(fields) >= SAGITTA_FIELDS:
        raise ConfigError(
            f"{path}: a checkpoint of another model, not of sagitta.Classifier; load it with the code that wrote it"
        )
    for name in ("origin", "thresholds"):
        fields.pop(name, None)
    classifier = Classifier(**{**fields, "compile": False})
    classifier.on_load_checkpoint(checkpoint)
    try:
        classifier.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, KeyError) as error:
        raise ConfigError(
            f"{path}: the weights do not fit model {fields['name']!r}: {str(error).splitlines()[0]}"
        ) from None
    return classifier.eval()


def dry_run(classifier: Classifier, batch_size: int) -> None:
    """Temporary."""
