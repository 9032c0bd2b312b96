"""Networks by name, hyper-parameters that travel, checkpoints that refuse what is not theirs."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sagitta.augment import Preprocessing
from sagitta.model import Classifier, SimpleCNN, build_network, load_classifier, pretrained_preprocessing
from sagitta.schema import ConfigError

PREPROCESSING = Preprocessing((8, 8), 1.0, "bilinear", (0.5,), (0.25,))


class TinyNet(nn.Module):
    """A user's own network, found by its class path."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))  # type: ignore[no-any-return]


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


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [("simple-cnn", 1, (8, 8)), ("simple-cnn", 3, (65, 50)), ("resnet18", 1, (32, 32)), ("squeezenet1_1", 3, (64, 64))],
)
def test_networks_of_every_kind_map_images_to_logits(name: str, channels: int, size: tuple[int, int]) -> None:
    network = build_network(name, 5, channels, size)
    assert network(torch.zeros(2, channels, *size)).shape == (2, 5)


def test_simple_cnn_is_two_convolutions_and_two_linear_layers() -> None:
    kinds = [type(layer) for layer in SimpleCNN(10) if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.Linear, nn.Linear]


def test_a_class_path_is_a_model() -> None:
    assert isinstance(build_network(f"{__name__}.TinyNet", 3, 1, (8, 8)), TinyNet)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", "no model 'resnet5O'; near: .*resnet50"),
        ("no.such.Net", "class path must import"),
        ("pathlib.Path", "class path must import|not a torch"),
    ],
)
def test_a_wrong_name_is_explained(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(name, 2, 3, (32, 32))


def test_torchvision_models_refuse_grey_images() -> None:
    with pytest.raises(ConfigError, match="colour images only"):
        build_network("squeezenet1_1", 2, 1, (64, 64))


def test_pretrained_preprocessing_is_timms() -> None:
    preprocessing = pretrained_preprocessing("mobilenetv2_100")
    assert preprocessing == Preprocessing((224, 224), 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert pretrained_preprocessing("simple-cnn") is None


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
