"""The training images that are most like an image, to the network: by the cosine between what its last layer is given.

The features of the training images are those in the user's cache, where a probe or a solved head has left them; what is
not there is computed once, and kept.
"""

import copy
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.evaluation.members import Model
from sagitta.evaluation.testing import own_settings, quiet
from sagitta.images import decode, fitted
from sagitta.loading import Preprocessing
from sagitta.models import (
    FeatureStore,
    Floats,
    Mean,
    check_head,
    extract,
    prepare,
    see_stages,
    split_head,
    stage_widths,
    unit_length,
)
from sagitta.pool import follow
from sagitta.run import CONFIG_FILE, run_of

_SIDE = 224  # pixels of a picture


@dataclass(frozen=True)
class Neighbour:
    """A training image.

    Attributes:
        path: as it was at its source.
        label: its class; of several labels, all of them with commas.
        similarity: cosine, -1 to 1.
        picture: small.
    """

    path: str
    label: str
    similarity: float
    picture: Image.Image


class Neighbours:
    """The training images of a run, to be searched.

    Args:
        run: run directory.
        model: of it, on the CPU.

    Raises:
        SagittaError: the run's data is not there, or there is no single network that ends in one linear layer.
    """

    def __init__(self, run: Path, model: Model) -> None:
        classifier, folder = model.first, run_of(run)
        assert classifier.network is not None
        assert classifier.preprocessing is not None
        if len(model.parts) > 1 or isinstance(classifier.network, Mean):
            raise ConfigError(f"{run}: several networks, which have no features in common")
        if folder is None or not (folder / CONFIG_FILE).is_file():
            raise ConfigError(f"{run}: names no training data")
        data = own_settings(folder).image_data()
        with quiet():
            data.prepare_data()
            data.setup("test")
        if not len(data.shards.splits.get("train", ())):
            raise ConfigError(f"{data.source}: has no train split")
        self._shards, self._names = data.shards, data.info.class_names
        self._body, vectors = self._known(classifier.network, classifier.name, classifier.preprocessing)
        self._vectors = unit_length(vectors)

    def _known(self, network: nn.Module, name: str, how: Preprocessing) -> tuple[nn.Module, Floats]:
        """Return what makes the vectors of images, and those of the training images (N, D)."""
        width = check_head(network, name)[1].in_features
        body, _ = split_head(network, name)
        hashes = self._shards.splits["train"].content_hashes
        store = FeatureStore(name, body, how)
        fast = prepare(body)
        missing = len(store.missing(hashes))
        if missing and not stage_widths(body):
            with suppress(ConfigError):  # a probe has looked at every stage first, of which these stand at the end
                wide, _ = split_head(see_stages(copy.deepcopy(network), name, how.size, how.channels), name)
                seen = FeatureStore(name, wide, how)
                if not len(seen.missing(hashes)):
                    return fast, seen.read(hashes)[:, -width:]
        with closing(extract(store, fast, self._shards, "train", how)) as counts:
            follow("training images", counts, missing, show=True)
        return fast, store.read(hashes)

    def nearest(self, images: Tensor, count: int) -> list[list[Neighbour]]:
        """Return the nearest training images of each of some images, the nearest first.

        Args:
            images: (B, C, H, W) float32 as the network takes them.
            count: how many of each.
        """
        with torch.inference_mode():
            like = next(self._body.parameters())
            found = self._body(images.to(like).contiguous(memory_format=torch.channels_last))
        similar = unit_length(found.float().cpu().numpy()) @ self._vectors.T
        best = np.argsort(-similar, axis=1, kind="stable")[:, :count]
        return [
            [self._neighbour(number, float(row[number])) for number in order.tolist()]
            for row, order in zip(similar, best, strict=True)
        ]

    def _neighbour(self, number: int, similarity: float) -> Neighbour:
        split = self._shards.splits["train"]
        label = np.atleast_1d(split.labels[number])
        given = np.flatnonzero(label) if label.dtype == np.bool_ else label
        picture = fitted(Image.fromarray(decode(split.image(number))), _SIDE)
        return Neighbour(split.path(number), ", ".join(self._names[each] for each in given), similarity, picture)
