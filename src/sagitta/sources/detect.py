"""From what the user names to a source: a built-in, a Hub repository, a table, an archive or a folder."""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from sagitta.dataset import Source, image_columns, read_schema
from sagitta.errors import DatasetError, SourceError
from sagitta.sources.arrays import cifar, idx, npy
from sagitta.sources.base import IMAGE_SUFFIXES, SourceOptions, examples, suffix
from sagitta.sources.builtin import BUILTIN, hub_folder, open_builtin
from sagitta.sources.folders import filenames, folders, made_by_sagitta
from sagitta.sources.formats import refuse_files_of_images, refuse_other_files
from sagitta.sources.manifest import manifest, open_table, refuse_unlabelled
from sagitta.sources.names import with_real_names
from sagitta.sources.parquet import parquet, unreadable
from sagitta.sources.tables import LIST_SUFFIXES, TABLE_SUFFIXES
from sagitta.sources.tree import Tree, archive_tree, folder_tree
from sagitta.sources.webdataset import webdataset
from sagitta.sources.words import UNDERSTOOD

Layout = Callable[[Tree, SourceOptions], Source | None]

LAYOUTS: Mapping[str, Layout] = {
    "cifar": cifar,
    "idx": idx,
    "npy": npy,
    "parquet": parquet,
    "webdataset": webdataset,
    "manifest": manifest,
    "folders": folders,
    "filenames": filenames,
}
"""Name -> function that returns the source where a tree is of that layout, else None. Where several would fit, the
first is taken, and ``Source.describe`` says which."""

_DETECT = SourceOptions()
_SOME, _SMALL = 100, 2**20  # names of files, and bytes of one, that are soon looked at


def open_source(location: str, options: SourceOptions = _DETECT, *, cache: Path) -> Source:
    """Return the labelled images at ``location``.

    Args:
        location: a folder, an archive, a table, ``hf://USER/NAME`` or one of ``BUILTIN``. A built-in's name means the
            built-in; a folder of that name is written with a separator (``./digits``).
        options: what to impose on detection.
        cache: folder for downloads and decompressed archives, made if need be.

    Raises:
        SourceError: nothing is there, it cannot be read, or it holds no images with labels; the message says which.
    """
    _check_options(location, options)
    if location in BUILTIN:
        if options.layout is not None:
            raise SourceError(f"{location}: built-in, so its layout is known; leave --layout out, or give ./{location}")
        return _checked(location, open_builtin(location, cache), options)
    root = hub_folder(location, cache) if location.startswith("hf://") else _there(location)
    if root.is_file() and suffix(root.name) in TABLE_SUFFIXES:
        return _open_file(location, root, options)
    tree = folder_tree(location, root) if root.is_dir() else archive_tree(location, root, cache)
    if tree is None:
        raise SourceError(
            f"{location}: neither a folder, a whole tar or zip, nor a table; give the folder that holds it"
        )
    return _checked(location, _detect(tree, options), options)


def check_source(location: str, options: SourceOptions = _DETECT, *, cache: Path) -> None:
    """Refuse what :func:`open_source` would, as far as that is soon known: before somebody waits for something else.

    Where nothing speaks for images, all is looked at now; else a look at a few names is enough.

    Args:
        location: as for :func:`open_source`, and so the next two.
        options: see there.
        cache: see there.

    Raises:
        SourceError: as :func:`open_source` does.
    """
    _check_options(location, options)
    if location in BUILTIN or location.startswith("hf://"):
        return
    root = _there(location)
    if root.is_dir():
        names = list(islice((name for _, _, names in os.walk(root) for name in names), _SOME))
        doubtful = not any(suffix(name) in IMAGE_SUFFIXES for name in names)
    else:
        doubtful = root.stat().st_size < _SMALL
    if doubtful:
        open_source(location, options, cache=cache)


def _check_options(location: str, options: SourceOptions) -> None:
    if not location:  # as a script's empty variable; it would mean the working directory
        raise SourceError("no DATA given; give a folder, such as . for this one")
    if options.layout is not None and options.layout not in LAYOUTS:
        raise SourceError(f"no layout {options.layout!r}; choose one of {', '.join(LAYOUTS)}")


def _there(location: str) -> Path:
    """Return the path that a location names.

    Raises:
        SourceError: there is nothing.
    """
    root = Path(location).expanduser()
    if not root.exists():
        raise SourceError(_absent(location, root))
    return root


def _detect(tree: Tree, options: SourceOptions) -> Source:
    """Return the source that the tree, or what lies in its only folder, is.

    Raises:
        SourceError: it is of no known layout, or not of the one that was asked for.
    """
    if not tree.sizes:
        raise SourceError(f"{tree.location}: empty, no file in it; give the folder that holds the images")
    made = made_by_sagitta(tree)
    tree = tree.without(made) if made else tree
    source = _first(tree, replace(options, one_class=False))
    if source is None and options.one_class:  # last, for names of one class may mean anything else
        source = _first(tree, options)
    if source is not None:
        left_out = [f"left out {examples(made)}, made by Sagitta"] if made else []
        return replace(source, notes=(*source.notes, *left_out))
    if options.layout is not None:
        raise SourceError(
            f"{tree.location}: not readable as {options.layout!r}; leave --layout out to have it detected"
        )
    refuse_unlabelled(tree)
    raise SourceError(
        f"{tree.location}: no images with labels found{_among(tree)}{_above(tree)}; understood are {UNDERSTOOD}"
    )


def _among(tree: Tree) -> str:
    """Return which files there are, by their extensions, and what to do with archives among them."""
    counts = Counter(suffix(name) or "without extension" for name in tree.sizes)
    packed = any(suffix(name) in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar") for name in tree.sizes)
    among = f" among {', '.join(f'{count:,} {kind}' for kind, count in counts.most_common(4))}"
    return f"{among}; unpack the archives in it, or give one by itself" if packed else among


def _above(tree: Tree) -> str:
    """Return the advice to give the folder above where images lie in this one and in folders beside it, else ``""``."""
    if tree.root is None or not any("/" not in name and suffix(name) in IMAGE_SUFFIXES for name in tree.sizes):
        return ""
    above = os.path.normpath(f"{tree.root}/..")  # also of . and of a link, which is a folder where it lies
    with suppress(OSError), os.scandir(above) as entries:
        if any(_has_images(entry) for entry in entries if entry.is_dir() and not Path(entry).samefile(tree.root)):
            return f"; give the folder above, {above}, if its folders are the classes"
    return ""


def _has_images(folder: os.DirEntry[str]) -> bool:
    """Return whether an image lies in a folder, by the names of the files; one that is hidden or closed has none."""
    if folder.name.startswith("."):
        return False
    with suppress(OSError), os.scandir(folder) as entries:
        return any(suffix(entry.name) in IMAGE_SUFFIXES and entry.is_file() for entry in entries)
    return False


def _first(tree: Tree, options: SourceOptions) -> Source | None:
    # Inside first: an archive's or a download's top folder is a wrapper more often than the one class; but lists of
    # text beside it may name what is in it.
    if folder := tree.only_folder():
        lists = any("/" not in name and suffix(name) in LIST_SUFFIXES for name in tree.sizes)
        if lists and options.layout in (None, "manifest") and (source := manifest(tree, options)) is not None:
            return with_real_names(tree, source)
        if (source := _first(tree.below(folder), options)) is not None:
            return with_real_names(tree, source)
    for name in [options.layout] if options.layout else LAYOUTS:
        if name == "folders" and options.layout is None:
            refuse_files_of_images(tree)
            refuse_other_files(tree)
        if (source := _laid_out(tree, name, options)) is not None:
            if name == "folders" and options.layout is None and len(source.class_names) == 1:
                refuse_unlabelled(tree)
            return with_real_names(tree, source) if name in ("manifest", "folders") else source
    return None


def _laid_out(tree: Tree, name: str, options: SourceOptions) -> Source | None:
    try:
        return LAYOUTS[name](tree, options)
    except SourceError:
        if name == "manifest" and options == _DETECT:
            refuse_files_of_images(tree)  # a name for what the lists beside them (Pascal VOC's) only puzzle over
        raise


def _open_file(location: str, file: Path, options: SourceOptions) -> Source:
    """Return the source of a table given by itself: image Parquet, or a manifest."""
    folder = folder_tree(str(file.parent), file.parent)
    if _holds_images(location, file):
        size = file.stat().st_size
        tree = Tree(str(file.parent), lambda: {file.name: size}, folder.reader, folder.root)
        source = parquet(tree, options)
        if source is not None:
            return replace(source, location=location)
    return replace(open_table(folder, file.name, options), location=location)


def _holds_images(location: str, file: Path) -> bool:
    if suffix(file.name) != ".parquet":
        return False
    try:
        return bool(image_columns(read_schema(file)))
    except DatasetError as error:
        raise unreadable(location, file, error) from error


def _checked(location: str, source: Source, options: SourceOptions) -> Source:
    if options.names_columns() and not source.layout.startswith(("files named in", "Parquet")):
        raise SourceError(f"{location}: {source.layout} have no columns; a column can only be named for a table")
    return source


def _absent(location: str, path: Path) -> str:
    """Return the message for a path that is not there, with names that are near it."""
    near = [name for name in BUILTIN if "/" not in location]
    if path.parent.is_dir():
        near += [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, near, n=3)
    hint = f"did you mean {' or '.join(close)}" if close else f"give a path or a built-in: {', '.join(BUILTIN)}"
    return f"{location}: no such file or folder; {hint}"
