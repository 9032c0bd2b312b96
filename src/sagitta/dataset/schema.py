"""What a Sagitta dataset is, and what becomes one: Arrow columns, class names, provenance; rows and their reader.

A dataset is a folder in Hugging Face's own layout, so other tools open it with no word of ours::

    OUT/train/00000.parquet ...   OUT/val/...   OUT/test/...
    OUT/sagitta.json              written last: a folder without it is not a finished dataset
    OUT/quarantine.parquet        the files left out, each with its reason

How the format changes: a reader keeps fields of ``sagitta.json`` and columns that it does not know, and does without
those that came later, so what is new is optional and keeps the version's number; another number is only for what an
older reader would get wrong. Version 2 added ``source_hash``, ``group``, checksums, ``warnings`` and ``reduced``, and
lets ``mean`` and ``std`` be empty, which an older reader would divide by; version 1 still opens.

What is damaged is found at one of three times::

    opening          sagitta.json by its checksum, shards by size and footer (``footers``), the index by its digest
    reading          a column by the checksums of its pages; an image by the length before it; a file by its size
    sagitta verify   every byte of every file (``checksums``, ``quarantine_checksum``), and which image it is
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from sagitta.errors import DatasetError
from sagitta.files import content_hash

FORMAT_VERSION = 2
_READABLE = (1, 2)
SPLITS = ("train", "val", "test")
INFO_FILE = "sagitta.json"
QUARANTINE_FILE = "quarantine.parquet"
BUILT_IN = "built-in"
"""How the layout of a source begins that is known by its name."""


_COLUMNS: dict[str, tuple[pa.DataType, dict[str, Any]]] = {
    "image": (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"}),
    "label": (pa.int64(), {"_type": "ClassLabel"}),
    "width": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
    "height": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
    "orientation": (pa.int8(), {"dtype": "int8", "_type": "Value"}),
    "format": (pa.string(), {"dtype": "string", "_type": "Value"}),
    "mode": (pa.string(), {"dtype": "string", "_type": "Value"}),
    "content_hash": (pa.string(), {"dtype": "string", "_type": "Value"}),
    "source_hash": (pa.string(), {"dtype": "string", "_type": "Value"}),
    "group": (pa.string(), {"dtype": "string", "_type": "Value"}),
}
"""Column name -> Arrow type and Hugging Face feature. ``width`` and ``height`` are those of the upright image;
``orientation`` is the EXIF orientation (1-8) that decoding still has to apply; ``format`` and ``mode`` are Pillow's
words; ``content_hash`` is :func:`content_hash` of the stored bytes, ``source_hash`` that of the source's, which
resizing and the like do not change; ``group`` names what must stay on one side, and is there where a source has such
groups."""

QUARANTINE_SCHEMA = pa.schema([("path", pa.string()), ("label", pa.string()), ("reason", pa.string())])


def image_schema(class_names: Sequence[str], *, multilabel: bool = False, grouped: bool = False) -> pa.Schema:
    """Return the Arrow schema of a shard, with Hugging Face's features (class names included) in its metadata.

    Args:
        class_names: label ``i`` means ``class_names[i]``.
        multilabel: the label column holds lists.
        grouped: there is a column ``group``.
    """
    columns = {name: column for name, column in _COLUMNS.items() if grouped or name != "group"}
    kinds = {name: kind for name, (kind, _) in columns.items()}
    features = {name: dict(feature) for name, (_, feature) in columns.items()}
    features["label"]["names"] = list(class_names)
    if multilabel:
        kinds["label"] = pa.list_(kinds["label"])
        features["label"] = {"feature": features["label"], "_type": "Sequence"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)}
    return pa.schema(list(kinds.items()), metadata=metadata)


def class_names_of(schema: pa.Schema, column: str = "label") -> tuple[str, ...] | None:
    """Return the ClassLabel names that a Parquet file's schema carries for ``column`` or the items of its lists.

    None where it has none.

    Raises:
        DatasetError: as :func:`features_of` does.
    """
    feature = features_of(schema).get(column)
    if isinstance(feature, dict):
        feature = feature.get("feature", feature)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(names) if names else None


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """Return Hugging Face's features of a Parquet file's columns; none where its schema carries none.

    Raises:
        DatasetError: they are not JSON.
    """
    raw = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(raw).get("info", {}).get("features") or {}
        return dict(features)
    except (ValueError, TypeError, AttributeError):
        raise DatasetError("the features in its schema are not JSON; fetch the file again") from None


def is_list(kind: pa.DataType) -> bool:
    """Say whether a label column of this type holds several labels a row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


@dataclass(frozen=True)
class SplitInfo:
    """One split.

    Attributes:
        rows: how many.
        files: shard paths relative to the dataset's folder, in row order.
        checksums: :func:`sagitta.files.file_hash` of each shard; none where nobody noted them.
        footers: likewise size and digest of the footer, as ``7356-0f3a...``.
    """

    rows: int
    files: tuple[str, ...]
    checksums: tuple[str, ...] = ()
    footers: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset answers about itself.

    Attributes:
        class_names: label ``i`` means ``class_names[i]``, in every split.
        channels: 1 when every image is grey without alpha, 3 otherwise.
        splits: the splits that exist, of ``train``, ``val`` and ``test``.
        mean: per channel, of pixel values scaled to 0..1, over training images; empty where there are none.
        std: likewise.
        max_size: largest height and largest width of any upright image, seldom of one.
        min_size: smallest height and smallest width, likewise.
        fingerprint: digest over class names, splits, labels and content hashes in row order.
        provenance: how the data was prepared: source, layout, split rule, options, versions.
        quarantined: number of rows of the quarantine table.
        quarantine_checksum: :func:`sagitta.files.file_hash` of it; empty where nobody noted it.
        multilabel: a row has several labels, or none.
        warnings: what a person should know before trusting it, one sentence each.
        reduced: what decoding leaves out of images, and in how many of them.
        reduction: what deep samples and bands became at conversion, :meth:`sagitta.images.Reduction.to_dict`; or None.
        unknown: fields of ``sagitta.json`` that a later Sagitta wrote, kept as they are.
    """

    class_names: tuple[str, ...]
    channels: int
    splits: Mapping[str, SplitInfo]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min_size: tuple[int, int]
    max_size: tuple[int, int]
    fingerprint: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    quarantined: int = 0
    quarantine_checksum: str = ""
    multilabel: bool = False
    warnings: tuple[str, ...] = ()
    reduced: Mapping[str, int] = field(default_factory=dict)
    reduction: Mapping[str, Any] | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def made_splits(self) -> frozenset[str]:
        """The splits that Sagitta made, by the rule in ``provenance``; the others are as their source gives them."""
        found = re.search(r"\bmade from [^:]+: (.+?) of each class", str(self.provenance.get("splits", "")))
        return frozenset(share.split()[0] for share in found[1].split(", ")) if found else frozenset()

    @property
    def given_splits(self) -> frozenset[str]:
        """The splits that the source names itself, by the rule in ``provenance``."""
        found = re.match(r"([a-z, ]+) as the source gives them", str(self.provenance.get("splits", "")))
        return frozenset(found[1].split(", ")) if found else frozenset()

    def to_json(self) -> str:
        """Return the text of ``sagitta.json``: indented, sorted, without times or machine names."""
        values = asdict(self)
        values = {"format_version": FORMAT_VERSION, **values.pop("unknown"), **values}
        return _canonical(values | {"checksum": _checksum(values)})

    @classmethod
    def read(cls, root: Path) -> "DatasetInfo":
        """Read ``root/sagitta.json``.

        Raises:
            DatasetError: the file is missing, damaged, or of another format version.
        """
        path = root / INFO_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DatasetError(
                f"{root}: not a converted dataset, which holds {INFO_FILE}; make one of it: sagitta convert {root} OUT"
                if root.exists()
                else f"{root}: no such dataset; make one: sagitta convert SOURCE {root}"
            ) from None
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path}: not valid JSON ({error}); convert the source again") from None
        version = values.get("format_version") if isinstance(values, dict) else None
        if version not in _READABLE:
            raise DatasetError(
                f"{path}: format version {version}, this Sagitta reads {' and '.join(map(str, _READABLE))}; "
                "convert the source again, or take the Sagitta that wrote it"
            )
        missing = version > 1 and "checksum" not in values  # null says that somebody has edited the file
        if missing or values.pop("checksum", None) not in (None, _checksum(values)):
            raise DatasetError(
                f"{path}: not as it was written (its checksum differs); remove {root} and convert the source again"
            )
        del values["format_version"]
        try:
            splits = values["splits"]
            values["splits"] = {name: _split_info(splits[name]) for name in SPLITS if name in splits}
            for name in ("class_names", "mean", "std", "min_size", "max_size", "warnings"):
                values[name] = tuple(values.get(name, ()) if name == "warnings" else values[name])
            known = {each.name for each in fields(cls)} - {"unknown"}
            unknown = {name: values.pop(name) for name in sorted(values.keys() - known)}
            wrong = [name for name, fits in _FIELDS.items() if name in values and not fits(values[name])]
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{path}: a field is missing ({error}); convert the source again") from None
        if wrong:
            raise DatasetError(f"{path}: {', '.join(wrong)} cannot be what it says; convert the source again")
        try:
            return cls(**values, unknown=unknown)
        except TypeError as error:
            raise DatasetError(f"{path}: a field is missing ({error}); convert the source again") from None


def _all(kind: Any, *counts: int) -> Callable[[Any], bool]:
    """Return a test for a tuple of such values, of one of some lengths where these are given."""
    return lambda value: all(isinstance(each, kind) for each in value) and (not counts or len(value) in counts)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0  # a boolean is an int, too


def _are_counts(values: Any) -> bool:
    return len(values) == 2 and all(map(_is_count, values))


def _are_numbers(values: Any, least: float = 0) -> bool:
    """Say whether these are the means or deviations of no, one or three channels."""
    finite = (type(value) in (int, float) and least <= value < float("inf") for value in values)
    return len(values) in (0, 1, 3) and all(finite)


def _is_reduction(value: Any) -> bool:
    if value is None:
        return True
    ends = value.get("range") if isinstance(value, dict) else ""
    return ends is None or (isinstance(ends, list) and _all(int | float, 2)(ends))


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "class_names": _all(str),
    "channels": lambda value: type(value) is int and value in (1, 3),
    "splits": lambda value: len(value) > 0 and all(_is_split(split) for split in value.values()),
    "mean": _are_numbers,
    "std": lambda values: _are_numbers(values, 1e-6),  # pixels are divided by it
    "min_size": _are_counts,
    "max_size": _are_counts,
    "fingerprint": lambda value: isinstance(value, str),
    "provenance": lambda value: isinstance(value, dict),
    "quarantined": _is_count,
    "quarantine_checksum": lambda value: isinstance(value, str),
    "multilabel": lambda value: isinstance(value, bool),
    "warnings": _all(str),
    "reduced": lambda value: isinstance(value, dict),
    "reduction": _is_reduction,
}
"""What the fields of ``sagitta.json`` can be, for files that somebody has edited."""


def _is_split(split: SplitInfo) -> bool:
    noted = all(len(each) in (0, len(split.files)) for each in (split.checksums, split.footers))
    return noted and _is_count(split.rows) and _all(str)((*split.files, *split.checksums, *split.footers))


def _split_info(values: Mapping[str, Any]) -> SplitInfo:
    noted = (tuple(values.get(name, ())) for name in ("checksums", "footers"))
    return SplitInfo(values["rows"], tuple(values["files"]), *noted)


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _checksum(values: Mapping[str, Any]) -> str:
    """Return a digest of what ``sagitta.json`` says, however it is laid out."""
    return content_hash(_canonical(values).encode())


ROWS = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("size", pa.int64()),
    ]
)
"""``path`` is unique, '/'-separated and relative to the source; ``label`` a class name, or a list of them where rows
have several labels; ``split`` null or one of train, val, test; ``group`` null or the value of the group column;
``size`` the stored image's bytes (an estimate for arrays and Parquet)."""


class Reader(Protocol):
    """Reads the stored images of a source; picklable, and opens its files lazily in each process."""

    def read(self, path: str) -> bytes:
        """Return the image file's bytes for a row's ``path``.

        Raises:
            ImageError: the bytes cannot be had from the file that holds them.
            OSError: that file cannot be opened or read.
        """


@dataclass(frozen=True)
class Source:
    """Labelled images as somebody has them.

    Attributes:
        location: as the user named it.
        layout: what was detected, for people.
        rows: of schema ``ROWS``, in a deterministic order: by path; natural order for arrays and Parquet.
        reader: bytes of a row's path.
        class_names: in label order: the source's own where it defines one, else sorted; integers numerically.
        notes: what was left out or decided, one sentence each.
        warnings: what a person should know before trusting it, one sentence each.
        encodes: the reader makes each image's bytes anew, from pixels, which takes longer than to keep them.
    """

    location: str
    layout: str
    rows: pa.Table
    reader: Reader
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    encodes: bool = False

    @property
    def multilabel(self) -> bool:
        """Whether a row may have several labels, or none."""
        return is_list(self.rows.schema.field("label").type)

    def describe(self) -> str:
        """Return what was detected, how much of it, what was left out, and how to override; then a line a warning."""
        counts = Counter(self.rows["split"].to_pylist())
        splits = ", ".join(f"{name} {counts[name]:,}" for name in SPLITS if counts[name])
        images = f"{plural(self.rows.num_rows, 'image')} in {plural(len(self.class_names), 'class', 'classes')}"
        line = f"{self.location}: {self.layout}, {images}{f' ({splits})' if splits else ''}"
        fixed = self.layout.startswith(BUILT_IN)  # nothing was guessed
        line = "; ".join([line, *self.notes, *([] if fixed else ["to read it otherwise: --layout NAME"])])
        return "\n".join([line, *map(warning_line, self.warnings)])


def warning_line(warning: str) -> str:
    """Return a warning as it is shown."""
    return f"warning: {warning}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return ``count`` with its noun: ``1 file``, ``2,000 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def single_labels(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return every label of every row, one after the other."""
    return pc.list_flatten(labels) if is_list(labels.type) else labels
