"""Annotations that say something other than classes of images, or in files that are not read: named and refused."""

import io
import re
import zipfile
import zlib

from sagitta.dataset import split_of
from sagitta.errors import SourceError
from sagitta.sources.base import IMAGE_SUFFIXES, suffix
from sagitta.sources.tree import Tree

_YOLO = re.compile(r"(?:\s*\d+(?:\s+-?[\d.]+(?:e-?\d+)?){4,}\s*)+")
_MATLAB = re.compile(r"(?i).*(?:labels?|list|setid|annos?|split|meta|classes).*\.mat")
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
    if suffix(name) == ".xlsx" and _names_images(tree, name):
        raise SourceError(f"{where}: a spreadsheet that names the images, which is not read; save it as CSV, {_INSIST}")


def _names_images(tree: Tree, name: str) -> bool:
    """Say whether a spreadsheet's texts are names of images."""
    try:
        with zipfile.ZipFile(io.BytesIO(tree.reader.read(name))) as book:
            texts = re.findall(r"<t[^>]*>([^<]+)</t>", book.read("xl/sharedStrings.xml").decode("utf-8", "replace"))
    except (zipfile.BadZipFile, KeyError, zlib.error, RuntimeError):
        return False
    images = [image.rpartition("/")[2].lower() for image in tree.sizes if suffix(image) in IMAGE_SUFFIXES]
    known = {*images, *(image.rpartition(".")[0] for image in images)}
    return any(text.strip().rpartition("/")[2].lower() in known for text in texts)


def _text(tree: Tree, name: str) -> str:
    return tree.reader.read(name)[:100_000].decode("utf-8", "replace")
