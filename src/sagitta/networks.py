"""Networks by name: our own small ones, timm's, torchvision's, or anybody's class."""

import difflib
import importlib
from typing import cast

import timm
import torchvision
from torch import nn

from sagitta.augment import Preprocessing
from sagitta.schema import ConfigError

SIMPLE_CNN = "simple-cnn"
_POOLED = 7  # side of simple-cnn's last feature map


class SimpleCNN(nn.Sequential):
    """Two convolutions and two linear layers for any input size, (B, channels, H, W) to logits (B, num_classes)."""

    def __init__(self, num_classes: int, channels: int = 3, size: tuple[int, int] = (28, 28)) -> None:
        halve = min(size) >= 2 * _POOLED  # smaller images have no pixels to give away
        super().__init__(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2) if halve else nn.Identity(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(_POOLED),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(64 * _POOLED**2, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, num_classes),
        )


def build_network(
    name: str, num_classes: int, channels: int, size: tuple[int, int], *, pretrained: bool = False
) -> nn.Module:
    """Build a network that maps (B, channels, H, W) to logits (B, num_classes).

    Args:
        name: ``simple-cnn``; a timm name; a torchvision name; or a class path such as ``my_package.MyNet``, which is
            called with ``num_classes``.
        num_classes: number of outputs.
        channels: 1 or 3.
        size: (height, width) of the input, pixels.
        pretrained: begin with the published weights, all but the last layer; timm models only.

    Raises:
        ConfigError: no such model (names the nearest ones), or its weights cannot be had.
    """
    if name == SIMPLE_CNN:
        return SimpleCNN(num_classes, channels, size)
    if timm.is_model(name):
        return _build_timm(name, num_classes, channels, pretrained)
    if pretrained:
        raise ConfigError(f"model {name!r}: pretrained weights are known for timm's models only")
    torchvision_names = torchvision.models.list_models(module=torchvision.models)
    if name in torchvision_names:
        if channels != 3:
            raise ConfigError(
                f"model {name!r} of torchvision takes colour images only; the images are grey: use a timm model"
            )
        return cast(nn.Module, torchvision.models.get_model(name, num_classes=num_classes))
    if "." in name:
        return _build_class(name, num_classes)
    near = difflib.get_close_matches(name, [SIMPLE_CNN, *timm.list_models(), *torchvision_names], n=5)
    hint = f"; near: {', '.join(near)}" if near else "; see timm.list_models()"
    raise ConfigError(f"no model {name!r}{hint}")


def _build_timm(name: str, num_classes: int, channels: int, pretrained: bool) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=channels)
    except (OSError, RuntimeError) as error:  # what the hub's client raises without a network or without weights
        repository = timm.get_pretrained_cfg_value(name, "hf_hub_id")
        raise ConfigError(
            f"the pretrained weights of {name!r} cannot be had ({str(error).splitlines()[0]}); copy the "
            f"hub's folder of {repository or name} from another machine into $HF_HOME/hub, or train without pretrained"
        ) from None
    return network


def pretrained_preprocessing(name: str) -> Preprocessing | None:
    """Return the preprocessing that a timm model's published weights were trained for; None for other models."""
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        return None
    _, height, width = config.input_size
    return Preprocessing(
        size=(height, width),
        crop_pct=config.crop_pct,
        interpolation="bicubic" if config.interpolation == "bicubic" else "bilinear",
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def _build_class(path: str, num_classes: int) -> nn.Module:
    module, _, attribute = path.rpartition(".")
    try:
        network = getattr(importlib.import_module(module), attribute)(num_classes=num_classes)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"model {path!r}: {error}; a class path must import and accept num_classes") from None
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model {path!r} is not a torch.nn.Module")
    return network
