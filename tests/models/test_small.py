"""Our own small networks: any small size, any number of classes; what the whitening layer makes of patches."""

import pytest
import torch
from torch import nn

from sagitta.models.small import RESNET20, SMALL_NETWORKS, SimpleCNN, Whitening, build_small


@pytest.mark.parametrize("name", SMALL_NETWORKS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (8, 9), (15, 40), (28, 28), (65, 50)])
def test_small_networks_take_any_small_size(name: str, channels: int, size: tuple[int, int]) -> None:
    if name == RESNET20 and channels != 3:
        pytest.skip("published for colour images")
    for classes in (2, 300):
        assert build_small(name, classes, channels, size)(torch.zeros(2, channels, *size)).shape == (2, classes)


def test_simple_cnn_is_two_convolutions_and_two_linear_layers() -> None:
    kinds = [type(layer) for layer in SimpleCNN(10) if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.Linear, nn.Linear]


@pytest.mark.parametrize("channels", [1, 3])
def test_whitening_makes_patches_of_smooth_images_uncorrelated_with_variance_one_and_has_nothing_to_train(
    channels: int,
) -> None:
    torch.manual_seed(0)
    grey = nn.functional.avg_pool2d(torch.randn(64, 1, 36, 36), 5, stride=1)  # neighbours are alike, and so are colours
    images = 3 * grey + torch.randn(64, channels, 32, 32) * 0.2
    layer = Whitening(channels)
    assert not list(layer.parameters()) and layer(images).shape == (64, 8 * channels, 31, 31)
    positive, negative = layer(images).chunk(2, dim=1)
    torch.testing.assert_close(negative, -positive)
    before = torch.corrcoef(nn.functional.unfold(images, 2).transpose(1, 2).flatten(0, 1).T)
    after = torch.cov(positive.transpose(0, 1).flatten(1))
    assert before.min() > 0.5  # of the patches' pixels, every two of them
    torch.testing.assert_close(after, torch.eye(4 * channels), atol=0.1, rtol=0)


def test_whitening_evaluates_by_the_variances_of_training_and_leaves_what_never_varies_alone() -> None:
    layer = Whitening(3)
    grey = torch.randn(256, 1, 8, 8).expand(-1, 3, -1, -1)
    for _ in range(60):
        trained = layer(grey)
    assert trained.isfinite().all() and not trained[:, 1:3].abs().max() > 1e-3  # colour differences of grey images
    torch.testing.assert_close(layer.eval()(grey), trained, atol=0.05, rtol=0.01)
    again = Whitening(3)
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again.eval()(grey), layer(grey))
