"""Files whole or not at all, digests, locks between processes, and the folder for what can be made again."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_PATIENCE = 1000
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})  # of flock
_NAME_BYTES = 16  # of a temporary name: that of the target may leave no room for more
_REMEDIES = {
    errno.ENOSPC: "no room left on the disk; make room, or name a place on another disk",
    errno.EDQUOT: "your share of the disk is used up; make room, or name a place on another disk",
    errno.EFBIG: "larger than a file may be here; raise the limit (ulimit -f), or name another place",
    errno.EACCES: "no permission; change its rights, or name another place",
    errno.EPERM: "not permitted; change its rights, or name another place",
    errno.EROFS: "this disk cannot be written to; name another place",
    errno.EEXIST: "a file is in the way; remove it, or name another place",
    errno.ENOTDIR: "a file is where a folder is needed; name another place",
    errno.EISDIR: "a folder, where a file is needed; name the file",
    errno.ENAMETOOLONG: "the name is too long; take a shorter one",
    errno.ENOLCK: "this disk has no locks between processes (flock), so two could write the same; name a place on "
    "another disk, or set SAGITTA_CACHE to a folder there for what is cached",
    errno.EMFILE: "too many open files; allow more (ulimit -n)",
}


@contextmanager
def new_file(target: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary name; what is written there is synced and becomes ``target``, whole or not at all.

    What processes that were killed meanwhile left of the same target is removed.

    Args:
        target: the file to make or to replace; its folder is made if need be.
        folder: where the temporary file lies, on the same disk; by default beside ``target``.

    Raises:
        OSError: it cannot be written (no room, no permission), and names ``target``, which is then unchanged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{content_hash(os.fsencode(target))[:_NAME_BYTES]}"
    temporary = (folder or target.parent) / f"{stem}.{os.getpid()}.tmp"
    try:
        with _held(temporary):  # as long as this process lives: whoever else wants the target sees that it does
            for other in temporary.parent.glob(f"{stem}.*.tmp"):
                _remove_left(other, temporary)
            yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        unnamed = error.filename is None and error.errno in _NO_ROOM | _REFUSED  # as `write` raises it
        if error.errno is None or not (unnamed or str(error.filename) == str(temporary)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(target)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _held(path: Path) -> IO[bytes]:
    """Return a new file, locked as far as this file system knows locks.

    Between its making and its lock, another process may take it for one of a dead writer, and remove it.
    """
    while True:
        file = path.open("wb")
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)  # whoever removes it holds it for a moment
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _try_lock(file: IO[bytes]) -> bool:
    """Lock an open file if nobody else does, as far as this file system knows locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_left(other: Path, own: Path) -> None:
    """Remove a temporary file whose writer is dead."""
    with suppress(OSError):
        if other != own:
            with other.open("rb") as file:
                if _try_lock(file):
                    other.unlink()


def check_place(target: Path) -> None:
    """Make sure that ``target`` could be made or replaced, before the work that ends with it; makes nothing.

    Raises:
        OSError: its folder is missing or cannot be written to, or ``target`` is a folder.
    """
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not target.parent.exists():
        raise FileNotFoundError(errno.ENOENT, f"no such folder; make it first: mkdir -p {target.parent}", str(target))
    trial = target.parent / f".{os.getpid()}.tmp"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(target)) from None


def remedy(error: OSError) -> str:
    """Return in one line which file an error of the system is about, what is wrong, and what to do."""
    copy = error.filename2 if error.errno in _NO_ROOM else None  # of a file that is there: which has no room
    name = copy or error.filename
    name = "the output" if name is None else os.fsdecode(name)
    return f"{name}: {_REMEDIES.get(error.errno or 0) or error.strerror or error}"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` so that ``path`` holds either its former content or all of the new.

    Raises:
        OSError: as :func:`new_file` does.
    """
    with new_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def content_hash(data: bytes | memoryview) -> str:
    """Return the 128-bit BLAKE2b digest of ``data`` as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_hash(path: Path) -> str:
    """Return what :func:`content_hash` does of a file's bytes, without holding them in memory.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextmanager
def lock(path: Path, *, wait: bool = True, needed: bool = True) -> Iterator[None]:
    """Hold a lock between processes and threads; the system releases it when its holder dies.

    Its folder is made if need be, and the file removed at the end. The holder may remove file and folder before: who
    waits makes them again.

    Args:
        path: of the file that stands for it.
        wait: for whoever holds it.
        needed: else what it guards is only done twice where the disk has no locks.

    Raises:
        OSError: the file cannot be made; ENOLCK where the disk has no locks, as some network file systems.
        BlockingIOError: somebody else holds it, and ``wait`` is false.
    """
    try:
        held = _locked(path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if needed or error.errno != errno.ENOLCK:
            raise
        yield
        return
    with held:
        try:
            yield
        finally:
            with suppress(OSError):
                if _is_there(held, path):  # else somebody holds a new one of that name
                    path.unlink()


def _is_there(file: IO[str], path: Path) -> bool:
    """Return whether an open file still has its name.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    return os.path.samestat(os.fstat(file.fileno()), path.stat())


def _locked(path: Path, how: int) -> IO[str]:
    missing = 0
    while True:
        # The holder may remove file and folder when it has finished, so either may go at any moment.
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except FileNotFoundError:
            if (missing := missing + 1) == _PATIENCE:  # nobody removes so often: it cannot be made there
                raise
            continue
        except FileExistsError:
            if os.path.lexists(path.parent) and not path.parent.is_dir():  # a file of that name, which stays
                raise
            continue
        try:
            fcntl.flock(file, how)
        except OSError as error:
            file.close()
            if error.errno in _NO_LOCKS:
                with suppress(OSError):
                    path.unlink()
                    path.parent.rmdir()  # unless there is more in it
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path)) from None
            raise
        with suppress(FileNotFoundError):
            if _is_there(file, path):
                return file
        file.close()


def user_cache() -> Path:
    """Return the folder for what can be made again: ``$SAGITTA_CACHE``, or ``sagitta`` in the user's cache folder."""
    if root := os.environ.get("SAGITTA_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sagitta"
