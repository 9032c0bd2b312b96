"""One good recipe for each situation: what `fit` uses wherever nothing is said, and why."""

from dataclasses import dataclass, replace

from sagitta.loading import THUMBNAIL, Policy
from sagitta.models.ranges import Schedule, Tune
from sagitta.models.small import RESNET_SMALL, RESNET_WHITENED, SIMPLE_CNN

_TINY = 16  # pixels; smaller images have nothing to blank out
_THUMBNAILS, _TINIES = 240_000, 30_000  # images that a run shows our ResNets, in 4 to 40 epochs: LOG.md
_SAMPLES = 50_000  # a run from scratch shows the model about so many images, in 10 to 30 epochs
_FEW = 20_000  # rows
_LONG = 10  # epochs, from which an image is seen often enough for cutout to help
_STEPS = 200  # fewer leave even BatchNorm's statistics behind
_NEVER = 0  # stop early: while a cycle's rate is high val_loss stands still, and its last part gains most


@dataclass(frozen=True)
class Situation:
    """What a recipe is chosen by.

    Attributes:
        size: longer side of the model's input, pixels.
        rows: training rows; 0 where unknown, as of ordinary DataLoaders: fine-tuning then treats them as many.
        pretrained: the network begins with weights of another training.
        tune: what of it is trained.
        model: wanted network, or ``auto``.
        device: ``cpu``, ``cuda`` …
        bf16: the device computes with bfloat16 faster than with float32.
        classes: their number, 0 where unknown.
        head_first: the head is solved before anything else is trained, as ``fit`` does with one label an image.
        epochs: wanted; 0 or less where the recipe decides.
    """

    size: int
    rows: int = 0
    pretrained: bool = False
    tune: Tune = "full"
    model: str = "auto"
    device: str = "cpu"
    bf16: bool = False
    classes: int = 0
    head_first: bool = False
    epochs: int = 0

    @property
    def few(self) -> bool:
        """Whether a pretrained network overfits these rows before it has seen enough."""
        return 0 < self.rows < _FEW

    @property
    def very_few(self) -> bool:
        """Whether there are so few rows that small batches are needed for enough steps."""
        return 0 < self.rows < _FEW // 10

    @property
    def images_a_class(self) -> float:
        """Training rows of a class on average, 0 where unknown."""
        return self.rows / self.classes if self.classes else 0.0


@dataclass(frozen=True)
class Recipe:
    """Settings for one situation; each is overridden by its flag.

    Attributes:
        reason: one line, why these.
        name: of the network.
        lr: highest learning rate, that of the head.
        epochs: at most so many.
        optimizer: timm's name.
        weight_decay: see :func:`sagitta.models.optim.build_optimizer`.
        schedule: of the learning rate.
        layer_decay: ratio of the learning rates of neighbouring layers.
        freeze_bn: see :class:`sagitta.models.Classifier`.
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016).
        batch_size: images a device and batch.
        auto: automatic augmentation.
        cutout: side of the square that is blanked out, as a share of the image's.
        precision: Lightning's word.
        ema: decay of the weights' moving average a step; 0: none.
        patience: epochs without a better val_loss before stopping.
    """

    reason: str
    name: str
    lr: float
    epochs: int
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: Schedule = "one-cycle"
    layer_decay: float = 1.0
    freeze_bn: bool = False
    label_smoothing: float = 0.0
    batch_size: int = 64
    auto: Policy = "none"
    cutout: float = 0.0
    precision: str = "32-true"
    ema: float = 0.0
    patience: int = 10


BY_RECIPE = ("name", "optimizer", "lr", "weight_decay", "schedule", "layer_decay", "label_smoothing", "freeze_bn")
"""What of a recipe is the model's: arguments of the classifier where they are None (the name: ``auto``)."""


def choose(situation: Situation) -> Recipe:
    """Return the recipe for a situation; pure."""
    if situation.pretrained:
        return _head(situation) if situation.tune == "head" else _fine_tuning(situation)
    recipe = _thumbnails(situation) if situation.size <= THUMBNAIL else _photos(situation)
    return recipe if situation.model == "auto" else replace(recipe, name=situation.model)


def _thumbnails(situation: Situation) -> Recipe:
    tiny = situation.size < _TINY
    if situation.model not in ("auto", RESNET_WHITENED, RESNET_SMALL):
        return Recipe(
            "small images from scratch: one cycle with a high learning rate",
            name=situation.model,
            lr=3e-3 if situation.model == SIMPLE_CNN else 1e-3,
            epochs=_epochs(situation.rows),
            patience=_NEVER,
        )
    epochs = min(40, max(4, round((_TINIES if tiny else _THUMBNAILS) / max(situation.rows, 1))))
    run = situation.epochs if situation.epochs > 0 else epochs
    cutout = not tiny and run >= _LONG
    few_steps = 0 < run * situation.rows < _STEPS * 128
    return Recipe(
        "thumbnails from scratch: a narrow ResNet behind a whitening layer, Muon, one cycle with a high learning rate, "
        f"smoothed labels{', cutout' if cutout else ''}",
        name=RESNET_WHITENED,
        lr=6e-3,
        epochs=epochs,
        optimizer="muon",
        weight_decay=0.05,
        label_smoothing=0.1,
        batch_size=32 if few_steps else 128,
        cutout=0.3 if cutout else 0.0,
        precision="bf16-mixed" if situation.bf16 else "32-true",
        patience=_NEVER,
    )


def _photos(situation: Situation) -> Recipe:
    return Recipe(
        "photos from scratch: ResNet-18 and one cycle; pretrained weights would do far better on few photos",
        name="resnet18",
        lr=1e-3,
        epochs=_epochs(situation.rows),
        patience=_NEVER,
    )


def _fine_tuning(situation: Situation) -> Recipe:
    few = situation.few
    recipe = Recipe(
        f"fine-tuning pretrained weights on {'few' if few else 'many'} photos: lower layers learn more slowly, "
        f"{'BatchNorm keeps its statistics, ' if few else ''}warm-up and cosine, smoothed labels, TrivialAugment, "
        "averaged weights",
        name=_pretrained_name(situation),
        lr=1e-3,
        epochs=15 if few else 10,
        weight_decay=0.05,
        schedule="cosine",
        layer_decay=0.8 if few else 0.9,
        freeze_bn=few,
        label_smoothing=0.1,
        batch_size=16 if situation.very_few else 64,
        auto="trivial",
        ema=0.99 if few else 0.999,
        patience=5,
    )
    if not (few and situation.head_first):
        return recipe
    return replace(
        recipe,
        reason="fine-tuning pretrained weights on few photos: the head is solved first, then all layers learn slowly, "
        "the lower ones more so; BatchNorm keeps its statistics, TrivialAugment, averaged weights",
        lr=3e-4,
        epochs=6,
        label_smoothing=0.0,
        patience=3,
    )


def _head(situation: Situation) -> Recipe:
    return Recipe(
        "the head alone on frozen pretrained features: a high learning rate, little else can go wrong",
        name=_pretrained_name(situation),
        lr=3e-3,
        epochs=_epochs(situation.rows),
        schedule="cosine",
        batch_size=32 if situation.very_few else 64,
    )


def _pretrained_name(situation: Situation) -> str:
    if situation.model != "auto":
        return situation.model
    return "mobilenetv2_100" if situation.device == "cpu" else "resnet50"


def _epochs(rows: int) -> int:
    """Return 10 to 30 epochs, the more the fewer training rows there are."""
    return min(30, max(10, round(_SAMPLES / max(rows, 1))))
