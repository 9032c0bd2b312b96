"""One dry pass of a model over blank images, before anything is written: what fails there would fail in training."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.models.classifier import Classifier
from sagitta.models.networks import pretrained_preprocessing

_LARGER = 224  # where most networks work


def dry_run(classifier: Classifier, batch_size: int) -> None:
    """Pass blank images through a copy of the network, as training and evaluation will; no trace is left.

    Args:
        classifier: prepared, see :meth:`Classifier.prepare`; without a known preprocessing there is nothing to try.
        batch_size: images a batch in training; one or two of them are tried.

    Raises:
        ConfigError: network, image size and batch size do not fit together; says which of them to change.
    """
    how = classifier.preprocessing
    if how is None or classifier.network is None:
        return
    devices = {tensor.device for tensor in classifier.network.parameters() if tensor.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)), torch.no_grad():
        network = copy.deepcopy(classifier.network)  # statistics of BatchNorm, modes and gradients stay as they are

        def attempt(count: int, size: tuple[int, int], *, training: bool) -> str:
            return _failure(network, classifier, torch.zeros(count, how.channels, *size), training=training)

        count = min(2, batch_size)
        reason = attempt(count, how.size, training=True) or attempt(count, how.size, training=False)
        if reason:
            raise ConfigError(f"{_what(classifier, count)}: {reason}; {_remedy(classifier, attempt, count)}")


def _failure(network: nn.Module, classifier: Classifier, images: Tensor, *, training: bool) -> str:
    """Return why a pass fails, in one line; nothing where it does not."""
    network.train(training)
    if training:  # in the last epoch, when most is trained
        classifier.freeze_for(network, epoch=1, epochs=1)
    parameter = next(network.parameters(), images)
    images = images.to(parameter.device)
    if classifier.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    try:
        found = network(images)
    except Exception as error:  # networks raise whatever their own code makes of the images
        return next(iter(str(error).splitlines()), "") or type(error).__name__
    return _wrong(found, (len(images), classifier.num_classes))


def _wrong(found: Any, wanted: tuple[int, int]) -> str:
    if not isinstance(found, Tensor):
        return f"it gives {type(found).__name__} where a tensor of logits is needed"
    if tuple(found.shape) != wanted:
        return f"it gives {tuple(found.shape)} where logits {wanted} are needed"
    return ""


def _what(classifier: Classifier, count: int) -> str:
    assert classifier.preprocessing is not None
    height, width = classifier.preprocessing.size
    images = "an image" if count == 1 else f"{count} images"
    return f"model {classifier.name!r} fails on {images} of {classifier.preprocessing.channels}x{height}x{width}"


def _remedy(classifier: Classifier, attempt: Callable[..., str], count: int) -> str:
    """Find by trying what would help."""
    assert classifier.preprocessing is not None
    size = classifier.preprocessing.size
    if count == 1 and not attempt(2, size, training=True):
        return "BatchNorm needs several images: give a batch size of at least 2, or freeze_bn"
    published = pretrained_preprocessing(classifier.name)
    usual = _LARGER if published is None else max(published.size)
    if usual != max(size) and not attempt(2, (usual, usual), training=True):
        return f"it works on {usual}x{usual}: give --image-size {usual}, or another model"
    return "give another model or image size"
