"""Where in an image a network saw what speaks for a class.

The score that is explained is the logit less the mean of the others, since probabilities know no more than such
differences; of several labels, each of which is a question by itself, the logit. The map is what each position adds to
it in first order: gradient times feature, summed over the channels, as far as that is above 0.

- A convolutional network, and a transformer with maps in its end as Swin: at the last place that everything passes
  (HiResCAM: Draelos and Carin 2020). Where a mean over positions and a linear layer follow, as they mostly do, that is
  Grad-CAM (Selvaraju et al. 2017) exactly; where they do not, Grad-CAM forgets where the gradients were. To a head that
  sees every stage each stage adds its own part.
- A transformer of tokens: where the patches enter, with attention and the scale of every normalisation held constant,
  so that what is added up is the score (Ali et al. 2022). Grad-CAM of the last block and gradient-weighted attention,
  tried on small transformers that find a mark, were hot at 11 to 41 of 100 marks, this at all.

Normalisation is held constant for all networks: no scaling of its argument changes its result, so that gradient times
argument would be 0.

The libraries for it (captum, grad-cam) were looked at: both bring matplotlib, grad-cam OpenCV too; they have to be told
the place and its layout for every network, and have nothing like this for transformers.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sagitta.errors import ConfigError
from sagitta.models import MULTI_LABEL, Classifier, Mean, Task, evaluating, forward_apart

_LEAST = 4  # positions a side; of fewer a person learns little
_SOFTMAX = {torch.softmax, torch.Tensor.softmax, F.softmax}


def heat_maps(classifier: Classifier, images: Tensor, classes: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return where each image has what speaks for a class, (B, H, W) in 0..1; all 0 where nothing does.

    Of the mean of several networks it is the mean of their maps, by their weights.

    Args:
        classifier: trained; evaluated as in a test, on the device where it is.
        images: (B, C, H, W) float32 as the network takes them.
        classes: (B,) numbers of the classes, in the order of ``classifier.class_names``.

    Raises:
        ConfigError: the network has no place where features have positions.
    """
    if classifier.network is None:
        classifier.prepare()
    assert classifier.network is not None
    total = np.zeros((len(images), *images.shape[2:]), np.float32)
    for network, share, order in _members(classifier.network) if len(images) else ():
        outputs = classes if order is None else [order[each] for each in classes]
        with _explained(network):
            total += np.float32(share) * _maps(network, images, outputs, classifier.task, classifier.name)
    return total


def _members(network: nn.Module) -> Iterator[tuple[nn.Module, float, Sequence[int] | None]]:
    """Yield the networks that give logits, each with its weight and the outputs that mean the classes."""
    if isinstance(network, Mean):
        yield from zip(network.networks, network.weights, network.orders, strict=True)
    else:
        yield network, 1.0, None


class _Constants(TorchFunctionMode):
    """Holds constant what attention weighs by, and what normalisation divides by; results stay what they are."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            queries, keys, *rest = args
            return func(queries.detach(), keys.detach(), *rest, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if func in _SOFTMAX:
            return result.detach()
        if func in (F.layer_norm, F.rms_norm, F.normalize):
            return _with_constant_scale(func, result, *args, **(kwargs or {}))
        return result


def _with_constant_scale(func: Any, result: Tensor, images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return a normalised tensor whose gradient takes the scale for constant."""
    if func is F.normalize:
        line = images
    else:
        names = ("normalized_shape", "weight", "bias") if func is F.layer_norm else ("normalized_shape", "weight")
        how = dict(zip(names, args, strict=False)) | kwargs
        dims = tuple(range(-len(how["normalized_shape"]), 0))
        line = images - images.mean(dims, keepdim=True) if func is F.layer_norm else images
        if (bias := how.get("bias")) is not None:
            shifted: Tensor = bias + _scaled(line, (result - bias).detach())
            return shifted
    return _scaled(line, result.detach())


def _scaled(line: Tensor, result: Tensor) -> Tensor:
    """Return ``result``, as a constant multiple of each number of ``line``."""
    safe = torch.where(line == 0, 1, line).detach()
    return torch.where(line == 0, 0, result / safe) * line


@contextmanager
def _explained(network: nn.Module) -> Iterator[None]:
    """Have all layers in evaluation mode, and the gradients that are explained, meanwhile."""
    with evaluating(network), torch.inference_mode(False), torch.enable_grad(), _Constants():
        yield


def _maps(network: nn.Module, images: Tensor, classes: Sequence[int], task: Task, name: str) -> npt.NDArray[np.float32]:
    like = next(network.parameters())
    # Images made in inference mode cannot be differentiated; a copy can.
    images, outputs = images.to(like).clone().requires_grad_(), torch.tensor(list(classes), device=like.device)
    place = _find_place(network, images[:1], outputs[:1], task)
    if place is None:
        raise ConfigError(
            f"model {name!r}: between the image and its logits no layer's features have positions, so there is no heat "
            "map of it"
        )
    with _outputs([place.module]) as outs:
        logits, stages = forward_apart(network, images)
    seen = [outs[place.module], *(stages if place.layout != "tokens" else [])]
    gradients = torch.autograd.grad(_score(logits, outputs, task), seen)
    products = [gradient.float() * each.detach().float() for gradient, each in zip(gradients, seen, strict=True)]
    products[0] = place.positions(products[0])
    maps = torch.stack([_enlarged(product.sum(dim=1), images) for product in products]).sum(dim=0).relu()
    highest = maps.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    found: npt.NDArray[np.float32] = (maps / highest).cpu().numpy()
    return found


def _enlarged(parts: Tensor, images: Tensor) -> Tensor:
    """Return what positions (B, height, width) add as a density over the images' pixels (B, H, W)."""
    sized = F.interpolate(parts[:, None], images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return sized * parts[0].numel()


def _score(logits: Tensor, outputs: Tensor, task: Task) -> Tensor:
    """Return the sum over images of what is explained."""
    own = logits.gather(1, outputs[:, None]).sum()
    if task == MULTI_LABEL or logits.shape[1] < 2:
        return own
    return own - (logits.sum() - own) / (logits.shape[1] - 1)


@dataclass(frozen=True)
class _Place:
    """Where features have positions.

    Attributes:
        module: whose output they are.
        grid: (height, width).
        layout: of the output.
        prefix: tokens before those of the grid.
    """

    module: nn.Module
    grid: tuple[int, int]
    layout: Literal["channels first", "channels last", "tokens"]
    prefix: int = 0

    def positions(self, output: Tensor) -> Tensor:
        """Return an output as (B, C, height, width)."""
        if self.layout == "channels first":
            return output
        if self.layout == "channels last":
            return output.permute(0, 3, 1, 2)
        return output[:, self.prefix :].transpose(1, 2).reshape(len(output), -1, *self.grid)


@contextmanager
def _outputs(modules: Iterable[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Yield the outputs of modules that depend on the image, in the order in which they last were computed."""
    outs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outs.pop(module, None)
            outs[module] = output

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outs
    finally:
        for hook in hooks:
            hook.remove()


def _find_place(network: nn.Module, image: Tensor, output: Tensor, task: Task) -> _Place | None:
    """Return where the map is taken, see the head of this module; of maps, the last one with enough positions."""
    with _outputs(module for module in network.modules() if module is not network) as outs:
        score = _score(forward_apart(network, image)[0], output, task)
    every = [_place_at(network, module, out, image) for module, out in outs.items()]
    places = [place for place in every if place is not None]
    tokens = [place for place in places if place.layout == "tokens"]
    if tokens and places[-1].layout == "tokens":
        return tokens[0]
    largest: _Place | None = None
    for place in reversed(places):
        larger = largest is None or math.prod(place.grid) > math.prod(largest.grid)
        if place.layout != "tokens" and larger and _decides(network, place, outs[place.module], score, image):
            largest = place
            if min(place.grid) >= _LEAST:
                break
    return largest


def _decides(network: nn.Module, place: _Place, out: Tensor, score: Tensor, image: Tensor) -> bool:
    """Return whether an image changes its score through a module's output, and only through it."""
    (gradient,) = torch.autograd.grad(score, out, retain_graph=True, allow_unused=True)
    if gradient is None or not gradient.any():
        return False
    cut = place.module.register_forward_hook(lambda _module, _inputs, result: result.detach())
    try:
        rest = forward_apart(network, image)[0]
    finally:
        cut.remove()
    if not rest.requires_grad:
        return True
    (beside,) = torch.autograd.grad(rest.square().sum(), image, allow_unused=True)
    return beside is None or not bool(beside.any())


def _place_at(network: nn.Module, module: nn.Module, output: Tensor, image: Tensor) -> _Place | None:
    """Return what the positions of an output are, None where it has none."""
    if len(output) != len(image):
        return None
    if output.ndim == 4:
        first, last = (_fits(output.shape[where : where + 2], image) for where in (2, 1))
        if not (first or last):
            return None
        last = last and not (first and not _ends_channels_last(network))
        height, width = output.shape[1:3] if last else output.shape[2:]
        return _Place(module, (height, width), "channels last" if last else "channels first") if height > 1 else None
    grid = _token_grid(network, output.shape[1], image) if output.ndim == 3 else None
    return None if grid is None else _Place(module, grid, "tokens", output.shape[1] - math.prod(grid))


def _fits(grid: Sequence[int], image: Tensor) -> bool:
    """Return whether height and width of positions are in the proportion of the image's, as far as they are whole."""
    height, width = image.shape[2:]
    return abs(grid[0] * width - grid[1] * height) <= max(height, width)


def _ends_channels_last(network: nn.Module) -> bool:
    """Return whether timm says of a network that its maps have the channels last."""
    said = getattr(network, "output_fmt", None)
    return str(getattr(said, "value", said)) == "NHWC"


def _token_grid(network: nn.Module, count: int, image: Tensor) -> tuple[int, int] | None:
    """Return height and width of the grid that so many tokens are, behind the first few; None where they are none."""
    embedding = getattr(network, "patch_embed", None)
    grid = getattr(embedding, "grid_size", None)
    if grid is None and (patch := getattr(network, "patch_size", None)):  # torchvision
        grid = (image.shape[2] // int(patch), image.shape[3] // int(patch))
    if grid is None:
        side = math.isqrt(count)
        grid = (side, side)
    rows, columns = int(grid[0]), int(grid[1])
    return (rows, columns) if rows > 1 and 0 <= count - rows * columns < rows + columns else None
