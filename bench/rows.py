"""The table's rows that compare loaders: what is loaded, and by whom."""

from dataclasses import dataclass
from pathlib import Path

from convert import CONVERTERS
from engines import Dali, DaliNoAntialias, Ffcv, Spdl
from ours import FullDecode, RegionDecode, RegionDecodeRestart, Sagitta, SagittaFast, SagittaRestart
from peers import (
    Datasets,
    DatasetsStreaming,
    Grain,
    LitData,
    Peer,
    Streaming,
    Torchvision,
    TorchvisionPillow,
    WebDataset,
    Work,
)
from thumbnails import (
    DatasetsThumbnails,
    FfcvThumbnails,
    SagittaThumbnails,
    TorchvisionThumbnails,
    VectorisedLimit,
)

PEERS: dict[str, type[Peer]] = {
    "Sagitta": Sagitta,
    "Sagitta, restart markers": SagittaRestart,
    "Sagitta, fast": SagittaFast,
    "DALI, no antialias": DaliNoAntialias,
    "DALI": Dali,
    "HF datasets": Datasets,
    "HF datasets, streaming": DatasetsStreaming,
    "torchvision": Torchvision,
    "torchvision, Pillow": TorchvisionPillow,
    "Grain": Grain,
    "LitData": LitData,
    "FFCV": Ffcv,
    "WebDataset": WebDataset,
    "MosaicML Streaming": Streaming,
    "SPDL": Spdl,
    "limit: full decode": FullDecode,
    "limit: region decode": RegionDecode,
    "limit: region decode, restart markers": RegionDecodeRestart,
    "Sagitta, thumbnails": SagittaThumbnails,
    "torchvision, thumbnails": TorchvisionThumbnails,
    "HF datasets, thumbnails": DatasetsThumbnails,
    "FFCV, thumbnails": FfcvThumbnails,
    "limit: vectorised": VectorisedLimit,
}

_OTHERS = tuple(PEERS)[3:15]
"""Everybody else's loaders of photos."""


@dataclass(frozen=True)
class Row:
    """What is loaded.

    Attributes:
        title: as the table says it.
        data: which images, a folder of :mod:`data`.
        batch: images a batch.
        peers: names in ``PEERS``.
        evaluate: the evaluation crop in place of random ones.
        normalized: float32 in place of uint8.
        costs: memory and time to the first batch are measured too.
    """

    title: str
    data: str
    batch: int
    peers: tuple[str, ...]
    evaluate: bool = False
    normalized: bool = False
    costs: bool = False

    def work(self, root: Path, name: str) -> Work:
        """Return a peer's work, with files and formats below ``root``."""
        kind = PEERS[name]
        folder = root / (kind.data or self.data)
        files = sorted((folder / "files").rglob("*.*"))
        labels = [int(file.parent.name) for file in files]
        return Work(files, labels, folder / kind.format, self.batch, self.evaluate, self.normalized)


_LIMITS = ("limit: full decode", "limit: region decode", "limit: region decode, restart markers")
ROWS = {
    "train": Row(
        "train: random crop 224, flip, uint8",
        "photos",
        64,
        ("Sagitta", "Sagitta, restart markers", *_OTHERS, *_LIMITS),
        costs=True,
    ),
    "float32": Row("train, normalised float32 NCHW", "photos", 64, ("Sagitta", *_OTHERS), normalized=True),
    "eval": Row(
        "evaluation: resize 256, crop 224, float32", "photos", 64, ("Sagitta", *_OTHERS), evaluate=True, normalized=True
    ),
    "pixels": Row("evaluation as uint8, compared with Pillow's", "photos", 64, ("Sagitta", *_OTHERS), evaluate=True),
    "camera": Row(
        "train: camera photos, 12 megapixels and more, uint8", "camera", 6, ("Sagitta, fast", "Sagitta", *_OTHERS)
    ),
    "convert": Row("10,000 photos, 1.1 GB, to Parquet", "convert", 64, CONVERTERS),
    "cifar": Row(
        "train: 50,000 32 x 32, shift, flip, normalised float32", "cifar", 512, tuple(PEERS)[18:], normalized=True
    ),
}
