"""Optimizers over layers, schedules, and what is frozen when."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sagitta.errors import ConfigError
from sagitta.models.heads import layer_numbers
from sagitta.models.networks import build_network
from sagitta.models.optim import (
    balanced_weights,
    build_optimizer,
    build_schedule,
    first_trainable,
    set_trainable,
)
from sagitta.models.ranges import Schedule


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network("resnet20", 3, 3, (32, 32))


def backward(network: nn.Module, images: int) -> None:
    labels = torch.arange(images) % 3
    torch.autograd.backward(F.cross_entropy(network(torch.randn(images, 3, 32, 32)), labels))


def test_lower_layers_learn_more_slowly_and_norms_do_not_decay(network: nn.Module) -> None:
    optimizer = build_optimizer(network, "adamw", 0.1, weight_decay=0.05, layer_decay=0.5)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    found = {name: group_of[id(p)] for name, p in network.named_parameters()}
    assert found["linear.weight"]["lr"] == 0.1 and found["linear.weight"]["weight_decay"] == 0.05
    assert found["linear.bias"]["weight_decay"] == found["layer3.2.bn2.weight"]["weight_decay"] == 0
    assert found["layer3.2.conv1.weight"]["lr"] == 0.05 and found["conv1.weight"]["lr"] == 0.1 * 0.5**11
    assert len(build_optimizer(network, "adamw", 0.1, 0.05, layer_decay=1.0).param_groups) == 2


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon", "lamb"])
def test_optimizers_of_the_factory_take_a_step(network: nn.Module, name: str) -> None:
    optimizer = build_optimizer(network, name, 0.01, 0.01, layer_decay=0.8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    backward(network, 4)
    optimizer.step()
    assert all(not torch.equal(before[key], value) for key, value in network.named_parameters())


def test_an_unknown_optimizer_is_explained(network: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"no optimizer 'adamv'; near: .*adamw"):
        build_optimizer(network, "adamv", 0.1, 0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "warmup", "shares"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("constant", 0.5, [0.2, 0.8, 1, 1]),
        ("cosine", 0.0, [1, 0.7938926, 0.3454915, 0.0244717]),
        ("cosine", 0.2, [0.5, 0.9619398, 0.5, 0.0380602]),
    ],
)
def test_schedules(network: nn.Module, name: Schedule, warmup: float, shares: list[float]) -> None:
    """The rate at steps 0, 3, 6 and 9 of ten, as a share of the highest, is alike in every group."""
    optimizer = build_optimizer(network, "sgd", 0.1, 0.0, layer_decay=0.5)
    highest = [group["lr"] for group in optimizer.param_groups]
    schedule = build_schedule(optimizer, name, 10, warmup)
    seen = []
    for _ in range(10):
        seen.append([group["lr"] / high for group, high in zip(optimizer.param_groups, highest, strict=True)])
        optimizer.step()
        schedule.step()
    for step, share in zip((0, 3, 6, 9), shares, strict=True):
        assert seen[step] == pytest.approx([share] * len(highest), rel=1e-5)


def test_one_cycle_peaks_at_the_given_rate(network: nn.Module) -> None:
    optimizer = build_optimizer(network, "sgd", 0.1, 0.0, layer_decay=1.0)
    schedule = build_schedule(optimizer, "one-cycle", 10, 0.3)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.1) and rates.index(max(rates)) == 2 and rates[-1] < 1e-4


def test_gradual_unfreezes_from_the_top() -> None:
    #                          head . . .|one layer and more . . .|everything
    assert [first_trainable("gradual", epoch, 15, 18) for epoch in range(15)] == (
        [18, 18, 18, 15, 13, 10, 8, 5, 3, 0, 0, 0, 0, 0, 0]
    )
    assert [first_trainable("gradual", epoch, 1, 5) for epoch in range(1)] == [5]
    assert first_trainable("head", 9, 10, 18) == 18 and first_trainable("full", 0, 10, 18) == 0


def test_frozen_layers_keep_weights_and_statistics(network: nn.Module) -> None:
    numbers = layer_numbers(network)
    last = max(numbers.values())
    set_trainable(network, last - 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = build_optimizer(network, "adamw", 0.1, 0.1, layer_decay=0.9)
    backward(network, 8)
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith(("layer3.2.", "linear."))}
    set_trainable(network, 0)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_balanced_weights_are_one_on_average_over_the_rows() -> None:
    weights = balanced_weights([10, 30, 60])
    assert float(weights[0] / weights[2]) == pytest.approx(6)
    assert float((weights * torch.tensor([10.0, 30, 60])).sum()) == pytest.approx(100)
