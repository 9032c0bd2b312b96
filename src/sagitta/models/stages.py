"""A head that sees every stage of a network, not only what comes out at its end.

The last features are those of the classes that the weights were trained for. What tells other classes apart, such as
strokes, textures or the faces of breeds, may stand in earlier ones, and a linear head can take it from there (Head2Toe,
Evci et al. 2022): the mean over each stage's positions, made a vector of length one, is put before the last features.
That costs no further pass. Whether it gains is another question, see :mod:`sagitta.training.solving`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.models.heads import linear_head
from sagitta.models.networks import evaluating

_MOST, _FEWER = 5, 4  # stages; where there are more, as many blocks of one size as transformers have, four


class _EveryStage(nn.Module):
    """Comes before the class of one of timm's networks, and changes what its head is given."""

    seen_stages: tuple[int, ...]
    seen_widths: tuple[int, ...]
    seen_by: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled by what the class is made of, since no module has it."""
        own, seen = type(self).__bases__[1], (self.seen_stages, self.seen_widths, self.seen_by)
        return _revived, (own, *seen), vars(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, C, H, W)."""
        return self.forward_apart(images)[0]

    def forward_apart(self, images: Tensor, *, apart: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Return logits (B, classes), and what the head sees of each stage, (B, C, H, W).

        Args:
            images: (B, C, H, W).
            apart: let the gradients of these be those of what the head sees alone, not of the stages behind them too.
        """
        network: Any = self
        last, stages = network.forward_intermediates(images, indices=list(self.seen_stages))
        if apart:
            stages = [stage.detach().requires_grad_() for stage in stages]
        pooled = [F.normalize(stage.mean((2, 3)), dim=1) for stage in stages]
        vector = torch.cat([*pooled, network.forward_head(last, pre_logits=True)], dim=1)
        logits: Tensor = self.get_submodule(self.seen_by)(vector)
        return logits, stages


def stage_widths(network: nn.Module) -> tuple[int, ...]:
    """Return how many numbers of each stage a network's head sees before the last features; empty: these alone."""
    return network.seen_widths if isinstance(network, _EveryStage) else ()


def forward_apart(network: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return logits (B, classes), and what the head sees of earlier stages, (B, C, H, W), if it does.

    The gradients of these, and of what is computed before the last features, are those of what the head sees of each.
    """
    if isinstance(network, _EveryStage):
        return network.forward_apart(images, apart=True)
    return network.forward(images), []


def stages_of(network: nn.Module, size: tuple[int, int], channels: int) -> dict[int, int]:
    """Return the stages that a head could see beside the last features, and how many numbers each gives.

    They are numbered as by ``forward_intermediates``. There are none of another network than timm's, of one without a
    single linear head, and of one whose features are not those that its head gets. A last stage that is what the head
    gets is not among them.

    Args:
        network: with its head; nothing of it changes.
        size: (height, width) of images.
        channels: of images.
    """
    if (head := linear_head(network)) is None:
        return {}
    timm: Any = network
    _, layer = head
    try:
        with torch.inference_mode(), evaluating(network):
            images = torch.linspace(-1, 1, channels * size[0] * size[1]).view(1, channels, *size).to(layer.weight)
            last, stages = timm.forward_intermediates(images)
            vector = timm.forward_head(last, pre_logits=True)
            same = vector.shape == (1, layer.in_features) and torch.allclose(layer(vector), network(images), atol=1e-5)
    except Exception:  # networks differ in what they have of this, and raise whatever comes of it
        return {}
    if not same or any(stage.ndim != 4 for stage in stages):
        return {}
    numbers = list(range(len(stages)))
    if stages[-1].shape[1] == layer.in_features:
        numbers = numbers[:-1]
    if len(numbers) > _MOST:
        numbers = [len(numbers) * part // (_FEWER + 1) for part in range(1, _FEWER + 1)]
    return {number: stages[number].shape[1] for number in numbers}


def see_stages(network: nn.Module, name: str, size: tuple[int, int], channels: int) -> nn.Module:
    """Give a network a new head that sees every stage, in place; its other parameters keep their names.

    Args:
        network: with its head.
        name: of it, for people.
        size: (height, width) of images.
        channels: of images.

    Raises:
        ConfigError: its head can see nothing but the last features.
    """
    found = linear_head(network)
    if found is None or not (stages := stages_of(network, size, channels)):
        raise ConfigError(f"model {name!r}: its head can see the last features only; leave --model.stages out")
    head, layer = found
    width = sum(stages.values()) + layer.in_features
    network.set_submodule(head, nn.Linear(width, layer.out_features, device=layer.weight.device))
    network.__class__ = _class(type(network), tuple(stages), tuple(stages.values()), head)
    return network


def _class(own: type[nn.Module], stages: tuple[int, ...], widths: tuple[int, ...], head: str) -> type[nn.Module]:
    """Return the class of networks like ``own`` whose head sees stages, in the module that timm looks into."""
    seen = {"seen_stages": stages, "seen_widths": widths, "seen_by": head}
    return type(own.__name__, (_EveryStage, own), {"__module__": own.__module__, **seen})


def _revived(own: type[nn.Module], stages: tuple[int, ...], widths: tuple[int, ...], head: str) -> nn.Module:
    """Return an empty network of such a class, for what is unpickled or copied."""
    seeing = _class(own, stages, widths, head)
    return seeing.__new__(seeing)
