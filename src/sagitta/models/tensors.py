"""A checkpoint as one safetensors file, which nobody has to trust: tensors, and plain values in the header.

::

    model.safetensors    a checkpoint's ``state_dict`` by its names
                         metadata: ``sagitta``, JSON of what else the checkpoint holds: hyper-parameters, thresholds …
                                   ``sha256``, of the tensors' names and bytes, since safetensors keeps no checksum
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

_FIELDS, _DIGEST = "sagitta", "sha256"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: of the file.
        tensors: its ``state_dict``.
        fields: what else it holds, plain values.

    Raises:
        OSError: it cannot be written.
    """
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(own, path, {_FIELDS: json.dumps(fields), _DIGEST: _digest(own)})


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with their floats in 16 bits, at half the size; a network of 32 takes them as they are."""
    return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Return what a safetensors file holds: tensors by name, or a checkpoint where :func:`save_tensors` wrote it.

    Raises:
        SafetensorError: it is damaged: also where a checkpoint's tensors or values are not those that were written.
    """
    tensors: dict[str, Tensor] = load_file(path)
    with safe_open(path, "pt") as file:
        metadata: Mapping[str, str] = file.metadata() or {}
    if _FIELDS not in metadata:
        return dict(tensors)
    if metadata.get(_DIGEST) != _digest(tensors):
        raise SafetensorError("its tensors are not those that were written")
    try:
        fields: dict[str, Any] = json.loads(metadata[_FIELDS])
    except ValueError as error:
        raise SafetensorError(f"its values are no JSON: {error}") from None
    return fields | {"state_dict": tensors}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
