"""Model and data agree: a fresh model learns from its data, a trained one is matched by name or refuses."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.loading.datamodule import ImageData
from sagitta.loading.preprocessing import Preprocessing
from sagitta.models.checkpoint import load_classifier
from sagitta.models.classifier import Classifier
from sagitta.models.networks import build_network

COLOURS = ("red", "green", "blue")
HOW = Preprocessing((16, 16), 1.0, "bilinear", (0.5,) * 3, (0.25,) * 3)


class Brightest(nn.Module):
    """Answers with the brightest channel, so it knows red, green and blue from the beginning."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weights = nn.Linear(3, num_classes, bias=False)
        self.weights.weight.data = torch.eye(num_classes, 3) * 4

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.weights(images.mean(dim=(2, 3)))
        return logits


def folder(root: Path, colours: Sequence[str], *, names: Sequence[str] = (), grey: bool = False) -> Path:
    """Write train, val and test folders of 16x16 images, ten of each colour, under other names where some are given."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for colour, name in zip(colours, names or colours, strict=True):
            (at := root / split / name).mkdir(parents=True)
            for number in range(10):
                pixels = rng.integers(0, 60, (16, 16, 3), np.uint8)
                pixels[..., COLOURS.index(colour)] += 150
                Image.fromarray(pixels[..., 0] if grey else pixels).save(at / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))


def open_data(root: Path, **arguments: Any) -> ImageData:
    data = ImageData(root, batch_size=8, **arguments)
    data.prepare_data()
    data.setup()
    return data


def trainer(root: Path) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=root,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def knows_colours(**arguments: Any) -> Classifier:
    return Classifier(f"{__name__}.Brightest", class_names=COLOURS, preprocessing=HOW.to_dict(), **arguments)


@pytest.fixture
def resnet20(tmp_path: Path) -> Path:
    torch.save(build_network("resnet20", 10, 3, (32, 32)).state_dict(), path := tmp_path / "resnet20.th")
    return path


def stub(rows: int, **more: Any) -> Any:
    return SimpleNamespace(class_names=("a", "b"), num_classes=2, multilabel=False, rows=rows, **more)


# What a fresh model learns.


@pytest.mark.parametrize("early", [{}, {"num_classes": 2}])
@pytest.mark.parametrize(("rows", "frozen", "decay"), [(300, True, 0.8), (10**6, False, 0.9), (0, False, 0.9)])
def test_the_recipe_follows_the_number_of_rows(
    resnet20: Path, early: dict[str, Any], rows: int, frozen: bool, decay: float
) -> None:
    classifier = Classifier("resnet20", weights=str(resnet20), **early)
    classifier.prepare(stub(rows))
    assert classifier.recipe is not None
    assert (classifier.recipe.freeze_bn, classifier.recipe.layer_decay) == (frozen, decay)
    assert (classifier.hparams["freeze_bn"], classifier.hparams["layer_decay"]) == (frozen, decay)


def test_what_is_given_comes_before_the_recipe(resnet20: Path) -> None:
    classifier = Classifier("resnet20", weights=str(resnet20), freeze_bn=False, lr=0.5)
    classifier.prepare(stub(300))
    assert classifier.recipe is not None
    assert (classifier.recipe.freeze_bn, classifier.recipe.lr, classifier.recipe.layer_decay) == (False, 0.5, 0.8)


def test_a_million_rows_train_batchnorm_in_a_trainer(tmp_path: Path, resnet20: Path) -> None:
    class Many(ImageData):
        @property
        def rows(self) -> int:
            return 10**6

    classifier = Classifier("resnet20", weights=str(resnet20), lr=1e-4)
    trainer(tmp_path).fit(classifier, Many(folder(tmp_path / "data", COLOURS), batch_size=8))
    assert classifier.hparams["freeze_bn"] is False and classifier.hparams["layer_decay"] == 0.9


@pytest.mark.parametrize("early", [{}, {"num_classes": 3}])
def test_weights_are_fed_what_they_were_trained_with(tmp_path: Path, early: dict[str, Any]) -> None:
    network = timm.create_model("mobilenetv2_050", num_classes=5)
    save_file(network.state_dict(), file := tmp_path / "mobile.safetensors")
    data = ImageData(folder(tmp_path / "data", COLOURS), batch_size=8, image_size=32)
    classifier = Classifier("mobilenetv2_050", weights=str(file), **early)
    trainer(tmp_path).test(classifier, data, verbose=False)
    expected = Preprocessing((32, 32), 0.875, "bicubic", IMAGENET_DEFAULT_MEAN, (0.229, 0.224, 0.225))
    assert classifier.preprocessing == data.preprocessing == expected
    assert classifier.hparams["preprocessing"] == expected.to_dict()


def test_an_explicit_preprocessing_comes_before_that_of_the_weights(tmp_path: Path, resnet20: Path) -> None:
    root = folder(tmp_path / "data", COLOURS)
    told = open_data(root, preprocessing=HOW)
    (classifier := Classifier("resnet20", weights=str(resnet20))).prepare(told)
    assert classifier.preprocessing == told.preprocessing == HOW
    other, told = replace(HOW, size=(24, 24)), open_data(root)
    (classifier := Classifier("resnet20", weights=str(resnet20), preprocessing=other.to_dict())).prepare(told)
    assert classifier.preprocessing == told.preprocessing == other


@pytest.mark.parametrize("early", [{}, {"num_classes": 3}])
def test_the_profile_asked_for_travels_with_the_model(tmp_path: Path, resnet20: Path, early: dict[str, Any]) -> None:
    data = open_data(folder(tmp_path / "data", COLOURS), profile="fast")
    (classifier := Classifier("resnet20", weights=str(resnet20), **early)).prepare(data)
    assert classifier.preprocessing == data.preprocessing and data.preprocessing.profile == "fast"
    assert classifier.hparams["preprocessing"]["profile"] == "fast"


def test_grey_data_becomes_colour_for_weights_that_need_it(tmp_path: Path, resnet20: Path) -> None:
    data = open_data(folder(tmp_path / "data", COLOURS[:2], grey=True))
    assert data.preprocessing.channels == 1
    (classifier := Classifier("resnet20", weights=str(resnet20))).prepare(data)
    assert classifier.preprocessing == data.preprocessing
    assert data.preprocessing.mean == IMAGENET_DEFAULT_MEAN and data.preprocessing.size == (32, 32)
    (built := Classifier("resnet20", num_classes=2)).prepare(grey := open_data(tmp_path / "data"))
    assert grey.preprocessing.channels == 3 and built.preprocessing == grey.preprocessing


def test_a_fresh_model_takes_everything_from_its_data(tmp_path: Path) -> None:
    data = open_data(folder(tmp_path / "data", COLOURS))
    own = data.preprocessing
    (classifier := Classifier()).prepare(data, device="cpu")
    assert classifier.name == "resnet-whitened" and classifier.class_names == sorted(COLOURS)
    assert classifier.preprocessing == own == data.preprocessing
    network = classifier.network
    classifier.prepare(data)
    assert classifier.network is network and set(classifier.hparams) >= {"name", "lr", "class_names"}


def test_weights_of_a_run_name_the_network(tmp_path: Path) -> None:
    data = open_data(folder(tmp_path / "data", COLOURS))
    (source := Classifier("simple-cnn")).prepare(data)
    (fit := trainer(tmp_path)).strategy.connect(source)
    fit.save_checkpoint(path := tmp_path / "first.ckpt")
    (classifier := Classifier(weights=str(path))).prepare(data)
    assert classifier.name == "simple-cnn" and "the head (11) too" in classifier.weights_report


# What a trained model asks of its data.


def accuracy(root: Path, classifier: Classifier, data: pl.LightningDataModule) -> float:
    return float(trainer(root).test(classifier, data, verbose=False)[0]["test_acc"])


def test_a_subset_of_the_classes_in_another_order_is_matched_by_name(tmp_path: Path) -> None:
    for colours in (COLOURS, ("blue", "green")):
        data = ImageData(folder(tmp_path / "-".join(colours), colours), batch_size=8)
        classifier = knows_colours()
        assert accuracy(tmp_path, classifier, data) == 1.0
        assert classifier.class_names == list(COLOURS) == list(data.class_names) and data.preprocessing == HOW


def test_a_model_goes_on_with_a_subset(tmp_path: Path) -> None:
    classifier = knows_colours(lr=1e-6)
    trainer(tmp_path).fit(classifier, ImageData(folder(tmp_path / "data", ("blue", "green")), batch_size=8))
    assert accuracy(tmp_path, classifier, ImageData(folder(tmp_path / "all", COLOURS), batch_size=8)) == 1.0


@pytest.mark.parametrize("verb", ["fit", "test", "validate"])
def test_other_classes_are_refused(tmp_path: Path, verb: str) -> None:
    data = ImageData(folder(tmp_path / "data", COLOURS, names=("red", "grass", "blue")), batch_size=8)
    with pytest.raises(ConfigError, match="grass"):
        getattr(trainer(tmp_path), verb)(knows_colours(), data)


def test_a_fitted_model_refuses_other_classes(tmp_path: Path) -> None:
    classifier = Classifier("simple-cnn", lr=1e-3)
    trainer(tmp_path).fit(classifier, ImageData(folder(tmp_path / "one", COLOURS), batch_size=8))
    other = ImageData(folder(tmp_path / "other", COLOURS, names=("x", "y", "z")), batch_size=8)
    with pytest.raises(ConfigError, match="x"):
        trainer(tmp_path).fit(classifier, other)


def test_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    data = ImageData(folder(tmp_path / "data", COLOURS), batch_size=8)
    with pytest.raises(ConfigError, match="2 outputs, but the dataset has 3 classes: blue, green, red"):
        trainer(tmp_path).fit(Classifier("simple-cnn", num_classes=2), data)


def test_grey_images_are_shown_in_colour_to_a_model_of_colours(tmp_path: Path) -> None:
    data = ImageData(folder(tmp_path / "data", COLOURS, grey=True), batch_size=8)
    trainer(tmp_path).test(knows_colours(), data, verbose=False)
    assert data.preprocessing == HOW


def test_an_explicit_other_preprocessing_is_refused_by_a_trained_model(tmp_path: Path) -> None:
    data = ImageData(folder(tmp_path / "data", COLOURS), preprocessing=replace(HOW, mean=(0.1,) * 3))
    with pytest.raises(ConfigError, match="preprocessing"):
        trainer(tmp_path).test(knows_colours(), data, verbose=False)


def test_a_data_module_that_cannot_adopt_must_have_the_classes() -> None:
    classifier = knows_colours()
    classifier.prepare(SimpleNamespace(class_names=list(COLOURS)))
    with pytest.raises(ConfigError, match="knows the classes red, green, blue, but the data has blue, green, red"):
        classifier.prepare(SimpleNamespace(class_names=sorted(COLOURS)))
    with pytest.raises(ConfigError, match="one label an image, but the dataset has several labels"):
        classifier.prepare(SimpleNamespace(multilabel=True))


def test_a_checkpoint_of_other_classes_is_refused(tmp_path: Path) -> None:
    (fit := trainer(tmp_path)).fit(knows_colours(), ImageData(root := folder(tmp_path / "a", COLOURS), batch_size=8))
    fit.save_checkpoint(path := tmp_path / "model.ckpt")
    assert accuracy(tmp_path, load_classifier(path), ImageData(root, batch_size=8)) == 1.0
    with pytest.raises(ConfigError, match="checkpoint knows the classes red, green, blue"):
        trainer(tmp_path).test(
            Classifier(f"{__name__}.Brightest"), ImageData(root, batch_size=8), ckpt_path=path, weights_only=True
        )


CLI = """
import sys, warnings
warnings.simplefilter("ignore")
from lightning.pytorch.cli import LightningCLI
from sagitta import Classifier, ImageData
LightningCLI(Classifier, ImageData, save_config_callback=None)
"""


def test_lightnings_command_line_tests_what_it_fitted(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        quiet = ("--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false")
        command = [sys.executable, "-c", CLI, *arguments, *quiet, "--data.source=digits"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run("fit", "--model.name=simple-cnn", "--trainer.max_epochs=1")
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    assert "test_acc" in run("test", f"--ckpt_path={checkpoint}")
    assert load_classifier(checkpoint).class_names == [str(digit) for digit in range(10)]


def test_a_checkpoint_brings_its_preprocessing_into_a_fresh_model(tmp_path: Path) -> None:
    """Its weights under the statistics or the size of other data would be judged wrongly, and nobody would see it."""
    dataset = folder(tmp_path / "bright", COLOURS)
    trained = Classifier(f"{__name__}.Brightest", lr=1e-6, preprocessing=HOW.to_dict())
    fitting = trainer(tmp_path)
    fitting.fit(trained, open_data(dataset))
    fitting.save_checkpoint(tmp_path / "trained.ckpt")
    dark = tmp_path / "dark"
    for path in sorted(dataset.rglob("*.png")):
        (target := dark / path.relative_to(dataset)).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path)) // 3).resize((24, 24)).save(target)
    data = open_data(dark)
    fresh = Classifier(f"{__name__}.Brightest")
    found = trainer(tmp_path).test(fresh, data, ckpt_path=tmp_path / "trained.ckpt", weights_only=True, verbose=False)
    expected = trainer(tmp_path).test(load_classifier(tmp_path / "trained.ckpt"), open_data(dark), verbose=False)
    assert found == expected and data.preprocessing == fresh.preprocessing == HOW


def test_another_image_size_that_a_model_is_trained_on_is_its_own_from_then_on(tmp_path: Path) -> None:
    dataset = folder(tmp_path / "data", COLOURS)
    model = Classifier(f"{__name__}.Brightest", lr=1e-6, preprocessing=HOW.to_dict())
    fitting = trainer(tmp_path)
    fitting.fit(model, open_data(dataset, image_size=32, profile="fast"))
    fitting.save_checkpoint(tmp_path / "larger.ckpt")
    assert load_classifier(tmp_path / "larger.ckpt").preprocessing == replace(HOW, size=(32, 32), profile="fast")


def test_a_fresh_model_learns_nothing_from_the_one_before_it(tmp_path: Path) -> None:
    data = open_data(folder(tmp_path / "data", COLOURS[:2]))
    own = data.preprocessing
    Classifier(f"{__name__}.Brightest", class_names=COLOURS, preprocessing=HOW.to_dict()).prepare(data)
    assert data.preprocessing == HOW and data.num_classes == 3
    fresh = Classifier(f"{__name__}.Brightest")
    fresh.prepare(data)
    assert fresh.preprocessing == data.preprocessing == own and fresh.num_classes == 2
