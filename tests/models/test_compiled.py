"""OpenVINO computes the same function, or is left out."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sagitta.loading import Preprocessing
from sagitta.models.compiled import can_translate, engine_name, translated, translation_pays
from sagitta.models.heads import split_head
from sagitta.models.inference import prepare
from sagitta.models.networks import build_network
from sagitta.models.stages import see_stages, stage_widths

NETWORKS = ["test_efficientnet", "resnet20", "mobilenet_v3_small"]
IMAGES = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def body_of(name: str, *, stages: bool = False) -> nn.Module:
    """Return a network without head, with statistics of images in its BatchNorms."""
    torch.manual_seed(0)
    network = build_network(name, 3, 3, (64, 64))
    if stages:
        network = see_stages(network, name, (64, 64), 3)
        assert stage_widths(network)
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 64, 64))
    return prepare(split_head(network.eval(), name)[0])


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS] + ["stages"])
def test_features_are_the_same_for_any_number_of_images(name: str) -> None:
    body = body_of("test_resnet", stages=True) if name == "stages" else body_of(name)
    found = translated(body, IMAGES.contiguous(memory_format=torch.channels_last))
    assert found is not None
    for count in (1, 2, 5):
        with torch.inference_mode():
            plain, ours = body(IMAGES[:count]), found(IMAGES[:count])
        assert plain.std() > 0
        torch.testing.assert_close(ours, plain, atol=1e-4 * float(plain.abs().max()), rtol=0)


@pytest.mark.slow
def test_transformers_too() -> None:
    body = split_head(build_network("test_vit", 3, 3, (160, 160)), "test_vit")[0]
    images = torch.randn(3, 3, 160, 160)
    found = translated(body, images)
    assert found is not None
    with torch.inference_mode():
        torch.testing.assert_close(found(images), body(images), atol=1e-4, rtol=0)


class Deciding(nn.Module):
    """Does something else with some images, which a trace does not see."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 3)."""
        vectors = images.mean((2, 3))
        return vectors if len(images) <= 2 else 2 * vectors


class Random(nn.Module):
    """No function of images at all."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 3)."""
        return torch.rand(len(images), 3)


class Maps(nn.Module):
    """No vector an image."""

    def forward(self, images: Tensor) -> Tensor:
        """Return what it is given."""
        return images * 1.0


class Unknown(nn.Module):
    """Leaves torch."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 3)."""
        return torch.from_numpy(images.numpy(force=True).mean((2, 3))).to(torch.complex64).real


@pytest.mark.parametrize("body", [Deciding(), Random(), Maps(), Unknown()], ids=lambda body: type(body).__name__)
def test_what_is_not_the_same_is_left_out(body: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagitta.models.compiled._KNOWN", ("tests",))
    assert translated(body, IMAGES) is None


def test_a_network_of_ones_own_is_left_alone() -> None:
    """A branch that the compared images do not take would be lost."""

    class Own(Maps):
        def forward(self, images: Tensor) -> Tensor:
            """Return (B, 3)."""
            return images.mean((2, 3))

    assert translated(Own(), IMAGES) is None


def test_it_pays_for_many_photos_on_a_processor() -> None:
    assert can_translate() and engine_name().startswith("OpenVINO 2")
    cpu, photos = torch.device("cpu"), Preprocessing((224, 224), 1.0, "bilinear", (0.5,) * 3, (0.25,) * 3)
    digits = replace(photos, size=(8, 8))
    assert translation_pays(2_000, photos, cpu) and not translation_pays(1_999, photos, cpu)
    assert not translation_pays(100_000, digits, cpu)
    assert not translation_pays(10**6, photos, torch.device("cuda"))
