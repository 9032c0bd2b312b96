"""Classifier: any network by name, as a plain LightningModule with one shared step.

The checkpoint carries the class names and the preprocessing as hyper-parameters, so whoever opens it knows what an
output means and what the input has to be.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.loading import Preprocessing
from sagitta.models.adoption import Agreement, FirstWeights, some
from sagitta.models.measures import Measures
from sagitta.models.networks import build_network
from sagitta.models.optim import (
    WARMUP,
    balanced_weights,
    build_optimizer,
    build_schedule,
    drop_frozen_gradients,
    freeze,
    lowest_trained,
)
from sagitta.models.ranges import Schedule, Tune, check_ranges
from sagitta.models.recipe import BY_RECIPE, Recipe, choose
from sagitta.models.stages import see_stages, stage_widths, stages_of
from sagitta.models.task import Task, mix
from sagitta.models.weights import load_weights

_EPOCHS = 10  # by which gradual unfreezing goes where the number of epochs is not known


class Classifier(pl.LightningModule):
    """An image classifier for any DataModule or DataLoader of ``(images, labels)``.

    A DataModule that knows its classes and preprocessing (``ImageData`` does) and the model agree on them, see
    :meth:`prepare`; with ordinary DataLoaders give ``num_classes``.

    What is None is decided by the recipe for the situation, see :func:`sagitta.models.recipe.choose`; how many rows
    ordinary DataLoaders have is not known.

    ``hparams``, and so every checkpoint, hold exactly the arguments, with what was decided in the place of None.

    Args:
        name: see :func:`build_network`; ``auto`` takes the recipe's.
        pretrained: begin with the weights that timm or torchvision publishes, and a new head.
        weights: begin with those of a file, a checkpoint or a run, see :mod:`sagitta.models.weights`.
        stages: the head sees every stage of the network, not the last features alone, see
            :mod:`sagitta.models.stages`; None: where it is solved, what is better on rows that it has not seen, and
            else what the weights came with.
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
        evaluated: probabilities (N, classes) and labels of the last validation or test outside of a fit, over all
            devices, rank by rank; the logged metrics come from them.
        network: the network, None where it is not known yet what it has to be.
        recipe: what was decided; None before :meth:`prepare`.
        origin: name (``file``) and ``sha256`` of the weights file that training began with; None without.
        new_head: the network begins with weights of another training, but for its last layer.
        temperature: that its last linear layer was divided by after the training, see
            :mod:`sagitta.models.folding`; 1 where it was not.
        weights_report: one line on what that file was and what of it fitted; empty without.

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
        stages: bool | None = None,
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
        arguments = {name: value for name, value in locals().items() if name in ARGUMENTS}
        super().__init__()
        check_ranges(arguments)
        names = None if class_names is None else tuple(class_names)
        outputs = len(names) if num_classes is None and names is not None else num_classes
        how = None if preprocessing is None else Preprocessing.from_dict(preprocessing)
        self._agreement = Agreement(name, FirstWeights(pretrained, weights), None, outputs, names, multilabel, how)
        first = {"name": name, "pretrained": pretrained, "weights": weights}
        self.save_hyperparameters(arguments | self._agreement.hyper_parameters() | first)
        self.tune, self.seed = tune, seed
        self.mixup, self.cutmix, self.warmup, self.class_weights = mixup, cutmix, warmup, class_weights
        self.channels_last, self._compiled = channels_last, compile
        self._stages = stages
        self._given = {each: arguments[each] for each in BY_RECIPE[1:] if arguments[each] is not None}
        self._settled = False
        self.recipe: Recipe | None = None
        self.weights_report = ""
        self.new_head = False
        self.origin: dict[str, str] | None = None
        self._thresholds: list[float] | None = None
        self.temperature = 1.0
        self.network: nn.Module | None = None
        self.measures: Measures | None = None
        self.evaluated: tuple[Tensor, Tensor] | None = None
        self.flip = False
        self.register_buffer("loss_weights", None, persistent=False)
        self.loss_weights: Tensor | None
        if outputs is not None and (how is not None or name != "auto"):
            self._agreement = self._agreement.learned(None, "cpu", built=False)
            self._build()

    @property
    def name(self) -> str:
        """Of the network; ``auto`` where it is not known yet."""
        return self._agreement.name

    @property
    def num_classes(self) -> int:
        """Number of outputs; 0 where it is not known yet."""
        return self._agreement.num_classes or 0

    @property
    def class_names(self) -> list[str]:
        """What each output means; the label's number where no names are known."""
        return list(self._agreement.class_names or map(str, range(self.num_classes)))

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the network's input has to be, where it is known."""
        return self._agreement.preprocessing

    @property
    def task(self) -> Task:
        """Loss, metrics and decisions of one label an image, or of several."""
        return self._agreement.task

    @property
    def multilabel(self) -> bool:
        """Whether an image has several labels, or none."""
        return self.task.multilabel

    @property
    def thresholds(self) -> list[float]:
        """The probability from which each of several labels is given: best on validation, 0.5 before there was one."""
        return self._thresholds or [0.5] * self.num_classes

    @thresholds.setter
    def thresholds(self, values: list[float] | None) -> None:
        self._thresholds = values

    def prepare(self, data: Any = None, *, device: str | None = None) -> None:
        """Let model and data agree, and build what is not built yet; as often as one likes.

        A fresh model takes what it was not given from the data: classes, one label or several, and preprocessing; with
        pretrained weights, theirs, unless the data was given another one. An image size given to the data changes the
        size alone. The recipe follows the number of training rows. Then, and for a model that was trained before, data
        that can ``adopt`` takes over the model's classes and preprocessing, and other data must have the classes.

        Args:
            data: any DataModule, set up; ``ImageData`` answers everything. None: nothing is known.
            device: kind of device to train on, ``cpu`` or ``cuda``; by default the Trainer's.

        Raises:
            ConfigError: the data has other classes, or another number of labels an image; or the number of classes is
                nowhere to be found.
        """
        fresh, trainer = self.preprocessing is None, self._attached
        if self.network is None and hasattr(data, "forget_model"):
            data.forget_model()  # what an earlier model had it adopt is none of this one's
        if not self._settled:
            device = device or ("cpu" if trainer is None else trainer.strategy.root_device.type)
            self._agreement = self._agreement.learned(data, device, built=self.network is not None)
            if self.network is None:
                self._build()
            if self.measures is None or self.measures.task != self.task:
                self.measures = Measures(self.task, self.num_classes)
            recipe = choose(self._agreement.situation(data, self.tune, device))
            self.recipe = replace(recipe, **self._given, name=self.name)
            self._settled = data is not None or trainer is not None
        self._agreement = self._agreement.settled(data, fresh=fresh)
        decided = {name: getattr(self.recipe, name) for name in BY_RECIPE}
        self.hparams.update(decided | self._agreement.hyper_parameters())

    def configure_model(self) -> None:
        """Prepare for what the Trainer's DataModule knows; called by Lightning before training and testing."""
        trainer = self._attached
        data = getattr(trainer, "datamodule", None)
        self.prepare(data)
        if trainer is None or trainer.state.fn != "fit":
            return
        if isinstance(own := getattr(data, "preprocessing", None), Preprocessing):
            self._take(own)  # such as another image size, which the model has learned from now on
        if self.class_weights:
            counts = getattr(data, "class_counts", None)
            if counts is None:
                raise ConfigError("class weights: the data does not say how large its classes are; use ImageData")
            self.loss_weights = balanced_weights(counts).to(self.device)
        self._freeze()  # before DistributedDataParallel looks
        self.train()  # until training starts, or Lightning warns of modules in evaluation mode

    @property
    def _attached(self) -> pl.Trainer | None:
        """The Trainer, where there is one."""
        try:
            return self.trainer
        except RuntimeError:
            return None

    def _build(self) -> None:
        """Make the network, with its first weights."""
        if not self.num_classes:
            raise ConfigError("the number of classes is not known: give Classifier(num_classes=…) or an ImageData")
        how, first = self._agreement.input, self._agreement.first
        self.new_head = first.pretrained
        self.network = build_network(self.name, self.num_classes, how.channels, how.size, pretrained=first.pretrained)
        if self._stages or (self._stages is None and first.sees_stages(self.name, self._agreement.class_names)):
            self.decide_stages(True)
        if (weights := first.file) is not None:
            self.weights_report, self.new_head = load_weights(self.network, weights, self._agreement.class_names)
            self.origin = {"file": weights.path.name, "sha256": weights.sha256}
            first.close()
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if self._compiled:
            self.network.compile()

    @property
    def may_see_stages(self) -> bool:
        """Whether nobody has decided yet if the head sees every stage, and it could."""
        if self._stages is not None or self.network is None or stage_widths(self.network):
            return False
        how = self._agreement.input
        return bool(stages_of(self.network, how.size, how.channels))

    def decide_stages(self, stages: bool) -> None:
        """Give the network a new head that sees every stage, or leave it; from now on this is decided.

        Raises:
            ConfigError: there is nothing but the last features to see.
        """
        assert self.network is not None
        if stages and not stage_widths(self.network):
            how = self._agreement.input
            see_stages(self.network, self.name, how.size, how.channels)
        self._stages = stages
        self.hparams["stages"] = stages

    def freeze_for(self, network: nn.Module, epoch: int, epochs: int) -> None:
        """Freeze what an epoch does not train of this network, or of a copy of it."""
        assert self.recipe is not None
        hold = self._holds_gradients
        freeze(network, self.tune, epoch, epochs, freeze_bn=self.recipe.freeze_bn, hold_gradients=hold)

    def _freeze(self) -> None:
        if self.network is not None:
            self.freeze_for(self.network, self.current_epoch, self._epochs)

    @property
    def _epochs(self) -> int:
        """Epochs of the whole training, as far as they are known."""
        trainer = self._attached
        return (trainer and trainer.max_epochs) or _EPOCHS

    @property
    def _holds_gradients(self) -> bool:
        trainer = self._attached
        return self.tune == "gradual" and trainer is not None and trainer.world_size > 1

    def on_train_start(self) -> None:
        """Freeze also where a run is resumed in the middle of an epoch."""
        self._freeze()

    def on_train_epoch_start(self) -> None:
        """Unfreeze what this epoch adds."""
        self._freeze()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep frozen layers frozen where several devices had to compute their gradients."""
        if self._holds_gradients and self.network is not None:
            lowest = lowest_trained(self.network, self.tune, self.current_epoch, self._epochs)
            drop_frozen_gradients(self.network, lowest)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the first weights were, and the thresholds that belong to these."""
        if self.recipe is None:  # saved before anything was trained
            self.prepare()
            checkpoint["hyper_parameters"] = dict(self.hparams)
        checkpoint |= {"origin": self.origin, "thresholds": self._thresholds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what the first weights were, and the thresholds that belong to these.

        Raises:
            ConfigError: the checkpoint's outputs mean other classes than this model's.
        """
        stored = checkpoint.get("hyper_parameters", {})
        names, mine = stored.get("class_names"), self._agreement.class_names
        if mine is not None and names is not None and tuple(names) != mine:
            raise ConfigError(
                f"the checkpoint knows the classes {some(names)}, but the data has {some(mine)}; open it with "
                "load_classifier, and classes are matched by name"
            )
        if (how := stored.get("preprocessing")) is not None and (trainer := self._attached) is not None:
            self._take(Preprocessing.from_dict(how))
            self._agreement.settled(getattr(trainer, "datamodule", None), fresh=False)
        if (trainer := self._attached) is not None and trainer.precision == "64-true":
            self.double()  # Lightning does it after the weights are there, which float32 would have rounded
        if self.network is not None:  # its head is what it is, whether the checkpoint says so or is older
            self._stages = bool(stage_widths(self.network))
        before = stored if "thresholds" in stored else checkpoint  # version 0.1.0 had both among the arguments
        self.origin, self._thresholds = before.get("origin"), before.get("thresholds")
        self.temperature = checkpoint.get("temperature", 1.0)

    def _take(self, preprocessing: Preprocessing) -> None:
        """Have another preprocessing from now on, in checkpoints too."""
        self._agreement = replace(self._agreement, preprocessing=preprocessing)
        self.hparams.update(self._agreement.hyper_parameters())

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalised float images (B, C, H, W)."""
        if self.network is None:
            self.prepare()
        assert self.network is not None
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(images)
        return logits

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        images, labels = batch
        training = stage == "train"
        logits = self(images) if training else self._evaluation_logits(images)
        loss = self._loss(logits, labels, training)
        assert self.measures is not None
        fitting = self.trainer.state.fn == "fit"
        smoothed = None
        if fitting and stage == "val" and self.recipe and self.recipe.label_smoothing:
            smoothed = self.task.loss(logits, labels, None, self.recipe.label_smoothing)
        epoch = self.measures.update(stage, loss, logits.detach(), labels, fitting=fitting, smoothed=smoothed)
        if training:
            self.log("train_loss_step", loss, on_step=True, on_epoch=False, prog_bar=True)
        self.log_dict(epoch, on_step=False, on_epoch=True, prog_bar=not training, batch_size=len(labels))
        return loss

    def _loss(self, logits: Tensor, labels: Tensor, training: bool) -> Tensor:
        """Return the task's loss, in training with smoothed labels and class weights."""
        smoothing = self.recipe.label_smoothing if training and self.recipe else 0.0
        return self.task.loss(logits, labels, self.loss_weights if training else None, smoothing)

    def _evaluation_logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self(images)
        return self.task.mean_logits([logits, self(images.flip(-1))], [0.5, 0.5]) if self.flip else logits

    def _finish(self, stage: str) -> None:
        """Log the metrics of all rows where they were kept; while fitting, choose the thresholds of several labels."""
        if self.measures is None or (found := self.measures.gather()) is None:
            return
        self.evaluated = found
        if self.trainer.state.fn == "fit":
            self._thresholds = self.task.thresholds(*found)
        values = self.task.values(*found, self.thresholds)
        self.log_dict({f"{stage}_{name}": value for name, value in values.items()}, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all rows where they were kept; while training, choose the thresholds of several labels."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of all rows, of several labels at the thresholds of the validation."""
        self._finish("test")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of a batch and log ``train_loss``, ``train_acc``, ``train_f1``.

        Of mixed images, the larger share counts as the label.
        """
        if self.mixup or self.cutmix:
            key = (abs(self.seed), self.current_epoch, batch_idx)
            batch = mix(*batch, self.num_classes, mixup=self.mixup, cutmix=self.cutmix, key=key)
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
        return self.task.probabilities(self._evaluation_logits(images))

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with its schedule stepping every batch.

        Raises:
            ConfigError: timm's factory does not know the optimizer.
        """
        recipe, network = self.recipe, self.network
        assert network is not None and recipe is not None
        optimizer = build_optimizer(network, recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.layer_decay)
        steps = self.trainer.estimated_stepping_batches
        name: Schedule = "constant" if steps == float("inf") else recipe.schedule
        warmup = WARMUP[name] if self.warmup is None else self.warmup
        schedule = build_schedule(optimizer, name, int(min(steps, sys.maxsize)), warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


ARGUMENTS = tuple(inspect.signature(Classifier).parameters)
"""What a classifier is made from: the hyper-parameters in its checkpoints."""
