"""What is asked of an export, judged without torch as far as that goes."""

import re
from pathlib import Path

from sagitta.dataset import INFO_FILE
from sagitta.errors import ConfigError
from sagitta.exporting.names import FORMAT_NAMES, HUB_PROOF
from sagitta.exporting.precision import precision_named
from sagitta.run import checkpoints_of

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def check_export(run: Path, to: str, out: Path | None, precision: str) -> None:
    """Refuse an export that cannot be, whatever the model.

    Args:
        run: run directory or checkpoint file.
        to: name of the format.
        out: folder, if one is named.
        precision: as a person gives it.

    Raises:
        ConfigError: there is no such run, format or precision, or a file is where the folder is to be.
    """
    precision_named(precision)
    check_name(to)
    checkpoints_of(run)
    if out is not None:
        check_folder(out)


def check_name(to: str) -> None:
    """Refuse what is no format.

    Raises:
        ConfigError: it is none.
    """
    if to not in FORMAT_NAMES:
        raise ConfigError(f"--to {to}: no such format; there are {', '.join(FORMAT_NAMES)}")


def check_folder(target: Path) -> None:
    """Refuse a file where an export's folder is to be.

    Raises:
        ConfigError: there is one.
    """
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target}: is a file; an export is a folder")


def check_push(what: Path, repository: str) -> None:
    """Refuse what cannot be sent to the hub, whatever it answers.

    Args:
        what: run directory, checkpoint file, folder of ``export --to hub``, or converted dataset.
        repository: ``user/name``.

    Raises:
        ConfigError: there is nothing of the kind, or the name is none.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"{repository}: name the repository as user/name")
    if not (what / INFO_FILE).is_file() and not (what / HUB_PROOF).is_file():
        checkpoints_of(what)
