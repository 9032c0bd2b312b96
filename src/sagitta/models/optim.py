"""What is trained when, by which optimizer, along which schedule.

Layers are those of :func:`sagitta.models.heads.layer_numbers`, 0 next to the image, the head last. What is trainable
and the learning rate are pure functions of the epoch and the step, so a resumed run goes on exactly where it stopped.
"""

import difflib
import math
from collections.abc import Callable
from typing import Any

import timm.optim
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from sagitta.errors import ConfigError
from sagitta.models.heads import layer_numbers
from sagitta.models.ranges import Schedule, Tune

WARMUP: dict[Schedule, float] = {"one-cycle": 0.3, "cosine": 0.1, "constant": 0.0}
"""Share of the steps in which the learning rate rises, where none is given."""


def build_optimizer(network: nn.Module, name: str, lr: float, weight_decay: float, layer_decay: float) -> Optimizer:
    """Return an optimizer over every parameter, frozen or not.

    Args:
        network: its layers are numbered by :func:`sagitta.models.heads.layer_numbers`.
        name: as timm's optimizer factory calls it: adamw, adam, sgd, lamb, muon …
        lr: learning rate of the head.
        weight_decay: not applied to biases, normalisation layers and what the network itself exempts.
        layer_decay: each layer below the head learns at so many times the rate of the one above it (Clark et al.,
            "ELECTRA", 2020); 1.0: all alike.

    Raises:
        ConfigError: timm's factory does not know the optimizer.
    """
    known = [str(optimizer) for optimizer in timm.optim.list_optimizers()]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5)
        hint = f"near: {', '.join(near)}" if near else "such as adamw, sgd, lamb; see timm.optim.list_optimizers()"
        raise ConfigError(f"no optimizer {name!r}; {hint}")
    numbers = layer_numbers(network)
    last = max(numbers.values())
    exempt: Any = getattr(network, "no_weight_decay", set)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for parameter_name, parameter in network.named_parameters():
        decays = parameter.ndim > 1 and parameter_name not in exempt()
        number = numbers[parameter_name] if layer_decay < 1 else last
        group = {"params": [], "lr": lr * layer_decay ** (last - number), "weight_decay": weight_decay * decays}
        groups.setdefault((number, decays), group)["params"].append(parameter)
    optimizer: Optimizer = timm.optim.create_optimizer_v2(list(groups.values()), opt=name, lr=lr)
    return optimizer


def build_schedule(optimizer: Optimizer, name: Schedule, steps: int, warmup: float) -> LRScheduler:
    """Return a schedule that steps once a batch; each group keeps its share of the learning rate.

    Args:
        optimizer: with the highest learning rates.
        name: ``one-cycle`` (Smith & Topin 2018), ``cosine`` (Loshchilov & Hutter 2017, after a linear warm-up) or
            ``constant``.
        steps: optimizer steps of the whole training.
        warmup: share of the steps, 0 to 1, in which the rate rises.
    """
    if name == "one-cycle":
        return OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], steps, pct_start=warmup)
    return LambdaLR(optimizer, _factor(name, steps, round(warmup * steps)))


def _factor(name: Schedule, steps: int, rising: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        if name == "constant":
            return 1.0
        return (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising)))) / 2

    return factor


def first_trainable(tune: Tune, epoch: int, epochs: int, last: int) -> int:
    """Return the number of the lowest layer that is trained in an epoch; all above it are trained too.

    ``gradual`` (Howard & Ruder, "ULMFiT", 2018) trains the head alone for the first fifth of the epochs, then unfreezes
    evenly from the top until, at three fifths, everything is trained.

    Args:
        tune: what is trained.
        epoch: from 0.
        epochs: of the whole training.
        last: number of the head.
    """
    if tune != "gradual":
        return last if tune == "head" else 0
    begin, end = math.ceil(epochs / 5), math.ceil(epochs * 3 / 5)  # both 0 without a limit: everything is trained
    share = (epoch - begin + 1) / (end - begin + 1)
    return last - round(last * min(1.0, max(0.0, share)))


def set_trainable(network: nn.Module, first: int, *, hold_gradients: bool = False) -> None:
    """Freeze every layer below ``first``: no gradients, and evaluation mode, so that BatchNorm's statistics stay.

    Args:
        network: a module trains if all of its parameters do.
        first: number of the lowest layer that is trained.
        hold_gradients: leave ``requires_grad`` on, for DistributedDataParallel, which must see the same parameters in
            every step; :func:`drop_frozen_gradients` then keeps the frozen ones as they are.
    """
    open_names = {name for name, number in layer_numbers(network).items() if number >= first}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(hold_gradients or name in open_names)
    frozen = {id(parameter) for name, parameter in network.named_parameters() if name not in open_names}
    network.eval()
    _train_open(network, frozen)


def _train_open(module: nn.Module, frozen: set[int]) -> None:
    numbers = [id(parameter) for parameter in module.parameters()]
    if numbers and frozen.isdisjoint(numbers):
        module.train()
    elif not frozen.issuperset(numbers):
        for child in module.children():
            _train_open(child, frozen)


def freeze(
    network: nn.Module, tune: Tune, epoch: int, epochs: int, *, freeze_bn: bool, hold_gradients: bool = False
) -> None:
    """Freeze what an epoch does not train; a function of the epoch alone, so a resumed run is not confused.

    Args:
        network: in training mode where everything is trained.
        tune: what is trained.
        epoch: from 0.
        epochs: of the whole training.
        freeze_bn: BatchNorm keeps its statistics.
        hold_gradients: see :func:`set_trainable`.
    """
    if tune != "full":
        set_trainable(network, lowest_trained(network, tune, epoch, epochs), hold_gradients=hold_gradients)
    if freeze_bn:
        hold_statistics(network)


def lowest_trained(network: nn.Module, tune: Tune, epoch: int, epochs: int) -> int:
    """Return :func:`first_trainable` of a network."""
    return first_trainable(tune, epoch, epochs, max(layer_numbers(network).values()))


def hold_statistics(network: nn.Module) -> None:
    """Let every BatchNorm keep its statistics and normalise by them; its scale and shift still learn."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def drop_frozen_gradients(network: nn.Module, first: int) -> None:
    """Forget the gradients of every layer below ``first``; optimizers leave such parameters alone."""
    numbers = layer_numbers(network)
    for name, parameter in network.named_parameters():
        if numbers[name] < first:
            parameter.grad = None


def balanced_weights(counts: Any) -> torch.Tensor:
    """Return float32 (C,) loss weights in inverse proportion to the classes' rows (C,), 1 on average over the rows."""
    rows = torch.as_tensor(counts, dtype=torch.float32).clamp(min=1)
    return rows.sum() / (len(rows) * rows)
