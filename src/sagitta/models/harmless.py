"""What other programs leave in checkpoints beside the tensors, and what may stand for it: values that run no code.

timm and torchvision's references keep the command line as an ``argparse.Namespace``; metrics are NumPy's scalars;
MMPretrain keeps its log; Lightning and Hydra their configuration. Torch's restricted unpickler opens these only where
they are named. A class that only holds fields is not imported: a plain one takes its place.
"""

import argparse
import datetime
import pathlib
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

_FIELDS = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "ultralytics.utils.IterableSimpleNamespace",
)
_MAPPINGS = (
    "addict.addict.Dict",
    "easydict.EasyDict",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
)
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")


@cache
def harmless() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what to hand to ``torch.serialization.safe_globals``: classes, or a class and the name it stands for."""
    found: list[Any] = [
        argparse.Namespace, SimpleNamespace, datetime.datetime, datetime.date, datetime.timedelta,
        np.ndarray, np.dtype, *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    ]  # fmt: skip
    for core in ("numpy._core.multiarray", "numpy.core.multiarray"):  # NumPy 2 and 1
        found += [(np._core.multiarray.scalar, f"{core}.scalar")]  # type: ignore[attr-defined]
        found += [(np._core.multiarray._reconstruct, f"{core}._reconstruct")]  # type: ignore[attr-defined]
    for name in _PATHS:  # another system's cannot be made here
        pure = pathlib.PureWindowsPath if "Windows" in name else pathlib.PurePosixPath
        found += [(pure, f"{module}.{name}") for module in ("pathlib", "pathlib._local")]
    # Not ``range``: a list of a long one would fill the memory.
    kinds = (dict, list, tuple, int, float, str, bool, slice, frozenset)
    found += [(kind, f"builtins.{kind.__name__}") for kind in kinds]
    found += [(_Fields, name) for name in _FIELDS]
    return [*found, (_mapping, "collections.defaultdict"), *((OrderedDict, name) for name in _MAPPINGS)]


def _mapping(_factory: object = None) -> OrderedDict[Any, Any]:
    """Stand for a mapping that makes its missing values: it need not here."""
    return OrderedDict()


class _Fields(SimpleNamespace):
    """Stands for an object that holds fields."""
