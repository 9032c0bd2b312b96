"""What the verbs are given: places on disk, of which a run is one, and numbers."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sagitta.errors import ConfigError

PathLike = str | os.PathLike[str]
"""A path as text or object, or a :class:`sagitta.Run`."""
Numbers = str | int | Sequence[float] | None
"""``LOW,HIGH``, ``auto`` or ``3,2,1`` as on the command line, or the numbers."""


def path_of(place: Any) -> Path:
    """Return where a run is, or anything else on disk.

    Raises:
        ConfigError: it is neither a path nor a run, or its name is not UTF-8, which no record could hold.
    """
    try:
        path = Path(place)
    except TypeError:
        raise ConfigError(f"{place!r} of type {type(place).__name__}: give a path, or a Run") from None
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{str(path)!a}: the name is not valid UTF-8; name another, or rename it") from None
    return path


def plain(run: PathLike | None) -> Any:
    """Return a place as settings hold it."""
    return None if run is None else os.fspath(run) if isinstance(run, os.PathLike) else str(run)


def numbers_text(numbers: Numbers) -> str | None:
    """Return numbers as the command line writes them."""
    if numbers is None or isinstance(numbers, str):
        return numbers
    return ",".join(map(str, numbers)) if isinstance(numbers, Iterable) else str(numbers)


def listed(paths: Any) -> list[str | Path]:
    """Return one path or several as a list, as they were given: a text may be a pattern.

    Raises:
        ConfigError: something else was given, such as an open image.
    """
    try:
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        return [path if isinstance(path, str) else Path(path) for path in given]
    except TypeError:
        kind = type(paths).__name__
        raise ConfigError(f"paths of type {kind}: give a file, a folder, or a list of files and folders") from None
