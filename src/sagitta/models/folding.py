"""A temperature in a checkpoint: the last linear layer divided by it, so that whoever opens the file has its logits.

No parameter gets another name, and what stood there before is kept beside it, to the last bit: a training goes on from
that, and a second temperature takes the place of the first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagitta.files import new_file
from sagitta.models.classifier import Classifier
from sagitta.models.heads import linear_head
from sagitta.models.networks import evaluating

_BEFORE = "uncalibrated"


def can_fold(classifier: Classifier) -> bool:
    """Return whether what a classifier's last linear layer gives are its logits, and nothing comes after it."""
    how, network = classifier.preprocessing, classifier.network
    if how is None or network is None or (head := linear_head(network)) is None:
        return False
    found: list[Tensor] = []
    hook = head[1].register_forward_hook(lambda _layer, _given, output: found.append(output))
    parameter = next(network.parameters())
    images = torch.linspace(-1, 1, how.channels * how.size[0] * how.size[1]).view(1, how.channels, *how.size)
    try:
        with torch.inference_mode(), evaluating(network):
            logits = network(images.to(parameter))
    finally:
        hook.remove()
    return len(found) == 1 and torch.equal(found[0], logits)


def fold_temperature(
    path: Path, classifier: Classifier, temperature: float, thresholds: Sequence[float] | None
) -> None:
    """Divide the last linear layer in a checkpoint of weights by a temperature; 1 puts back what stood there first.

    Args:
        path: of the checkpoint, which is replaced as a whole.
        classifier: of the same network.
        temperature: above 0; takes the place of one that was folded into it before.
        thresholds: of several labels, that decide about the new probabilities.

    Raises:
        OSError: it cannot be written.
    """
    checkpoint = _read(path)
    before = checkpoint.pop(_BEFORE, None)
    if before is not None:
        checkpoint["state_dict"] |= before["state_dict"]
        checkpoint["thresholds"] = before["thresholds"]
        checkpoint.pop("temperature")
    elif temperature == 1:
        return
    if temperature != 1:
        assert classifier.network is not None
        head = linear_head(classifier.network)
        assert head is not None
        keys = [f"network.{head[0]}.{name}" for name, _ in head[1].named_parameters()]
        own = {key: checkpoint["state_dict"][key] for key in keys}
        checkpoint[_BEFORE] = {"state_dict": own, "thresholds": checkpoint.get("thresholds")}
        checkpoint["state_dict"] |= {key: (each.double() / temperature).to(each.dtype) for key, each in own.items()}
        checkpoint["temperature"] = temperature
        if thresholds is not None:
            checkpoint["thresholds"] = list(thresholds)
    with new_file(path) as temporary:
        torch.save(checkpoint, temporary)


def unfolded(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights in an open checkpoint as the training left them."""
    before = checkpoint.get(_BEFORE) or {"state_dict": {}}
    weights: dict[str, Tensor] = checkpoint["state_dict"] | before["state_dict"]
    return weights


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found
