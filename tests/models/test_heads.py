"""Where a network's head is, and what is left without it."""

import pytest
import torch
from torch import nn

from sagitta.errors import ConfigError
from sagitta.models.heads import head_names, layer_numbers, split_head
from sagitta.models.inference import prepare
from sagitta.models.networks import build_network


def trained(name: str) -> nn.Module:
    """A network whose BatchNorm statistics are not those of a new one."""
    torch.manual_seed(0)
    network = build_network(name, 5, 3, (64, 64)).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, 160, 160))
    return network.eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "mobilenet_v3_small", "resnet20", "test_vit"])
def test_features_are_the_input_of_the_head_also_when_prepared(name: str) -> None:
    network = trained(name)
    images = torch.randn(4, 3, 160, 160)
    body, head = split_head(network, name)
    layer = network.get_submodule(head)
    with torch.inference_mode():
        logits, plain, fast = network(images), body(images), prepare(body)(images)
        assert torch.allclose(layer(plain), logits, atol=1e-5)
    assert (fast - plain).norm() / plain.norm() < 1e-4


def test_networks_without_one_linear_head_are_refused() -> None:
    network = build_network("deit_tiny_distilled_patch16_224", 2, 3, (224, 224))
    with pytest.raises(ConfigError, match="head_dist"):
        split_head(network, "deit_tiny_distilled_patch16_224")


@pytest.mark.parametrize(
    ("name", "head", "layers"),
    [("mobilenetv2_100", "classifier", 18), ("resnet20", "linear", 11), ("squeezenet1_1", "classifier.1", 9)],
)
def test_layers_are_numbered_from_the_image_to_the_head(name: str, head: str, layers: int) -> None:
    network = build_network(name, 5, 3, (32, 32))
    numbers = layer_numbers(network)
    assert set(numbers) == {parameter for parameter, _ in network.named_parameters()}
    assert set(numbers.values()) == set(range(layers + 1)) and numbers[next(iter(numbers))] == 0
    assert head_names(network) == (head,)
    assert {parameter for parameter, number in numbers.items() if number == layers} == {
        f"{head}.weight",
        f"{head}.bias",
    }
