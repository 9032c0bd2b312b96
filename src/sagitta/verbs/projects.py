"""A folder of code to begin with, for whoever wants to write rather than to set."""

import os
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import TemporaryDirectory

from sagitta.errors import ConfigError
from sagitta.verbs.places import PathLike, path_of

_RENAMED = {"gitignore": ".gitignore"}  # under its own name it would be in force beside the others


def project_files() -> dict[str, Traversable]:
    """Return what a new project consists of: the files of ``new-project/``, by the names that they get."""
    folder = files("sagitta.verbs") / "new-project"
    found = {_RENAMED.get(file.name, file.name): file for file in folder.iterdir() if file.is_file()}
    return dict(sorted(found.items()))


def new(name: PathLike) -> Path:
    """Make a folder of code that trains a network of one's own on photos; returns it.

    It holds ``train.py`` with a LightningModule, ``config.yaml``, ``predict.py``, a test, and ``README.md``, which says
    how they are used.

    Args:
        name: the folder to make, and those above it; one that is there must be empty.

    Raises:
        ConfigError: the name cannot be that of a folder, or something is there already.
        OSError: nothing can be written there; names the folder.
    """
    target = path_of(name)
    try:
        _check(target, str(name))
        _write(target)
    except OSError as error:  # whatever it is about, such as a temporary name, people know this one
        raise OSError(error.errno, os.strerror(error.errno or 0), str(name)) from None
    return target


def _check(target: Path, name: str) -> None:
    """Refuse what cannot be a new folder, before anything is made."""
    if not name or not name.isprintable() or target.name.startswith("-"):
        raise ConfigError(f"{name!r}: no name for a folder; give one such as my-photos")
    if os.path.lexists(target) and not target.is_dir():
        raise ConfigError(f"{name}: is there already, and no folder; name another one")
    if target.is_dir() and any(target.iterdir()):
        raise ConfigError(f"{name}: is there already, and not empty; name another folder")


def _write(target: Path) -> None:
    """Write all files, and give them their place when they are complete."""
    filled = target.is_dir()  # it stays as it is, with its rights: somebody may be in it
    above = next(folder for folder in (target, *target.absolute().parents) if folder.is_dir())
    with TemporaryDirectory(prefix=".new-", dir=above) as temporary:
        work = Path(temporary, "project")
        work.mkdir()
        for called, file in project_files().items():
            (work / called).write_bytes(file.read_bytes())
        if filled:
            for path in work.iterdir():
                path.rename(target / path.name)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            work.rename(target)
