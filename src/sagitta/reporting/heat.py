"""Pictures of where the network looked: of the worst mistakes, what speaks for the class that was given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sagitta.clock import Clock
from sagitta.errors import SagittaError
from sagitta.evaluation import heat_maps
from sagitta.loading import Loader
from sagitta.models import Classifier
from sagitta.reporting.gathering import Judged
from sagitta.reporting.pictures import Album, Shelf, paced

_SIDE = 160
_BATCH = 8


def heat_pictures(
    classifier: Classifier, judged: Judged, rows: Sequence[int], shelf: Shelf, album: Album, clock: Clock
) -> tuple[dict[str, int], str]:
    """Return numbers of pictures by path, and why there are none, if so.

    Args:
        classifier: of the run.
        judged: the predictions.
        rows: of them.
        shelf: the data.
        album: gets the pictures.
        clock: when to end.
    """
    how, found = classifier.preprocessing, dict[str, int]()
    if how is None:
        return {}, "its checkpoint has no preprocessing"
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    placed = [(row, place) for row in rows if (place := shelf.find(judged.paths[row])) is not None]
    loaders: dict[str, Loader] = {}
    try:
        for batch in paced(placed, _BATCH, clock):
            for split in {own.name for _, (own, _) in batch}:
                own = [(row, number) for row, (each, number) in batch if each.name == split]
                if split not in loaders:
                    loaders[split] = Loader(
                        shelf.shards, split, _BATCH, train=False, preprocessing=how, normalize=False
                    )
                pixels, _ = loaders[split].take(np.array([number for _, number in own], np.int64))
                classes = [_class(judged, row) for row, _ in own]
                maps = heat_maps(classifier.to(device), how.normalize(pixels.to(device)), classes)
                for (row, _), image, heat in zip(own, pixels.permute(0, 2, 3, 1).cpu().numpy(), maps, strict=True):
                    if (number := album.add(lit(image, heat))) is not None:
                        found[judged.paths[row]] = number
    except (SagittaError, RuntimeError, ValueError) as error:
        return found, " ".join(str(error).split())
    return found, "" if found or not placed else "no time was left for them: sagitta report draws them"


def _class(judged: Judged, row: int) -> int:
    """Return the class that was given: of several labels, the surest one that is wrong."""
    if judged.labels.ndim == 1:
        return int(judged.decided[row])
    given = judged.decided[row] > 0
    wrong = given & ~(judged.labels[row] > 0)
    among = wrong if wrong.any() else given if given.any() else judged.labels[row] > 0
    return int(np.where(among, judged.probabilities[row], -1).argmax())


def lit(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating[Any]]) -> Image.Image:
    """Return an image (H, W, 1 or 3) in colour where a map (H, W) in 0..1 is hot, grey and dark elsewhere."""
    pixels = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    light = np.clip(heat.astype(np.float64), 0, 1)[..., None] ** 0.8
    grey = pixels.mean(axis=2, keepdims=True) * 0.32 + 12
    whole = Image.fromarray((light * pixels + (1 - light) * grey).clip(0, 255).astype(np.uint8))
    scale = _SIDE / max(whole.size)
    size = max(1, round(whole.width * scale)), max(1, round(whole.height * scale))
    return whole.resize(size, Image.Resampling.BICUBIC if scale < 2 else Image.Resampling.NEAREST)
