"""Images whose label is in their path: class folders, or file names such as ``cat.0.jpg``."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sagitta.dataset import Source, plural, split_in, split_of
from sagitta.errors import SourceError
from sagitta.sources.base import IMAGE_SUFFIXES, SIDE_SUFFIXES, Found, SourceOptions, examples, make_source, suffix
from sagitta.sources.splitfolders import SplitFolders, masks, refuse_class_in_name, split_folders
from sagitta.sources.tree import Tree, folder_tree

_SAMPLE = 500
_TELL_OURS = ("sagitta.json", "run.json", "config.yaml")

_UNLABELLED = re.compile(r"_*unlabell?ed", re.IGNORECASE)
"""A folder of images that no one has labelled yet, as FiftyOne writes it."""

_OF_CAMERAS = re.compile(
    r"_?(?:img|images?|dsc[nf]?|p|pxl|gopr|gp|dji|mvi|vid|cimg|imag|hpim|sam|photo|pic|picture|frame|scan|file|"
    r"untitled|screenshot|screen ?shot|whatsapp image|signal|snapshot|capture|bild|foto)",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?P<label>[^/.]*?[^\W\d_][^/.]*?)[ ._(-]+\d")
"""A label with a letter in it, then separators, then a number: cat.0.jpg, great_pyrenees_12.jpg, ``cat (3).jpg``."""


def folders(tree: Tree, options: SourceOptions) -> Source | None:
    """Return images whose first folder, below a split's folder where there are any, is their class.

    Every file in a class folder is a row, whatever its name, except side files such as .txt and .csv.
    """
    return _source(tree, options, _folder_label, "class folders")


def filenames(tree: Tree, options: SourceOptions) -> Source | None:
    """Return images that lie side by side with their class in the name, as Kaggle's dogs-vs-cats has them.

    At least two labels must have two files each, else the names mean something else; but not for ``one_class``. What
    cameras and programs call their files is no class.
    """
    source = _source(tree, options, _name_label, "file names (cat.0.jpg)")
    if source is None:
        return None
    counts = Counter(source.rows["label"].to_pylist())
    if options.layout is None and all(_OF_CAMERAS.fullmatch(label) for label in counts):
        return None
    refuse_class_in_name(tree.location, counts)
    return source if options.one_class or sum(count >= 2 for count in counts.values()) >= 2 else None


def made_by_sagitta(tree: Tree) -> list[str]:
    """Return the folders of runs and of datasets beside images: their pictures and rows are no data of these.

    There are none where nothing else is an image: then they are what was meant.
    """
    told = [name.rpartition("/") for name in tree.sizes if name.endswith(_TELL_OURS)]
    has = {(folder, base) for folder, slash, base in told if slash}
    folders = {folder for folder, base in has if base == "sagitta.json"}
    folders |= {folder for folder, base in has if base == "run.json" and (folder, "config.yaml") in has}
    rest = tree.without(folders) if folders else tree
    return sorted(folders) if any(suffix(name) in IMAGE_SUFFIXES for name in rest.sizes) else []


def image_files(folder: Path) -> tuple[list[str], int]:
    """Return the names of the files in a folder that may be images, sorted, and how many are none by their names.

    Those of a run that lies beside images are not looked at.
    """
    tree = folder_tree(str(folder), folder)
    made = made_by_sagitta(tree)
    names = (tree.without(made) if made else tree).sizes
    images = [name for name in names if suffix(name) not in SIDE_SUFFIXES]
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
    outside: Counter[str] = field(default_factory=Counter)
    set_aside: int = 0

    def mostly_labelled(self) -> bool:
        """Return whether in any split the labelled files are at least as many as those without a label."""
        return any(count >= self.unlabelled[split] for split, count in Counter(self.splits).items())

    def notes(self) -> list[str]:
        """Return what was skipped, in words."""
        skipped = [
            (self.side, "of text beside the images (.txt, .csv and the like)"),
            (self.unlabelled.total() + self.set_aside, "without a label"),
        ]
        return [f"skipped {plural(count, 'file')} {which}" for count, which in skipped if count]

    def warnings(self) -> list[str]:
        """Return what was skipped that may have been wanted."""
        if not self.outside:
            return []
        return [
            f"skipped {plural(self.outside.total(), 'file')} outside the split folders: {examples([*self.outside])}"
        ]


def _source(tree: Tree, options: SourceOptions, label_of: Callable[[str], str | None], layout: str) -> Source | None:
    images = [name for name in tree.sizes if suffix(name) not in SIDE_SUFFIXES]
    left_out = masks(images)
    rows = [name for name in images if name not in left_out]
    kept = (name for name in rows if not _set_aside(name))
    plan = split_folders(tree.location, kept, _name_label, insist=options.layout is not None)
    mask_notes = [f"left out {plural(len(left_out), 'mask')} ({examples(sorted(set(left_out.values())))})"]
    if plan.product:
        source = _source(tree.below(plan.product), options, label_of, layout)
        outside = sum(not name.startswith(f"{plan.product}/") for name in rows)
        beside = [f"skipped {plural(outside, 'file')} beside {plan.product}"] if outside else []
        return source and replace(source, notes=(*source.notes, *(mask_notes if left_out else ()), *beside))
    found = _collect(tree, rows, plan, label_of)
    found.side = len(tree.sizes) - len(images)
    if not found.paths or (options.layout is None and not found.mostly_labelled()):
        return None
    _refuse_half(tree, found, plan)
    if plan.tops:
        layout = f"{'/'.join(plan.tops)} folders of {layout}"
    elif plan.below:
        layout = f"{layout} with split folders in each"
    notes = [*([plan.note] if plan.note else []), *_deeper(found, plan), *found.notes()]
    notes += mask_notes if left_out else []
    warnings = [
        *plan.warnings,
        *found.warnings(),
        *_empty_splits(found, plan),
        *_empty_classes(tree, found, plan),
        *_one_class(tree, found, plan),
    ]
    warnings += _splits_in_names(found)
    return make_source(tree.location, layout, found.table(tree.location), tree.reader, notes=notes, warnings=warnings)


def _refuse_half(tree: Tree, found: _Found, plan: SplitFolders) -> None:
    """Refuse images in one split's folder beside as many in none: these are the other split, most likely."""
    if len(set(plan.tops.values())) == 1 and 10 * found.outside.total() > len(found.paths):
        top, outside = next(iter(plan.tops)), plural(found.outside.total(), "file")
        raise SourceError(f"{tree.location}: {top} is a split, but {outside} beside it are in none; give them a folder")


def _set_aside(name: str) -> bool:
    """Say whether a file lies in a folder of unlabelled ones, at the top or in a split."""
    if "unlabel" not in name.lower():  # of a million names nearly all
        return False
    top, _, rest = name.partition("/")
    folder, slash, _ = rest.partition("/")
    return bool(rest and (_UNLABELLED.fullmatch(top) or (slash and split_of(top) and _UNLABELLED.fullmatch(folder))))


def _collect(tree: Tree, rows: list[str], plan: SplitFolders, label_of: Callable[[str], str | None]) -> _Found:
    found = _Found()
    wrapper = next((split for part in tree.within.split("/")[::-1] if (split := split_of(part))), None)
    for name in rows:
        top, _, rest = name.partition("/")
        second = f"{top}/{rest.partition('/')[0]}" if plan.below else top
        split = plan.tops.get(top) or plan.below.get(second)
        if _set_aside(name):
            found.set_aside += 1
        elif (plan.tops or plan.below) and (split is None or not rest):
            found.outside[second] += 1
        elif (label := label_of(_below_split(name, plan))) is None:
            found.unlabelled[split] += 1
        else:
            found.add(name, label, tree.sizes[name], split or wrapper)
    return found


def _below_split(name: str, plan: SplitFolders) -> str:
    top, _, rest = name.partition("/")
    if top not in plan.tops:
        return name
    return rest.removeprefix(f"{plan.inner[top]}/") if top in plan.inner else rest


def _deeper(found: _Found, plan: SplitFolders) -> list[str]:
    """Return a sentence on a class with several folders in it, which may be the classes that are meant.

    Of many files some are looked at.
    """
    inside: defaultdict[str, set[str]] = defaultdict(set)
    for path in () if plan.below else found.paths[:: -(-len(found.paths) // _SAMPLE) or 1]:
        top, *below = _below_split(path, plan).split("/")
        inside[top] |= {"/".join(below[:-1])} - {""}
    top, below = next(((top, sorted(names)) for top, names in inside.items() if len(names) > 1), ("", []))
    return [f"folders in a class count for it ({top}: {examples(below, 3)})"] if below else []


def _empty_splits(found: _Found, plan: SplitFolders) -> list[str]:
    """Return a sentence on each folder of a split in which no image has a class (ImageNet's ``val``)."""
    lacking = {top: split for top, split in plan.tops.items() if split not in found.splits and found.unlabelled[split]}
    return [
        f"{top}: none of its {plural(found.unlabelled[split], 'file')} has a class, so it is no {split}"
        for top, split in lacking.items()
    ]


def _empty_classes(tree: Tree, found: _Found, plan: SplitFolders) -> list[str]:
    """Return a sentence on the folders that would be classes, if they held an image."""
    depth = 2 if plan.tops or plan.below else 1
    used = {"/".join(path.split("/")[:depth]) for path in found.paths}
    empty = {"/".join(name.split("/")[:depth]) for name in tree.empty}
    lacking = sorted(name for name in empty - used if name.count("/") == depth - 1)
    return [f"no image in {plural(len(lacking), 'folder')}: {examples(lacking)}"] if lacking else []


def _splits_in_names(found: _Found) -> list[str]:
    """Return a sentence on files whose own names all tell a split (``cat/train_001.jpg``), which their folders do not.

    Of many files some are looked at.
    """
    sample = found.paths[:: -(-len(found.paths) // _SAMPLE)]
    told = {split_in(path.rpartition("/")[2]) for path in sample}
    if any(found.splits) or None in told or len(told) < 2:
        return []
    return [f"the files' names hold words for splits ({sample[0]}), which are not used; put the files into folders"]


def _one_class(tree: Tree, found: _Found, plan: SplitFolders) -> list[str]:
    """Return a sentence on a training split of one class beside splits of more, as for anomaly detection (MVTec)."""
    pairs = set(zip(found.splits, found.labels, strict=True))
    trained = [label for split, label in pairs if split == "train"]
    tested = [label for split, label in pairs if split == "test"]
    if len(trained) != 1 or len(tested) < 2:
        return []
    folder = next((top for top, split in plan.tops.items() if split == "test"), "test")
    return [
        f"train has the class {trained[0]!r} only, as for finding anomalies, which Sagitta does not do; "
        f"a classifier can be trained on {tree.location}/{tree.within}{folder} by itself"
    ]
