"""Which folders of a tree are splits, which are classes and which hold masks: told by names and by what they share."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from sagitta.dataset import mapping_note, may_be_a_class, split_in, split_of, without_split
from sagitta.errors import SourceError
from sagitta.sources.base import IMAGE_SUFFIXES, examples, suffix

_PART = re.compile(
    r"(?i)(k?fold|part|batch|chunk|set|split|images?|data|cv|folder|group|site|camera|cam|cent(er|re)|hospital|session|"
    r"day|run|scan(ner)?|device|batch|patient|subject|phase|year)s?[ _-]*(\d+|[a-z])?"
    r"|rgb|colou?r(ed)?|gr[ae]y(scale)?|segmented|originals?|raw|augmented|cropped|resized"
)
_SHARED = 2  # folders of the same name in two others: no chance, but classes in two splits


@dataclass(frozen=True)
class SplitFolders:
    """How the folders of a tree are read.

    Attributes:
        tops: top folder -> split; empty where the top folders are no splits.
        inner: top folder -> the only folder in it, where that is no class: ``train/train/CLASS``, as Kaggle packs it.
        below: ``CLASS/FOLDER`` -> split, where each class is divided by itself.
        product: the only top folder, where the classes, or the splits and then the classes, are below it.
        warnings: what a person must see.
    """

    tops: Mapping[str, str] = field(default_factory=dict)
    inner: Mapping[str, str] = field(default_factory=dict)
    below: Mapping[str, str] = field(default_factory=dict)
    product: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """What was taken for what, or None where the folders have the splits' own names."""
        folders = {**self.tops, **self.below}
        mapped = mapping_note((name.rpartition("/")[2], split) for name, split in folders.items())
        return f"splits: {mapped}" if mapped else None


@dataclass
class _Top:
    """A top folder: the folders in it, those of them that have folders, its files, and the labels in their names."""

    folders: set[str] = field(default_factory=set)
    deep: set[str] = field(default_factory=set)
    files: int = 0
    labels: set[str] = field(default_factory=set)

    def shares(self, other: "_Top") -> int:
        """Return how many classes both may have."""
        return len(self.folders & other.folders) or len(self.labels & other.labels)


def split_folders(
    location: str, names: Iterable[str], label_in: Callable[[str], str | None], *, insist: bool = False
) -> SplitFolders:
    """Tell from the names of files which of their folders are splits.

    Top folders are splits where at least two different ones are named: by names that say nothing else (``train``,
    ``test_set``), or by any (``partial-train``) where they share two classes. One folder ``train`` among others is a
    class. What may be one as well as the other is refused.

    Args:
        location: for messages.
        names: of the files that become rows.
        label_in: returns the label that a file's name holds, or None.
        insist: top folders that are no splits are the classes, whatever they are called and hold.

    Raises:
        SourceError: some folders look like splits beside others that do not, several products have splits each, or the
            classes are below folders such as ``fold1``.
    """
    tops = _read(names, label_in)
    mapped = {top: split for top in tops if (split := split_in(top))}
    plain = {top: split for top in tops if (split := split_of(top))}
    found = plain | _linked(tops, mapped)
    if len(set(found.values())) > 1 or (found and len(found) == len(tops)):
        return SplitFolders(tops=found, inner=_inner(tops, found))
    refuse_class_in_name(location, mapped)
    for top in plain:
        _refuse_beside_classes(location, top, tops)
    if not mapped and (below := _below(location, tops)):
        return below
    if len(tops) == 1 and all(top.folders and not top.files for top in tops.values()):
        return SplitFolders(product=next(iter(tops)))
    same = _same_folders(location, tops, insist=insist)
    return SplitFolders(warnings=(*_doubts(tops, mapped), *([same] if same else [])))


def _doubts(tops: Mapping[str, _Top], mapped: Mapping[str, str]) -> Iterator[str]:
    """Say which top folders count as classes though they may be something else."""

    def shares(one: str) -> bool:
        return any(one != other and tops[one].shares(tops[other]) >= _SHARED for other in tops)

    for top in filter(shares, mapped):
        yield f"{top}: counted as a class, though the name holds a word for a split"


def _same_folders(location: str, tops: Mapping[str, _Top], *, insist: bool) -> str | None:
    """Return what to say of top folders that all hold the same folders; None where they do not, or on being insisted.

    Raises:
        SourceError: they are called parts of something (``fold1``, ``site_a``), so the classes are below.
    """
    inside = set.intersection(*(top.folders for top in tops.values())) if len(tops) > 1 else set()
    if insist or len(inside) < _SHARED or any(top.files for top in tops.values()):
        return None
    shown, below, first = examples([*tops], 3), examples(sorted(inside), 3), next(iter(tops))
    if all(map(_PART.fullmatch, tops)):
        raise SourceError(
            f"{location}: {below} in each of {shown} seem to be the classes; move them to the top, or give "
            f"{location}/{first} by itself (if {shown} are the classes: --layout folders)"
        )
    return (
        f"{shown} count as classes, though each of them holds {below}; if those are the classes, move them to the top"
    )


def _read(names: Iterable[str], label_in: Callable[[str], str | None]) -> dict[str, _Top]:
    tops: defaultdict[str, _Top] = defaultdict(_Top)
    for name in names:
        parts = name.split("/", 3)
        if len(parts) == 1:
            continue
        top = tops[parts[0]]
        if len(parts) == 2:
            top.files += 1
            top.labels |= {label} if (label := label_in(parts[1])) else set()
        else:
            top.folders.add(parts[1])
            top.deep |= set(parts[1:2] if len(parts) > 3 else ())
    return dict(sorted(tops.items()))


def _inner(tops: Mapping[str, _Top], splits: Mapping[str, str]) -> dict[str, str]:
    """Return the only folders in split folders that are no classes: they name the split again, or are in each."""
    only = {top: next(iter(tops[top].folders)) for top in splits if len(tops[top].folders) == 1 and not tops[top].files}
    again = {top: name for top, name in only.items() if split_of(name) == splits[top]}
    in_each = only if len(only) == len(splits) and len(set(only.values())) == 1 else {}
    return again | {top: name for top, name in in_each.items() if name in tops[top].deep}


def _linked(tops: Mapping[str, _Top], mapped: Mapping[str, str]) -> dict[str, str]:
    """Return the folders that share classes with one of another split, or a class and the rest of their name."""
    found: dict[str, str] = {}
    for one, other in combinations(mapped, 2):
        if mapped[one] == mapped[other]:
            continue
        rest = without_split(one)
        enough = 1 if rest and rest == without_split(other) else _SHARED
        if tops[one].shares(tops[other]) >= enough:
            found |= {one: mapped[one], other: mapped[other]}
    return found


def refuse_class_in_name(location: str, names: Iterable[str]) -> None:
    """Refuse ``train_cats`` beside ``test_cats``, where the name of a class holds its split.

    Raises:
        SourceError: there are two such names.
    """
    first: dict[str, str] = {}
    for name in sorted(filter(split_in, names)):
        rest = without_split(name)
        other = first.setdefault(rest, name)
        if rest and split_in(name) != split_in(other):
            raise SourceError(
                f"{location}: {other} and {name} look like {split_in(other)} and {split_in(name)}, not like two "
                "classes; put the images into train/CLASS, val/CLASS, test/CLASS"
            )


def _refuse_beside_classes(location: str, top: str, tops: Mapping[str, _Top]) -> None:
    """Refuse a folder that names a split beside others that do not, unless it is as likely a class (``train``)."""
    others = [name for name in tops if name != top]
    alike = next((name for name in others if tops[top].shares(tops[name]) >= _SHARED), None)
    if alike:
        raise SourceError(
            f"{location}: {top} seems to be a split, but {alike} beside it has the same folders and names none; "
            f"rename {alike} to train, val or test, or move it away"
        )
    if not may_be_a_class(top):
        raise SourceError(
            f"{location}: {top} seems to be a split, but {examples(others, 3)} beside it are none; move the classes "
            f"into train/ and {top}/, or take {top} away (if it is a class, rename it)"
        )


def _below(location: str, tops: Mapping[str, _Top]) -> SplitFolders | None:
    """Return the splits inside the top folders, or None where there are fewer than two.

    Raises:
        SourceError: several folders have splits with folders of their own, or some classes are divided, others not.
    """
    inside = {top: sorted(filter(split_of, found.folders)) for top, found in tops.items()}
    below = {f"{top}/{name}": str(split_of(name)) for top, names in inside.items() for name in names}
    if len(set(below.values())) < 2:
        return None
    divided = [top for top in tops if inside[top]]
    first = divided[0]
    if any(tops[top].deep & set(inside[top]) for top in divided):
        if len(tops) == 1:
            return SplitFolders(product=first)
        raise SourceError(
            f"{location}: {examples(divided)} {'have' if len(divided) > 1 else 'has'} splits and classes below "
            f"({first}/{inside[first][0]}/...); give one such folder by itself: {location}/{first}"
        )
    if undivided := [top for top in tops if not inside[top]]:
        raise SourceError(
            f"{location}: {first} is divided ({first}/{inside[first][0]}), but {examples(undivided, 3)} not; "
            "divide every class, or move the splits to the top (train/CLASS, test/CLASS)"
        )
    return SplitFolders(below=below)


_MASKS = re.compile(
    r"ground[ _-]?truths?|gts?|(seg(mentation)?[ _-]?)?(masks?|labels?)|seg(mentation)?s?([ _-]?maps?)?"
)
_IMAGES = re.compile(r"((jpeg|png|raw|rgb|original)[ _-]?)?(images?|imgs?|photos?|pictures?)|jpegimages|originals?|rgb")
_MASK_WORD = re.compile(r"[ _-](?:mask|seg|gt|label)", re.IGNORECASE)
_MASK_FILE = re.compile(r"(?P<of>.+?)[ _-](?:mask|segmentation|seg|gt|label)(?:[ _-]?\d+)?$", re.IGNORECASE)


def masks(names: Collection[str]) -> dict[str, str]:
    """Return the masks among the files, and the folder that holds each.

    A folder holds masks where its name says so and one beside it holds images (``images``) or is a split, as in
    ``bottle/{train,test,ground_truth}``; beside classes, ``mask`` is a class. ``x_mask.png`` is one beside ``x.png``.
    """
    children: defaultdict[str, set[str]] = defaultdict(set)
    within: dict[str, str | None] = {name.rpartition("/")[0]: None for name in names}
    for folder in within:
        parts = folder.split("/") if folder else []
        for depth, part in enumerate(parts):
            children["/".join(parts[:depth])].add(part)
    held = {f"{parent}/{name}".lstrip("/") for parent, inside in children.items() for name in _mask_folders(inside)}
    within = {folder: _first_in(held, folder) for folder in within} if held else within
    found = {name: mask for name in names if (mask := within[name.rpartition("/")[0]]) is not None}
    beside = {
        name: mask["of"]
        for name in names
        if _MASK_WORD.search(name) and suffix(name) in IMAGE_SUFFIXES
        for mask in [_MASK_FILE.match(_stem(name))]
        if mask
    }
    stems = {_stem(name) for name in names} if beside else set()
    return {name: name.rpartition("/")[0] or "." for name, of in beside.items() if of in stems} | found


def _mask_folders(children: Collection[str]) -> list[str]:
    """Return which of the folders beside one another hold masks."""
    images = [name for name in children if _IMAGES.fullmatch(name.lower()) or split_of(name)]
    return [name for name in children if images and name not in images and _MASKS.fullmatch(name.lower())]


def _first_in(held: Collection[str], folder: str) -> str | None:
    parts = folder.split("/")
    return next((head for end in range(len(parts)) if (head := "/".join(parts[: end + 1])) in held), None)


def _stem(name: str) -> str:
    return name[: -len(suffix(name))] if suffix(name) else name
