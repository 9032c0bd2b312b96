"""Hyper-parameters that travel, checkpoints that refuse what is not theirs."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sagitta.augment import Preprocessing
from sagitta.model import Classifier, load_classifier
from sagitta.schema import ConfigError

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


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "broken.ckpt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.ckpt: not a readable checkpoint"):
        load_classifier(path)


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {"hidden": 3}}, path := tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="checkpoint of another model"):
        load_classifier(path)
    with pytest.raises(ConfigError, match="no such checkpoint"):
        load_classifier(tmp_path / "missing.ckpt")


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"hyper_parameters": Bomb()}, path := tmp_path / "bomb.ckpt")
    with pytest.raises(ConfigError, match="not a readable checkpoint"):
        load_classifier(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"optimizer": "adamv"}])
def test_settings_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    loader, arguments = DataLoader(stripes(), 32), {"num_classes": 2, **wrong}
    with pytest.raises(ConfigError, match=r"learning rate|no optimizer 'adamv'; near: .*adamw"):
        trainer(tmp_path).fit(Classifier("simple-cnn", **arguments), loader, loader)  # type: ignore[arg-type]
