"""How to convert, and the digest of everything that decides what comes of it."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from sagitta.dataset import FORMAT_VERSION, SPLITS, Source
from sagitta.errors import ConfigError
from sagitta.files import file_hash
from sagitta.images import Reduction

_MOST_WORKERS = 1024
_LATER = ("drop_duplicates", "fix")


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        val: share of each class for ``val`` where the source has none; None means 0.1, and 0 none.
        test: likewise; None means 0.1 where the source has no splits at all, otherwise none.
        seed: of the split.
        resize: length of the shorter side in pixels; smaller images are kept as they are.
        quality: JPEG quality (1-100) of re-encoded images: all of them if given, else the resized ones, at 90.
        range: the values of samples of more than 8 bits that become black and white, ``LOW,HIGH``; or ``auto``, by the
            data's percentiles.
        bands: one or three of the stored bands, as grey or as red, green and blue, such as ``3,2,1``.
        restart_markers: cut JPEGs by restart markers into small tiles, without loss: training then decodes only the
            tiles that a crop needs.
        shard_size: bytes that a shard holds at most, give or take an image.
        workers: processes; None means all cores. Never changes the output.
        on_bad: what to do with images that cannot be decoded: leave them out and list them, or stop; None leaves them
            out, but a table that names files which are missing is refused.
        min_images: leave out classes with fewer readable images; None keeps those with one, in train.
        allow_group_overlap: take given splits though a group has rows in several of them.
        drop_duplicates: leave out all but one of the images of equal pixels, those of train before those of val and
            test.
        fix: file of reviewed findings (``sagitta doctor --out``): its rows of action ``drop`` are left out,
            those of action ``relabel`` get the class in column ``proposed_label``.
        purpose: ``train`` divides what has no splits; for ``test`` and ``val`` every row stays in the split it has, and
            in the one of this name where it has none.

    Raises:
        ConfigError: a value is out of range.
    """

    val: float | None = None
    test: float | None = None
    seed: int = 0
    resize: int | None = None
    quality: int | None = None
    range: str | None = None
    bands: str | None = None
    restart_markers: bool = False
    shard_size: int = 256 * 2**20
    workers: int | None = None
    on_bad: Literal["quarantine", "fail"] | None = None
    min_images: int | None = None
    allow_group_overlap: bool = False
    drop_duplicates: bool = False
    fix: str | None = None
    purpose: Literal["train", "val", "test"] = "train"

    def __post_init__(self) -> None:
        for name in ("val", "test"):
            share = getattr(self, name)
            if share is not None and not (isinstance(share, Real) and 0 <= float(share) < 1):
                raise ConfigError(f"{name} {share}: give a share of the rows, from 0 to below 1")
        if not isinstance(self.seed, Integral):
            raise ConfigError(f"seed {self.seed}: must be a whole number")
        most = {"resize": None, "quality": 100, "shard_size": None, "workers": _MOST_WORKERS, "min_images": None}
        for name, largest in most.items():
            value = getattr(self, name)
            whole = value is None or (isinstance(value, Integral) and value >= 1)
            if not whole or (value is not None and largest and value > largest):
                raise ConfigError(f"{name} {value}: must be {f'1 to {largest}' if largest else 'at least 1'}")
        Reduction.of(self.range, self.bands)
        if self.on_bad not in (None, "quarantine", "fail"):
            raise ConfigError(f"on_bad {self.on_bad!r}: must be 'quarantine' or 'fail'")
        if self.purpose not in SPLITS:
            raise ConfigError(f"purpose {self.purpose!r}: must be one of {', '.join(SPLITS)}")

    def settings(self) -> dict[str, Any]:
        """Return what decides the output, as plain values."""
        values = {name: value for name, value in asdict(self).items() if name not in ("workers", "on_bad")}
        if self.fix is not None:
            values["fix"] = f"{Path(self.fix).name} {_digest(Path(self.fix))}"
        # What came later is left out where nobody asks for it: the datasets of before stay what they are.
        return {name: value for name, value in values.items() if value or name not in _LATER}


def _digest(path: Path) -> str:
    """Return the digest of a file of findings.

    Raises:
        ConfigError: it is not there.
    """
    try:
        return file_hash(path)
    except OSError:
        raise ConfigError(f"{path}: no such file of findings; make one: sagitta doctor DATASET --out {path}") from None


def conversion_key(source: Source, options: ConvertOptions) -> str:
    """Return a digest of everything that decides the output, but for bytes changed without a trace in the listing."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, source.rows.schema) as stream:
        stream.write_table(source.rows.combine_chunks())
    about = [
        FORMAT_VERSION,
        version("sagitta"),
        source.location,
        source.layout,
        source.class_names,
        options.settings(),
        *(["group column"] if source.rows["group"].null_count < source.rows.num_rows else []),
    ]
    digest = hashlib.blake2b(json.dumps(about).encode(), digest_size=16)
    digest.update(sink.getvalue())
    for line in _changes(source):
        digest.update(os.fsencode(line))
    return digest.hexdigest()


def _changes(source: Source) -> Iterator[str]:
    """Yield the time of change of each file of a source that lies on this machine."""
    location = Path(source.location).expanduser()
    if location.is_dir():
        for folder, subfolders, files in os.walk(location):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))  # such as .OUT.partial
            yield from (_change(f"{folder}/{name}") for name in sorted(files))
    elif location.is_file():
        yield _change(str(location))
        yield from (_change(f"{location.parent}/{path}") for path in source.rows["path"].to_pylist())


def _change(path: str) -> str:
    try:
        return f"{path} {os.stat(path).st_mtime_ns}\n"  # noqa: PTH116  # a Path a file takes longer than the call
    except OSError:
        return f"{path}\n"  # a member of an archive, or a link that leads nowhere
