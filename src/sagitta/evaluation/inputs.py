"""What people name to have it predicted -> encoded images in order: files, folders, patterns, archives, datasets.

============================================  =================================================================
a file                                        that image
a folder                                      its images, sorted; a converted dataset or image Parquet: its rows
``'photos/**/*.jpg'``                         what the pattern finds, sorted
a tar or a zip                                its images, sorted, as ``photos.zip/cat/1.jpg``
a table, ``hf://USER/NAME``, ``digits`` …     the rows of that dataset, converted once into the cache; where a split is
                                              named, so is whatever a dataset can be made of
``-``                                         a path a line of standard input, or as ``find -print0`` gives them
============================================  =================================================================
"""

import codecs
import glob
import hashlib
import json
import os
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from sagitta.dataset import INFO_FILE, ShardSet, Split, left_out_lines, plural
from sagitta.errors import ConfigError, ImageError, SourceError
from sagitta.files import user_cache
from sagitta.images import MAX_BYTES
from sagitta.loading import EncodedFiles
from sagitta.run import checkpoints_of
from sagitta.sources import BUILTIN, SIDE_SUFFIXES, TABLE_SUFFIXES, Tree, archive_tree, image_files, suffix

_ARCHIVES = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_RELEASE = 32 * 2**20  # bytes of a dataset that are read before its pages are let go

OpenData = Callable[[str], ShardSet]
"""Opens what is no dataset yet, converted if need be; raises SagittaError."""


class _Images(Protocol):
    """Encoded images that belong together; see :class:`sagitta.loading.Encoded`."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> bytes | memoryview: ...

    def is_reduced(self, number: int) -> bool: ...

    def name(self, number: int) -> str: ...

    def file(self, number: int) -> Path | None: ...

    def identity(self) -> Iterator[list[Any]]: ...


@dataclass(frozen=True)
class _Files(EncodedFiles):
    """Image files."""

    def name(self, number: int) -> str:
        return self.paths[number]

    def file(self, number: int) -> Path | None:
        return Path(self.paths[number])

    def identity(self) -> Iterator[list[Any]]:
        return ([path, *_stamp(path)] for path in self.paths)


@dataclass(frozen=True)
class _Members:
    """Images in an archive."""

    tree: Tree
    names: Sequence[str]
    stamp: tuple[int, int]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, number: int) -> bytes:
        name = self.names[number]
        if (size := self.tree.sizes[name]) > MAX_BYTES:
            raise ImageError(f"{size:,} bytes, more than {MAX_BYTES:,}")
        return self.tree.reader.read(name)

    def is_reduced(self, number: int) -> bool:
        return False

    def name(self, number: int) -> str:
        return f"{self.tree.location}/{self.names[number]}"

    def file(self, number: int) -> Path | None:
        return None

    def identity(self) -> Iterator[list[Any]]:
        yield [self.tree.location, *self.stamp, len(self.names)]


class _Rows:
    """The rows of a split."""

    def __init__(self, shards: ShardSet, split: Split) -> None:
        self.split, self._fingerprint = split, shards.info.fingerprint
        self._read = 0

    def __len__(self) -> int:
        return len(self.split)

    def read(self, number: int) -> memoryview:
        image = self.split.image(number)
        self._read += len(image)
        if self._read > _RELEASE:
            self._read = 0
            self.split.release()
        return image

    def is_reduced(self, number: int) -> bool:
        return True

    def name(self, number: int) -> str:
        return self.split.path(number)

    def file(self, number: int) -> Path | None:
        return None

    def identity(self) -> Iterator[list[Any]]:
        yield [self._fingerprint, self.split.name, len(self.split)]


@dataclass(frozen=True)
class Inputs:
    """Encoded images in the order in which they were named; see :class:`sagitta.loading.Encoded`.

    Attributes:
        parts: what belongs together.
        notes: what a person has to know of the list, one sentence each.
    """

    parts: tuple[_Images, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self.parts else 0

    def _at(self, number: int) -> tuple[_Images, int]:
        part = bisect_right(self._ends, number)
        return self.parts[part], number - (self._ends[part - 1] if part else 0)

    def is_reduced(self, number: int) -> bool:
        """Return whether an image's deep samples and bands are 8-bit pixels already."""
        part, own = self._at(number)
        return part.is_reduced(own)

    def read(self, number: int) -> bytes | memoryview:
        """Return an encoded image; raises as :class:`sagitta.loading.Encoded` says."""
        part, own = self._at(number)
        return part.read(own)

    def name(self, number: int) -> str:
        """Return what stands for an image in the column ``path``."""
        part, own = self._at(number)
        return part.name(own)

    def file(self, number: int) -> Path | None:
        """Return the file that an image is by itself, None within an archive or a dataset."""
        part, own = self._at(number)
        return part.file(own)

    def names(self) -> Iterator[str]:
        """Yield the names of all."""
        return (part.name(number) for part in self.parts for number in range(len(part)))

    def digest(self) -> str:
        """Return what tells this list from others: names, sizes and times; of datasets, their fingerprint."""
        digest = hashlib.blake2b(digest_size=16)
        for each in (each for part in self.parts for each in part.identity()):
            digest.update(json.dumps(each, ensure_ascii=True).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Found:
    """What one name means."""

    parts: tuple[_Images, ...]
    skipped: int = 0
    notes: tuple[str, ...] = ()


def open_inputs(paths: Sequence[str | Path], *, split: str | None = None, open_data: OpenData | None = None) -> Inputs:
    """Return the images that some names mean, in their order.

    In a folder and in an archive what conversion skips is skipped: hidden files, and files of text beside the images.

    Args:
        paths: see the head of this module; a :class:`pathlib.Path` is neither a pattern nor standard input.
        split: of datasets, all by default.
        open_data: for what has to be converted; None refuses it.

    Raises:
        SourceError: a path does not exist, a name is not UTF-8, or there is no image at all.
        ConfigError: there is no such split, or nothing that has splits.
        DatasetError: a dataset is damaged.
    """
    parts: list[_Images] = []
    files: list[str] = []
    notes: list[str] = []
    skipped = 0
    for path in _expanded(paths):
        if (found := _open(path, split, open_data)) is None:
            files.append(str(path))
            continue
        for part in found.parts:
            if isinstance(part, _Files):
                files += part.paths
                continue
            if files:
                parts.append(_Files(tuple(files)))
                files.clear()
            parts.append(part)
        skipped += found.skipped
        notes += found.notes
    parts += [_Files(tuple(files))] if files else []
    _check_names(parts)
    if not any(map(len, parts)):
        raise SourceError(f"no image files in {', '.join(map(str, paths)) or 'an empty list'}")
    if split is not None and not any(isinstance(part, _Rows) for part in parts):
        raise ConfigError(f"--split {split}: only a dataset has splits; leave it out")
    if skipped:
        notes.append(f"skipped {plural(skipped, 'file')} of text beside the images (.txt, .csv and the like)")
    return Inputs(tuple(part for part in parts if len(part)), tuple(notes))


def inputs_for(run: Path, paths: Sequence[str | Path], split: str | None = None) -> Inputs:
    """Return the images that some names mean, for a run: what is converted for it becomes what it was trained on.

    Only that takes torch.

    Raises:
        ConfigError: there is no such run.
        SagittaError: as :func:`open_inputs` does.
    """
    checkpoints_of(run)

    def converted(source: str) -> ShardSet:
        from sagitta.evaluation.members import open_model
        from sagitta.evaluation.testing import other_settings, quiet

        how = open_model(run).first.preprocessing
        settings = other_settings(source, "test", None if how is None else how.reduction)
        data = settings.image_data(verbose=True)
        with quiet():
            data.prepare_data()
            data.setup("test")
        return data.shards

    return open_inputs(paths, split=split, open_data=converted)


def _expanded(paths: Sequence[str | Path]) -> Iterator[str | Path]:
    """Yield paths with standard input and patterns replaced by what they mean.

    Raises:
        SourceError: a pattern finds nothing, or what is named is in the net.
    """
    for path in paths:
        if path == "-":
            for line in _lines(sys.stdin.buffer.read()):
                yield Path(line)
        elif isinstance(path, str) and re.match(r"(https?|ftp|s3|gs)://", path):
            raise SourceError(f"{path}: nothing is fetched from the net; download it, and give the file")
        elif isinstance(path, str) and glob.has_magic(path) and not os.path.lexists(path):
            names = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  # knows `**`, and absolute patterns
            if not names:
                raise SourceError(f"{path}: no file matches this pattern")
            yield from map(Path, names)
        else:
            yield path


def _lines(data: bytes) -> list[str]:
    """Return the paths in a list: between NULs where there are any, which names may hold no more, else a line each."""
    data = data.removeprefix(codecs.BOM_UTF8)  # PowerShell begins a list with it
    parts = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(part) for part in parts if part]


def _open(path: str | Path, split: str | None, open_data: OpenData | None) -> _Found | None:
    """Return what is named, None for a file that is to be an image.

    Raises:
        SagittaError: as :func:`open_inputs` does.
    """
    name, place = str(path), Path(path)
    if name.startswith("hf://") or (name in BUILTIN and not os.path.lexists(place)):
        return _of_source(name, split, open_data)
    if split is not None and open_data is not None and place.exists():
        return _of_source(name, split, open_data)
    if place.is_dir():
        if (place / INFO_FILE).exists() or _is_parquet(place):
            return _rows(ShardSet.open(place), split)
        names, others = image_files(place)
        return _Found((_Files(tuple(str(Path(path) / each) for each in names)),), others)
    if not os.path.lexists(place):  # a link that leads nowhere is a row with an error
        raise SourceError(f"{path}: no such file or folder")
    if suffix(name) in TABLE_SUFFIXES and place.is_file():
        return _of_source(name, split, open_data)
    if _ARCHIVES.search(name) and place.is_file() and (tree := archive_tree(name, place, user_cache())) is not None:
        names = [each for each in tree.sizes if suffix(each) not in SIDE_SUFFIXES]
        state = place.stat()
        images = _Members(tree, names, (state.st_size, state.st_mtime_ns))
        return _Found((images,), len(tree.sizes) - len(names))
    if place.exists() and not place.is_file():  # reading it would wait for whoever writes, maybe for ever
        raise SourceError(f"{path}: a pipe or a device, and no file; save the image as a file, and give that")
    return None


def _of_source(name: str, split: str | None, open_data: OpenData | None) -> _Found:
    """Return the images of a source that is converted, of one split or all.

    Raises:
        SagittaError: it cannot be, or has no splits of its own: all of it would be taken for that one.
    """
    shards = _data(name, open_data)
    given = sorted(shards.info.given_splits)
    if split is not None and len(shards.splits) == 1 and len(given) < 2 and not (Path(name) / INFO_FILE).exists():
        one = f"{name} has {given[0]} only, which counts as undivided" if given else f"{name} is not divided by itself"
        raise ConfigError(
            f"--split {split}: {one}, and what a run made of it `sagitta test RUN` measures on; leave --split out for "
            "all of its images"
        )
    return _rows(shards, split)


def _stamp(path: str) -> tuple[int, int]:
    """Return size and time of a file, by which one that was changed in place is told from what it was."""
    try:
        state = os.stat(path)  # noqa: PTH116  # of any number of files
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _is_parquet(folder: Path) -> bool:
    """Return whether a folder is image Parquet of others: files of it, and none that may be an image."""
    if not any(folder.rglob("*.parquet")):
        return False
    return not image_files(folder)[0]


def _data(name: str, open_data: OpenData | None) -> ShardSet:
    if open_data is None:
        raise SourceError(f"{name}: no image; give image files, or folders of them")
    return open_data(name)


def _rows(shards: ShardSet, split: str | None) -> _Found:
    """Return the rows of a dataset, or of one split of it.

    Raises:
        ConfigError: it has no such split.
    """
    names = list(shards.splits)
    if split is not None and split not in names:
        raise ConfigError(f"{shards.root}: no split {split!r}, only {' and '.join(names)}; choose one with --split")
    wanted = names if split is None else [split]
    parts = tuple(_Rows(shards, shards.splits[each]) for each in wanted)
    return _Found(parts, notes=tuple(left_out_lines(shards.root, shards.info)))


def _check_names(parts: Sequence[_Images]) -> None:
    """Refuse files whose names no output could hold.

    Raises:
        SourceError: a name is not UTF-8.
    """
    for file in (file for part in parts if isinstance(part, _Files) for file in part.paths):
        if not file.isprintable() and any("\udc80" <= letter <= "\udcff" for letter in file):
            raise SourceError(f"{file!a}: the name is not valid UTF-8; rename that file")
