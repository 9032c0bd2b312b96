"""Pillow without its warnings while this package decodes, and as ever for everybody else.

Pillow warns about odd metadata, which is neither an error nor news here, and where warnings are errors it would not
decode the image at all. The filters of ``warnings`` are the whole process's, and no `catch_warnings` around a decode is
safe with threads before Python 3.14. So Pillow's modules get a stand-in for ``warnings`` that passes everything on,
except in a thread that is decoding.
"""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

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
    """Drop what Pillow's modules warn about in this thread."""
    before = getattr(_thread, "muted", False)
    _thread.muted = True
    try:
        yield
    finally:
        _thread.muted = before


def mute_pillow() -> None:
    """Give the stand-in to Pillow's modules that are loaded; what is deprecated is still said, to us too."""
    for name, module in list(sys.modules.items()):
        if name.startswith("PIL.") and name != "PIL._deprecate" and vars(module).get("warnings") is warnings:
            module.warnings = _STAND_IN  # type: ignore[attr-defined]
