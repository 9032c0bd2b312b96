"""Networks by name: every kind maps images to logits, a wrong name is explained."""

import pytest
import torch
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.loading.preprocessing import Preprocessing
from sagitta.models.networks import build_network, pretrained_preprocessing


class TinyNet(nn.Module):
    """A user's own network, found by its class path."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("simple-cnn", 1, (8, 8)),
        ("resnet20", 3, (32, 32)),
        ("resnet18", 1, (32, 32)),
        ("squeezenet1_1", 3, (64, 64)),
    ],
)
def test_networks_of_every_kind_map_images_to_logits(name: str, channels: int, size: tuple[int, int]) -> None:
    network = build_network(name, 5, channels, size)
    assert network(torch.zeros(2, channels, *size)).shape == (2, 5)


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


def test_a_wrong_tag_names_the_known_ones() -> None:
    for ask in (
        lambda: build_network("resnet18.nonsense", 2, 3, (32, 32)),
        lambda: pretrained_preprocessing("resnet18.x"),
    ):
        with pytest.raises(ConfigError, match=r"resnet18 has no weights '(nonsense|x)'; known: a1_in1k, .*tv_in1k"):
            ask()
    with pytest.raises(ConfigError, match="leave the tag away: botnet50ts_256"):
        build_network("botnet50ts_256.x", 2, 3, (32, 32))


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("test_vit", 1, (96, 64)),
        ("vit_tiny_patch16_224", 3, (96, 96)),
        ("vit_b_32", 3, (64, 64)),
        ("googlenet", 3, (64, 64)),
    ],
)
def test_networks_of_one_size_are_made_for_the_wanted_one_and_give_logits_in_training(
    name: str, channels: int, size: tuple[int, int]
) -> None:
    network = build_network(name, 5, channels, size).train()
    assert network(torch.zeros(2, channels, *size)).shape == (2, 5)


def test_googlenets_weights_are_fed_what_they_were_ported_from() -> None:
    """torchvision's own network turns ImageNet's statistics into these."""
    found = pretrained_preprocessing("googlenet")
    assert found is not None and found.mean == found.std == (0.5, 0.5, 0.5)


def test_torchvision_models_refuse_grey_images() -> None:
    with pytest.raises(ConfigError, match="colour images only"):
        build_network("squeezenet1_1", 2, 1, (64, 64))


def test_pretrained_preprocessing_is_timms() -> None:
    preprocessing = pretrained_preprocessing("mobilenetv2_100")
    assert preprocessing == Preprocessing((224, 224), 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert pretrained_preprocessing("simple-cnn") is None


def test_pretrained_preprocessing_is_torchvisions_and_tells_its_weights_apart() -> None:
    newest, first = (
        pretrained_preprocessing("mobilenet_v3_large", file) for file in ("", "mobilenet_v3_large-8738ca79.pth")
    )
    assert newest is not None and int(224 / newest.crop_pct) == 232
    assert first is not None and int(224 / first.crop_pct) == 256 and first.interpolation == "bilinear"


def test_resnet20_has_the_papers_size() -> None:
    assert sum(parameter.numel() for parameter in build_network("resnet20", 10, 3, (32, 32)).parameters()) == 269_722
