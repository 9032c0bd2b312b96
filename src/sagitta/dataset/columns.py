"""Which files, columns, classes and splits image Parquet has: one place for files opened and for files converted."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sagitta.dataset.parquet import as_array, read_column, read_schema
from sagitta.dataset.schema import INFO_FILE, SPLITS, class_names_of, features_of, is_list, single_labels
from sagitta.dataset.splitwords import flag_of, read_split_column, split_columns, splits_of_files
from sagitta.errors import DatasetError

Ints = npt.NDArray[np.int64]

_HASHES = 2**16  # made text at a time, so that memory does not grow with the rows
_MOST_CLASSES = 2**20  # more are damage, or a column of something else
_LABEL_COLUMNS = ("fine_label", "label", "labels", "class", "class_name", "category", "target")
_IMAGE_COLUMN = re.compile(r"(?i)images?|img|photo|picture|pixels?|(?:image|img)[ _-]?(?:bytes|data|file)|jpe?g|png")
_ASIDE = re.compile(r"(?i)(?:^|[^a-z])(?:masks?|seg|segmentations?|thumb|thumbnails?|depth|overlay)(?:[^a-z]|$)")
_NO_LABEL = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "<na>"})


def find_files(root: Path) -> dict[str, list[Path]]:
    """Return the Parquet files with images under ``root`` by split, sorted by path; hidden ones left out.

    Where no file tells a split, all are ``train``. Where none holds images, the first file is returned.

    Raises:
        DatasetError: there are none, one cannot be read, or a column of one divides its rows otherwise than its name.
    """
    base, found = (root.parent, [root]) if root.is_file() else (root, sorted(root.rglob("*")))
    names = {path: path.relative_to(base).as_posix() for path in found if path.suffix.lower() == ".parquet"}
    visible = [path for path, name in names.items() if "/." not in f"/{name}"]
    if not visible:
        raise DatasetError(
            f"{root}: neither {INFO_FILE} nor any Parquet file; make a dataset with `sagitta convert SOURCE {root}`"
        )
    files = [path for path in visible if image_columns(read_schema(path))] or visible[:1]
    splits: dict[str, list[Path]] = {}
    for path, split in zip(files, splits_of_files([names[path] for path in files]), strict=True):
        _refuse_split_column(path, split)
        splits.setdefault(split or "train", []).append(path)
    return {name: splits[name] for name in SPLITS if name in splits}


def _refuse_split_column(path: Path, split: str | None) -> None:
    """Refuse a file whose rows a column gives to several splits, or to another one than the file's name."""
    for name in split_columns(read_schema(path).names):
        texts = column_texts(read_column([path], name))
        column = None if texts is None else read_split_column(name, pc.unique(texts).to_pylist(), asked=False)
        told = {split for split in column.splits.values() if split} if column else set()
        if flag_of(name) and split and "train" in told:
            told = told - {"train"} | {split}  # false says only that a row is not of the column's split
        found = sorted(told)
        if len(found) > 1 or (found and split and found != [split]):
            raise DatasetError(
                f"{path}: its column {name!r} gives rows to {' and '.join(found)}"
                f"{f', its name to {split}' if split else ''}; `sagitta convert` it, which follows a column"
            )


class Layout(NamedTuple):
    """Names of the columns: leaves of the image's bytes (``image.bytes``) and of its path, if any, and label.

    ``numbered`` says that integer labels are positions among the class names, as ClassLabel's are; else they are the
    classes' names.
    """

    image: str
    path: str | None
    label: str
    numbered: bool


def layout_of(files: Iterable[Path]) -> Layout:
    """Find the image and label columns that all files have.

    Raises:
        DatasetError: a file lacks one of them, or their labels are of different types; names the file.
    """
    schemas = {str(path): read_schema(path) for path in files}
    found = {name: image_leaves(schema) for name, schema in schemas.items()}
    first, leaves = next(iter(found.items()))
    for name, others in found.items():
        if leaves and (others is None or others[0] != leaves[0]):
            raise DatasetError(f"{name}: no column {leaves[0]}, which {first} has; convert them one by one")
    label = common_label(schemas)
    if leaves is None or label is None:
        wanted, columns = "label" if leaves else "image", ", ".join(schemas[first].names)
        raise DatasetError(f"{first}: no {wanted} column among {columns}; convert its source with `sagitta convert`")
    return Layout(*leaves, label, any(class_names_of(schema, label) for schema in schemas.values()))


def image_leaves(schema: pa.Schema, asked: str | None = None) -> tuple[str, str | None] | None:
    """Return the leaves of the image's bytes and of its path, if any; None where no column holds images.

    Of columns that Hugging Face's features call an Image, else of those that are binary or a struct with binary
    ``bytes`` (which sounds and hashes may be, too), one that is called ``image`` or the like is taken; masks come last.

    Args:
        schema: of a file.
        asked: the column, where the user names it; None is returned where it holds no images.

    Raises:
        DatasetError: several columns may be the image; or the schema's features are not JSON.
    """
    names = image_columns(schema)
    if asked:
        names = [asked] if asked in names else []
    if not names:
        return None
    named = [name for name in names if _IMAGE_COLUMN.fullmatch(name)]
    main = named[:1] or [name for name in names if not _ASIDE.search(name)] or names
    kind = schema.field(main[0]).type
    if len(main) > 1 and pa.types.is_struct(kind):
        raise DatasetError(
            f"columns {' and '.join(map(repr, main[:4]))} hold images; name the one to take with --path-column"
        )
    if not pa.types.is_struct(kind):
        return main[0], None
    return f"{main[0]}.bytes", f"{main[0]}.path" if kind.get_field_index("path") >= 0 else None


def image_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that hold images: those that features call so, else those whose type allows it.

    Raises:
        DatasetError: the schema's features are not JSON.
    """
    features = features_of(schema)
    names = [field.name for field in schema if _holds_images(field.type)]
    return [name for name in names if _kind(features.get(name)) == "Image"] or names


def _kind(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def label_column(schema: pa.Schema) -> str | None:
    """Return the column of the labels, or None.

    A ClassLabel comes first: its author says that it holds classes, and what they are called, while a plain column
    called ``label`` or ``class`` beside it may hold anything. Of several the one with a known name is taken
    (CIFAR-100's ``fine_label`` before its ``coarse_label``). Where there is none, a known name decides, in any case.

    Raises:
        DatasetError: the schema's features are not JSON.
    """
    known = [name for word in _LABEL_COLUMNS for name in schema.names if name.lower() == word]
    declared = [name for name in schema.names if class_names_of(schema, name)]
    ranked = [*(name for name in known if name in declared), *declared, *known]
    return ranked[0] if ranked else None


def common_label(schemas: Mapping[str, pa.Schema], asked: str | None = None) -> str | None:
    """Return the label column that the files share, or None where none of them has any.

    Args:
        schemas: of the files, by the names that messages give them.
        asked: the column, where the user names it.

    Raises:
        DatasetError: a file lacks the column that another has, or its labels are of another type; names both.
    """
    found = {name: asked if asked in schema.names else None for name, schema in schemas.items()}
    found = found if asked else {name: label_column(schema) for name, schema in schemas.items()}
    first, label = next(((name, label) for name, label in found.items() if label), (None, None))
    if first is None or label is None:
        return None
    kind = _label_kind(schemas[first].field(label).type)
    for name, schema in schemas.items():
        if label not in schema.names:
            raise DatasetError(
                f"{name}: no column {label!r}, which {first} has; take that file out, or give it the labels"
            )
        if (other := _label_kind(schema.field(label).type)) != kind:
            raise DatasetError(
                f"{name}: column {label!r} holds {other}, but {kind} in {first}; write the labels alike in both"
            )
    return label


def _label_kind(kind: pa.DataType) -> str:
    if is_list(kind):
        return f"lists of {_label_kind(kind.value_type)}"
    if pa.types.is_dictionary(kind):
        return _label_kind(kind.value_type)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "numbers"
    return "text" if _is_text(kind) else str(kind)


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def declared_names(schemas: Mapping[str, pa.Schema], label: str) -> tuple[str, ...] | None:
    """Return the class names that the schemas carry for the label column, or None where none does.

    Raises:
        DatasetError: two files name different classes.
    """
    declared = {found: name for name, schema in schemas.items() if (found := class_names_of(schema, label))}
    if len(declared) > 1:
        first, second = list(declared.values())[:2]
        raise DatasetError(f"{first}: names other classes than {second}; convert them one by one")
    return next(iter(declared), None)


def class_names_in(files: Mapping[str, Sequence[Path]], label: str) -> tuple[str, ...]:
    """Return the class names: ClassLabel's, else those of :func:`classes_among` the labels.

    Raises:
        DatasetError: two files name different classes, or there are too many to be classes.
    """
    paths = [path for split in files.values() for path in split]
    if declared := declared_names({str(path): read_schema(path) for path in paths}, label):
        return declared
    names: set[str] = set()
    numbers = False
    for path in paths:
        column = read_column([path], label)
        assert column is not None  # `common_label` has found it in each
        values = pc.list_flatten(column) if is_list(column.type) else column
        numbers |= "numbers" in _label_kind(values.type)
        try:
            texts = label_texts(pc.unique(values)).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DatasetError(f"{path}: column {label!r} of {values.type} is no text or number") from None
        names.update(text for text in texts if text is not None)
    if len(names) >= _MOST_CLASSES:
        raise DatasetError(f"{paths[0].parent}: {len(names):,} labels are no classes; convert the files' source again")
    return classes_among(names, numbers=numbers)


def classes_among(texts: Iterable[str], *, numbers: bool) -> tuple[str, ...]:
    """Return the classes among labels written as text, in order.

    Args:
        texts: of :func:`label_texts`.
        numbers: they were numbers: -1 beside at least two others marks a row without a label, as on the Hugging Face
            Hub; with one other it is a class.
    """
    names = class_order(texts)
    rest = tuple(name for name in names if name != "-1")
    return rest if numbers and len(rest) > 1 else names


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels: numerically where all are integers, alphabetically otherwise."""
    names = sorted(set(labels))
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        names.sort(key=int)
    return tuple(names)


def is_no_label(text: str | None) -> bool:
    """Say whether a text means that there is no label: nothing, ``NA``, ``nan``, ``null``; ``None`` is a class."""
    return text is None or (text.strip().lower() in _NO_LABEL and text.strip() not in ("Nan", "Na"))


def label_texts(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return labels as text, null where there is none (NaN and what :func:`is_no_label` says); ``1.0`` is ``1``.

    Raises:
        ArrowInvalid, ArrowNotImplementedError: the column holds neither text nor numbers.
    """
    texts = column.cast(pa.string())
    if pa.types.is_integer(column.type):
        return texts
    nothing = [text for text in pc.unique(texts).to_pylist() if is_no_label(text)]
    return pc.if_else(pc.is_in(texts, pa.array(nothing, pa.string())), pa.scalar(None, pa.string()), texts)


def column_texts(column: pa.ChunkedArray | None) -> pa.ChunkedArray | None:
    """Return a column as text; None where there is none, or it holds neither text, numbers nor booleans."""
    try:
        return None if column is None else column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def label_numbers(column: pa.ChunkedArray, names: Sequence[str], *, numbered: bool) -> Ints:
    """Return labels as positions among the names; -1 where one is null or not among them.

    Args:
        column: integers, or whatever :func:`label_texts` takes.
        names: of the classes.
        numbered: integers are such positions already; see :class:`Layout`.
    """
    if not pa.types.is_integer(column.type):
        column = pc.index_in(label_texts(column), pa.array(names, pa.string()))
        numbered = True
    column = column.cast(pa.int64())
    missing = -1 if numbered else np.iinfo(np.int64).min
    found: Ints = as_array(column.fill_null(missing) if column.null_count else column)
    return found if numbered else _positions(found, names)


def _positions(values: Ints, names: Sequence[str]) -> Ints:
    """Return which name each number is, by numpy alone: pyarrow's own look-up imports pandas (a second)."""
    known = {int(name): position for position, name in enumerate(names) if re.fullmatch(r"-?[0-9]+", name)}
    distinct, inverse = np.unique(values, return_inverse=True)
    positions = np.array([known.get(number, -1) for number in distinct.tolist()], np.int64)
    found: Ints = positions[inverse]
    return found


def list_lengths(lists: pa.ChunkedArray) -> Ints:
    """Return how many items each list of a column has, (N,); none where it is null."""
    return as_array(pc.list_value_length(lists).fill_null(0).cast(pa.int64()))


def multi_hot(lengths: Ints, labels: Ints, classes: int) -> npt.NDArray[np.bool_]:
    """Return which labels each row has, (N, classes).

    Args:
        lengths: (N,) how many labels each row has.
        labels: all of them, one row after the other, each below ``classes``.
        classes: how many there are.
    """
    hot = np.zeros((len(lengths), classes), np.bool_)
    hot[np.repeat(np.arange(len(lengths)), lengths), labels] = True
    return hot


def fingerprint(class_names: Sequence[str], splits: Mapping[str, tuple[pa.ChunkedArray, pa.ChunkedArray]]) -> str:
    """Return a digest of the class names and of each split's labels and content hashes, in row order."""
    digest = hashlib.blake2b(json.dumps(class_names).encode(), digest_size=16)
    for name, (labels, hashes) in splits.items():
        digest.update(f"{name} {len(hashes)}\n".encode())
        if is_list(labels.type):
            digest.update(list_lengths(labels).astype("<i8").tobytes())
        digest.update(as_array(single_labels(labels)).astype("<i8").tobytes())
        for start in range(0, len(hashes), _HASHES):
            digest.update("".join(hashes[start : start + _HASHES].to_pylist()).encode())
    return digest.hexdigest()
