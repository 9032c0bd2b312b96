"""The same function, faster: what a network that learns nothing any more needs not do."""

import copy
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sagitta.models.averaging import Mean
from sagitta.models.classifier import Classifier


def for_inference(classifier: Classifier) -> Classifier:
    """Return a copy of a classifier whose networks are those of :func:`prepare`: 1.5 times as fast on mobile networks.

    Probabilities differ by rounding alone, by some 1e-6.
    """
    fast = copy.deepcopy(classifier).eval().requires_grad_(False)
    network = fast.network
    assert network is not None
    if isinstance(network, Mean):
        network.networks = nn.ModuleList(map(_folded, network.networks))
    else:
        fast.network = _folded(network)
    fast.channels_last = True
    return fast


def prepare(body: nn.Module) -> nn.Module:
    """Return the same function, faster: BatchNorm folded into the convolutions before it, channels last in memory."""
    return _folded(copy.deepcopy(body))


def _folded(body: nn.Module) -> nn.Module:
    """Do in place what :func:`prepare` says."""
    for conv_name, norm_name in _pairs(body):
        conv, norm = body.get_submodule(conv_name), body.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        body.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        act = getattr(norm, "act", nn.Identity())  # timm's BatchNormAct2d
        body.set_submodule(norm_name, act)
    return body.to(memory_format=torch.channels_last)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # timm's own kinds of convolution look at the size of an image, which has none while it is traced.
        return isinstance(m, nn.BatchNorm2d | nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def _pairs(body: nn.Module) -> list[tuple[str, str]]:
    """Return the names of convolutions and the BatchNorms that alone use their outputs; none if it cannot be traced."""
    try:
        nodes = list(_Tracer().trace(body).nodes)
    except Exception:  # networks with control flow raise whatever their own code makes of a symbolic tensor
        return []
    calls = Counter(node.target for node in nodes)
    modules = dict(body.named_modules())
    pairs = []
    for node in nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        conv, norm = modules[str(before.target)], modules[str(node.target)]
        once = calls[before.target] == calls[node.target] == len(before.users) == 1
        if once and isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None:
            pairs.append((str(before.target), str(node.target)))
    return pairs
