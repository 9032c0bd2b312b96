"""What comes before a network's head, by OpenVINO where that is installed: the same function, 1.1 to 3 times as fast.

On a processor alone, and where there are many images: the translation takes two to four seconds. LOG.md has figures.
"""

import warnings
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from sagitta.loading import Preprocessing
from sagitta.models.heads import linear_head, split_head

_PIXELS = 2_000 * 224 * 224
"""From so many on a translation pays: it takes as long as some 1,000 photos for a small mobile network."""
_KNOWN = ("timm", "torchvision", "sagitta")  # whose networks are functions of the kinds that a trace shows whole
COMPARED = 32
"""Images that two engines have to agree on, at least."""
_WITHIN = 1e-4
"""Of the largest feature, what two engines may differ by; they do by some 1e-6."""


class Compiled(nn.Module):
    """A network without head, that computes on the processor what another one does.

    Args:
        body: (B, C, H, W) float32 to (B, D), in evaluation mode, on the CPU.
        images: (B, C, H, W) float32 that it is translated by; the number of them is left open.

    Raises:
        Exception: whatever comes of a network that cannot be translated.
    """

    def __init__(self, body: nn.Module, images: Tensor) -> None:
        super().__init__()
        import openvino

        with warnings.catch_warnings():  # a trace says what of a network's Python it takes for constant
            warnings.simplefilter("ignore")
            model = openvino.convert_model(body, example_input=images.contiguous())
        how = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        self._run = openvino.Core().compile_model(model, "CPU", how)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, D) float32 of normalised images (B, C, H, W) float32."""
        return torch.from_numpy(self._run([images.contiguous().numpy()], share_inputs=True)[0].copy())


def translation_pays(images: int, how: Preprocessing, device: torch.device) -> bool:
    """Return whether there is so much to do on a processor that a translation takes little beside it."""
    return device.type == "cpu" and images * how.size[0] * how.size[1] >= _PIXELS


def can_translate() -> bool:
    """Return whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def engine_name() -> str:
    """Return name and version of what computes a translated network."""
    from importlib.metadata import version

    return f"OpenVINO {version('openvino')}"


@torch.inference_mode()
def translated(body: nn.Module, images: Tensor) -> nn.Module | None:
    """Return the same function by OpenVINO; None where it does not give the same features of some images.

    A person's own network is left alone: its Python may do something else with other images, which no trace shows.

    Args:
        body: network without head, in evaluation mode, on the CPU, (B, C, H, W) float32 to (B, D).
        images: at least three of those that it is for, normalised.
    """
    if type(body).__module__.partition(".")[0] not in _KNOWN:
        return None
    try:
        found = Compiled(body, images[:2])
        plain, ours = body(images), found(images)
    except Exception:  # either library raises whatever comes of a layer that it does not know
        return None
    same = plain.shape == ours.shape and plain.ndim == 2
    return found if same and (plain - ours).abs().max() <= _WITHIN * plain.abs().max() else None


class _BodyTranslated(nn.Module):
    """A network of which only the head is PyTorch's."""

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, C, H, W)."""
        logits: Tensor = self.head(self.body(images))
        return logits


def with_body_translated(network: nn.Module, images: Tensor) -> nn.Module | None:
    """Return a network with the same head whose body OpenVINO computes; None where :func:`translated` gives none.

    Args:
        network: in evaluation mode, on the CPU, (B, C, H, W) float32 to logits (B, classes).
        images: at least three of those that it is for, normalised.
    """
    if (head := linear_head(network)) is None:
        return None
    body = translated(split_head(network, type(network).__name__)[0], images)
    return None if body is None else _BodyTranslated(body, head[1])
