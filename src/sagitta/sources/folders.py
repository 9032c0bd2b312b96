"""Images whose label is in their path: class folders, or file names such as ``cat.0.jpg``."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sagitta.dataset import Source, plural, split_of
from sagitta.sources.base import IMAGE_SUFFIXES, Found, SourceOptions, make_source, suffix
from sagitta.sources.tree import Tree, folder_tree

_SIDE_SUFFIXES = frozenset({
    ".csv", ".tsv", ".txt", ".json", ".jsonl", ".md", ".rst", ".xml", ".yaml", ".yml", ".toml", ".html", ".pdf",
    ".log", ".ini", ".cfg", ".py", ".ipynb", ".parquet",
})  # fmt: skip
"""Files that accompany images. Any other file in a class folder becomes a row; conversion keeps or quarantines it."""

_NAMED = re.compile(r"(?P<label>[^/.]*?[^\W\d_][^/.]*?)[ ._(-]+\d")
"""A label with a letter in it, then separators, then a number: cat.0.jpg, great_pyrenees_12.jpg, ``cat (3).jpg``."""


def folders(tree: Tree, options: SourceOptions) -> Source | None:
    """Return images whose first folder, below a split's folder where there are any, is their class.

    Every file in a class folder is a row, whatever its name, except side files such as .txt and .csv.
    """
    return _source(tree, options, _folder_label, "class folders")


def filenames(tree: Tree, options: SourceOptions) -> Source | None:
    """Return images that lie side by side with their class in the name, as Kaggle's dogs-vs-cats has them.

    At least two labels must have two files each, else the names mean something else.
    """
    source = _source(tree, options, _name_label, "file names (cat.0.jpg)")
    if source is None:
        return None
    counts = Counter(source.rows["label"].to_pylist())
    return source if sum(count >= 2 for count in counts.values()) >= 2 else None


def image_files(folder: Path) -> tuple[list[str], int]:
    """Return the names of the files in a folder that may be images, sorted, and how many are none by their names."""
    names = folder_tree(str(folder), folder).sizes
    images = [name for name in names if suffix(name) not in _SIDE_SUFFIXES]
    return images, len(names) - len(images)


def _folder_label(name: str) -> str | None:
    folder, slash, _ = name.partition("/")
    return folder if slash else None


def _name_label(name: str) -> str | None:
    found = _NAMED.match(name) if suffix(name) in IMAGE_SUFFIXES and "/" not in name else None
    return found["label"] if found else None


@dataclass
class _Found(Found):
    """Rows, and counts of what was passed over."""

    side: int = 0
    outside: int = 0

    def mostly_labelled(self) -> bool:
        """Return whether in any split the labelled files are at least as many as those without a label."""
        return any(count >= self.unlabelled[split] for split, count in Counter(self.splits).items())

    def notes(self) -> list[str]:
        """Return what was skipped, in words."""
        skipped = [
            (self.side, "of text beside the images (.txt, .csv and the like)"),
            (self.outside, "outside the split folders"),
            (self.unlabelled.total(), "without a label"),
        ]
        return [f"skipped {plural(count, 'file')} {which}" for count, which in skipped if count]


def _source(tree: Tree, options: SourceOptions, label_of: Callable[[str], str | None], layout: str) -> Source | None:
    splits = _split_folders(tree)
    found = _collect(tree, splits, label_of)
    if not found.paths or (options.layout is None and not found.mostly_labelled()):
        return None
    if splits:
        layout = f"{'/'.join(splits)} folders of {layout}"
    return make_source(tree.location, layout, found.table(tree.location), tree.reader, notes=found.notes())


def _collect(tree: Tree, splits: dict[str, str], label_of: Callable[[str], str | None]) -> _Found:
    found = _Found()
    for name, size in tree.sizes.items():
        top, _, rest = name.partition("/")
        split = splits.get(top)
        if suffix(name) in _SIDE_SUFFIXES:
            found.side += 1
        elif splits and (split is None or not rest):
            found.outside += 1
        elif (label := label_of(rest if splits else name)) is None:
            found.unlabelled[split] += 1
        else:
            found.add(name, label, size, split)
    return found


def _split_folders(tree: Tree) -> dict[str, str]:
    """Return folder -> split for the top folders that are splits, or {} where they are classes.

    One folder called ``train`` among others is a class (cars, buses, trains); two different splits are splits.
    """
    tops = {name.partition("/")[0] for name in tree.sizes if "/" in name}
    # test1 is the unlabelled half of Kaggle's dogs-vs-cats.
    splits = {top: split for top in sorted(tops) if (split := "test" if top == "test1" else split_of(top))}
    return splits if len(splits) == len(tops) or len(set(splits.values())) > 1 else {}
