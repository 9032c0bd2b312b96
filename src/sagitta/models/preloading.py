"""The libraries that every command needs which runs a network, imported without looking for garbage."""

import gc
import sys
from importlib import import_module

from sagitta.ranks import is_first_process
from sagitta.terminal import show

_LIBRARIES = ("lightning.pytorch", "timm")  # with torch, torchvision and torchmetrics


def preload() -> None:
    """Import Lightning and timm without looking for garbage in between.

    It takes some seconds, and a line says so on a terminal. An import makes hundreds of thousands of objects that all
    stay, and each search through them finds nothing.
    """
    if not gc.isenabled() or all(name in sys.modules for name in _LIBRARIES):
        return
    if sys.stderr.isatty() and is_first_process():  # who waits sees what for; a script needs no such line
        show("loading PyTorch, Lightning and timm …", sys.stderr)
    gc.disable()
    try:
        for name in _LIBRARIES:
            import_module(name)
    finally:
        gc.enable()
