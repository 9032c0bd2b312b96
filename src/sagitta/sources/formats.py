"""Annotations that say something other than classes of images, or in files that are not read: named and refused."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress

from sagitta.dataset import split_of
from sagitta.errors import SourceError
from sagitta.sources.base import IMAGE_SUFFIXES, suffix
from sagitta.sources.tree import Tree

_YOLO = re.compile(r"(?:\s*\d+(?:\s+-?[\d.]+(?:e-?\d+)?){4,}\s*)+")
_MATLAB = re.compile(r"(?i).*(?:labels?|list|setid|annos?|split|meta|classes).*\.mat")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
_BINARY = re.compile(
    r"(?i).*(?:label|anno|meta|class|target|truth|split|train|test|val|data).*"
    r"\.(?:pkl|pickle|feather|arrow|h5|hdf5|npy|npz|db|sqlite3?|rds|rdata|dta|sav|orc|avro|dbf)"
)
_MOST_BYTES, _SAMPLE = 2**26, 50
_TABLE = "write a table of path and label (CSV)"
_INSIST = "or insist on class folders with --layout folders"
_ENOUGH = 0.3


def refuse_files_of_images(tree: Tree) -> None:
    """Check that there is not one annotation file an image: YOLO's, Pascal VOC's, labelme's, Supervisely's.

    Raises:
        SourceError: there is; the message names the format and the remedy.
    """
    images = [name for name in tree.sizes if suffix(name) in IMAGE_SUFFIXES]
    stems = {_stem(name) for name in images}
    for kind in (".txt", ".xml", ".json"):
        files = [name for name in tree.sizes if suffix(name) == kind and _stem(name) in stems]
        if files and len(files) >= _ENOUGH * len(images) and not _in_class_folders(files, images):
            _refuse_files(tree, kind, sorted(files))


def refuse_other_files(tree: Tree) -> None:
    """Check that no file that is not read says what the images are: CVAT's XML, MATLAB's lists, a spreadsheet.

    Raises:
        SourceError: there is one; the message names it and the remedy.
    """
    if records := next((name for name in tree.sizes if ".tfrecord" in name.lower()), None):
        raise SourceError(
            f"{tree.location}/{tree.within}{records}: TFRecord, which is not read; write its images to "
            "CLASS/x.jpg with tensorflow_datasets, or to WebDataset tars"
        )
    if not any(suffix(name) in IMAGE_SUFFIXES for name in tree.sizes):
        return
    for name in tree.sizes:
        if name.count("/") <= 1:
            _refuse_file(tree, name)


def _stem(name: str) -> str:
    """Return a file's name without its extension, or without both in ``1.jpg.json``."""
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return stem.rpartition(".")[0] if suffix(stem) in IMAGE_SUFFIXES else stem


def _in_class_folders(files: list[str], images: list[str]) -> bool:
    """Say whether files lie beside their images in several folders, which may be classes whatever the files say."""
    folders = {name.rpartition("/")[0] for name in images}
    classes = {folder for folder in folders if split_of(folder.rpartition("/")[2]) is None}
    return len(classes) > 1 and all(name.rpartition("/")[0] in folders for name in files[:100])


def _refuse_files(tree: Tree, kind: str, files: list[str]) -> None:
    text = next(filter(None, (_text(tree, name) for name in files[:20])), "")
    where = f"{tree.location}/{files[0]}"
    if kind == ".txt" and _YOLO.fullmatch(text):
        raise SourceError(f"{where}: YOLO's boxes, one file an image, for detection; {_TABLE}, {_INSIST}")
    if kind == ".xml" and "<annotation" in text:
        raise SourceError(f"{where}: Pascal VOC's XML, one file an image, for detection; {_TABLE}, {_INSIST}")
    if kind == ".json":
        tools = {'"shapes"': "labelme's ", '"objects"': "Supervisely's "}
        tool = next((tool for key, tool in tools.items() if key in text), "")
        raise SourceError(f"{where}: {tool}JSON, one file an image, is not read; {_TABLE}, {_INSIST}")


def _refuse_file(tree: Tree, name: str) -> None:
    where = f"{tree.location}/{name}"
    base = name.rpartition("/")[2]
    if suffix(name) == ".xml" and "<image " in (text := _text(tree, name)) and "<annotations" in text:
        raise SourceError(f"{where}: CVAT's XML, which is not read; export it as ImageNet 1.0, or {_TABLE}, {_INSIST}")
    if _MATLAB.fullmatch(base):
        raise SourceError(
            f"{where}: a MATLAB file of labels or splits, perhaps, which is not read; open it with "
            f"scipy.io.loadmat and {_TABLE}, {_INSIST}"
        )
    if suffix(name) in _SPREADSHEETS and _names_images(tree, name):
        raise SourceError(f"{where}: a spreadsheet that names the images, which is not read; save it as CSV, {_INSIST}")
    if _BINARY.fullmatch(base) and _names_images(tree, name):
        raise SourceError(f"{where}: names the images, but is not read; {_TABLE}, {_INSIST}")


def _names_images(tree: Tree, name: str) -> bool:
    """Say whether a file's texts are names of images; of a very large one that is not looked for."""
    if tree.sizes[name] > _MOST_BYTES:
        return False
    data = tree.reader.read(name)
    images = [image.rpartition("/")[2].lower() for image in tree.sizes if suffix(image) in IMAGE_SUFFIXES]
    if zipfile.is_zipfile(io.BytesIO(data)):
        known = {*images, *(image.rpartition(".")[0] for image in images)}
        return any(text.strip().rpartition("/")[2].lower() in known for text in _texts_of_book(data))
    plain = data.lower().replace(b"\0", b"")  # also of two bytes a letter
    sample = images[:: -(-len(images) // _SAMPLE)]
    return any(re.search(rb"(?<![\w-])" + re.escape(image.encode("utf-8", "replace")), plain) for image in sample)


def _texts_of_book(data: bytes) -> Iterator[str]:
    """Yield the texts of an XLSX, whether they are shared or stand in their cells, or of an ODS."""
    with (
        suppress(zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError),
        zipfile.ZipFile(io.BytesIO(data)) as book,
    ):
        for part in book.infolist():
            if part.filename.endswith(".xml") and part.file_size <= _MOST_BYTES:
                yield from re.findall(r"<t[^>]*>([^<]+)</t", book.read(part).decode("utf-8", "replace"))


def _text(tree: Tree, name: str) -> str:
    return tree.reader.read(name)[:100_000].decode("utf-8", "replace")
