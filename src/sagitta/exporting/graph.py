"""What is exported of a model: from upright, resized and cropped bytes to calibrated probabilities.

Decoding and resizing stay outside: whoever does them otherwise than the training did changes the answers, and hardly
any runtime does them as Pillow does. So they stand in a specification beside the model, and in a small reader.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.exporting.names import INPUT
from sagitta.loading import Preprocessing
from sagitta.models import Classifier


class Graph(nn.Module):
    """A classifier's network between its normalisation and its probabilities.

    Args:
        classifier: trained, on the CPU.
        dtype: in which the network computes; input and output are the same in all.

    Raises:
        ConfigError: it was trained without ImageData, so nobody knows what its input is.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, classifier: Classifier, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        how, network = classifier.preprocessing, classifier.network
        if how is None or network is None:
            raise ConfigError("the checkpoint has no preprocessing; it was trained without ImageData")
        self._several, self._dtype = classifier.multilabel, dtype
        self.network = network.float().eval()
        if dtype != torch.float32:  # a copy: the checkpoint is what it is compared with
            self.network = copy.deepcopy(self.network).to(dtype)
        scale, shift = (torch.from_numpy(each.copy()).view(1, -1, 1, 1) for each in how.affine)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (B, classes) float32 of images (B, H, W, C) uint8."""
        pixels = images.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale + self.shift
        logits: Tensor = self.network(pixels.to(self._dtype)).float()
        return logits.sigmoid() if self._several else logits.softmax(dim=1)


def specification(how: Preprocessing) -> dict[str, Any]:
    """Return what has to be done to an image file before a graph takes it, for programs to read.

    Args:
        how: the model's preprocessing.
    """
    import PIL

    return {
        "decode": {
            "library": f"Pillow {PIL.__version__}",
            "frame": "the first",
            "orientation": "as EXIF says",
            "transparency": "over white",
            "colour_profiles": "ignored",
            "sixteen_bits": "0..65535 to 0..255, (value + 128) // 257",
            "reduction": None if how.reduction is None else how.reduction.to_dict(),
        },
        "resize": {
            "shorter_side": how.cover[0] if how.size[0] == how.size[1] else None,
            "cover": None if how.size[0] == how.size[1] else list(how.cover),
            "longer_side": "truncated to a whole pixel",
            "filter": how.interpolation,
            "antialias": True,
        },
        "crop": {"height": how.size[0], "width": how.size[1], "at": "the centre, halves to the even pixel"},
        "convert": "RGB" if how.channels == 3 else "L",
        "tensor": {"name": INPUT, "layout": "NHWC", "dtype": "uint8", "range": [0, 255]},
        "inside_the_model": {"mean": list(how.mean), "std": list(how.std), "of": "pixels divided by 255"},
    }


def an_input(how: Preprocessing, count: int) -> Tensor:
    """Return some images (count, H, W, C) uint8, by which a graph is traced."""
    random = np.random.default_rng(0).integers(0, 256, (count, *how.size, how.channels), np.uint8)
    return torch.from_numpy(random)
