"""Images into folders by what was predicted of them: a second name of the same file, or a copy; nothing is replaced.

::

    DIR/CLASS/NAME.jpg      NAME-2.jpg where another image has that name already
    DIR/none/NAME.jpg       what is abstained from, looks like none of the classes, or has no label that reaches its
                            threshold
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sagitta.errors import ConfigError
from sagitta.evaluation.inputs import Inputs

if TYPE_CHECKING:
    from sagitta.evaluation.predictor import Predicted

_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')  # also what other systems' disks do not take
_LONGEST = 200  # bytes of a name; disks take 255, and a number may follow
_NONE = "none"
_PARTIAL = ".tmp"


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Return a folder's name for each class: no separators, no ``..``, nothing hidden, none twice."""
    taken: set[str] = {_NONE}
    names = []
    for name in class_names:
        safe = _UNSAFE.sub("_", name).strip(" .") or "_"
        safe = safe.encode()[:_LONGEST].decode(errors="ignore").strip(" .")
        found, number = safe, 1
        while found.casefold() in taken:
            number += 1
            found = f"{safe}-{number}"
        taken.add(found.casefold())
        names.append(found)
    return names


@dataclass
class Sorter:
    """Puts images into folders of ``root``.

    Attributes:
        root: made if need be.
        inputs: the images.
        class_names: what predictions mean.
        copy: make copies always; else only where the disk cannot give a file a second name.
        sorted: images that are in their folders.
    """

    root: Path
    inputs: Inputs
    class_names: Sequence[str]
    copy: bool = False
    sorted: int = 0
    _folders: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._folders = folder_names(self.class_names)
        self.root.mkdir(parents=True, exist_ok=True)
        for left in self.root.glob(f"*/.*{_PARTIAL}"):  # of runs that were killed, named by their processes
            number = left.name.removeprefix(".").removesuffix(_PARTIAL)
            if number.isascii() and number.isdigit() and left.is_file() and not _runs(int(number)):
                left.unlink(missing_ok=True)

    def put(self, found: "Predicted") -> None:
        """Put the images of a chunk where they belong; those that are there already stay.

        Raises:
            OSError: it cannot be written.
        """
        for number, classes in found.classes.items():
            for folder in [self._folders[each] for each in classes] or [_NONE]:
                self._put(number, self.root / folder)
            self.sorted += 1

    def _put(self, number: int, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        name = _UNSAFE.sub("_", self.inputs.name(number).rstrip("/").rpartition("/")[2]).lstrip(".") or "image"
        stem, dot, end = name.rpartition(".")
        stem, end = (stem, f".{end}") if dot and stem else (name, "")
        stem = stem.encode()[: _LONGEST - len(end.encode())].decode(errors="ignore")
        file, count = self.inputs.file(number), 1
        while True:
            target = folder / (f"{stem}{end}" if count == 1 else f"{stem}-{count}{end}")
            if not os.path.lexists(target):
                break
            if self._is_there(number, file, target):
                return
            count += 1
        self._make(number, file, target)

    def _is_there(self, number: int, file: Path | None, target: Path) -> bool:
        """Return whether a file is this image, from an earlier run."""
        if file is not None and target.exists() and target.samefile(file):
            return True
        data = self.inputs.read(number)
        return target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data

    def _make(self, number: int, file: Path | None, target: Path) -> None:
        if file is not None and not self.copy:
            try:
                os.link(file.resolve(), target)
                return
            except FileExistsError:
                raise
            except OSError:  # another disk, or one without links
                pass
        temporary = target.with_name(f".{os.getpid()}{_PARTIAL}")
        try:
            if file is not None:
                shutil.copyfile(file, temporary)
            else:
                temporary.write_bytes(self.inputs.read(number))
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def check_apart(root: Path, paths: Sequence[str | Path]) -> None:
    """Refuse folders of classes within a folder that is predicted: the same command would find its images twice.

    Raises:
        ConfigError: so it is.
    """
    within = root.resolve()
    for path in map(Path, paths):
        if path.is_dir() and within.is_relative_to(path.resolve()):
            raise ConfigError(
                f"--sort-into {root}: lies in {path}, where its images would be found again; name another"
            )
