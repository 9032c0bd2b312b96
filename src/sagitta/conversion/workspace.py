"""A folder that many steps and several runs fill, and that appears under its name only when it is finished.

The work is done beside it, in ``.NAME.partial``, which one process at a time holds and the next one goes on with. Of
each file that is not made twice the digest is noted: one that was damaged meanwhile is made anew.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sagitta.errors import DatasetError, SourceError
from sagitta.files import file_hash, lock, new_file

RESULT = "dataset"
"""The folder in the work folder that becomes the finished one."""
_NOTES = "digests"


@contextmanager
def new_part(folder: Path, name: str) -> Iterator[Path]:
    """Yield a temporary name for a file of the work folder; it appears whole, and its digest is noted.

    Raises:
        OSError: as :func:`sagitta.files.new_file` does.
    """
    with new_file(folder / name, folder) as temporary:
        yield temporary
        digest = file_hash(temporary)
    note = _note(folder, name)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(digest)


def is_made(folder: Path, name: str) -> bool:
    """Return whether a file is there and, to the last bit, as it was written."""
    try:
        return _note(folder, name).read_bytes() == file_hash(folder / name).encode()
    except OSError:  # not there, or so damaged that the disk does not give it
        return False


def digest_of(folder: Path, name: str) -> str:
    """Return :func:`sagitta.files.file_hash` of a file as it was written, without reading it once more."""
    return _note(folder, name).read_text()


def _note(folder: Path, name: str) -> Path:
    return folder / _NOTES / name


@contextmanager
def work_folder(out: Path, key: str) -> Iterator[Path]:
    """Yield the work folder of ``out``; at the end its folder ``RESULT`` is renamed to ``out``.

    Waits while another process holds it. What is in it was left by an earlier run of the same ``key``. After a
    :class:`SourceError` nothing is left, since going on would not mend the source; after any other, everything.

    Raises:
        DatasetError: ``out`` exists.
    """
    folder = _folder(out)
    with lock(folder / "lock"):
        try:
            if out.exists():
                raise exists_already(out)
            _start_afresh_unless(folder, key)
            yield folder
            (folder / RESULT).rename(out)
        except (SourceError, DatasetError):
            _remove(folder)
            raise
        _remove(folder)


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def remove_left(out: Path) -> None:
    """Remove the work folder of a finished ``out``, whose process was killed before it did; not while one is at it."""
    folder = _folder(out)
    if folder.is_dir():
        with suppress(OSError), lock(folder / "lock", wait=False):
            if out.exists():
                _remove(folder)


def exists_already(out: Path) -> DatasetError:
    """Return the error for an output that is there."""
    return DatasetError(f"{out}: exists already; remove it or name another folder")


def _remove(folder: Path) -> None:
    """Remove the work folder, unless another process waits for it, which then removes it."""
    _empty(folder)
    (folder / "lock").unlink()
    with suppress(OSError):
        folder.rmdir()


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink(missing_ok=True)


def _start_afresh_unless(folder: Path, key: str) -> None:
    """Empty the folder unless it was begun with this key."""
    note = folder / "key"
    if note.exists() and note.read_bytes() == key.encode():
        return
    _empty(folder)
    with new_file(note) as temporary:
        temporary.write_text(key)
