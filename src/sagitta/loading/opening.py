"""A source -> the open dataset: converted once into a cache, and divided into folds where somebody asks for them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sagitta.conversion import ConvertOptions, cached, deal
from sagitta.dataset import INFO_FILE, Regrouped, Selection, ShardSet, Split
from sagitta.errors import ConfigError
from sagitta.files import user_cache
from sagitta.sources import SourceOptions, check_source, open_source
from sagitta.terminal import show


def dataset_path(source: str, options: SourceOptions, convert: ConvertOptions, *, verbose: bool = False) -> Path:
    """Return the folder of the converted dataset: ``source`` itself, or its conversion, cached by content.

    Safe to call from many processes at once: one converts, the others wait.

    Raises:
        ConfigError: ``source`` is converted already, and something is asked for that only a conversion can do.
        SagittaError: the source cannot be found, read or split.
    """
    if (Path(source) / INFO_FILE).is_file():
        _check_converted(source, options, convert)
        return Path(source)
    opened = open_source(source, _as_asked(options, convert), cache=user_cache())
    if verbose:
        show(opened.describe())
    return cached(opened, user_cache(), convert, progress=verbose)


def check_data(source: str, options: SourceOptions, convert: ConvertOptions) -> None:
    """Refuse what :func:`dataset_path` would, as far as that is soon known: nothing is converted.

    Raises:
        SagittaError: as :func:`dataset_path` does.
    """
    if (Path(source) / INFO_FILE).is_file():
        _check_converted(source, options, convert)
    else:
        check_source(source, _as_asked(options, convert), cache=user_cache())


def _as_asked(options: SourceOptions, convert: ConvertOptions) -> SourceOptions:
    """Return how a source is read for a conversion."""
    return replace(
        options,
        keep_missing=options.keep_missing or convert.on_bad == "quarantine",
        one_class=convert.purpose != "train",
    )


def _check_converted(source: str, options: SourceOptions, convert: ConvertOptions) -> None:
    asked = {**vars(options), **convert.settings()}
    usual = {**vars(SourceOptions()), **ConvertOptions(purpose=convert.purpose).settings()}
    if changed := [
        f"{name} {value}" for name, value in asked.items() if name != "keep_missing" and value != usual.get(name)
    ]:
        raise ConfigError(
            f"{source}: converted already, with its splits and labels, so {', '.join(changed)} would change nothing; "
            "convert its source again with it, or leave it out"
        )


def folded(shards: ShardSet, folds: int, fold: int, seed: int) -> Regrouped:
    """Return a dataset whose train and val are divided anew: one fold is ``val``, the others are ``train``.

    Args:
        shards: the open dataset; whatever is neither train nor val stays as it is.
        folds: how many; see :func:`sagitta.conversion.splits.deal`.
        fold: which of them, from 1.
        seed: of the division.

    Raises:
        ConfigError: there are too few rows to divide.
        DatasetError: a file cannot be read.
    """
    pooled = {name: split for name, split in shards.splits.items() if name != "test" and len(split)}
    if not pooled:
        raise ConfigError(f"{shards.root}: no train or val split to divide into folds; convert its source again")
    of_rows = _dealt(list(pooled.values()), folds, seed)
    parts = list(zip(pooled.values(), of_rows, strict=True))
    train = Selection("train", [(split, np.flatnonzero(numbers != fold)) for split, numbers in parts])
    val = Selection("val", [(split, np.flatnonzero(numbers == fold)) for split, numbers in parts])
    rest = {name: split for name, split in shards.splits.items() if name not in pooled}
    return Regrouped(shards, {"train": train, "val": val, **rest})


def _dealt(splits: Sequence[Split], folds: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Return the fold of each row of each split, from 1."""
    labels = np.concatenate([split.labels for split in splits])
    dealt = deal(folds, seed, labels, *identities(splits)) + 1
    return np.split(dealt, np.cumsum([len(split) for split in splits])[:-1])


def identities(splits: Sequence[Split]) -> tuple[list[str], list[str | None]]:
    """Return what says which rows belong together: the hash of each one's image, and its group or None."""
    hashes = [text for split in splits for text in split.source_hashes.to_pylist()]
    columns = [(split, split.column("group")) for split in splits]
    return hashes, [
        group for split, column in columns for group in ([None] * len(split) if column is None else column.tolist())
    ]
