"""A converted dataset against the digests that it keeps of itself: what is damaged, by file, column and row.

A shard whose checksum is right is right as a whole. Of one that has none, or another, every page and every image is
looked at, so that what is named is as small as can be. Nothing is believed that the dataset's index says.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sagitta.dataset.columns import fingerprint, layout_of
from sagitta.dataset.index import index_file
from sagitta.dataset.pages import damaged_values
from sagitta.dataset.parquet import (
    RowGroups,
    footer_hash,
    mapped,
    read_chunks,
    read_column,
    read_metadata,
    read_schema,
    read_table,
    readable,
)
from sagitta.dataset.schema import INFO_FILE, QUARANTINE_FILE, DatasetInfo, class_names_of, plural
from sagitta.dataset.shards import ShardSet
from sagitta.errors import DatasetError
from sagitta.files import content_hash, file_hash
from sagitta.pool import ahead, progress, usable_cores

_REMEDY = "fetch it again, or convert its source again"
_NAMED = 10  # images of a file that are named one by one


@dataclass(frozen=True)
class Verified:
    """What a dataset was found to be.

    Attributes:
        root: the dataset.
        rows: in all shards.
        files: that were read: shards, ``sagitta.json`` and ``quarantine.parquet``.
        damage: one line each: file, row or column where that is known, what to do. Empty where all is as written.
    """

    root: Path
    rows: int
    files: int
    damage: tuple[str, ...]

    def __str__(self) -> str:
        """Return it in one line."""
        if not self.damage:
            return f"{self.root}: {plural(self.rows, 'row')} in {plural(self.files, 'file')}, all as they were written"
        if len(self.damage) == 1:
            return self.damage[0]
        return f"{self.root}: damaged in {len(self.damage):,} places; {_REMEDY}"


def verify(root: Path, *, show: bool = False) -> Verified:
    """Read every byte of a converted dataset, in as many threads as there are cores.

    Args:
        root: the dataset.
        show: move a progress bar.

    Raises:
        DatasetError: ``sagitta.json`` is missing or damaged, so that nothing is known about the rest.
    """
    info = DatasetInfo.read(root)
    shards = [
        _Shard(
            root / file,
            info.class_names,
            *(noted[number] if noted else None for noted in (split.checksums, split.footers)),
        )
        for split in info.splits.values()
        for number, file in enumerate(split.files)
    ]
    rows = sum(split.rows for split in info.splits.values())
    damage = list(_quarantine(root / QUARANTINE_FILE, info))
    with progress("verifying", rows, show=show) as advance, ThreadPoolExecutor(usable_cores()) as pool:
        for found, count in ahead(lambda shard: pool.submit(shard.verify), shards, usable_cores()):
            damage += found
            advance(count)
    return Verified(root, rows, len(shards) + 2, tuple(damage or _together(root, info)))


def check_columns(root: Path) -> None:
    """Read all of a converted dataset but the bytes of its images: what opening and reading would find, found at once.

    Raises:
        DatasetError: something is damaged or missing; names the first file.
    """
    with ShardSet.open(root) as shards:
        for path in (path for split in shards.splits.values() for path in split.files):
            others = [name for name in read_schema(path).names if name != "image"]
            read_table(path, [*others, "image.path"])


def _quarantine(path: Path, info: DatasetInfo) -> Iterator[str]:
    """Yield what is wrong with the table of what was left out."""
    try:
        with readable(path):
            wrong = file_hash(path) != info.quarantine_checksum
        if not info.quarantine_checksum:  # nobody noted it
            wrong = read_metadata(path).num_rows != info.quarantined
    except DatasetError as error:
        yield str(error)
        return
    if wrong:
        yield f"{path}: not the table that was written; {_REMEDY} (no image is concerned)"


def _together(root: Path, info: DatasetInfo) -> Iterator[str]:
    """Yield whether ``sagitta.json`` tells of other rows than the shards hold, each of which may be right by itself."""
    columns = {}
    try:
        for name, split in info.splits.items():
            files = [root / file for file in split.files]
            labels, hashes = (read_column(files, column) for column in (layout_of(files).label, "content_hash"))
            if labels is None or hashes is None or not len(labels) == len(hashes) == split.rows:
                raise DatasetError(f"{root / name}: not the {split.rows:,} rows that {INFO_FILE} tells of; {_REMEDY}")
            columns[name] = labels, hashes
    except DatasetError as error:
        yield str(error)
        return
    if fingerprint(info.class_names, columns) != info.fingerprint:
        yield f"{root / INFO_FILE}: tells of other classes, labels or images than the shards hold; {_REMEDY}"


@dataclass(frozen=True)
class _Shard:
    """One shard with what ``sagitta.json`` notes of it, if anything."""

    path: Path
    class_names: tuple[str, ...]
    checksum: str | None
    footer: str | None

    def verify(self) -> tuple[list[str], int]:
        """Return what is damaged, and the number of rows."""
        try:
            with readable(self.path):
                whole = self.checksum == file_hash(self.path)
            if self.footer is not None and self.footer != footer_hash(self.path):
                return [f"{self.path}: another size or footer than was written; {_REMEDY}"], 0
            rows = read_metadata(self.path).num_rows
            damage = [] if whole else list(self._named())
        except DatasetError as error:
            return [str(error)], 0
        if self.checksum and not whole and not damage:
            damage = [f"{self.path}: something in it that belongs to no row is not as it was written; {_REMEDY}"]
        return damage, rows

    def _named(self) -> Iterator[str]:
        """Yield the images and columns that are damaged."""
        columns = list(self._columns())
        images = list(islice(self._images(), _NAMED + 1))
        yield from images[:_NAMED]
        if len(images) > _NAMED:
            yield f"{self.path}: more images than these {_NAMED} are not those that were converted; {_REMEDY}"
        for name, first, behind in columns:
            if not (images and name == layout_of([self.path]).image):  # whose rows are named already
                rows = f"row {first}" if behind == first + 1 else f"rows {first} to {behind - 1}"
                yield f"{self.path}, {rows}: column {name} is not as it was written; {_REMEDY}"
        if class_names_of(read_schema(self.path)) not in (None, self.class_names):
            yield f"{self.path}: names other classes than {INFO_FILE}; {_REMEDY}"

    def _columns(self) -> Iterator[tuple[str, int, int]]:
        """Yield each column with rows whose page is not as it was written: the first, and the one behind the last."""
        schema = read_metadata(self.path).schema
        with mapped(self.path) as data:
            for name in (schema.column(number).path for number in range(len(schema))):
                row = 0
                for chunk in read_chunks(self.path, name):
                    for first, behind in damaged_values(data, chunk.start, chunk.size, chunk.values):
                        alone = chunk.values == chunk.rows  # else lists, of which several values are in a row
                        yield name, row + first * alone, row + (behind if alone else chunk.rows)
                    row += chunk.rows

    def _images(self) -> Iterator[str]:
        """Yield the rows whose images are not those that were converted, as far as that can be told."""
        leaf = layout_of([self.path]).image
        try:
            offsets, lengths = index_file(self.path, leaf)
        except DatasetError as error:  # names the row
            yield str(error)
            return
        try:
            hashes = read_column([self.path], "content_hash")
        except DatasetError:  # its pages are named
            return
        if hashes is None:
            yield f"{self.path}: no column content_hash; {_REMEDY}"
            return
        groups = RowGroups([self.path], leaf)  # for images that are compressed, which ours are not
        with mapped(self.path) as data:
            for row, wanted in enumerate(hashes.to_pylist()):
                start = int(offsets[row])
                image = data[start : start + int(lengths[row])] if start >= 0 else groups.read(0, row)
                if image is None or content_hash(image) != wanted:
                    yield f"{self.path}, row {row}{self._photo(row)}: not the image that was converted; {_REMEDY}"

    def _photo(self, row: int) -> str:
        """Return the name that a row's photo had at its source, in brackets; empty where it is not known."""
        try:
            names = read_column([self.path], "image.path")
        except DatasetError:  # its pages are named
            return ""
        return "" if names is None else f" ({names[row].as_py()})"
