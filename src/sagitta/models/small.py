"""Our own small networks for thumbnails: (B, channels, H, W) to logits (B, num_classes)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIMPLE_CNN, RESNET_WHITENED, RESNET_SMALL, RESNET20 = "simple-cnn", "resnet-whitened", "resnet-small", "resnet20"
SMALL_NETWORKS = (SIMPLE_CNN, RESNET_WHITENED, RESNET_SMALL, RESNET20)

_POOLED = 7  # side of simple-cnn's last feature map
_WIDTHS = (32, 96, 128)  # channels of the stages of our ResNets
_SMALLEST_VARIANCE = 5e-4  # below it a direction of the pixels is mostly noise and stays small


def build_small(name: str, num_classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """Build one of ``SMALL_NETWORKS`` for 1 or 3 channels and (height, width) pixels, of which 8 are enough."""
    if name == RESNET20:
        return ResNet20(num_classes, channels)
    kinds = {SIMPLE_CNN: SimpleCNN, RESNET_WHITENED: ResNetWhitened, RESNET_SMALL: ResNetSmall}
    return kinds[name](num_classes, channels, size)


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


class ResNetWhitened(nn.Sequential):
    """A narrow ResNet behind a whitening first layer, for thumbnails from scratch; 0.4 M parameters.

    That of Jordan, "94 % on CIFAR-10 in 3.29 seconds", 2024, with residual connections, and narrow enough for two CPU
    cores: whitened 2x2 patches, then stages of a pooled and an unpooled convolution.
    """

    def __init__(self, num_classes: int, channels: int = 3, size: tuple[int, int] = (32, 32)) -> None:
        super().__init__(
            Whitening(channels),
            nn.ReLU(),
            *_stages((8 * channels, *_WIDTHS), size),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(_WIDTHS[-1], num_classes),
        )


class Whitening(nn.Module):
    """2x2 patches in uncorrelated directions of equal variance, with both signs, (B, C, H, W) to (B, 8 C, H-1, W-1).

    Jordan takes the directions from the covariance of the dataset's patches. Those of natural images are near the same
    ones everywhere: sums and differences of pixels (Hadamard's, which are the 2x2 cosine transform) of brightness and
    two colour differences. These are fixed here, and the variances are BatchNorm's running ones, so the layer needs no
    pass over the data before training, has nothing to train, and stands in checkpoints like any other.

    Args:
        channels: 1 or 3; of another number each is taken for itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        pixels = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).view(4, 2, 2)
        colours = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-1, 2, -1]]) if channels == 3 else torch.eye(channels)
        filters = torch.einsum("pyx,dc->pdcyx", pixels, colours).flatten(0, 1)  # one patch direction and colour each
        self.filters: Tensor
        self.register_buffer("filters", F.normalize(filters.flatten(1)).view_as(filters))
        self.scale = nn.BatchNorm2d(len(filters), eps=_SMALLEST_VARIANCE, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the patches of normalised images."""
        x = self.scale(F.conv2d(x, self.filters))
        return torch.cat([x, -x], dim=1)


class ResNetSmall(nn.Sequential):
    """ResNetWhitened with a learned first layer of 24 channels: the network of version 0.1.0."""

    def __init__(self, num_classes: int, channels: int = 3, size: tuple[int, int] = (32, 32)) -> None:
        super().__init__(
            nn.Conv2d(channels, 24, 2),
            nn.ReLU(),
            *_stages((24, *_WIDTHS), size),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(_WIDTHS[-1], num_classes),
        )


def _stages(widths: tuple[int, ...], size: tuple[int, int]) -> list[nn.Module]:
    round_up = min(size) < 16  # of smaller images flooring would leave nothing
    return [_Stage(before, after, round_up) for before, after in pairwise(widths)]


class _Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int, round_up: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2, ceil_mode=round_up)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.pool(self.conv1(x))))
        return x + F.relu(self.bn2(self.conv2(x)))


class ResNet20(nn.Module):
    """The 0.27 M ResNet for CIFAR of He et al., "Deep Residual Learning", 2015, section 4.2: (B, 3, H, W) to logits.

    Three stages of three blocks with 16, 32 and 64 channels; where a stage begins, the shortcut takes every second
    pixel and pads the new channels with zeros, so it has no parameters ("option A").
    """

    def __init__(self, num_classes: int, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(_Block(16, 16), _Block(16, 16), _Block(16, 16))
        self.layer2 = nn.Sequential(_Block(16, 32), _Block(32, 32), _Block(32, 32))
        self.layer3 = nn.Sequential(_Block(32, 64), _Block(64, 64), _Block(64, 64))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        features = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(images))))))
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.new = outputs // inputs, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.new:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.new // 2, self.new // 2))
        return F.relu(shortcut + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
