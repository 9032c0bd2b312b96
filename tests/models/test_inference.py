"""A network that learns nothing any more says the same, without its BatchNorms."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sagitta.models.averaging import Mean, averaged
from sagitta.models.classifier import Classifier
from sagitta.models.heads import linear_head
from sagitta.models.inference import for_inference
from sagitta.models.networks import build_network

NAMES = ["a", "b", "c"]
IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def classifier(name: str, names: list[str] = NAMES, **options: object) -> Classifier:
    """Return one whose BatchNorms have seen images."""
    torch.manual_seed(3)
    made = Classifier(name, class_names=names, preprocessing=None, **options)  # type: ignore[arg-type]
    network = build_network(name, len(names), 3, (64, 64)).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, 64, 64))
        network.eval()
        head = linear_head(network)
        assert head is not None
        head[1].weight.div_(network(IMAGES).std())  # so that it says something
    made.network = network.to(memory_format=torch.channels_last)
    return made.eval()


def norms(network: nn.Module | None) -> int:
    assert network is not None
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize(
    "made",
    [
        lambda: classifier("test_efficientnet"),
        lambda: classifier("resnet20"),
        lambda: classifier("mobilenet_v3_small"),
        lambda: averaged([classifier("resnet20"), classifier("test_resnet", NAMES[::-1])], [0.7, 0.3], None),
    ],
    ids=["efficientnet", "resnet", "torchvision's", "mean of two"],
)
@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_are_the_same(made: Callable[[], Classifier], flip: bool) -> None:
    slow = made()
    slow.flip = flip
    before = norms(slow.network)
    fast = for_inference(slow)
    with torch.inference_mode():
        plain, found = slow.predict_step(IMAGES, 0), fast.predict_step(IMAGES, 0)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=0)
    assert plain.std() > 0.05
    assert norms(fast.network) == 0 < before == norms(slow.network)


def test_what_cannot_be_traced_stays_as_it_is() -> None:
    """timm's transformers look at the size of their input."""
    slow = Classifier("test_vit", class_names=NAMES)
    slow.network = build_network("test_vit", 3, 3, (160, 160))
    images = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        torch.testing.assert_close(for_inference(slow).predict_step(images, 0), slow.eval().predict_step(images, 0))


def test_a_mean_keeps_its_parts() -> None:
    network = for_inference(averaged([classifier("resnet20"), classifier("resnet20")], [0.5, 0.5], None)).network
    assert isinstance(network, Mean) and len(network.networks) == 2
    assert all(linear_head(each) is not None for each in network.networks)
