"""What computes a run's probabilities: its parts on their device, by PyTorch or, where that is faster, by OpenVINO."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.evaluation.asked import check_device
from sagitta.evaluation.members import Part
from sagitta.evaluation.precision import judged_in
from sagitta.evaluation.testing import quiet
from sagitta.evaluation.trust import Trust
from sagitta.models import ROUNDING, Classifier, Mean, for_inference, linear_head, with_body_translated


class Member:
    """A classifier on its device, and its part in the whole.

    Attributes:
        network: that computes, of the same parts as that of the classifier.
        preprocessing: of its images.
        share: of the mean.
        precision: with which it computes.
        device: where.

    Args:
        part: of a run's model.
        names: of the classes, in the order of the whole.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        precision: as Lightning names it; None for that in which the part is judged.

    Raises:
        ConfigError: the machine has no such device, or the device no such precision.
    """

    def __init__(self, part: Part, names: Sequence[str], device: str, precision: str | None) -> None:
        assert part.classifier.preprocessing is not None
        self.preprocessing, self.share = part.classifier.preprocessing, float(np.float32(part.share))
        fabric, self.precision = _fabric(device, precision, part.precision)
        self._fast = for_inference(part.classifier)
        assert self._fast.network is not None
        self.network: nn.Module = self._fast.network
        self._forward = fabric.setup(_Probabilities(self._fast))
        self.device: torch.device = fabric.device
        order = [part.classifier.class_names.index(name) for name in names]
        self._order = None if order == list(range(len(names))) else torch.tensor(order, device=self.device)

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Return those of uint8 images (B, C, H, W) on the CPU, (B, classes) float32 on the device."""
        with torch.inference_mode():
            images = self.preprocessing.normalize(pixels.to(self.device, non_blocking=True))
            found: Tensor = self._forward(images).float()
        return found if self._order is None else found[:, self._order]

    def translate(self, pixels: Tensor) -> bool:
        """Let OpenVINO compute what comes before the heads; returns whether it says the same of some images.

        Args:
            pixels: (B, C, H, W) uint8, at least three.
        """
        with torch.inference_mode():
            images = self.preprocessing.normalize(pixels).contiguous(memory_format=torch.channels_last)
        mean = self.network if isinstance(self.network, Mean) else None
        parts = [with_body_translated(each, images) for each in ([self.network] if mean is None else mean.networks)]
        if not all(parts):
            return False
        plain = self.probabilities(pixels)
        networks = [each for each in parts if each is not None]
        if mean is None:
            self._fast.network = networks[0]
        else:
            self._fast.network = Mean(networks, mean.weights, mean.orders, self._fast.task)
        wanted, found = plain.numpy(), self.probabilities(pixels).numpy()
        alike = self._fast.task.agree(wanted, found, self._fast.thresholds)
        return bool(alike.all() and np.abs(wanted - found).max() <= ROUNDING)

    def take_back(self) -> None:
        """Let PyTorch compute all of it again."""
        self._fast.network = self.network


class _Probabilities(nn.Module):
    """What a classifier says in a prediction, as its forward pass."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (B, classes) of normalised images (B, C, H, W)."""
        return self.classifier.predict_step(images, 0)


def _fabric(device: str, asked: str | None, trained: str | None) -> tuple[Fabric, str]:
    """Return what computes on a device, and with which precision.

    Args:
        device: that is asked for.
        asked: precision that is asked for, if any.
        trained: precision of the training.

    Raises:
        ConfigError: the machine has no such device, or the device no such precision.
    """
    check_device(device)
    accelerator, _, number = device.partition(":")
    cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    precision = asked or judged_in(trained, cpu=cpu)
    if accelerator in ("cuda", "gpu", "mps") and not torch.accelerator.is_available():
        raise ConfigError(f"--device {device}: this machine has none; leave it out, or give cpu")
    if cpu and precision.startswith("16"):
        raise ConfigError(f"--precision {precision}: not on a CPU; leave it out, or give bf16-mixed")
    how: dict[str, Any] = {
        "accelerator": accelerator,
        "devices": [int(number)] if number else 1,
        "precision": precision,
    }
    try:
        with quiet():
            return Fabric(**how), precision
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        named = f"--device {device}" + (f" --precision {asked}" if asked else "")
        raise ConfigError(f"{named}: {' '.join(str(error).split())}") from None


def head_of(run: Path, networks: Sequence[nn.Module]) -> nn.Linear:
    """Return the last linear layer, whose inputs are the features.

    Raises:
        ConfigError: there are several networks, or the network does not end in such a layer.
    """
    if len(networks) > 1 or isinstance(networks[0], Mean):
        raise ConfigError(f"{run}: several networks, which have no features in common; take one of the members")
    if (head := linear_head(networks[0])) is None:
        raise ConfigError(f"{run}: the network does not end in one linear layer, so it has no features to give")
    return head[1]


def first_head(networks: Sequence[nn.Module], trust: Trust) -> nn.Linear | None:
    """Return the last linear layer of the first of several networks, where something is known of what it is given."""
    first = networks[0]
    head = linear_head(first.networks[0] if isinstance(first, Mean) else first)
    return None if head is None or not trust.needs_features else head[1]


@contextmanager
def inputs_of(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """Yield what a layer is given from now on, (B, D) float32 each."""
    seen: list[Tensor] = []
    if layer is None:
        yield seen
        return
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().float()))
    try:
        yield seen
    finally:
        hook.remove()
