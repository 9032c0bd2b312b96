import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from sagitta.dataset.shards import ShardSet
from sagitta.errors import DatasetError, ImageError, SourceError
from sagitta.sources.base import SourceOptions
from sagitta.sources.detect import open_source
from sagitta.sources.parquet import ParquetReader

from .conftest import image, pack

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes ``count`` images with their columns to a Parquet file in ``tmp_path / 'given'``; returns that folder."""

    def write_parquet(
        name: str, count: int, *, plain: bool = False, options: dict[str, Any] | None = None, **columns: Any
    ) -> Path:
        images = [image(i) if plain else {"bytes": image(i), "path": f"{i}.png"} for i in range(count)]
        table = pa.table({**columns, "image": pa.array(images, pa.binary() if plain else IMAGE)})
        path = tmp_path / "given" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **(options or {}))
        return tmp_path / "given"

    return write_parquet


def test_what_datasets_writes_keeps_its_class_names(tmp_path: Path) -> None:
    features = Features({"image": Image(), "label": ClassLabel(names=["zebra", "ant"])})
    images = [{"bytes": image(i), "path": None} for i in range(4)]
    for split, count in (("train", 4), ("test", 2)):
        part = Dataset.from_dict({"image": images[:count], "label": [0, 1, 1, 0][:count]}, features=features)
        (tmp_path / "given/data").mkdir(parents=True, exist_ok=True)
        part.to_parquet(str(tmp_path / f"given/data/{split}-00000-of-00001.parquet"))
    source = open_source(str(tmp_path / "given"), cache=tmp_path)
    assert source.class_names == ("zebra", "ant")
    assert source.rows["label"].to_pylist() == ["zebra", "ant", "zebra", "ant", "ant", "zebra"]
    assert source.rows["split"].to_pylist() == ["test"] * 2 + ["train"] * 4
    assert [source.reader.read(path) for path in source.rows["path"].to_pylist()] == [
        image(i) for i in (0, 1, 0, 1, 2, 3)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "none", "use_dictionary": False},
        {"compression": "zstd", "row_group_size": 3},
        {"compression": "snappy", "data_page_version": "2.0", "row_group_size": 1},
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_any_compression_page_version_and_column_type(write: Write, options: dict[str, Any], plain: bool) -> None:
    write("train/0000.parquet", 10, plain=plain, options=options, label=["a", "b"] * 5)
    root = write("validation/0000.parquet", 2, plain=plain, options=options, label=["b", "a"])
    source = open_source(str(root), cache=root)
    assert source.rows["split"].to_pylist() == ["train"] * 10 + ["val"] * 2
    reader = pickle.loads(pickle.dumps(source.reader))
    for order in (range(12), reversed(range(12))):
        assert all(reader.read(source.rows["path"][i].as_py()) == image(i % 10) for i in order)


def test_one_file_with_integer_labels_and_named_columns(write: Write) -> None:
    columns = {"quality": [10, 9, 2], "part": ["train", "Test", None], "who": [1, 2, 1]}
    root = write("x.parquet", 3, **columns)
    options = SourceOptions(label_column="quality", split_column="part", group_column="who")
    source = open_source(str(root / "x.parquet"), options, cache=root)
    assert source.class_names == ("2", "9", "10")
    assert source.rows.select(["path", "split", "group"]).to_pylist() == [
        {"path": "x.parquet/0/0.png", "split": "train", "group": "1"},
        {"path": "x.parquet/1/1.png", "split": "test", "group": "2"},
        {"path": "x.parquet/2/2.png", "split": None, "group": "1"},
    ]


def test_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    images = [{"bytes": image(i), "path": None} for i in range(3)]
    Dataset.from_dict({"image": images, "label": [-1, 1, None]}, features=features).to_parquet(
        str(tmp_path / "t.parquet")
    )
    source = open_source(str(tmp_path / "t.parquet"), cache=tmp_path)
    assert source.rows["path"].to_pylist() == ["t.parquet/1"]
    assert source.notes == ("skipped 2 rows without a label",)
    assert source.reader.read("t.parquet/1") == image(1)


def test_an_image_that_is_null_is_one_bad_image(tmp_path: Path) -> None:
    images = pa.array([None, {"bytes": None, "path": "far.png"}, {"bytes": image(0), "path": None}], IMAGE)
    pq.write_table(pa.table({"image": images, "label": ["a", "b", "a"]}), tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"), cache=tmp_path)
    for path in source.rows["path"].to_pylist()[:2]:
        with pytest.raises(ImageError, match=r"t\.parquet, row [01]: no image bytes"):
            source.reader.read(path)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"kind": ["a"]},
            SourceOptions(),
            r"no label column; its columns are kind, image: name one with --label-column",
        ),
        ({"label": ["a"]}, SourceOptions(label_column="x"), r"no column 'x'; its columns are label, image"),
        ({"label": ["a"]}, SourceOptions(group_column="g"), r"no column 'g'; its columns are label, image"),
        (
            {"label": ["a"], "s": ["fold1"]},
            SourceOptions(split_column="s"),
            r"split column 's' holds fold1; write train",
        ),
    ],
)
def test_what_is_wrong_is_said(write: Write, columns: dict[str, Any], options: SourceOptions, message: str) -> None:
    root = write("t.parquet", 1, **columns)
    for location in (root, root / "t.parquet"):
        with pytest.raises(SourceError, match=r"t\.parquet: " + message):
            open_source(str(location), options, cache=root)


def test_a_damaged_file_and_one_in_an_archive_are_named(write: Write) -> None:
    root = write("t.parquet", 1, label=["a"])
    with pytest.raises(SourceError, match=r"Parquet files in an archive; unpack it first"):
        open_source(str(pack(root, "zip")), cache=root)
    (root / "t.parquet").write_bytes(b"PAR1 nothing PAR1")
    for location in (root, root / "t.parquet"):
        with pytest.raises(SourceError, match=r"t\.parquet: cannot be read as Parquet"):
            open_source(str(location), cache=root)


def test_a_reader_holds_one_row_group(write: Write) -> None:
    root = write("t.parquet", 8, options={"row_group_size": 2}, label=["a"] * 8)
    reader = open_source(str(root), cache=root).reader
    assert isinstance(reader, ParquetReader)
    before = pa.total_allocated_bytes()
    for row in range(8):
        reader.read(f"t.parquet/{row}/{row}.png")
    assert pa.total_allocated_bytes() - before < 3 * 2 * len(image(0)) + 4096


# One reader: what is opened as it lies and what is converted are the same data


def with_features(columns: dict[str, Any], **features: Any) -> pa.Table:
    """A table whose schema carries Hugging Face's features."""
    table = pa.table(columns)
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


PICTURES = [image(seed) for seed in range(6)]
STRUCTS = pa.array([{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(PICTURES)], IMAGE)
WORDS = ["cat", "dog", "cat", "emu", "dog", "cat"]
NUMBERS = [2, 0, 1, 1, 0, 2]
PLAIN = pa.table({"image": PICTURES, "label": WORDS})
KINDS = {"_type": "ClassLabel", "names": ["x", "y", "z"]}
LAYOUTS: dict[str, dict[str, pa.Table]] = {
    "hub": {f"data/{name}-00000-of-00001.parquet": PLAIN for name in ("train", "validation", "test")},
    "folders": {f"{name}/0.parquet": PLAIN for name in ("train", "dev")},
    "any word": {"my_dev_set.parquet": PLAIN, "photos.parquet": PLAIN, "imagenet-test-001.parquet": PLAIN},
    "capitals": {"trainImages.parquet": PLAIN, "TESTING.parquet": PLAIN, "ValSet.PARQUET": PLAIN},
    "no words": {"latest/0.parquet": PLAIN, "contest/train.parquet": PLAIN, "contest/1.parquet": PLAIN},
    "one folder": {"test of time/data/train.parquet": PLAIN, "test of time/more/1.parquet": PLAIN},
    "one split": {"test/0.parquet": PLAIN, "test/1.parquet": PLAIN},
    "a table beside": {
        "train.parquet": PLAIN,
        "test.parquet": PLAIN,
        "about.parquet": pa.table({"label": ["no image"]}),
    },
    "hidden": {"train.parquet": PLAIN, "test.parquet": PLAIN, ".cache/val.parquet": PLAIN},
    "declared label first": {
        "a.parquet": with_features({"image": STRUCTS, "label": ["caption"] * 6, "kind": NUMBERS}, kind=KINDS)
    },
    "a known name among the declared": {
        "a.parquet": with_features({"image": STRUCTS, "sex": [0] * 6, "Label": NUMBERS}, sex=KINDS, Label=KINDS)
    },
    "fine labels": {
        "a.parquet": with_features(
            {"img": STRUCTS, "coarse_label": [0] * 6, "fine_label": NUMBERS}, coarse_label=KINDS, fine_label=KINDS
        )
    },
    "declared image first": {
        "a.parquet": with_features(
            {"hash": [b"#"] * 6, "mask": [{"bytes": b"?"}] * 6, "photo": STRUCTS, "class": WORDS},
            photo={"_type": "Image"},
        )
    },
    "lists": {"a.parquet": pa.table({"image": STRUCTS, "labels": [["a", "b"], ["b"], [], ["c"], ["a"], ["c", "a"]]})},
    "declared lists": {
        "a.parquet": with_features(
            {"image": STRUCTS, "label": [[2, 0], [1], [], [0], [1], [2]]},
            label={"_type": "Sequence", "feature": KINDS},
        )
    },
    "truth": {"a.parquet": pa.table({"image": PICTURES, "label": [True, False] * 3})},
    "fractions": {"a.parquet": pa.table({"image": PICTURES, "label": [1.0, 2.5, 1.0, 2.5, 1.0, 1.0]})},
    "categories": {"a.parquet": pa.table({"image": PICTURES, "target": pa.array(WORDS).dictionary_encode()})},
    "numbers": {"a.parquet": pa.table({"image": pa.array(PICTURES, pa.large_binary()), "category": NUMBERS})},
}


def rows_of(shards: ShardSet) -> dict[tuple[str, int], tuple[str, list[str], bytes]]:
    """(file, row in it) -> split, names of the labels, image, as `Loader` has them."""
    found = {}
    names = shards.info.class_names
    for split in shards.splits.values():
        for row in range(len(split)):
            file, _, number = split.where(row).rpartition(", row ")
            label = split.labels[row]
            numbers = label.nonzero()[0] if shards.info.multilabel else [label]
            found[Path(file).as_posix(), int(number)] = (
                split.name,
                sorted(names[number] for number in numbers),
                bytes(split.image(row)),
            )
    return found


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"compression": "none", "use_dictionary": False, "row_group_size": 4}])
def test_opened_and_converted_data_are_the_same(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    for file, table in LAYOUTS[name].items():
        (tmp_path / "given" / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, tmp_path / "given" / file, **options)
    with ShardSet.open(tmp_path / "given", cache=tmp_path / "cache") as shards:
        opened = rows_of(shards)
    source = open_source(str(tmp_path / "given"), cache=tmp_path)
    whole = {split for split, _, _ in opened.values()}
    matched = set()
    for row in source.rows.to_pylist():
        place = re.match(r"(.+\.parquet)/(\d+)", row["path"], re.IGNORECASE)
        assert place
        key = next(key for key in opened if key[0].endswith(f"/{place[1]}") and key[1] == int(place[2]))
        split, labels, data = opened[key]
        # A folder that holds everything is taken for a wrapper, so its name tells a source nothing.
        assert row["split"] == split or (row["split"] is None and len(whole) == 1)
        assert sorted(row["label"] if source.multilabel else [row["label"]]) == labels
        assert source.reader.read(row["path"]) == data
        matched.add(key)
    assert matched == set(opened)


@pytest.mark.parametrize("column", ["label", "classes"])
def test_files_that_name_different_classes_are_refused_by_both(tmp_path: Path, column: str) -> None:
    for file, names in (("a", ["x", "y"]), ("b", ["y", "x"])):
        kinds = {"_type": "ClassLabel", "names": names}
        pq.write_table(
            with_features({"image": STRUCTS, column: [0, 1] * 3}, **{column: kinds}), tmp_path / f"{file}.parquet"
        )
    with pytest.raises(DatasetError, match=r"a\.parquet: names other classes than .*b\.parquet"):
        ShardSet.open(tmp_path, cache=tmp_path / "cache")
    with pytest.raises(SourceError, match=r"a\.parquet: names other classes than .*b\.parquet"):
        open_source(str(tmp_path), cache=tmp_path)


def test_features_that_are_no_json_are_an_error_of_ours(tmp_path: Path) -> None:
    pq.write_table(PLAIN.replace_schema_metadata({"huggingface": "{"}), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match=r"a\.parquet: the features in its schema are not JSON"):
        ShardSet.open(tmp_path, cache=tmp_path / "cache")
    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read as Parquet \(the features"):
        open_source(str(tmp_path), cache=tmp_path)
