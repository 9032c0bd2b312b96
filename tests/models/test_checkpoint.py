"""Checkpoints hold a classifier's arguments and what belongs to its weights; those of 0.1.0 open, others do not."""

import inspect
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sagitta.errors import ConfigError
from sagitta.models.checkpoint import load_classifier
from sagitta.models.classifier import Classifier
from sagitta.training.callbacks import WeightEMA

STORED = Path(__file__).parent.parent / "golden" / "run" / "checkpoints"


def fitted(folder: Path, classifier: Classifier, labels: torch.Tensor) -> Path:
    images = torch.randn(len(labels), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(images, labels), 16)
    fit = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[WeightEMA(0.5)],
    )
    fit.fit(classifier, loader, loader)
    fit.save_checkpoint(path := folder / "model.ckpt")
    return path


def test_hyper_parameters_are_exactly_the_arguments(tmp_path: Path) -> None:
    classifier = Classifier("simple-cnn", num_classes=2)
    path = fitted(tmp_path, classifier, torch.arange(32) % 2)
    stored = torch.load(path, weights_only=True)["hyper_parameters"]
    assert set(stored) == set(inspect.signature(Classifier).parameters)
    assert stored["lr"] == 1e-3 and stored["pretrained"] is False and stored["weights"] is None
    assert Classifier(**stored).name == "simple-cnn"


def test_thresholds_and_origin_travel_beside_them(tmp_path: Path) -> None:
    torch.save(Classifier("resnet20", num_classes=3).network.state_dict(), file := tmp_path / "first.pth")  # type: ignore[union-attr]
    classifier = Classifier("resnet20", num_classes=3, weights=str(file), multilabel=True)
    labels = (torch.rand(32, 3, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    path = fitted(tmp_path, classifier, labels)
    assert classifier.thresholds != [0.5] * 3
    for opened in (load_classifier(path), Classifier.load_from_checkpoint(path, weights_only=True)):
        assert opened.thresholds == classifier.thresholds and opened.multilabel
        assert opened.origin == classifier.origin and opened.origin is not None and opened.origin["file"] == "first.pth"


def test_a_checkpoint_of_an_untrained_model_says_what_it_is(tmp_path: Path) -> None:
    fit = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    fit.strategy.connect(Classifier("resnet20", num_classes=2, tune="head"))
    fit.save_checkpoint(path := tmp_path / "model.ckpt")
    assert load_classifier(path).hparams["lr"] is not None


def test_checkpoints_of_the_first_version_open() -> None:
    path = STORED / "last.ckpt"
    stored = torch.load(path, weights_only=True)["hyper_parameters"]
    assert {"origin", "thresholds"} <= set(stored)
    for opened in (load_classifier(path), Classifier.load_from_checkpoint(path, weights_only=True)):
        assert opened.class_names == stored["class_names"] and opened.origin == stored["origin"]
        assert not opened.may_see_stages and opened.hparams.pop("stages") is None  # came later
        assert {**opened.hparams, "origin": stored["origin"], "thresholds": stored["thresholds"]} == stored


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
    with pytest.raises(ConfigError, match="getattr could run code"):
        load_classifier(path)
    assert not (tmp_path / "executed").exists()
