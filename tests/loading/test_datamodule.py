"""ImageData: a plain LightningDataModule that works with anybody's LightningModule."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from sagitta.conversion.options import ConvertOptions
from sagitta.errors import ConfigError, DatasetError, SourceError
from sagitta.images import Reduction
from sagitta.images.decoding import decode_batch
from sagitta.loading import pixels
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


def opened(source: str | Path = "digits", **settings: Any) -> ImageData:
    data = ImageData(source, **settings)
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call has decoded."""
    calls: list[int] = []

    def counting(images: list[memoryview], *arguments: Any, **settings: Any) -> None:
        calls.append(len(images))
        decode_batch(images, *arguments, **settings)

    monkeypatch.setattr(pixels, "decode_batch", counting)
    return calls


def test_a_sample_of_thumbnails_decodes_its_own_rows_and_all_loaders_share_what_is_decoded(decoded: list[int]) -> None:
    data = opened(batch_size=100)
    before = data.sample("train", 16)[0]
    assert sum(decoded) == 16
    loader = data.train_dataloader()
    assert sum(decoded) == 16
    first = [images for images, _ in loader]
    assert sum(decoded) == 16 + data.rows
    assert torch.equal(first[0], next(iter(data.train_dataloader()))[0])  # epoch 0 of another loader
    assert torch.equal(data.sample("train", 16)[0], before)
    assert sum(decoded) == 16 + data.rows


def test_a_model_is_adopted() -> None:
    names = [str(label) for label in reversed(range(11))]
    data = opened()
    plain = data.preprocessing
    model = replace(plain, size=(12, 12), mean=(0.5,), std=(0.5,))
    for _ in range(2):
        data.adopt(names, model)
        assert data.class_names == tuple(names) and data.preprocessing == model
        assert data.class_counts[0] == 0 and data.class_counts.sum() == data.rows == len(data.shards.splits["train"])
        assert data.answers()["class_names"] == names and data.answers()["normalisation"]["mean"] == [0.5]
        images, labels = next(iter(data.val_dataloader()))
        assert images.shape[2:] == (12, 12)
        assert labels[0] == 10 - data.shards.splits["val"].labels[0] == data.as_dataset("val")[0][1]
    data.adopt(names[1:], None)
    assert data.class_names == tuple(names[1:]) and data.preprocessing == plain
    with pytest.raises(ConfigError, match="2 classes that the model does not know: 8, 9"):
        data.adopt(names[3:], model)


def test_what_was_asked_for_stays_or_is_refused() -> None:
    names = [str(label) for label in range(10)]
    model = replace(opened().preprocessing, size=(32, 32))
    data = opened(image_size=16, profile="fast")
    data.adopt(names, model)
    assert data.preprocessing == replace(model, size=(16, 16), profile="fast")
    wanted = opened(preprocessing=model, image_size=16, class_names=names)
    wanted.adopt(names, wanted.preprocessing)  # what a model trained on it has taken
    assert wanted.preprocessing.size == (16, 16) and wanted.wanted_preprocessing == model
    with pytest.raises(ConfigError, match="leave the preprocessing out"):
        wanted.adopt(names, replace(model, mean=(0.1,)))
    with pytest.raises(ConfigError, match="leave class_names out"):
        wanted.adopt(names[::-1], model)
    assert wanted.class_names == tuple(names)


def test_without_a_train_split_there_are_no_training_rows() -> None:
    data = opened()
    del data.shards.splits["train"]
    assert data.rows == 0 and data.class_counts.tolist() == [0] * 10


def test_without_a_test_split_a_test_is_refused_and_a_prediction_made(tmp_path: Path) -> None:
    """These are the rows that choose a checkpoint: their figures are no test's."""
    data = ImageData("digits", convert=ConvertOptions(test=0))
    data.prepare_data()
    data.setup()
    with pytest.raises(ConfigError, match="digits: no test split to test on, only train, val; convert with --test"):
        trainer(tmp_path).test(Classifier("resnet20"), data, verbose=False)
    assert sum(len(labels) for _, labels in data.predict_dataloader()) == len(data.shards.splits["val"])
    data.tested_split = "train"
    assert sum(len(labels) for _, labels in data.test_dataloader()) == data.rows  # no tail is dropped


def test_own_transforms_are_applied_and_recorded() -> None:
    def darker(image: Tensor) -> Tensor:
        return image // 2

    plain = opened(batch_size=8)
    data = opened(batch_size=8, train_transform=np.flip, eval_transform=darker)
    assert torch.equal(next(iter(data.val_dataloader()))[0], next(iter(plain.val_dataloader()))[0] // 2)
    assert torch.equal(next(iter(data.test_dataloader()))[0], next(iter(plain.test_dataloader()))[0] // 2)
    recorded = data.answers()["transforms"]
    assert recorded["eval_transform"].endswith("darker") and "flip" in recorded["train_transform"]
    assert "eval_transform" not in plain.answers()["transforms"]
    with pytest.raises(ConfigError, match="cannot be sent"):
        opened(eval_transform=darker, transform_workers=1)


def test_a_model_and_data_of_another_range_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(12):
        path = tmp_path / "xray" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(200, 3000, (20, 20), np.uint16)).save(path)

    def opened(**options: Any) -> ImageData:
        data = ImageData(tmp_path / "xray", convert=ConvertOptions(**options))
        data.prepare_data()
        data.setup()
        return data

    plain, ranged = opened(), opened(range="0,4095")
    how = ranged.preprocessing
    assert how.reduction == Reduction((0, 4095)) and plain.preprocessing.reduction is None
    ranged.adopt("ab", how)
    for data, other, words in (
        (plain, how, "was converted with neither --range nor --bands, but the model .* with --range 0,4095"),
        (ranged, replace(how, reduction=None), "was converted with --range 0,4095, but the model .* with neither"),
        (ranged, replace(how, reduction=Reduction((0, 9))), "with --range 0,4095, but the model .* with --range 0,9"),
    ):
        with pytest.raises(ConfigError, match=words):
            data.adopt("ab", other)
