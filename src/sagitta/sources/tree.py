"""Files of a folder, a tar or a zip under one view: names, sizes, bytes. Nothing is ever extracted.

Hidden files and what operating systems leave behind are not seen. Names are '/'-separated; those that are absolute or
contain ``..`` inside an archive are names and nothing more.
"""

import bz2
import gzip
import hashlib
import lzma
import os
import posixpath
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

from sagitta.dataset import Reader
from sagitta.errors import ImageError, SourceError
from sagitta.files import new_file

_JUNK = frozenset({
    "__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini", "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN",
    "System Volume Information", "lost+found", "__pycache__", "lightning_logs", "wandb", "mlruns", "node_modules",
})  # fmt: skip
_DOCUMENTS = frozenset({"md", "txt", "rst", "html", "pdf", "license", "readme"})
_OPENERS: dict[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error,
    RuntimeError, ValueError, OverflowError,  # an unknown method or version, a name of another encoding, a wild offset
)  # fmt: skip
"""What reading a damaged archive raises, beside OSError."""
_READ_IN_PART = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Methods of a zip that unpack no more than is asked for; a few bytes of the others can be gigabytes."""


class FileReader(Reader, Protocol):
    """Reads files, whole or their beginning; raises as :class:`sagitta.dataset.Reader` does."""

    def start(self, path: str, most: int) -> bytes:
        """Return the first bytes, at most ``most``, without reading or unpacking more than a little behind them."""


@dataclass(frozen=True)
class FolderReader:
    """Reads files below ``root``."""

    root: str

    def read(self, path: str) -> bytes:
        """Return the file's bytes.

        Raises:
            OSError: the file cannot be read.
        """
        return Path(self.root, path).read_bytes()

    def start(self, path: str, most: int) -> bytes:
        """Return the file's first bytes; raises as :meth:`read`."""
        with Path(self.root, path).open("rb") as file:
            return file.read(most)


@dataclass(frozen=True)
class TarReader:
    """Reads members of an uncompressed tar by position.

    Attributes:
        file: the tar.
        members: name -> (offset, size) in bytes.
        unreadable: name -> why the archive has no bytes of that member.
    """

    file: str
    members: Mapping[str, tuple[int, int]]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def read(self, path: str) -> bytes:
        """Return the member's bytes.

        Raises:
            ImageError: the archive ends within the member, or has no bytes of it.
            OSError: the archive cannot be read.
        """
        return self._read(path, None)

    def start(self, path: str, most: int) -> bytes:
        """Return the member's first bytes; raises as :meth:`read`."""
        return self._read(path, most)

    def _read(self, path: str, most: int | None) -> bytes:
        if path in self.unreadable:
            raise ImageError(self.unreadable[path])
        offset, size = self.members[path]
        size = size if most is None else min(size, most)
        with Path(self.file).open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise ImageError(f"{self.file} ends within this file")
        return data


@dataclass(frozen=True)
class ZipReader:
    """Reads members of a zip: ``members`` maps a name to the name as it is written in the zip."""

    file: str
    members: Mapping[str, str]

    def read(self, path: str) -> bytes:
        """Return the member's bytes.

        Raises:
            ImageError: the member is damaged, encrypted or compressed by an unknown method.
            OSError: the zip cannot be read.
        """
        try:
            return _open_zip(self.file).read(self.members[path])
        except _DAMAGE as error:
            raise ImageError(f"{self.file} does not give this file: {error}") from error

    def start(self, path: str, most: int) -> bytes:
        """Return the member's first bytes; raises as :meth:`read`, and for one that can only be unpacked whole."""
        try:
            opened = _open_zip(self.file)
            member = opened.getinfo(self.members[path])
            if member.compress_type not in _READ_IN_PART:
                raise ImageError(f"{self.file} packs this file by another method than deflate")
            with opened.open(member) as file:
                return file.read(most)
        except _DAMAGE as error:
            raise ImageError(f"{self.file} does not give this file: {error}") from error


def _open_zip(file: str) -> zipfile.ZipFile:
    state = os.stat(file)  # noqa: PTH116  # of every member that is read
    return _opened_zip(file, state.st_size, state.st_mtime_ns, os.getpid())


@lru_cache(maxsize=4)
def _opened_zip(file: str, _size: int, _time: int, _process: int) -> zipfile.ZipFile:
    """Return the opened zip: anew when it was replaced, and in a forked child, which must not share the position."""
    return zipfile.ZipFile(file)


@dataclass(frozen=True)
class BelowReader:
    """Reads the names below ``prefix``."""

    reader: FileReader
    prefix: str

    def read(self, path: str) -> bytes:
        """Return the bytes of ``prefix`` + ``path``; raises what the reader raises."""
        return self.reader.read(self.prefix + path)

    def start(self, path: str, most: int) -> bytes:
        """Return the first bytes of ``prefix`` + ``path``; raises what the reader raises."""
        return self.reader.start(self.prefix + path, most)


class Tree:
    """A view of files.

    Attributes:
        location: how messages name it.
        reader: bytes of a file by its name.
        root: the folder on disk, or None for an archive.
        within: the folders that wrap what is seen (``data/test/``), which may name its split; else empty.
    """

    def __init__(
        self,
        location: str,
        listing: Callable[[], dict[str, int]],  # of files, and of empty folders as ``name/``
        reader: FileReader,
        root: str | None = None,
        within: str = "",
    ):
        self.location = location
        self.reader = reader
        self.root = root
        self.within = within
        self._listing = listing

    @cached_property
    def _listed(self) -> dict[str, int]:
        return dict(sorted(self._listing().items()))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Every file's name and size in bytes, in order of names; listed when first asked for."""
        return {name: size for name, size in self._listed.items() if name[-1:] != "/"}

    @property
    def empty(self) -> list[str]:
        """The folders that hold nothing."""
        return [name[:-1] for name in self._listed if name.endswith("/")]

    def size(self, name: str) -> int | None:
        """Return the size in bytes of the file ``name``, or None where there is none; lists nothing."""
        if self.root is None:
            return self.sizes.get(name)
        try:
            found = Path(self.root, name).stat()
        except (OSError, ValueError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def only_folder(self) -> str | None:
        """Return the folder that holds everything but documents such as a README, or None."""
        tops = {name.partition("/")[0] for name in self.sizes if "/" in name or not _is_document(name)}
        top = tops.pop() if len(tops) == 1 else ""
        return top if top and top not in self.sizes else None

    def below(self, folder: str) -> "Tree":
        """Return the view of what lies in ``folder``."""
        prefix = folder + "/"
        sizes = {name.removeprefix(prefix): size for name, size in self._listed.items() if name.startswith(prefix)}
        within = self.within + prefix
        if self.root is not None:
            root = f"{self.root}/{folder}"
            return Tree(self.location, lambda: sizes, FolderReader(root), root, within)
        return Tree(self.location, lambda: sizes, BelowReader(self.reader, prefix), within=within)

    def without(self, folders: Collection[str]) -> "Tree":
        """Return the view of what lies in none of ``folders``."""
        left_out = tuple(f"{folder}/" for folder in folders)
        sizes = {name: size for name, size in self._listed.items() if not name.startswith(left_out)}
        return Tree(self.location, lambda: sizes, self.reader, self.root, self.within)


def folder_tree(location: str, root: Path) -> Tree:
    """Return the view of a folder on disk; links are followed, loops of links are not."""
    path = str(root)
    return Tree(location, lambda: _scan(path), FolderReader(path), path)


def archive_tree(location: str, file: Path, cache: Path) -> Tree | None:
    """Return the view of a tar (compressed or not) or a zip, or None where ``file`` is neither.

    A compressed tar is decompressed once, as a whole, into ``cache``.

    Raises:
        SourceError: the archive is damaged.
    """
    try:
        # Tar first: a tar whose last file is a zip also looks like a zip.
        if tarfile.is_tarfile(file):
            return tar_tree(location, _uncompressed(file, cache))
        if zipfile.is_zipfile(file):
            return _zip_tree(location, file)
    except OSError as error:
        if error.errno is not None:  # of the disk; bz2 and gzip have none
            raise
        raise SourceError(f"{location}: damaged archive ({error}); get it again") from error
    except _DAMAGE as error:
        raise SourceError(f"{location}: damaged archive ({error}); get it again") from error
    return None


def tar_tree(location: str, file: Path) -> Tree:
    """Return the view of an uncompressed tar.

    A link is followed within the archive, to a file or a folder. One that leads nowhere there counts as a file of 0
    bytes, and so do devices and sparse files: reading them says why.

    Raises:
        SourceError: it is damaged or not an uncompressed tar.
    """
    members: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    folders = []
    try:
        with tarfile.open(file, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else a million members take a gigabyte
                if not (name := _clean(member.name)) or _is_junk(name):
                    continue
                if member.isdir():
                    folders.append(name)
                    continue
                for earlier in (members, links, unreadable):  # of one name, the last counts
                    earlier.pop(name, None)
                if member.issym() or member.islnk():
                    links[name] = _target(name, member)
                elif member.isreg() and not member.issparse():
                    members[name] = (member.offset_data, member.size)
                else:
                    unreadable[name] = "a sparse file within the tar" if member.issparse() else "a device, not a file"
    except tarfile.TarError as error:
        raise SourceError(f"{location}: not a whole, uncompressed tar ({error}); get it again") from error
    unreadable |= _follow(links, members)
    sizes = {name: size for name, (_, size) in members.items()} | dict.fromkeys(unreadable, 0)
    sizes |= _empty(folders, sizes)
    return Tree(location, lambda: sizes, TarReader(str(file), members, unreadable))


def _target(name: str, link: tarfile.TarInfo) -> str:
    """Return where a link in a tar leads, as a name in it; what leads out of it begins with ``/`` or ``..``."""
    start = posixpath.dirname(name) if link.issym() else ""  # a hard link names a member from the top
    return posixpath.normpath(posixpath.join(start, link.linkname))


def _follow(links: Mapping[str, str], members: dict[str, tuple[int, int]]) -> dict[str, str]:
    """Add what links lead to; returns name -> reason of those that lead to nothing in the archive."""
    to_folders, dead = {}, {}
    own = dict(members)
    for name, first in links.items():
        target, passed = first, {name}
        while target in links and target not in passed:
            passed.add(target)
            target = links[target]
        if target in own:
            members[name] = own[target]
        else:
            to_folders[name] = target
    inside = sorted(members)
    for name, target in to_folders.items():
        if target == "." or f"{name}/".startswith(f"{target}/"):
            if target != name:
                continue  # a folder that holds the link: followed, it would never end
            found = []
        else:
            found = inside[bisect_left(inside, f"{target}/") : bisect_left(inside, f"{target}0")]  # 0 is behind /
        if not found:
            dead[name] = f"a link to {links[name]}, which is not in the archive"
        for each in found:
            members.setdefault(name + each.removeprefix(target), members[each])
    return dead


def _zip_tree(location: str, file: Path) -> Tree:
    with zipfile.ZipFile(file) as opened:
        named = ((_clean(info.filename), info) for info in opened.infolist())
        listed = {name: info for name, info in named if name and not _is_junk(name)}
    infos = {name: info for name, info in listed.items() if not info.is_dir()}
    folders = [name for name, info in listed.items() if info.is_dir()]
    sizes = {name: info.file_size for name, info in infos.items()} | _empty(folders, infos)
    members = {name: info.filename for name, info in infos.items()}
    return Tree(location, lambda: sizes, ZipReader(str(file), members))


def _empty(folders: Iterable[str], files: Iterable[str]) -> dict[str, int]:
    """Return those of an archive's folders that hold nothing, as a listing does: ``name/`` -> 0."""
    folders = [folder for folder in folders if folder]
    used = set()
    for name in (*folders, *files):
        while (name := name.rpartition("/")[0]) and name not in used:
            used.add(name)
    return {f"{folder}/": 0 for folder in folders if folder not in used}


def _uncompressed(file: Path, cache: Path) -> Path:
    """Return ``file``, or its decompressed copy in ``cache``, made now if there is none for this size and time."""
    with file.open("rb") as opened:
        decompress = _OPENERS.get(opened.read(2))
    if decompress is None:
        return file
    state = file.stat()
    key = hashlib.sha256(f"{file.resolve()}|{state.st_size}|{state.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache / "archives" / f"{file.name.partition('.')[0]}-{key}.tar"
    if not target.exists():
        with new_file(target) as temporary, decompress(file) as packed, temporary.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    return target


def _scan(root: str) -> dict[str, int]:
    """Return name -> size of every file below ``root``, and of every empty folder as ``name/``.

    A link that leads nowhere counts as a file of 0 bytes.
    """
    sizes: dict[str, int] = {}
    pending = [("", root, frozenset({_identity(root)}))]
    while pending:
        prefix, folder, above = pending.pop()
        empty = bool(prefix)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_junk(entry.name):
                        continue
                    empty = False
                    if (size := _file_size(entry)) is not None:
                        sizes[prefix + entry.name] = size
                    elif entry.is_dir() and (identity := _identity(entry.path)) not in above:
                        pending.append((f"{prefix}{entry.name}/", entry.path, above | {identity}))
        except OSError as error:
            raise SourceError(f"{folder}: cannot be listed ({error.strerror}); mend its permissions") from error
        if empty:
            sizes[prefix] = 0
    return sizes


def _file_size(entry: os.DirEntry[str]) -> int | None:
    """Return the size of a regular file, 0 for a dead link, None for folders and for pipes and devices."""
    try:
        return entry.stat().st_size if entry.is_file() else None if entry.is_dir() or not _is_dead(entry) else 0
    except OSError:
        return 0


def _is_dead(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry.path).exists()


def _identity(folder: str) -> tuple[int, int]:
    found = Path(folder).stat()
    return found.st_dev, found.st_ino


def _clean(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _is_junk(name: str) -> bool:
    return any((part.startswith(".") and part != "..") or part in _JUNK for part in name.split("/"))


def _is_document(name: str) -> bool:
    return name.rpartition(".")[2].lower() in _DOCUMENTS
