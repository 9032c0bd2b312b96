"""Sagitta: from a folder of photos to an evaluated classifier, through Arrow and PyTorch Lightning."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagitta.augment import Augmentation, Preprocessing
    from sagitta.callbacks import PredictionImages
    from sagitta.convert import ConvertOptions
    from sagitta.data import ImageData
    from sagitta.loader import Loader
    from sagitta.model import Classifier, load_classifier
    from sagitta.plan import Plan
    from sagitta.schema import ConfigError, DatasetError, ImageError, SagittaError, SourceError
    from sagitta.shards import ShardSet
    from sagitta.sources import SourceOptions, open_source

__version__ = "0.1.0"

_EXPORTS = {
    "augment": ("Augmentation", "Preprocessing"),
    "callbacks": ("PredictionImages",),
    "convert": ("ConvertOptions",),
    "data": ("ImageData",),
    "loader": ("Loader",),
    "model": ("Classifier", "load_classifier"),
    "plan": ("Plan",),
    "schema": ("ConfigError", "DatasetError", "ImageError", "SagittaError", "SourceError"),
    "shards": ("ShardSet",),
    "sources": ("SourceOptions", "open_source"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "Augmentation",
    "Classifier",
    "ConfigError",
    "ConvertOptions",
    "DatasetError",
    "ImageData",
    "ImageError",
    "Loader",
    "Plan",
    "PredictionImages",
    "Preprocessing",
    "SagittaError",
    "ShardSet",
    "SourceError",
    "SourceOptions",
    "load_classifier",
    "open_source",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import sagitta`` does not import torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sagitta' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sagitta.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
