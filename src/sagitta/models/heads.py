"""The last layer of a network: where it is, what the network is without it, and which layers come before."""

import copy
from typing import Any

from timm.models import group_parameters
from torch import nn

from sagitta.errors import ConfigError


def head_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules that turn features into logits: timm's own word, or the last linear layer."""
    named = (getattr(network, "pretrained_cfg", None) or {}).get("classifier")
    if named:
        return (named,) if isinstance(named, str) else tuple(named)
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return tuple(linear[-1:])


def linear_head(network: nn.Module) -> tuple[str, nn.Linear] | None:
    """Return name and module of a network's head where that is one linear layer, else None."""
    heads = head_names(network)
    layer = network.get_submodule(heads[0]) if len(heads) == 1 else None
    return (heads[0], layer) if isinstance(layer, nn.Linear) else None


def split_head(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return a copy of a network that ends before its last linear layer, in evaluation mode, and that layer's name.

    Raises:
        ConfigError: the network does not end in one linear layer.
    """
    head, _ = check_head(network, name)
    body = copy.deepcopy(network)
    body.set_submodule(head, nn.Identity())
    return body.eval().requires_grad_(False), head


def check_head(network: nn.Module, name: str) -> tuple[str, nn.Linear]:
    """Return name and module of a network's last linear layer.

    Raises:
        ConfigError: the network does not end in one linear layer.
    """
    if (head := linear_head(network)) is None:
        found = ", ".join(head_names(network)) or "none"
        raise ConfigError(f"model {name!r}: a probe replaces one last linear layer, here the head is {found}; use fit")
    return head


def layer_numbers(network: nn.Module) -> dict[str, int]:
    """Return for each parameter the number of its layer, 0 next to the image; the highest is the head alone.

    timm's models say what a layer is; in others it is what shares the first two parts of its name.
    """
    matcher: Any = getattr(network, "group_matcher", None)
    if matcher is not None:
        numbers = group_parameters(network, matcher(coarse=False), reverse=True)
    else:
        blocks = {name: tuple(name.split(".")[:-1][:2]) for name, _ in network.named_parameters()}
        order = {block: number for number, block in enumerate(dict.fromkeys(blocks.values()))}
        numbers = {name: order[block] for name, block in blocks.items()}
    heads = tuple(f"{head}." for head in head_names(network))
    rest = sorted({number for name, number in numbers.items() if not name.startswith(heads)})
    dense = {number: index for index, number in enumerate(rest)}
    return {name: len(rest) if name.startswith(heads) else dense[number] for name, number in numbers.items()}
