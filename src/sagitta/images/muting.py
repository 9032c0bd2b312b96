"""Pillow without its warnings and log lines while this package decodes, and as ever for everybody else.

Pillow warns about odd metadata, which is neither an error nor news here, and where warnings are errors it would not
decode the image at all. The filters of ``warnings`` are the whole process's, and no `catch_warnings` around a decode is
safe with threads before Python 3.14. So Pillow's modules get a stand-in for ``warnings`` that passes everything on,
except in a thread that is decoding; their loggers get a filter that does the same. libtiff writes its errors to
standard error, besides returning them; its handler is the process's, and is off while any thread is decoding.
"""

import ctypes
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from PIL import _imaging

_thread = threading.local()


class _StandIn(ModuleType):
    """The module ``warnings``, but for the threads that are muted."""

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)

    def warn(
        self, message: Any, category: type[Warning] | None = None, stacklevel: int = 1, *rest: Any, **more: Any
    ) -> None:
        """Warn from the caller's place."""
        if not getattr(_thread, "muted", False):
            warnings.warn(message, category, stacklevel + 1, *rest, **more)


_STAND_IN = _StandIn("warnings")


@contextmanager
def muted() -> Iterator[None]:
    """Drop what Pillow's modules warn about or log in this thread, and what libtiff writes to standard error."""
    before = getattr(_thread, "muted", False)
    _thread.muted = True
    _LIBTIFF.enter()
    try:
        yield
    finally:
        _LIBTIFF.leave()
        _thread.muted = before


class _LibTiff:
    """The error handler of the libtiff that Pillow uses: none while somebody is inside."""

    def __init__(self) -> None:
        self._lock, self._inside, self._handler = threading.Lock(), 0, None

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1 and (set_handler := _error_handler()):
                self._handler = set_handler(None)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and (set_handler := _error_handler()):
                set_handler(self._handler)


_LIBTIFF = _LibTiff()


@cache
def _error_handler() -> Any:
    """Return libtiff's function that sets the handler and returns the former; None where it is not to be found."""
    try:
        function = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler  # among the libraries of Pillow's own
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
    return function


def mute_pillow() -> None:
    """Give stand-in and filter to Pillow's modules that are loaded; what is deprecated is still said, to us too."""
    for name, module in list(sys.modules.items()):
        if name.startswith("PIL.") and name != "PIL._deprecate" and vars(module).get("warnings") is warnings:
            module.warnings = _STAND_IN  # type: ignore[attr-defined]
        if name.startswith("PIL.") and isinstance(logger := vars(module).get("logger"), logging.Logger):
            logger.addFilter(_said)  # once, however often it is added


def mute_logger(name: str) -> None:
    """Give the filter to a logger of another library that decodes for us."""
    logging.getLogger(name).addFilter(_said)


def _said(_record: logging.LogRecord) -> bool:
    return not getattr(_thread, "muted", False)
