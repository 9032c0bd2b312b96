"""What a Sagitta dataset is, and what becomes one: Arrow columns, class names, provenance; rows and their reader.

A dataset is a folder in Hugging Face's own layout, so other tools open it with no word of ours::

    OUT/train/00000.parquet ...   OUT/val/...   OUT/test/...
    OUT/sagitta.json              written last: a folder without it is not a finished dataset
    OUT/quarantine.parquet        the files left out, each with its reason
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from sagitta.errors import DatasetError

FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")
INFO_FILE = "sagitta.json"
QUARANTINE_FILE = "quarantine.parquet"


_COLUMNS: dict[str, tuple[pa.DataType, dict[str, Any]]] = {
    "image": (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"}),
    "label": (pa.int64(), {"_type": "ClassLabel"}),
    "width": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
    "height": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
    "orientation": (pa.int8(), {"dtype": "int8", "_type": "Value"}),
    "format": (pa.string(), {"dtype": "string", "_type": "Value"}),
    "mode": (pa.string(), {"dtype": "string", "_type": "Value"}),
    "content_hash": (pa.string(), {"dtype": "string", "_type": "Value"}),
}
"""Column name -> Arrow type and Hugging Face feature. ``width`` and ``height`` are those of the upright image;
``orientation`` is the EXIF orientation (1-8) that decoding still has to apply; ``format`` and ``mode`` are Pillow's
words; ``content_hash`` is :func:`content_hash` of the stored bytes."""

QUARANTINE_SCHEMA = pa.schema([("path", pa.string()), ("label", pa.string()), ("reason", pa.string())])


def image_schema(class_names: Sequence[str], *, multilabel: bool = False) -> pa.Schema:
    """Return the Arrow schema of a shard, with Hugging Face's features (class names included) in its metadata.

    Args:
        class_names: label ``i`` means ``class_names[i]``.
        multilabel: the label column holds lists.
    """
    kinds = {name: kind for name, (kind, _) in _COLUMNS.items()}
    features = {name: dict(feature) for name, (_, feature) in _COLUMNS.items()}
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
    """One split: number of rows and shard paths relative to the dataset's folder, in row order."""

    rows: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset answers about itself.

    Attributes:
        class_names: label ``i`` means ``class_names[i]``, in every split.
        channels: 1 when every image is grey without alpha, 3 otherwise.
        splits: the splits that exist, of ``train``, ``val`` and ``test``.
        mean: per channel, of pixel values scaled to 0..1, over training images.
        std: likewise.
        max_size: largest (height, width) of any upright image.
        min_size: smallest height and smallest width of any upright image.
        fingerprint: digest over class names, splits, labels and content hashes in row order.
        provenance: how the data was prepared: source, layout, split rule, options, versions.
        quarantined: number of rows of the quarantine table.
        multilabel: a row has several labels, or none.
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
    multilabel: bool = False

    def to_json(self) -> str:
        """Return the text of ``sagitta.json``: indented, sorted, without times or machine names."""
        return (
            json.dumps(
                {"format_version": FORMAT_VERSION, **asdict(self)},
                indent=2,
                sort_keys=True,
                ensure_ascii=False,
            )
            + "\n"
        )

    @classmethod
    def read(cls, root: Path) -> "DatasetInfo":
        """Read ``root/sagitta.json``.

        Raises:
            DatasetError: the file is missing, is not JSON, or is of another format version.
        """
        path = root / INFO_FILE
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DatasetError(
                f"{root}: no {INFO_FILE}, so not a finished dataset; make one with `sagitta convert SOURCE {root}`"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path}: not valid JSON ({error}); convert the source again") from None
        version = fields.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise DatasetError(
                f"{path}: format version {version}, this Sagitta reads {FORMAT_VERSION}; convert the source again"
            )
        try:
            splits = fields["splits"]
            fields["splits"] = {
                name: SplitInfo(splits[name]["rows"], tuple(splits[name]["files"])) for name in SPLITS if name in splits
            }
            for name in ("class_names", "mean", "std", "min_size", "max_size"):
                fields[name] = tuple(fields[name])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{path}: a field is missing or unknown ({error}); convert the source again") from None


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
        warnings: what a person must see, one sentence each.
    """

    location: str
    layout: str
    rows: pa.Table
    reader: Reader
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def multilabel(self) -> bool:
        """Whether a row may have several labels, or none."""
        return is_list(self.rows.schema.field("label").type)

    def describe(self) -> str:
        """Return one line: what was detected, how much of it, what was left out, and how to override."""
        counts = Counter(self.rows["split"].to_pylist())
        splits = ", ".join(f"{name} {counts[name]:,}" for name in SPLITS if counts[name])
        images = f"{plural(self.rows.num_rows, 'image')} in {plural(len(self.class_names), 'class', 'classes')}"
        line = f"{self.location}: {self.layout}, {images}{f' ({splits})' if splits else ''}"
        return "; ".join([line, *self.notes, "another layout: --layout NAME"])


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return ``count`` with its noun: ``1 file``, ``2,000 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def single_labels(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return every label of every row, one after the other."""
    return pc.list_flatten(labels) if is_list(labels.type) else labels
