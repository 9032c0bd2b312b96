"""The libraries that a command computes with, imported without what they import in case somebody wants it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_IN_CASE = ("scipy.signal", "wandb")
"""What torchmetrics imports for the sake of sounds, and timm for its own training script."""


def load() -> None:
    """Import Lightning, timm and Arrow; two seconds less of a processor than by themselves where all is installed."""
    load_arrow()
    with postponed(_IN_CASE):
        import_module("lightning.pytorch")
        import_module("timm")


def load_arrow() -> None:
    """Import Arrow, and let its first array go by without pandas, which Arrow imports then.

    Whoever asks Arrow for pandas' tables later gets them.
    """
    import pyarrow as pa

    nowhere = _Nowhere("pandas")
    sys.meta_path.insert(0, nowhere)
    try:
        pa.array([], pa.null())
    finally:
        sys.meta_path.remove(nowhere)


class _Nowhere(MetaPathFinder):
    """Finds that a module is not installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == self.name:
            raise ModuleNotFoundError(fullname)


@contextmanager
def postponed(names: tuple[str, ...]) -> Iterator[None]:
    """Let whoever imports these modules meanwhile have a stand-in, which is the module as soon as the block is over.

    Afterwards an import finds the module itself, as if nothing had been. For a process of our own, before it has
    threads. Inside the block a stand-in has whatever is asked for: that is how torchmetrics leaves SciPy as it is.
    """
    stands = {name: _Stand(name) for name in names if name not in sys.modules and find_spec(name) is not None}
    sys.modules.update(stands)
    try:
        yield
    finally:
        for name, stand in stands.items():
            stand.over = True
            if sys.modules.get(name) is stand:
                del sys.modules[name]


class _Stand(ModuleType):
    """Stands for a module that is installed."""

    over = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = find_spec(name)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # as whoever looks through all modules asks for
            raise AttributeError(attribute)
        return getattr(import_module(self.__name__), attribute) if self.over else None
