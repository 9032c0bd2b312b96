"""WebDataset: in tar shards, ``000123.jpg`` beside ``000123.cls`` (or a ``.json`` with a label)."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from sagitta.dataset import Reader, Source, files_note, plural, splits_of_files
from sagitta.errors import SourceError
from sagitta.sources.base import IMAGE_SUFFIXES, Found, SourceOptions, make_source, suffix
from sagitta.sources.tree import Tree, tar_tree

_NAMES_FILE = "classnames.txt"
_JSON_KEYS = ("label", "class", "class_name", "cls")


@dataclass(frozen=True)
class ShardsReader:
    """Reads ``SHARD/MEMBER`` through the shard's own reader."""

    shards: Mapping[str, Reader]

    def read(self, path: str) -> bytes:
        """Return the member's bytes; raises what the shard's reader raises."""
        heads = accumulate(path.split("/"), lambda head, part: f"{head}/{part}")
        shard = next(head for head in heads if head in self.shards)
        return self.shards[shard].read(path[len(shard) + 1 :])


def webdataset(tree: Tree, _options: SourceOptions) -> Source | None:
    """Return the labelled samples of ``tree``, or of the tar files that lie in it.

    A word in a shard's name or folder (train, val, test) gives its split; of ``K.jpg`` and ``K.depth.png`` the first
    is the sample's image. ``classnames.txt``, one name a line, beside the shards or inside one, names integer labels.

    Raises:
        SourceError: a shard is damaged, a sample has two images, or a label is not in ``classnames.txt``.
    """
    shards = _shards(tree)
    names = next((_class_names(shard) for shard in [tree, *shards.values()] if _NAMES_FILE in shard.sizes), None)
    found = Found()
    located = [f"{tree.within}{shard}" for shard in shards]
    splits = splits_of_files(located)
    for (shard, members), split in zip(shards.items(), splits, strict=True):
        _collect(shard, members, names, found, split)
    unlabelled = found.unlabelled.total()
    if not found.paths or unlabelled > len(found.paths):
        return None
    rows = found.table(tree.location).sort_by("path")
    notes = [f"splits: {mapped}"] if (mapped := files_note(located, splits)) else []
    notes += [f"skipped {plural(unlabelled, 'sample')} without a label"] if unlabelled else []
    reader = ShardsReader({shard: members.reader for shard, members in shards.items()})
    layout = f"WebDataset, {plural(len(shards), 'shard')}"
    return make_source(tree.location, layout, rows, reader, class_names=names, notes=notes)


def _shards(tree: Tree) -> dict[str, Tree]:
    """Return the tar files of a folder without images, or the tree itself where labels lie beside its images."""
    if any(suffix(name) in IMAGE_SUFFIXES for name in tree.sizes):
        has_labels = any(name.endswith((".cls", ".json")) for name in tree.sizes)
        return {Path(tree.location).name: tree} if has_labels else {}
    if tree.root is None:
        return {}
    tars = [name for name in tree.sizes if suffix(name) == ".tar"]
    return {name: tar_tree(f"{tree.location}/{name}", Path(tree.root, name)) for name in tars}


def _collect(shard: str, members: Tree, names: list[str] | None, found: Found, split: str | None) -> None:
    samples: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in members.sizes:
        folder, slash, base = name.rpartition("/")
        key, _, extension = base.partition(".")
        samples[folder + slash + key][extension.lower()] = name
    for sample in samples.values():
        images = {extension: name for extension, name in sample.items() if suffix(name) in IMAGE_SUFFIXES}
        if not images:
            continue
        if (label := _label(members, sample, names)) is None:
            found.unlabelled[None] += 1
            continue
        image = _image(members, images)
        found.add(f"{shard}/{image}", label, members.sizes[image], split)


def _image(members: Tree, images: Mapping[str, str]) -> str:
    """Return which of a sample's images, by extension, is meant: a plain one (``jpg``) rather than ``depth.png``."""
    plain = [name for extension, name in images.items() if "." not in extension] or list(images.values())
    if len(plain) > 1:
        raise SourceError(
            f"{members.location}: {' and '.join(plain[:2])} are two images of one sample; "
            "leave one of them out, or call the other one KEY.NAME.EXTENSION"
        )
    return plain[0]


def _label(members: Tree, sample: Mapping[str, str], names: list[str] | None) -> str | None:
    if "cls" in sample:
        label = members.reader.read(sample["cls"]).decode("utf-8", "replace").strip()
    elif "json" in sample:
        label = _json_label(members.reader.read(sample["json"]))
    else:
        return None
    if names is None or not label:
        return label or None
    known = int(label) < len(names) if label.isdecimal() else label in names
    if not known:
        raise SourceError(
            f"{members.location}: {next(iter(sample.values()))} has label {label}, "
            f"but {_NAMES_FILE} has only {plural(len(names), 'other line')}; mend one of them"
        )
    return names[int(label)] if label.isdecimal() else label


def _json_label(data: bytes) -> str:
    try:
        fields = json.loads(data)
    except ValueError:
        return ""
    value = next((fields[key] for key in _JSON_KEYS if key in fields), "") if isinstance(fields, dict) else ""
    return str(value).strip() if isinstance(value, str | int) else ""


def _class_names(tree: Tree) -> list[str]:
    return tree.reader.read(_NAMES_FILE).decode("utf-8", "replace").strip().splitlines()
