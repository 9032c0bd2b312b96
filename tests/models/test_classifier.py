"""Hyper-parameters that travel, checkpoints that refuse what is not theirs."""

from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sagitta.errors import ConfigError
from sagitta.loading.datamodule import ImageData
from sagitta.loading.preprocessing import Preprocessing
from sagitta.models.checkpoint import load_classifier
from sagitta.models.classifier import Classifier
from sagitta.models.networks import build_network
from sagitta.models.ranges import Tune
from sagitta.training.callbacks import StepSeed, WeightEMA

PREPROCESSING = Preprocessing((8, 8), 1.0, "bilinear", (0.5,), (0.25,))


def stripes(count: int = 256) -> TensorDataset:
    """8x8 grey images, horizontal or vertical stripes with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    images = torch.randn(count, 1, 8, 8, generator=generator) * 0.3
    images[labels == 0, :, ::2] += 1
    images[labels == 1, :, :, ::2] += 1
    return TensorDataset(images, labels)


def trainer(folder: Path, epochs: int = 2) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_classifier_trains_on_ordinary_dataloaders(tmp_path: Path) -> None:
    classifier = Classifier("simple-cnn", num_classes=2, preprocessing=PREPROCESSING.to_dict(), lr=3e-3)
    loader = DataLoader(stripes(), 32)
    fit = trainer(tmp_path)
    fit.fit(classifier, loader, loader)
    assert {"train_loss_epoch", "train_acc", "train_f1", "val_loss", "val_acc", "val_f1"} <= set(fit.callback_metrics)
    assert fit.test(classifier, loader, verbose=False)[0]["test_acc"] > 0.95


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    names = ["horizontal", "vertical"]
    classifier = Classifier("simple-cnn", class_names=names, preprocessing=PREPROCESSING.to_dict())
    fit = trainer(tmp_path, 1)
    loader = DataLoader(stripes(64), 32)
    fit.fit(classifier, loader, loader)
    fit.save_checkpoint(path := tmp_path / "model.ckpt")
    images = stripes(8).tensors[0]
    for opened in (load_classifier(path), Classifier.load_from_checkpoint(path, weights_only=True).eval()):
        assert opened.class_names == names and opened.preprocessing == PREPROCESSING
        assert torch.equal(opened(images), classifier.eval()(images))
    probabilities = load_classifier(path).predict_step((images, None), 0)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(8))


def test_the_number_of_classes_must_come_from_somewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="number of classes is not known"):
        trainer(tmp_path).fit(Classifier("simple-cnn"), loader := DataLoader(stripes(), 32), loader)


@pytest.mark.parametrize(
    "wrong", [{"lr": 0.0}, {"optimizer": "adamv"}, {"warmup": 1.5}, {"pretrained": True, "weights": "x"}]
)
def test_settings_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    loader, arguments = DataLoader(stripes(), 32), {"num_classes": 2, **wrong}
    with pytest.raises(ConfigError, match=r"learning rate|no optimizer 'adamv'; near: .*adamw|warmup|give one"):
        trainer(tmp_path).fit(Classifier("simple-cnn", **arguments), loader, loader)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageData]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGITTA_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = ImageData("digits", batch_size=32)
        data.prepare_data()
        data.setup()
        yield data


def tuned(
    folder: Path, digits: ImageData, tune: Tune, checkpoint: Path | None = None, *, freeze_bn: bool = False
) -> tuple[pl.Trainer, Classifier]:
    """Five epochs of six steps with a moving average, saved after every fifth step."""
    pl.seed_everything(0, verbose=False)
    classifier = Classifier("resnet20", tune=tune, layer_decay=0.8, lr=1e-2, schedule="cosine", freeze_bn=freeze_bn)
    saved = ModelCheckpoint(folder, "{step}", every_n_train_steps=5, save_top_k=-1)
    fit = pl.Trainer(
        max_epochs=5,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_train_batches=6,
        limit_val_batches=2,
        callbacks=[StepSeed(0), WeightEMA(0.9), saved],
    )
    fit.fit(classifier, digits, ckpt_path=checkpoint, weights_only=True)
    return fit, classifier


@pytest.mark.filterwarnings("ignore:Checkpoint directory")  # the resumed runs go on in it
@pytest.mark.parametrize("tune", ["full", "gradual"])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, digits: ImageData, tune: Tune) -> None:
    """Steps 5, 15 and 25 lie in the middle of an epoch: the head alone, some layers, everything."""
    whole, classifier = tuned(tmp_path, digits, tune)
    expected = {name: value.clone() for name, value in classifier.state_dict().items()}
    for step in (5, 15, 25):
        resumed, other = tuned(tmp_path, digits, tune, tmp_path / f"step={step}.ckpt")
        assert resumed.global_step == whole.global_step == 30
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in expected.items()), step


def test_the_head_alone_leaves_weights_and_statistics(tmp_path: Path, digits: ImageData) -> None:
    pl.seed_everything(0, verbose=False)
    before = build_network("resnet20", 10, 1, (8, 8)).state_dict()
    pl.seed_everything(0, verbose=False)
    _, classifier = tuned(tmp_path, digits, "head")
    assert classifier.network is not None
    after = classifier.network.state_dict()
    changed = {
        name
        for name, value in before.items()
        if value.shape != after[name].shape or not torch.equal(value, after[name])
    }
    assert changed == {"linear.weight", "linear.bias"}


@pytest.mark.parametrize("tune", ["full", "gradual"])
def test_frozen_statistics_stay_in_every_epoch(tmp_path: Path, digits: ImageData, tune: Tune) -> None:
    _, classifier = tuned(tmp_path, digits, tune, freeze_bn=True)
    assert classifier.network is not None
    for name, module in classifier.network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and not module.running_mean.any(), name
            assert not torch.equal(module.weight, torch.ones_like(module.weight)), name


def test_weights_come_from_a_file_and_the_checkpoint_does_not_need_it(tmp_path: Path) -> None:
    source = Classifier("resnet20", num_classes=10).network
    assert source is not None
    torch.save(source.state_dict(), file := tmp_path / "weights.pth")
    classifier = Classifier("resnet20", weights=str(file), num_classes=2, channels_last=False)
    assert classifier.weights_report.startswith("weights: weights.pth: 95 of 97 tensors matched, the head")
    fit = trainer(tmp_path, 1)
    images = torch.randn(64, 3, 8, 8)
    loader = DataLoader(TensorDataset(images, torch.arange(64) % 2), 32)
    fit.fit(classifier, loader, loader)
    fit.save_checkpoint(path := tmp_path / "model.ckpt")
    file.unlink()
    for opened in (load_classifier(path), Classifier.load_from_checkpoint(path, weights_only=True).eval()):
        assert opened.origin is not None
        assert opened.origin["file"] == "weights.pth" and len(opened.origin["sha256"]) == 64
        torch.testing.assert_close(opened(images), classifier.eval()(images))


def test_smoothing_and_class_weights_are_in_the_training_loss(tmp_path: Path, digits: ImageData) -> None:
    classifier = Classifier("simple-cnn", label_smoothing=0.1, class_weights="balanced")
    trainer(tmp_path, 1).fit(classifier, digits)
    weights = classifier.loss_weights
    assert weights is not None and float((weights * torch.from_numpy(digits.class_counts)).sum()) == pytest.approx(1439)
    logits, labels = torch.randn(8, 10), torch.arange(8)
    expected = F.cross_entropy(logits, labels, weights, label_smoothing=0.1)
    assert torch.equal(classifier._loss(logits, labels, training=True), expected)


def test_class_weights_need_data_that_knows_its_classes(tmp_path: Path) -> None:
    classifier = Classifier(
        "simple-cnn", num_classes=2, class_weights="balanced", preprocessing=PREPROCESSING.to_dict()
    )
    with pytest.raises(ConfigError, match="class weights"):
        trainer(tmp_path).fit(classifier, loader := DataLoader(stripes(), 32), loader)


def test_mixing_trains_on_shares_and_repeats(tmp_path: Path) -> None:
    def classifier() -> Classifier:
        pl.seed_everything(0)
        how = PREPROCESSING.to_dict()
        return Classifier("simple-cnn", num_classes=2, preprocessing=how, mixup=0.2, cutmix=1.0, seed=5)

    loader = DataLoader(stripes(), 32)
    weights = []
    for attempt in range(2):
        model = classifier()
        fit = trainer(tmp_path / str(attempt), 1)
        fit.fit(model, loader, loader)
        weights.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    assert torch.equal(*weights)
    assert float(fit.callback_metrics["train_loss_epoch"]) > 0 and "val_acc" in fit.callback_metrics
    with pytest.raises(ConfigError, match="mixup -1"):
        Classifier("simple-cnn", num_classes=2, mixup=-1)
