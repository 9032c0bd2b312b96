"""Which file a table's cell means: a path, an address, a file name, or a name without its extension."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from os.path import commonpath
from urllib.parse import unquote

from sagitta.dataset import split_of, split_of_file
from sagitta.sources.base import IMAGE_SUFFIXES, TEXT_SUFFIXES, suffix
from sagitta.sources.tree import Tree

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LOCAL_FILES = re.compile(r"/data/local-files/?\?d=([^&]+)")
_UPLOAD = re.compile(r"(?:.*/)?upload/\d+/[0-9a-f]{8}-(.+)")
_MASKS = re.compile(r"(?i)masks?|(?:ground|seg|tri|label|depth|anno)[a-z_ -]*|gt")
"""Folders whose files accompany the images of the same names."""


class Finder:
    """Finds the files of a tree that the values of a table's column mean."""

    def __init__(self, tree: Tree):
        self._tree = tree

    def find(self, table: str, values: Sequence[str | None]) -> list[list[str]]:
        """Return for each value the names of the files that it may mean: one, none, or several.

        A value is looked for beside its table, then from the top, then in any folder that it names or, where it names
        none, in any folder at all. Leading folders that are not in the tree may be dropped where all values share them
        (``gs://bucket/flowers/``), or where no file name occurs twice and all images lie in one folder.

        Args:
            table: the table's name; ``train.csv`` means files in a folder ``train`` rather than in ``test``.
            values: as written in the table.
        """
        names = [self._plain(value) if value else "" for value in values]
        folders = [name.rpartition("/")[0] for name in names if name]
        relative = [folder.lstrip("/") for folder in folders]
        shared = [part for part in commonpath(relative).split("/") if part] if relative and all(relative) else []
        bases = [name.rpartition("/")[2] for name in names if name]
        unique = len(set(bases)) == len(bases) > 1
        return [self._find(name, table, len(shared), unique) if name else [] for name in names]

    def near(self, value: str) -> str | None:
        """Return a file whose name differs from ``value`` in leading zeros or in its extension only, or None."""
        base = re.sub(r"(?<=\d)\.0+$", "", self._plain(value).rpartition("/")[2])  # a number that became a fraction
        stem = _key(base[: -len(suffix(base))] if suffix(base) in IMAGE_SUFFIXES else base)
        found = self._images.get(stem) or self._bare.get(stem.lstrip("0"))
        return found[0] if found else None

    @cached_property
    def folders(self) -> frozenset[str]:
        """Every folder of the tree."""
        return frozenset(name.rpartition("/")[0] for name in self._tree.sizes)

    def _plain(self, value: str) -> str:
        """Return a value as a '/'-separated name: without scheme, query, drive, ``./`` and the tree's own folder."""
        if local := _LOCAL_FILES.search(value):
            return unquote(local[1]).lstrip("/")
        if scheme := _SCHEME.match(value):
            name = value[scheme.end() :].partition("?")[0]
            return unquote(name.partition("#")[0] if scheme[0].startswith("http") else name)
        name = value.replace("\\", "/").removeprefix("./")
        if self._tree.root is not None:
            name = name.removeprefix(self._tree.root + "/")
        return re.sub(r"^[A-Za-z]:/", "", name)

    def _find(self, name: str, table: str, shared: int, unique: bool) -> list[str]:
        folder = table.rpartition("/")[0]
        for exact in (f"{folder}/{name}", name) if folder else (name,):
            if self._is_file(exact):
                return [exact]
        *parts, base = name.lstrip("/").split("/")
        found = self._fitting(base, parts, len(parts) if unique and self._flat else shared)
        if not found and (upload := _UPLOAD.fullmatch(name)):
            found = self._fitting(upload[1], [], 0)
        return self._preferred(found, base, table) if len(found) > 1 else found

    def _is_file(self, name: str) -> bool:
        listed = self._tree.__dict__.get("sizes", {})  # not listed for a table given by itself
        return name in listed or self._tree.size(name) is not None

    def _fitting(self, base: str, parts: list[str], most: int) -> list[str]:
        """Return the files of that name whose last folders are ``parts``, but for ``most`` of these in front."""
        fits: defaultdict[int, list[str]] = defaultdict(list)
        for path in self._images.get(_key(base)) or self._others.get(_key(base)) or []:
            have = path.split("/")[:-1]
            alike = 0
            while alike < min(len(have), len(parts)) and have[-1 - alike] == parts[-1 - alike]:
                alike += 1
            dropped = parts[: len(parts) - alike]
            if not dropped or (len(dropped) <= most and not _of_other_split(dropped, have)):
                fits[alike].append(path)
        return fits[max(fits)] if fits else []

    def _preferred(self, found: list[str], base: str, table: str) -> list[str]:
        """Return those that are likelier than the others: exactly so spelt, beside the table, of its split, no mask."""
        folder, split = table.rpartition("/")[0], split_of_file(table)
        for likelier in (
            lambda path: path.rpartition("/")[2].startswith(base),
            lambda path: bool(folder) and path.startswith(f"{folder}/"),
            lambda path: split is not None and split_of_file(path) == split,
            lambda path: not any(_MASKS.fullmatch(part) for part in path.split("/")[:-1]),
        ):
            found = [path for path in found if likelier(path)] or found
        return found

    @cached_property
    def _flat(self) -> bool:
        """Whether all images lie in one folder."""
        return len({path.rpartition("/")[0] for path in self._tree.sizes if suffix(path) in IMAGE_SUFFIXES}) == 1

    @cached_property
    def _images(self) -> defaultdict[str, list[str]]:
        """File name and stem, in lower case, -> images."""
        return _index(path for path in self._tree.sizes if suffix(path) in IMAGE_SUFFIXES)

    @cached_property
    def _others(self) -> defaultdict[str, list[str]]:
        """Likewise for files that are neither images by their name nor text: DICOM, names without an extension."""
        return _index(path for path in self._tree.sizes if suffix(path) not in IMAGE_SUFFIXES | TEXT_SUFFIXES)

    @cached_property
    def _bare(self) -> dict[str, list[str]]:
        return {key.lstrip("0"): paths for key, paths in self._images.items() if key.startswith("0")}


def _key(text: str) -> str:
    """Return a name for comparison: in lower case, in one of Unicode's forms (a Mac's files have another)."""
    return unicodedata.normalize("NFC", text).casefold()


def _index(paths: Iterable[str]) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        base = _key(path.rpartition("/")[2])
        found[base].append(path)
        if stem := base.rpartition(".")[0]:
            found[stem].append(path)
    return found


def _of_other_split(dropped: Sequence[str], have: Sequence[str]) -> bool:
    """Say whether ``dropped`` folders name a split, and those of a file another one."""
    wanted, given = ({split for part in parts if (split := split_of(part))} for parts in (dropped, have))
    return bool(wanted and given and not wanted & given)
