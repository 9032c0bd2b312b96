"""ImageData: a plain LightningDataModule that works with anybody's LightningModule."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sagitta.conversion.pipeline import ConvertOptions
from sagitta.errors import ConfigError, DatasetError, SourceError
from sagitta.loading.datamodule import ImageData
from sagitta.loading.preprocessing import Preprocessing
from sagitta.models.classifier import Classifier


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


class Plain(pl.LightningModule):
    """Somebody's own module: no word of Sagitta in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.seen: list[tuple[torch.dtype, torch.Size]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        self.seen.append((x.dtype, x.shape))
        return F.cross_entropy(self.layer(x.flatten(1)), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_acc", (self.layer(x.flatten(1)).argmax(1) == y).float().mean(), batch_size=len(y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def trainer(folder: Path, epochs: int = 1, **arguments: object) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,  # type: ignore[arg-type]
    )


def test_a_users_own_module_trains_unchanged(tmp_path: Path) -> None:
    fit = trainer(tmp_path, 5)
    fit.fit(module := Plain(), ImageData("digits", batch_size=32))
    assert set(module.seen) == {(torch.float32, torch.Size([32, 1, 8, 8]))}
    assert float(fit.callback_metrics["val_acc"]) > 0.7


def test_everything_is_found(photo_folder: Path, tmp_path: Path) -> None:
    data = ImageData(photo_folder, batch_size=8, image_size=32)
    trainer(tmp_path).fit(classifier := Classifier(lr=1e-3), data)
    assert (data.num_classes, data.class_names) == (2, ("china", "flower"))
    assert classifier.class_names == ["china", "flower"]
    assert classifier.preprocessing == data.preprocessing == Preprocessing.of_dataset(data.info, 32)
    probabilities = trainer(tmp_path).predict(classifier, data)
    assert probabilities and probabilities[0].shape[1] == 2  # type: ignore[union-attr]


def test_the_profile_travels_with_the_checkpoint(photo_folder: Path, tmp_path: Path) -> None:
    data = ImageData(photo_folder, batch_size=8, image_size=32, profile="fast")
    fit = trainer(tmp_path)
    fit.fit(Classifier(), data)
    assert data.answers()["transforms"]["evaluation"]["profile"] == "fast"
    fit.save_checkpoint(tmp_path / "model.ckpt")
    trained = Classifier.load_from_checkpoint(tmp_path / "model.ckpt").preprocessing
    assert trained == data.preprocessing
    evaluation, exact = (ImageData(photo_folder, preprocessing=trained, profile=p) for p in (None, "exact"))
    for each in (evaluation, exact):
        each.setup("test")
    assert evaluation.preprocessing.profile == "fast"
    assert exact.preprocessing.profile == "exact"
    assert not torch.equal(evaluation.sample("val", 4)[0], exact.sample("val", 4)[0])
    with pytest.raises(ConfigError, match="profile 'quick'"):
        ImageData(photo_folder, profile="quick")  # type: ignore[arg-type]  # wrong on purpose


def test_it_answers_the_four_questions_from_what_was_saved(photo_folder: Path, tmp_path: Path) -> None:
    data = ImageData(photo_folder, batch_size=8, image_size=32, convert=ConvertOptions(val=0.2, test=0.1))
    fit = trainer(tmp_path)
    fit.fit(Classifier("simple-cnn"), data)
    fit.save_checkpoint(path := tmp_path / "model.ckpt")
    answers = torch.load(path, weights_only=True)["ImageData"]
    assert answers["splits"] == {"train": 28, "val": 8, "test": 4}
    assert answers["transforms"]["evaluation"]["size"] == [32, 32]
    assert answers["transforms"]["train"]["flip"] == 0.5
    assert len(answers["normalisation"]["mean"]) == 3
    assert answers["preparation"]["layout"] and answers["fingerprint"] == data.info.fingerprint


def test_sample_is_spread_over_the_split() -> None:
    data = ImageData("digits")
    data.prepare_data()
    data.setup("fit")
    images, labels = data.sample("val", 16)
    assert images.shape == (16, 1, 8, 8) and images.dtype == torch.uint8
    assert len(set(labels.tolist())) > 4


def test_setup_and_teardown_may_be_repeated() -> None:
    data = ImageData("digits")
    data.prepare_data()
    for _ in range(2):
        data.setup("fit")
        assert len(next(iter(data.val_dataloader()))[1]) > 0
        data.teardown("fit")
    assert data.num_classes == 10


def test_errors_come_before_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch size 0"):
        ImageData("digits", batch_size=0)
    with pytest.raises(ConfigError, match="image size -1"):
        ImageData("digits", image_size=-1)
    with pytest.raises(DatasetError, match="not open yet"):
        _ = ImageData("digits").num_classes
    with pytest.raises(SourceError, match="missing"):
        ImageData(tmp_path / "missing").prepare_data()


def test_classes_of_a_trained_model_are_matched_by_name() -> None:
    names = [str(label) for label in reversed(range(10))]
    data = ImageData("digits", class_names=names)
    data.prepare_data()
    data.setup("test")
    plain = ImageData("digits")
    plain.setup("test")
    assert torch.equal(next(iter(data.test_dataloader()))[1], 9 - next(iter(plain.test_dataloader()))[1])
