"""Words for train, val and test as people write them: one vocabulary for folders, files, tables and Parquet.

Its floor is what the Hugging Face Hub documents: ``train``, ``training``; ``validation``, ``valid``, ``val``, ``dev``;
``test``, ``testing``, ``eval``, ``evaluation``; each between what are no letters, as in ``split=train`` and in
``data/train-00000-of-00001.parquet``. A word may also begin with a capital (``trainLabels.csv``) and end in ``set``.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sagitta.dataset.schema import SPLITS

_WORDS = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "vld"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout", "private", "tst"), "test"),
}
_NOT = frozenset({"not", "no", "non", "without", "excluding"})  # ``non-test`` is anything but test
_BESIDE = frozenset({
    "set", "sets", "data", "dataset", "split", "splits", "partial", "full", "small", "new", "seg", "x",
    "image", "images", "img", "imgs", "picture", "pictures", "pics", "photo", "photos", "files", "samples", "folder",
})  # fmt: skip
"""What stands beside a split's word without meaning anything else: ``training_set``, ``x-train``, ``val2017``."""
_CLASSES_TOO = frozenset({"train", "training", "valid", "private", "dev"})

_TRUE, _FALSE = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0")
_NOTHING = ("", "na", "nan", "none", "null", "unassigned")
_SURE_COLUMNS = frozenset({"split", "splits", "partition", "datasplit", "splitname", "traintestsplit"})
_LIKELY_COLUMNS = frozenset({"subset", "dataset", "set", "usage", "phase", "mluse"})
_ABOUT_FLAGS = frozenset({"is", "in", "for", "flag", "image", "set"})


def split_of(text: str | None) -> str | None:
    """Return the split that ``text`` names, or None where it says anything else.

    ``Validation``, ``test_set``, ``val2017`` and ``split=train`` name one; ``bullet-train`` does not.
    """
    known = all(word in _WORDS or word in _BESIDE for word in _words(text or ""))
    return split_in(text) if known else None


def split_in(text: str | None) -> str | None:
    """Return the split that a word in ``text`` names, whatever else it says, or None: ``PublicTest``, ``trainLabels``.

    Of several words the first counts (``train_val``), but test and another together name none (``train_test_split``).
    """
    words = _words(text or "")
    found = [split for word in words if (split := _WORDS.get(word))]
    if not found or ("test" in found and len(set(found)) > 1) or _NOT & set(words):
        return None
    return found[0]


def may_be_a_class(text: str) -> bool:
    """Say whether a word for a split is as good a name of a class: ``train`` beside ``bus``, ``valid`` (tickets)."""
    return text.lower() in _CLASSES_TOO


def without_split(text: str) -> str:
    """Return the words of ``text`` that name no split, joined: ``cats`` for ``train_cats``."""
    return " ".join(word for word in _words(text) if word not in _WORDS)


def _words(text: str) -> list[str]:
    """Return the words between what are no letters, and from capital to capital, in lower case."""
    text = re.sub(r"(?i)h[eo]ld[ _-]?out", "holdout", unicodedata.normalize("NFC", text))
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    words = re.findall(r"[^\W\d_]+", text.lower())
    return [stem if (stem := word.removesuffix("set")) in _WORDS else word for word in words]


def split_of_file(name: str) -> str | None:
    """Return the split that a file's name tells, else the nearest of its folders that does, or None.

    ``imagenet-val-003.tar``, ``my_dev_set.csv``, ``trainLabels.csv``, but neither ``latest`` nor ``contest.parquet``.
    """
    return next((split for part in reversed(name.split("/")) if (split := split_in(part))), None)


def splits_of_files(names: Sequence[str]) -> list[str | None]:
    """Return each file's split; all None where no name tells any.

    Folders that hold all of the files (``test-of-time/data/``) are asked only where nothing else tells, and what tells
    nothing beside files that do is ``train``.
    """
    shared = os.path.commonpath([f"/{name}".rpartition("/")[0] or "/" for name in names or ("",)])
    own = [split_of_file(f"/{name}".removeprefix(shared)) for name in names]
    if any(own):
        return [split or "train" for split in own]
    return [split_of_file(name) for name in names]


def mapping_note(mapped: Iterable[tuple[str, str | None]]) -> str | None:
    """Return what was taken for what, in one sentence; None where every name is the split's own."""
    pairs = {name: split for name, split in mapped if split}
    if all(name.lower() == split for name, split in pairs.items()):
        return None
    shown = [f"{name} -> {split}" for each in SPLITS for name, split in pairs.items() if split == each]
    return f"{', '.join(shown[:8])}{', ...' if len(shown) > 8 else ''}"


def files_note(names: Sequence[str], splits: Sequence[str | None]) -> str | None:
    """Return what was taken for what among the names of files, as :func:`mapping_note` does.

    Args:
        names: of files.
        splits: of :func:`splits_of_files`.
    """
    return mapping_note((_telling(name), split) for name, split in zip(names, splits, strict=True))


def _telling(name: str) -> str:
    """Return the word that tells a file's split, or the file's own name where none does."""
    for part in reversed(name.split("/")):
        if split_in(part):
            return next(word for word in _words(part) if word in _WORDS)
    return name.rpartition("/")[2]


class SplitColumn(NamedTuple):
    """What a column says: the split of each distinct value (None for no split), and the values that tell nothing."""

    splits: Mapping[str | None, str | None]
    unknown: tuple[str, ...]


def split_columns(names: Iterable[str]) -> list[str]:
    """Return the columns whose names say that they hold splits, the likeliest first: ``split``, ``Usage``, ``is_test``.

    Whether they do, :func:`read_split_column` tells from their values.
    """
    ranked = [(rank, name) for name in names if (rank := _rank(name)) is not None]
    return [name for _, name in sorted(ranked, key=lambda pair: pair[0])]


def _rank(name: str) -> int | None:
    joined = re.sub(r"[\W_]", "", name).lower()
    return 0 if joined in _SURE_COLUMNS else 1 if joined in _LIKELY_COLUMNS else 2 if flag_of(name) else None


def flag_of(name: str) -> str | None:
    """Return the split that a column of booleans is about: val for ``is_valid`` and ``valid``, train for ``Train``."""
    words = _words(name)
    splits = [_WORDS[word] for word in words if word in _WORDS]
    return splits[0] if len(splits) == 1 and all(word in _WORDS or word in _ABOUT_FLAGS for word in words) else None


def read_split_column(name: str, values: Iterable[str | None], *, asked: bool) -> SplitColumn | None:
    """Return the splits that a column's values name, or None where it holds something else.

    Values are words (``training``, ``dev``); in a column such as ``is_valid`` also booleans, where false means train
    (test for ``is_train``). ``0``, ``1`` and ``2`` name no split: which is which, nobody can know.

    Args:
        name: the column's.
        values: distinct or not.
        asked: the column was named by the user: all of its values must tell.
    """
    distinct = dict.fromkeys(values)
    texts = [value for value in distinct if value and value.strip().lower() not in _NOTHING]
    splits: dict[str | None, str | None] = dict.fromkeys(distinct)
    flag = flag_of(name)
    bare = len(_words(name)) == 1 and not asked  # ``test`` of 0 and 1 may be a result
    booleans = _TRUE[:1] + _FALSE[:1] if bare else _TRUE + _FALSE
    if flag and texts and all(text.strip().lower() in booleans for text in texts):
        other = "test" if flag == "train" else "train"
        splits.update({text: flag if text.strip().lower() in _TRUE else other for text in texts})
        return SplitColumn(splits, ())
    found = {text: split_in(text) for text in texts}
    unknown = tuple(sorted(text for text, split in found.items() if split is None))
    named = {split for text, split in found.items() if split and split_of(text)}
    if not asked and _rank(name) != 0 and not (flag is None and ("train" in named or len(named) > 1)):
        return None  # ``usage`` of ``private`` and ``commercial``, a ``valid`` of comments
    splits.update(found)
    return SplitColumn(splits, unknown)
