"""Networks by name: our own small ones, timm's, torchvision's, or anybody's class."""

import difflib
import importlib
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from huggingface_hub import constants, try_to_load_from_cache
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from sagitta.errors import ConfigError
from sagitta.loading import Preprocessing
from sagitta.models.heads import head_names
from sagitta.models.small import RESNET20, SMALL_NETWORKS, build_small
from sagitta.network import reach

GOOGLENET = "googlenet"


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Have all layers of a network in evaluation mode meanwhile; afterwards each has the mode that it had."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def build_network(
    name: str, num_classes: int, channels: int, size: tuple[int, int], *, pretrained: bool = False
) -> nn.Module:
    """Build a network that maps (B, channels, H, W) to logits (B, num_classes).

    Args:
        name: of ours, see :mod:`sagitta.models.small`; a timm name; a torchvision name; or a class path such as
            ``my_package.MyNet``, which is called with ``num_classes``.
        num_classes: number of outputs.
        channels: 1 or 3.
        size: (height, width) of the input, pixels.
        pretrained: begin with the published weights, all but the last layer; timm's and torchvision's models.

    Raises:
        ConfigError: no such model (names the nearest ones), its weights cannot be had, or it cannot be made for the
            size.
    """
    if pretrained:
        _check_published(name)
    if timm.is_model(name):
        return _build_timm(name, num_classes, channels, size, pretrained)
    if name in _torchvision_names():
        return _build_torchvision(name, num_classes, channels, size, pretrained)
    check_network(name, pretrained=pretrained)
    if name in SMALL_NETWORKS:
        return build_small(name, num_classes, channels, size)
    return _build_class(name, num_classes)


def check_network(name: str, *, pretrained: bool = False) -> None:
    """Refuse a network that is not known, without building anything.

    Raises:
        ConfigError: no such model or pretrained tag (names the nearest ones); or no weights are published for it, or
            they are neither in the cache nor within reach.
    """
    if timm.is_model(name):
        _timm_config(name)
    if timm.is_model(name) or name in _torchvision_names():
        if pretrained:
            _check_published(name)
        return
    if pretrained:
        raise ConfigError(f"model {name!r}: pretrained weights are known for the models of timm and torchvision only")
    if name in SMALL_NETWORKS or "." in name:
        return
    known = dict.fromkeys([*SMALL_NETWORKS, *timm.list_models(), *_torchvision_names()])
    near = difflib.get_close_matches(name, known, n=5)
    hint = f"; near: {', '.join(near)}" if near else "; see timm.list_models()"
    raise ConfigError(f"no model {name!r}{hint}")


def _torchvision_names() -> list[str]:
    return cast(list[str], torchvision.models.list_models(module=torchvision.models))


def _build_timm(name: str, num_classes: int, channels: int, size: tuple[int, int], pretrained: bool) -> nn.Module:
    config = _timm_config(name)
    fixed = config is not None and config.fixed_input_size and tuple(config.input_size[-2:]) != tuple(size)
    more: dict[str, Any] = (
        {"img_size": tuple(size)} if fixed else {}
    )  # of a fixed size are those that take it as an argument
    try:
        network: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **more
        )
    except (AssertionError, ValueError, ZeroDivisionError, TypeError, RuntimeError) as error:
        if pretrained and isinstance(error, RuntimeError):
            raise _no_weights(name, config and config.hf_hub_id, (config and config.url) or "", error) from None
        raise _no_size(name, size, error) from None
    except OSError as error:  # what the hub's client raises without a network or without weights
        raise _no_weights(name, config and config.hf_hub_id, (config and config.url) or "", error) from None
    return network


def _timm_config(name: str) -> Any:
    """Return timm's description of published weights, None where it has none.

    Raises:
        ConfigError: there are weights of the architecture, but none with this tag.
    """
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        architecture, _, tag = name.partition(".")
        known = [full.partition(".")[2] for full in timm.list_models(f"{architecture}.*", pretrained=True)]
        hint = f"known: {', '.join(known)}" if known else f"leave the tag away: {architecture}"
        raise ConfigError(f"model {name!r}: {architecture} has no weights {tag!r}; {hint}") from None


def _check_published(name: str) -> None:
    """Make sure that published weights are in a cache, or that who publishes them answers.

    Raises:
        ConfigError: neither; without this the clients would try again for a minute.
    """
    config = _timm_config(name) if timm.is_model(name) else None
    if config is None and name not in _torchvision_names():
        return  # whoever builds it says so
    repository, file, url = None, None, ""
    if config is None:
        url = torchvision.models.get_model_weights(name).DEFAULT.url
    else:
        repository, file, url = config.hf_hub_id, config.hf_hub_filename, config.url
    kept = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2]) if url else None
    if (kept is not None and kept.is_file()) or _in_hub_cache(repository, file):
        return
    if not repository and not url:
        return
    try:
        if repository and constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        reach(constants.ENDPOINT if repository else url)
    except ConnectionError as error:
        raise _no_weights(name, repository, url, error) from None


def _in_hub_cache(repository: str | None, file: str | None) -> bool:
    if not repository:
        return False
    name, _, revision = repository.partition("@")
    files = [file] if file else ["model.safetensors", "pytorch_model.bin"]
    return any(isinstance(try_to_load_from_cache(name, each, revision=revision or None), str) for each in files)


def _no_weights(name: str, repository: Any, url: str, error: Exception) -> ConfigError:
    place = (
        f"the hub's folder of {repository} from another machine into $HF_HOME/hub"
        if repository
        else f"{url or 'them'} into $TORCH_HOME/hub/checkpoints"
    )
    return ConfigError(
        f"the pretrained weights of {name!r} cannot be had ({_first_line(error)}); copy {place}, or give a file with "
        "--weights"
    )


def _no_size(name: str, size: tuple[int, int], error: Exception) -> ConfigError:
    return ConfigError(
        f"model {name!r} cannot be made for images of {size[0]}x{size[1]} ({_first_line(error)}); "
        f"give another image size{_own_size(name)}"
    )


def _own_size(name: str) -> str:
    published = pretrained_preprocessing(name)
    return "" if published is None else f", such as its own {max(published.size)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _build_torchvision(
    name: str, num_classes: int, channels: int, size: tuple[int, int], pretrained: bool
) -> nn.Module:
    if channels != 3:
        raise ConfigError(
            f"model {name!r} of torchvision takes colour images only; the images are grey: use a timm model"
        )
    try:
        network = cast(nn.Module, torchvision.models.get_model(name, num_classes=num_classes, **_how(name, size)))
    except (AssertionError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise _no_size(name, size, error) from None
    if pretrained:
        weights = torchvision.models.get_model_weights(name).DEFAULT
        try:
            tensors = weights.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise _no_weights(name, None, weights.url, error) from None
        own = tuple(f"{head}." for head in head_names(network))
        tensors = {key: value for key, value in tensors.items() if not key.startswith(own)}
        network.load_state_dict(resized(network, tensors), strict=False)
    return network


def _how(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return what a model of torchvision must be told beside the number of classes.

    GoogLeNet's two outer heads, which would be further outputs in training, are left away; so it is asked for nothing
    but logits.
    """
    if name == GOOGLENET:
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_") and size[0] == size[1]:
        return {"image_size": size[0]}
    return {"input_size": tuple(size)} if name.startswith("maxvit") else {}


def resized(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with what depends on the image size, such as positions, interpolated to the network's own.

    timm's and torchvision's own functions do it; for other networks, and where nothing differs, nothing happens.
    """
    own = network.state_dict()
    heads = tuple(f"{head}." for head in head_names(network))
    other = [key for key, value in tensors.items() if key in own and value.shape != own[key].shape]
    if all(key.startswith(heads) for key in other):
        return dict(tensors)
    try:
        return dict(tensors) | _interpolated(network, dict(tensors))
    except Exception:  # of weights of another network anything may fail; whoever loads them says what does not fit
        return dict(tensors)


def _interpolated(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(network, torchvision.models.VisionTransformer):
        positions = {"encoder.pos_embedding": tensors["encoder.pos_embedding"]}
        found: dict[str, Tensor] = interpolate_embeddings(network.image_size, network.patch_size, positions)
        return found
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    return tensors if convert is None or not hasattr(network, "pretrained_cfg") else convert(tensors, network)


def pretrained_preprocessing(name: str, file: str = "") -> Preprocessing | None:
    """Return the preprocessing that a model's published weights were trained for; None where none are known.

    Args:
        name: see :func:`build_network`.
        file: name of the weights' file, by which torchvision's several weights of one model are told apart.
    """
    if name == RESNET20:  # the weights that people have were trained with the statistics of ImageNet
        return Preprocessing((32, 32), 1.0, "bilinear", IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    if timm.is_model(name):
        config = _timm_config(name)
        return None if config is None else _preprocessing(config.input_size[-2:], config.crop_pct, vars(config))
    if name in _torchvision_names():
        published = torchvision.models.get_model_weights(name)
        entry = next((w for w in published if file and w.url.endswith(f"/{file}")), published.DEFAULT)
        preset = entry.transforms()
        if name == GOOGLENET:  # ported weights: torchvision would undo ImageNet's statistics inside the network
            half = (0.5, 0.5, 0.5)
            preset.mean, preset.std = half, half
        crop, shorter = preset.crop_size[0], preset.resize_size[0]
        return _preprocessing((crop, crop), _crop_pct(crop, shorter), vars(preset))
    return None


def _preprocessing(size: tuple[int, int], crop_pct: float, how: Mapping[str, Any]) -> Preprocessing:
    interpolation = getattr(how["interpolation"], "value", how["interpolation"])  # torchvision's enum, timm's string
    return Preprocessing(
        size=(size[0], size[1]),
        crop_pct=crop_pct,
        interpolation="bicubic" if interpolation == "bicubic" else "bilinear",
        mean=tuple(how["mean"]),
        std=tuple(how["std"]),
    )


def _crop_pct(crop: int, shorter: int) -> float:
    """Return ``crop / shorter`` such that ``crop / crop_pct``, truncated, is ``shorter`` again."""
    share = crop / shorter
    return share if int(crop / share) == shorter else math.nextafter(share, 0)


def _build_class(path: str, num_classes: int) -> nn.Module:
    module, _, attribute = path.rpartition(".")
    try:
        network = getattr(importlib.import_module(module), attribute)(num_classes=num_classes)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"model {path!r}: {error}; a class path must import and accept num_classes") from None
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model {path!r} is not a torch.nn.Module")
    return network
