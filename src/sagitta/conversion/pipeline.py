"""Rows to a dataset of Parquet shards: verified, split and hashed, in parallel, atomically and resumably.

A conversion works in ``.OUT.partial`` beside OUT and ends by renaming the finished dataset, so OUT never half exists::

    .OUT.partial/lock                  held by the one process that converts
    .OUT.partial/key                   digest of source and options: another one starts afresh
    .OUT.partial/scan/00000.arrow ...  what each image is, or why it is left out; its new bytes where it is rewritten
    .OUT.partial/dataset/              the shards finished so far
    .OUT.partial/digests/              of each of these files: one that was damaged meanwhile is made anew

Every file is written under another name, synced and renamed. How rows are cut into parts, shards and row groups depends
on their order and sizes only, so the result is the same bytes whatever the number of workers and interruptions.
"""

import errno
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sagitta.conversion.depth import depth_doubts, reduction_of, reductions
from sagitta.conversion.doubts import doubts, group_overlap, lost, too_small
from sagitta.conversion.jobs import (
    MeasureJob,
    ScanJob,
    ShardJob,
    Task,
    checksum,
    cut,
    measure,
    read_part,
    scan,
    write_shard,
)
from sagitta.conversion.mending import Mended, mend
from sagitta.conversion.options import ConvertOptions, conversion_key
from sagitta.conversion.splits import SplitRule, as_given, assign, check_splits, for_training, strata
from sagitta.conversion.workspace import RESULT, exists_already, remove_left, work_folder
from sagitta.dataset import (
    INFO_FILE,
    QUARANTINE_FILE,
    QUARANTINE_SCHEMA,
    SPLITS,
    DatasetInfo,
    Source,
    SplitInfo,
    check_columns,
    fingerprint,
    is_list,
    list_lengths,
    multi_hot,
    plural,
    single_labels,
    warning_line,
)
from sagitta.errors import ConfigError, DatasetError, SagittaError, SourceError
from sagitta.files import file_hash, lock, new_file, remedy
from sagitta.images import GREY_MODES, Reduction, add_restart_markers
from sagitta.pool import Pool, follow, usable_cores
from sagitta.terminal import show

_PART_BYTES, _PART_ROWS = 32 * 2**20, 1024
_STATISTICS_IMAGES, _STATISTICS_JOB = 512, 32
_IMAGE_BYTES = 16 * 2**10  # an image takes as long to begin with as so many bytes of it
_PARALLEL_BYTES = 64 * 2**20  # below this, starting processes takes longer than it saves
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def convert(
    source: Source, out: Path, options: ConvertOptions = ConvertOptions(), *, progress: bool = False
) -> DatasetInfo:
    """Convert a source into a dataset.

    Killed at any moment it leaves no OUT, and the same call goes on from there.

    Args:
        source: the rows, and how to read them.
        out: the folder to make; its parents are made too.
        options: how.
        progress: show rate and remaining time on standard error.

    Raises:
        DatasetError: ``out`` exists.
        ConfigError: the shares of the splits do not fit, or restart markers lack the native core.
        SourceError: no image can be read, there are too few classes or images, training lacks a class, a group is in
            several given splits, an image cannot be decoded and ``on_bad`` is ``"fail"``, or a file changed meanwhile.
        SagittaError: the disk is full or refuses, a file or disk of the source is gone, or a worker died; the same call
            goes on from there.
    """
    if out.exists():
        remove_left(out)
        raise exists_already(out)
    if options.restart_markers:
        add_restart_markers(b"")  # where that cannot be done, it is said before anything is written
    work = (pc.sum(source.rows["size"]).as_py() or 0) + _IMAGE_BYTES * source.rows.num_rows
    workers = (options.workers or usable_cores()) if work > _PARALLEL_BYTES else 1
    with _advice(source, out):
        rule = (
            for_training(source.rows, options.val, options.test, options.seed)
            if options.purpose == "train"
            else as_given(source.rows, options.purpose)
        )
        with work_folder(out, conversion_key(source, options)) as folder:
            how = reduction_of(source, options)
            task = Task(
                source.reader, folder, options.resize, options.quality, options.restart_markers, how, source.encodes,
                compares=options.drop_duplicates,
            )  # fmt: skip
            with Pool(task, workers) as pool:
                info = _Conversion(source, options, rule, pool, folder, progress, how).run()
    if progress:
        _say(info, known=source.warnings, notes=source.notes)
    return info


def cached(source: Source, cache: Path, options: ConvertOptions = ConvertOptions(), *, progress: bool = False) -> Path:
    """Convert a source into the cache unless it is there; returns the dataset's folder.

    The folder is named after the source and a digest of its listing (paths, labels, sizes, times of change) and of the
    options. Of concurrent calls one converts and the others wait. What is damaged there is made again.

    Raises:
        SagittaError: as :func:`convert` does.
    """
    name = Path(source.location).stem or "dataset"
    out = cache / "datasets" / f"{name}-{conversion_key(source, options)[:16]}"
    if not out.exists():
        try:
            convert(source, out, options, progress=progress)
        except DatasetError:
            if not out.exists():  # else another process was faster
                raise
        return out
    remove_left(out)
    if _damage(out):
        _make_again(source, out, options)
    if progress:
        _say(DatasetInfo.read(out), known=source.warnings, notes=source.notes)
    return out


def _damage(out: Path) -> str:
    """Return what is damaged of a dataset, as far as that can be seen without reading the images."""
    try:
        check_columns(out)
    except DatasetError as error:
        return str(error).partition(";")[0]
    return ""


def _make_again(source: Source, out: Path, options: ConvertOptions) -> None:
    """Put whole files in the place of those of a dataset, each by renaming: who reads it meanwhile misses none."""
    with lock(out.with_name(f".{out.name}.lock")):
        if not (damage := _damage(out)):  # another process was faster
            return
        show(f"{damage}; it is made again from {source.location}")
        whole = out.with_name(f".{out.name}.again")
        shutil.rmtree(whole, ignore_errors=True)  # what a killed process left
        convert(source, whole, options)
        files = [path for path in whole.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == INFO_FILE):  # which comes last, as always
            place = out / path.relative_to(whole)
            place.parent.mkdir(exist_ok=True)
            path.replace(place)
        shutil.rmtree(whole)


def _say(info: DatasetInfo, known: Sequence[str], notes: Sequence[str]) -> None:
    """Print what conversion did and found out beyond the source's own notes and warnings."""
    for note in info.provenance.get("notes", ()):
        if note not in notes:
            show(note)
    if info.reduction is not None:
        show(f"8 bits of each sample by {Reduction.from_dict(info.reduction)}")
    for reason, files in info.reduced.items():
        show(f"reduced: {reason}, in {plural(files, 'file')}")
    for warning in info.warnings:
        if warning not in known:
            show(warning_line(warning))


@contextmanager
def _advice(source: Source, out: Path) -> Iterator[None]:
    """Name the source in its errors, and turn what the system refuses into an error that says how to go on."""
    try:
        yield
    except SourceError as error:
        if str(error).startswith(f"{source.location}:"):
            raise
        raise SourceError(f"{source.location}: {error}") from None
    except OSError as error:
        if error.errno is None:
            raise
        told = remedy(OSError(error.errno, error.strerror, str(out)))
        kept = "; what is finished is kept, and the same command goes on" if error.errno in _NO_ROOM else ""
        raise SagittaError(f"{told}{kept}") from None


@dataclass(frozen=True)
class _Conversion:
    """One conversion, from the rows of a source to the finished folder ``dataset`` in ``folder``."""

    source: Source
    options: ConvertOptions
    rule: SplitRule
    pool: Pool[Task]
    folder: Path
    progress: bool
    reduction: Reduction | None

    def run(self) -> DatasetInfo:
        """Do what is not done yet; ``sagitta.json`` comes last."""
        scanned = self._scan()
        bad = pc.is_valid(scanned["reason"])
        good, bad = scanned.filter(pc.invert(bad)), scanned.filter(bad)
        self._check_readable(bad, good)
        warnings = [*self.source.warnings, *lost(bad, self.source.rows.num_rows)]
        good, bad, class_names = self._enough(good, bad)
        warnings += too_small(self.source.class_names, class_names, self.options.min_images)
        rows, dropped, mended, doubtful = self._split(good, class_names)
        bad = pa.concat_tables([bad, dropped])
        self._quarantine(bad)
        splits = {name: rows.filter(pc.equal(rows["split"], name)) for name in SPLITS}
        splits = {name: table for name, table in splits.items() if table.num_rows}
        files = self._write(splits, class_names)
        channels = 1 if set(rows["mode"].unique().to_pylist()) <= set(GREY_MODES) else 3
        mean, std = self._statistics(splits["train"], channels) if "train" in splits else ((), ())
        info = DatasetInfo(
            class_names=class_names,
            channels=channels,
            splits={
                name: SplitInfo(table.num_rows, files[name], *zip(*self.pool.map(checksum, files[name]), strict=True))
                for name, table in splits.items()
            },
            mean=mean,
            std=std,
            min_size=(pc.min(rows["height"]).as_py(), pc.min(rows["width"]).as_py()),
            max_size=(pc.max(rows["height"]).as_py(), pc.max(rows["width"]).as_py()),
            fingerprint=fingerprint(
                class_names, {name: (table["label"], table["content_hash"]) for name, table in splits.items()}
            ),
            provenance=self._provenance(mended.notes),
            quarantined=bad.num_rows,
            quarantine_checksum=file_hash(self.folder / RESULT / QUARANTINE_FILE),
            multilabel=self.source.multilabel,
            warnings=(*warnings, *depth_doubts(rows, self.options), *doubtful),
            reduced=reductions(rows),
            reduction=None if self.reduction is None else self.reduction.to_dict(),
        )
        with new_file(self.folder / RESULT / INFO_FILE, self.folder) as temporary:
            temporary.write_text(info.to_json(), encoding="utf-8")
        return info

    def _scan(self) -> pa.Table:
        """Return the source's rows with what the scan found, and ``part`` and ``place``: where it is noted."""
        rows = self.source.rows
        parts = cut(rows["size"].to_numpy(), _PART_BYTES, _PART_ROWS)
        blocks = [rows[part] for part in parts]
        jobs = (
            ScanJob(number, block["path"].to_pylist(), block["size"].to_pylist()) for number, block in enumerate(blocks)
        )
        follow("verifying", self.pool.map(scan, jobs), rows.num_rows, show=self.progress)
        found = pa.concat_tables(read_part(self.folder, number) for number in range(len(parts)))
        found = found.drop_columns(["stored"])
        rows = rows.drop_columns(["size"])
        for name in found.column_names:
            rows = rows.append_column(name, found[name])
        lengths = [part.stop - part.start for part in parts]
        rows = rows.append_column("part", pa.array(np.repeat(np.arange(len(parts)), lengths)))
        return rows.append_column("place", pa.array(np.concatenate([np.arange(length) for length in lengths])))

    def _check_readable(self, bad: pa.Table, good: pa.Table) -> None:
        """Refuse images that cannot be read where none may be, or where nothing else is left, in all or in a class."""
        if not bad.num_rows:
            return
        names = self.source.class_names
        bad = bad.sort_by("path")
        first = f"the first is {bad['path'][0]}: {bad['reason'][0]}"
        if self.options.on_bad == "fail":
            raise SourceError(
                f"{bad.num_rows} of {self.source.rows.num_rows} images cannot be read, {first}; "
                "mend or remove them, or leave them out with --on-bad quarantine"
            )
        if not good.num_rows:
            raise SourceError(f"no readable image among {bad.num_rows}; {first}")
        lost = sorted(_classes(bad["label"]) - _classes(good["label"]), key=names.index)
        if lost and self.options.purpose == "train" and self.options.min_images is None:
            raise SourceError(
                f"class {lost[0]!r} has no readable image; mend its images, or leave such classes out with "
                "--min-images 1"
            )

    def _enough(self, good: pa.Table, bad: pa.Table) -> tuple[pa.Table, pa.Table, tuple[str, ...]]:
        """Move the classes that have too few images to the bad rows; returns both, and the names of the others."""
        names, least = self.source.class_names, self.options.min_images
        if least is None:
            return good, bad, names
        if self.source.multilabel:
            raise ConfigError("min_images: a row has several labels here, so no class can be left out; leave it out")
        counts = Counter(good["label"].to_pylist())
        kept = tuple(name for name in names if counts[name] >= least)
        if not kept:
            most = max(counts.values(), default=0)
            raise SourceError(f"no class has {least} readable images, the largest has {most}; lower --min-images")
        stay = pc.is_in(good["label"], pa.array(kept, pa.string()))
        few = good.filter(pc.invert(stay))
        reason = [f"class {name!r} has fewer than {least} readable images" for name in few["label"].to_pylist()]
        few = few.set_column(few.column_names.index("reason"), "reason", pa.array(reason, pa.string()))
        return good.filter(stay), pa.concat_tables([bad, few]), kept

    def _quarantine(self, bad: pa.Table) -> None:
        """Write the quarantine table."""
        if self.source.multilabel:
            bad = bad.set_column(bad.column_names.index("label"), "label", pc.binary_join(bad["label"], ";"))
        with new_file(self.folder / RESULT / QUARANTINE_FILE, self.folder) as temporary:
            rows = bad.sort_by("path").select(QUARANTINE_SCHEMA.names)
            pq.write_table(rows.cast(QUARANTINE_SCHEMA), str(temporary))

    def _split(self, rows: pa.Table, names: tuple[str, ...]) -> tuple[pa.Table, pa.Table, Mended, list[str]]:
        """Return the rows with labels as numbers and splits, those dropped, what was mended, and what is in doubt.

        Raises:
            SourceError: the classes or splits are not fit for training.
        """
        numbers, labels = _numbered(rows["label"], names)
        given, hashes, groups, paths = (rows[name].to_pylist() for name in ("split", "source_hash", "group", "path"))
        splits = assign(self.rule, labels if labels.ndim == 1 else strata(labels), given, hashes, groups)
        dropped, mended = rows.slice(0, 0), Mended([], {}, (), ())
        if self.options.fix is not None or self.options.drop_duplicates:
            mended = mend(rows, splits, names, self.options)
            rows, dropped = _without_dropped(rows, mended)
            kept = np.array([row not in mended.dropped for row in range(len(splits))])
            splits = splits[kept]
            numbers, labels = _numbered(rows["label"], names)
            hashes, groups, paths = (rows[name].to_pylist() for name in ("source_hash", "group", "path"))
        if self.options.purpose == "train":
            check_splits(self.rule, names, labels, splits)
        warnings = [*doubts(self.rule, names, labels, splits, hashes, paths), *mended.warnings]
        if self.options.purpose == "train" and (overlap := group_overlap(groups, splits)):
            if not self.options.allow_group_overlap:
                raise SourceError(f"{overlap}; mend the splits, or take them as they are with --allow-group-overlap")
            warnings.append(overlap)
        ungrouped = rows["group"].null_count == rows.num_rows
        rows = rows.drop_columns(["label", "split", "reason", *(["group"] if ungrouped else [])])
        rows = rows.append_column("label", numbers).append_column("split", pa.array(splits.tolist()))
        return rows, dropped, mended, warnings

    def _write(self, splits: dict[str, pa.Table], class_names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Write the shards; returns their paths, by split and in row order."""
        jobs = []
        for name, rows in splits.items():
            sizes = rows["size"].to_numpy()
            shards = -(-int(sizes.sum()) // self.options.shard_size)
            for number, block in enumerate(cut(sizes, -(-int(sizes.sum()) // shards), len(sizes))):
                # `take` copies: a slice would carry the whole table to the worker.
                own = rows.take(pa.array(range(block.start, block.stop)))
                jobs.append(ShardJob(f"{name}/{number:05d}.parquet", class_names, own))
        total = sum(rows.num_rows for rows in splits.values())
        follow("writing", self.pool.map(write_shard, jobs), total, show=self.progress)
        return {name: tuple(job.name for job in jobs if job.name.startswith(f"{name}/")) for name in splits}

    def _statistics(self, train: pa.Table, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation per channel, over the training images of lowest content hash.

        Each image weighs the same. The deviation is at least one grey level, so that it can be divided by.
        """
        lowest = pc.sort_indices(train["content_hash"])[:_STATISTICS_IMAGES]
        rows = train.take(lowest)
        starts = range(0, rows.num_rows, _STATISTICS_JOB)
        jobs = (MeasureJob(channels, rows[start : start + _STATISTICS_JOB].combine_chunks()) for start in starts)
        mean, square = np.concatenate(list(self.pool.map(measure, jobs))).mean(axis=0)
        std = np.sqrt(np.maximum(square - mean**2, 1 / 255**2))
        return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())

    def _provenance(self, notes: Sequence[str]) -> dict[str, Any]:
        return {
            "source": self.source.location,
            "layout": self.source.layout,
            "notes": [*self.source.notes, *notes],
            "splits": str(self.rule),
            "options": self.options.settings(),
            "versions": {
                "sagitta": version("sagitta"),
                **{package: version(package) for package in ("pyarrow", "pillow", "numpy")},
            },
        }


def _without_dropped(rows: pa.Table, mended: Mended) -> tuple[pa.Table, pa.Table]:
    """Return the rows that stay, with their labels, and those that are dropped, with the reason."""
    places = sorted(mended.dropped)
    dropped = rows.take(pa.array(places, pa.int64()))
    reasons = pa.array([mended.dropped[row] for row in places], pa.string())
    dropped = dropped.set_column(rows.column_names.index("reason"), "reason", reasons)
    column = rows.column_names.index("label")
    rows = rows.set_column(column, "label", pa.array(mended.labels, rows.schema.field("label").type))
    return rows.filter(pa.array([row not in mended.dropped for row in range(rows.num_rows)])), dropped


def _classes(labels: pa.ChunkedArray) -> set[str]:
    return set(pc.unique(single_labels(labels)).to_pylist())


def _numbered(labels: pa.ChunkedArray, names: tuple[str, ...]) -> tuple[pa.ChunkedArray, npt.NDArray[Any]]:
    """Return labels as class numbers: as a column to store, lists in ascending order, and as an array.

    The array is int64 (N,), or bool (N, classes) where rows have several labels.
    """
    numbers = pc.index_in(single_labels(labels), pa.array(names)).cast(pa.int64())
    if not is_list(labels.type):
        return numbers, numbers.to_numpy()
    hot = multi_hot(list_lengths(labels), numbers.to_numpy(), len(names))
    return pa.chunked_array([[np.flatnonzero(row) for row in hot]], pa.list_(pa.int64())), hot
