"""Small images, decoded once into one array: a batch is one gather of shifted, mirrored windows."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta import _native, memory
from sagitta.augment import SHIFT_OPERATION, Augmentation, Ints, Preprocessing, flips
from sagitta.plan import uniform

CUT = np.dtype([("row", "<i8"), ("top", "<i4"), ("left", "<i4"), ("flip", "u1")], align=True)
"""Which image, where the window begins in the padded image (pixels), and whether it is mirrored."""


class CachedPixels:
    """Batches of decoded images, on the host or on a device; the same pixels on both.

    In training each image moves by up to ``shift`` of its size, what comes in at the border being its mirror image, and
    is mirrored as :func:`sagitta.augment.flips` says: a function of (seed, epoch, row).

    Args:
        images: all rows of a split, (N, C, H, W) uint8.
        preprocessing: how batches are normalised.
        augmentation: random shifts and flips; None gives the images as they are.
        seed: of the random shifts and flips.
        normalize: batches are float32 and normalised, not uint8.
        device: where the images are kept and the batches made.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        seed: int,
        *,
        normalize: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self._count, _, *size = images.shape
        self._size = size[0], size[1]
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._seed = seed
        self._normalize = normalize
        pad = [0 if augmentation is None else round(augmentation.shift * side) for side in size]
        self._room = 2 * np.array(pad)
        self._images = np.pad(images, [(0, 0), (0, 0), *((margin, margin) for margin in pad)], mode="reflect")
        self._core = _native.library() if torch.device(device).type == "cpu" else None
        self._windows = torch.from_numpy(self._images).to(device).unfold(2, size[0], 1).unfold(3, size[1], 1)

    def batch(self, keys: Ints, epoch: int) -> Tensor:
        """Return the rows ``keys % N``, (B, C, H, W), contiguous; shift and flip are those of the key."""
        cuts = self._cuts(keys, epoch)
        if self._core is not None:
            shape = (len(keys), self._images.shape[1], *self._size)
            out = memory.empty(shape, torch.float32 if self._normalize else torch.uint8)
            affine = self._preprocessing.affine if self._normalize else None
            _native.cut_out(self._core, self._images, cuts, out.numpy(), affine)
            return out
        batch = _gather(self._windows, cuts)
        return self._preprocessing.normalize(batch) if self._normalize else batch

    def _cuts(self, keys: Ints, epoch: int) -> npt.NDArray[np.void]:
        cuts = np.zeros(len(keys), CUT)
        cuts["row"] = keys % self._count
        if self._augmentation is not None:
            random = uniform(self._seed, epoch, keys, SHIFT_OPERATION, 2)
            cuts["top"], cuts["left"] = np.floor(random * (self._room + 1)).T
            cuts["flip"] = flips(self._seed, epoch, keys, self._augmentation)
        return cuts


def _gather(windows: Tensor, cuts: npt.NDArray[np.void]) -> Tensor:
    """Do what the native core does with ``cuts``, in torch: (N, C, room, room, H, W) to (B, C, H, W)."""
    row, top, left, flip = (
        torch.from_numpy(cuts[name].astype(np.int64)).to(windows.device) for name in ("row", "top", "left", "flip")
    )
    batch = windows[row, :, top, left]
    return torch.where(flip.bool()[:, None, None, None], batch.flip(3), batch)
