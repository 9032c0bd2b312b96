"""Weights from whatever file people have into a network: everything must fit, only the head may be new.

Understood: safetensors; state dicts of ``torch.save``, also wrapped (``state_dict``, ``model``, ``model_ema`` …) and
with prefixes (``module.``, ``backbone.`` …); Lightning checkpoints; runs and checkpoints of Sagitta.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.files import remedy
from sagitta.loading import Preprocessing
from sagitta.models.harmless import harmless
from sagitta.models.heads import head_names
from sagitta.models.networks import pretrained_preprocessing, resized
from sagitta.models.tensors import load_tensors
from sagitta.run import weights_file

_WRAPPERS = (  # averaged weights come first: they are the better ones
    "state_dict_ema", "model_ema", "ema_state_dict", "ema",
    "state_dict", "model_state_dict", "model", "module", "network", "net", "weights",
)  # fmt: skip
_HEADS = (
    "fc", "head", "heads", "classifier", "linear", "last_linear", "logits", "output",
    "aux", "aux1", "aux2", "AuxLogits",
)  # fmt: skip
SAGITTA_FIELDS = {"name", "num_classes", "class_names", "preprocessing"}
"""Hyper-parameters by which a checkpoint of :class:`sagitta.Classifier` is known."""


@dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
        path: the file, the checkpoint in the case of a run directory.
        tensors: by the names in the file.
        sha256: of the file, hexadecimal.
        fields: the hyper-parameters where Sagitta wrote the file, else empty.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    sha256: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def model(self) -> str:
        """Return the name of the network that a Sagitta run says these weights are of.

        Raises:
            ConfigError: another program wrote the file.
        """
        if "name" not in self.fields:
            raise ConfigError(f"{self.path}: does not say which network it is of; name it with --model")
        return str(self.fields["name"])

    def preprocessing(self, model: str) -> Preprocessing | None:
        """Return what these weights were trained for: as the run says, else as is published for the model's name."""
        if (fields := self.fields.get("preprocessing")) is not None:
            return Preprocessing.from_dict(fields)
        return pretrained_preprocessing(model, self.path.name)


def open_weights(path: str | Path) -> Weights:
    """Read a weights file, a checkpoint or a run directory; nothing in it is executed.

    Raises:
        ConfigError: there is no such file, it is damaged, or it holds no tensors.
    """
    path = weights_file(Path(path))
    content = read_checkpoint(path)
    tensors = _unwrap(content)
    if not tensors:
        raise ConfigError(f"{path}: no weights in it; a state dict, a checkpoint or safetensors is needed")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    fields = content.get("hyper_parameters") or {}
    written_by_sagitta = isinstance(fields, Mapping) and set(fields) >= SAGITTA_FIELDS
    return Weights(path, tensors, digest, fields if written_by_sagitta else {})


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint or safetensors file holds, on the CPU; nothing in it is executed.

    Raises:
        ConfigError: there is no such file, it is damaged, or it holds other things than tensors and plain values.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_tensors(path)
        with torch.serialization.safe_globals(harmless()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such checkpoint") from None
    except SafetensorError as error:
        raise ConfigError(f"{path}: not readable as safetensors ({error}); {_instead(path)}") from None
    except Exception as error:  # torch.load names no exception types for damaged files
        raise ConfigError(f"{path}: {_refusal(path, error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}, not weights by name; save model.state_dict()")
    return content


def _refusal(path: str | Path, error: Exception) -> str:
    """Return why torch did not open a file, and the remedy."""
    if isinstance(error, OSError) and error.errno:
        return remedy(error).partition(": ")[2]
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"not only tensors in it: {found[1]} could run code when the file is opened, so it is refused; where you "
            "trust it, open it with torch.load(FILE, weights_only=False) and save the model's state_dict() alone"
        )
    if "TorchScript" in str(error):
        return "a TorchScript archive; save torch.jit.load(FILE).state_dict() with torch.save, and give that file"
    return f"not a readable checkpoint ({type(error).__name__}); {_instead(path)}"


def _instead(path: str | Path) -> str:
    """Return what stands in the place of weights, as far as its first bytes tell."""
    with Path(path).open("rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: fetch the file itself with git lfs pull"
    if start[:9].lower() in (b"<!doctype", b"<html>") or start.startswith(b"<?xml"):
        return "it is a page of the web: download the file itself"
    return "is it complete, and only tensors in it?"


def load_weights(network: nn.Module, weights: Weights, class_names: Sequence[str] | None = None) -> tuple[str, bool]:
    """Put weights into a network; returns one line on what matched and what was left over, and whether the head is new.

    The head is loaded too where its shapes agree, except from a Sagitta run with other class names.

    Raises:
        ConfigError: beyond the head, something is missing, has another shape, or has no place in the network.
    """
    own = network.state_dict()
    heads = tuple(f"{name}." for name in head_names(network))
    prefix = _prefix(weights.tensors, own)
    inside = {name.removeprefix(prefix): value for name, value in weights.tensors.items() if name.startswith(prefix)}
    inside = resized(network, inside)
    _refuse_mismatch(weights.path, own, inside, heads)

    fits = {name: value for name, value in inside.items() if name in own and value.shape == own[name].shape}
    head = {name for name in own if name.startswith(heads)}
    names = weights.fields.get("class_names")
    same_head = head <= set(fits) and (names is None or class_names is None or list(class_names) == list(names))
    if not same_head:
        fits = {name: value for name, value in fits.items() if name not in head}
    network.load_state_dict(fits, strict=False)
    left = [name for name in weights.tensors if name.removeprefix(prefix) not in own or not name.startswith(prefix)]
    report = _report(weights.path, len(_learned(fits)), len(_learned(own)), prefix, same_head, heads, left)
    return report, not same_head


def _unwrap(content: Any) -> dict[str, Tensor]:
    while wrapper := next((name for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None):
        content = content[wrapper]
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _prefix(names: Iterable[str], wanted: Mapping[str, Tensor]) -> str:
    """Return what stands before the network's own names in most of ``names``, the shortest where several do."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")


def _refuse_mismatch(
    path: Path, own: Mapping[str, Tensor], inside: Mapping[str, Tensor], heads: tuple[str, ...]
) -> None:
    """Compare everything learned but the head; counters and index tables are integers and come and go by version."""
    learned = {name: value for name, value in _learned(own).items() if not name.startswith(heads)}
    missing = [name for name in learned if name not in inside]
    reshaped = [
        f"{name} is {tuple(inside[name].shape)}, needed {tuple(value.shape)}"
        for name, value in learned.items()
        if name in inside and inside[name].shape != value.shape
    ]
    unknown = [
        name
        for name in _learned(inside)
        if name not in own and not name.startswith(heads) and name.split(".")[0] not in _HEADS
    ]
    found = {"missing": missing, "of another shape": reshaped, "without a place": unknown}
    if any(found.values()):
        parts = [f"{len(names)} {what} ({_some(names)})" for what, names in found.items() if names]
        raise ConfigError(
            f"{path}: these weights are of another network; beyond the head, of {len(learned)} tensors "
            f"{', '.join(parts)}; name the --model that they belong to"
        )


def _learned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if value.is_floating_point()}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _report(
    path: Path, matched: int, total: int, prefix: str, same_head: bool, heads: tuple[str, ...], left: Sequence[str]
) -> str:
    head = ", ".join(name.rstrip(".") for name in heads)
    parts = [
        f"{matched} of {total} tensors matched" + (f" (without {prefix!r})" if prefix else ""),
        f"the head ({head}) too" if same_head else f"the head ({head}) is new",
    ]
    if left:
        parts.append(f"{len(left)} left over ({_some(left)})")
    return f"weights: {path.name}: {', '.join(parts)}"
