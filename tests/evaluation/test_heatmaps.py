"""A heat map is hot where the thing lies that decides the class."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sagitta.errors import ConfigError
from sagitta.evaluation import heat_maps
from sagitta.models import SINGLE_LABEL, Classifier, Mean

SIDE, MARK = 24, 4
HOW = {
    "size": [SIDE, SIDE], "crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.0] * 3, "std": [1.0] * 3,
    "profile": "exact",
}  # fmt: skip


def marked(count: int, seed: int) -> tuple[Tensor, Tensor, npt.NDArray[np.int64]]:
    """Return noise (N, 3, 24, 24) with a red or a green mark anywhere, which it is, and (top, left) of the mark."""
    random = np.random.default_rng(seed)
    images = random.normal(0, 0.5, (count, 3, SIDE, SIDE)).astype(np.float32)
    labels, corners = random.integers(0, 2, count), random.integers(0, SIDE - MARK + 1, (count, 2))
    for image, label, (top, left) in zip(images, labels, corners, strict=True):
        colour = np.array([[2, -2, 0], [-2, 2, 0]])[label]
        image[:, top : top + MARK, left : left + MARK] = colour[:, None, None]
    return torch.from_numpy(images), torch.from_numpy(labels), corners


def trained(network: nn.Module | None, steps: int) -> Classifier:
    """Return a classifier that has learned to tell the marks apart."""
    torch.manual_seed(0)
    classifier = Classifier("simple-cnn", num_classes=2, preprocessing=HOW)
    classifier.network = network or classifier.network
    optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3)
    classifier.train()
    for step in range(steps):
        images, labels, _ = marked(32, step)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(classifier(images), labels))
        optimizer.step()
    return classifier.eval()


def hits(maps: npt.NDArray[np.float32], corners: npt.NDArray[np.int64], cell: int) -> float:
    """Return the share of maps that are hottest on the mark, or within a cell of the network's of it."""
    points = np.array([np.unravel_index(each.argmax(), each.shape) for each in maps])
    inside = (points >= corners - cell) & (points < corners + MARK + cell)
    return float(inside.all(axis=1).mean())


def vit(pool: Literal["token", "avg"]) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=SIDE, patch_size=6, embed_dim=32, depth=2, num_heads=2, num_classes=2, global_pool=pool,
        class_token=pool == "token",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("network", "steps", "cell"),
    [(None, 40, 3), (vit("token"), 120, 5), (vit("avg"), 120, 5)],
    ids=["convolutions", "class token", "mean of tokens"],
)
def test_a_map_is_hot_where_the_mark_lies_that_decides_the_class(
    network: nn.Module | None, steps: int, cell: int
) -> None:
    classifier = trained(network, steps)
    images, labels, corners = marked(64, seed=1000)
    before = copy.deepcopy(classifier.state_dict())
    with torch.inference_mode():
        right = (classifier(images).argmax(dim=1) == labels).float().mean()
        maps = heat_maps(classifier, images, labels.tolist())
    assert right > 0.9
    assert maps.shape == (64, SIDE, SIDE) and maps.dtype == np.float32
    assert maps.min() == 0 and maps.max() == 1
    assert hits(maps, corners, cell) > 0.9
    elsewhere = np.random.default_rng(0).permutation(corners)
    assert hits(maps, elsewhere, cell) < 0.7  # so the measure could fail
    assert not classifier.training and not any(module._forward_hooks for module in classifier.modules())
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())


def test_the_mean_of_networks_has_the_mean_of_their_maps_by_their_weights_and_orders() -> None:
    images, _, _ = marked(3, seed=1)
    first, second = (Classifier("simple-cnn", num_classes=3, preprocessing=HOW).eval() for _ in range(2))
    apart = [heat_maps(first, images, [0, 1, 2]), heat_maps(second, images, [2, 0, 1])]
    mean = copy.copy(first)
    assert first.network is not None and second.network is not None
    mean.network = Mean([first.network, second.network], [0.25, 0.75], [[0, 1, 2], [2, 0, 1]], SINGLE_LABEL)
    np.testing.assert_allclose(heat_maps(mean, images, [0, 1, 2]), 0.25 * apart[0] + 0.75 * apart[1], atol=1e-6)


def test_a_map_of_a_mean_over_positions_and_a_linear_layer_is_that_of_the_layers_weights() -> None:
    torch.manual_seed(0)
    body, head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 3)
    network = nn.Sequential(body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    classifier = Classifier("simple-cnn", num_classes=3, preprocessing=HOW)
    classifier.network = network
    images, _, _ = marked(2, seed=3)
    weights = head.weight[1] - (head.weight[0] + head.weight[2]) / 2
    maps = torch.einsum("bchw,c->bhw", body(images).relu(), weights).relu()
    expected = maps / maps.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(heat_maps(classifier, images, [1, 1]), expected.detach().numpy(), atol=1e-5)


def vit_b() -> nn.Module:
    how: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "num_classes": 3}
    network: nn.Module = torchvision.models.VisionTransformer(image_size=64, patch_size=16, **how)
    return network


def swin() -> nn.Module:
    sizes: dict[str, Any] = {"patch_size": [4, 4], "window_size": [4, 4], "depths": [2, 2], "num_heads": [2, 2]}
    network: nn.Module = torchvision.models.SwinTransformer(embed_dim=16, num_classes=3, **sizes)
    return network


@pytest.mark.parametrize(
    "made",
    ["resnet-whitened", "resnet20", "resnet18", "mobilenetv2_100", "convnext_atto", "test_efficientnet", vit_b, swin],
)
def test_every_kind_of_network_has_a_place(made: str | Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    side = 32 if isinstance(made, str) and made.startswith("resnet") else 64
    name = made if isinstance(made, str) else "simple-cnn"
    classifier = Classifier(name, num_classes=3, preprocessing={**HOW, "size": [side, side]}).eval()
    classifier.network = classifier.network if isinstance(made, str) else made()
    assert classifier.network is not None
    for parameter in classifier.network.parameters():  # some heads begin as 0, which explains nothing
        if parameter.ndim == 2 and len(parameter) == 3:
            nn.init.normal_(parameter)
    images = torch.randn(2, 3, side, side)
    classifier.eval()
    maps = heat_maps(classifier, images, classifier(images).argmax(dim=1).tolist())  # for which something speaks
    assert maps.shape == (2, side, side) and (maps.max(axis=(1, 2)) > 0.99).all()
    assert (maps.std(axis=(1, 2)) > 0.01).all()


def test_a_head_that_sees_every_stage_is_explained_by_all_of_them() -> None:
    torch.manual_seed(0)
    classifier = Classifier("resnet18", num_classes=2, preprocessing={**HOW, "size": [64, 64]}).eval()
    images, plain = torch.randn(1, 3, 64, 64), None
    for seen in (False, True):
        if seen:
            classifier.decide_stages(True)
        maps = heat_maps(classifier, images, classifier(images).argmax(dim=1).tolist())
        assert maps.max() > 0.99
        assert plain is None or np.abs(maps - plain).max() > 0.1
        plain = maps


def test_a_network_without_positions_is_refused_in_one_line() -> None:
    classifier = Classifier("simple-cnn", num_classes=2, preprocessing=HOW)
    classifier.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
    with pytest.raises(ConfigError, match="no layer's features have positions"):
        heat_maps(classifier, torch.zeros(1, 3, SIDE, SIDE), [0])
    assert heat_maps(classifier, torch.zeros(0, 3, SIDE, SIDE), []).shape == (0, SIDE, SIDE)
