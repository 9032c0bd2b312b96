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
        ({"label": pa.array([[]], pa.list_(pa.string()))}, SourceOptions(), r"Parquet .* no label in any row"),
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
        with pytest.raises(SourceError, match=message):
            open_source(str(location), options, cache=root)


def test_which_columns_were_chosen_is_said_where_others_might_be(write: Write) -> None:
    root = write("t.parquet", 2, mask=[b"1", b"2"], fine_label=["a", "b"], coarse_label=["x", "y"], label=["s", "t"])
    source = open_source(str(root), cache=root)
    assert source.notes == ("image in 'image', not in 'mask'", "class in 'fine_label'")
    assert source.reader.read(source.rows["path"][1].as_py()) == image(1)


def test_of_several_images_a_row_the_one_that_is_named_counts(write: Write) -> None:
    after = pa.array([{"bytes": image(i + 7), "path": None} for i in range(2)], IMAGE)
    root = write("t.parquet", 2, label=["a", "b"], after=after)
    assert open_source(str(root), cache=root).notes == ("image in 'image', not in 'after'",)
    named = open_source(str(root), SourceOptions(path_column="after"), cache=root)
    assert [named.reader.read(path) for path in named.rows["path"].to_pylist()] == [image(7), image(8)]
    with pytest.raises(SourceError, match=r"column 'label' holds no images; those that do are after, image: name one"):
        open_source(str(root), SourceOptions(path_column="label"), cache=root)
    table = pq.read_table(root / "t.parquet").rename_columns(["label", "after", "before"])
    pq.write_table(table, root / "t.parquet")
    for location in (root, root / "t.parquet"):
        with pytest.raises(
            SourceError, match=r"t\.parquet: columns 'after' and 'before' hold images; name .* --path-co"
        ):
            open_source(str(location), cache=root)
    with pytest.raises(DatasetError, match="columns 'after' and 'before' hold images"):
        ShardSet.open(root)
    pq.write_table(table.rename_columns(["label", "mask", "before"]), root / "t.parquet")
    assert open_source(str(root), cache=root).reader.read("t.parquet/1") == image(1)


def test_text_is_labels_as_in_other_tables(write: Write) -> None:
    root = write("t.parquet", 3, label=["a|b", "b|a", "b"])
    assert open_source(str(root), cache=root).rows["label"].to_pylist() == [["a", "b"], ["b", "a"], ["b"]]
    one = open_source(str(root), SourceOptions(label_separator=""), cache=root)
    assert one.class_names == ("a|b", "b", "b|a")
    write("t.parquet", 3, label=['["a", "b"]', "[]", '["b"]'])
    assert open_source(str(root), cache=root).rows["label"].to_pylist() == [["a", "b"], [], ["b"]]
    write("t.parquet", 3, label=["a, b", "b, a", "a"])
    with pytest.raises(SourceError, match="'label' may hold several labels a row, as in 'a, b': if so, --label-sep"):
        open_source(str(root), cache=root)
    write("t.parquet", 3, label=["1", "1.0", "0"])
    assert open_source(str(root), cache=root).rows["label"].to_pylist() == ["1", "1", "0"]


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


LAYOUTS |= {
    "words in names": {"x-train.parquet": PLAIN, "x-evaluation.parquet": PLAIN, "x-valset.parquet": PLAIN},
    "hive": {"split=train/0.parquet": PLAIN, "split=holdout/0.parquet": PLAIN},
    "whole fractions": {"a.parquet": pa.table({"image": PICTURES, "label": [0.0, 1.0] * 3})},
    "gaps": {"a.parquet": pa.table({"image": PICTURES, "label": [10, 2, 9, 2, 10, 9]})},
    "numbers as text": {"a.parquet": pa.table({"image": PICTURES, "label": ["10", "2", "9", "2", "10", "9"]})},
    "two classes with a sign": {"a.parquet": pa.table({"image": PICTURES, "label": [-1, 1] * 3})},
    "integers beside fractions": {
        "a.parquet": pa.table({"image": PICTURES, "label": [0, 1] * 3}),
        "b.parquet": pa.table({"image": PICTURES, "label": [2.0, 1.0] * 3}),
    },
    "views": {
        "a.parquet": pa.table(
            {
                "image": pa.array(PICTURES, pa.binary_view()),
                "label": pa.array(WORDS, pa.string_view()),
            }
        )
    },
    "declared in one file only": {
        "a.parquet": with_features({"image": PICTURES, "label": NUMBERS}, label=KINDS),
        "b.parquet": pa.table({"image": PICTURES, "label": NUMBERS}),
    },
    "one split's column": {"test.parquet": pa.table({"image": PICTURES, "label": WORDS, "split": ["Test"] * 6})},
    "other values called split": {"a.parquet": pa.table({"image": PICTURES, "label": WORDS, "set": list("abcdef")})},
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
    assert source.class_names == shards.info.class_names
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


def write_two(root: Path, first: pa.Table, second: pa.Table) -> Path:
    pq.write_table(first, root / "train.parquet")
    pq.write_table(second, root / "test.parquet")
    return root


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"label": ["a"] * 6}, r"train\.parquet: column 'label' holds numbers, but text in .*test\.parquet"),
        ({"label": [[1]] * 6}, r"holds numbers, but lists of numbers in .*test\.parquet; write the labels alike"),
        ({"label": pa.nulls(6)}, r"holds numbers, but null in .*test\.parquet"),
        ({}, r"test\.parquet: no column 'label', which .*train\.parquet has; take that file out"),
        ({"class": [1] * 6}, r"train\.parquet: no column 'class', which .*test\.parquet has"),
    ],
)
def test_files_whose_labels_differ_are_refused_by_both(tmp_path: Path, second: dict[str, Any], message: str) -> None:
    write_two(tmp_path, pa.table({"image": PICTURES, "label": NUMBERS}), pa.table({"image": PICTURES, **second}))
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path), cache=tmp_path)
    with pytest.raises(DatasetError, match=r"column 'label'|column 'class'"):
        ShardSet.open(tmp_path, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0.0, float("nan"), 1.0, None, 1.0, 0.0], ("0", "1")),
        ([0, -1, 1, None, 1, 0], ("0", "1")),
        (["x", "", "y", "NA", "z", "x"], ("x", "y", "z")),
    ],
)
def test_what_has_no_label_is_left_out_and_no_class_of_either(
    tmp_path: Path, labels: list[object], classes: tuple[str, ...]
) -> None:
    pq.write_table(pa.table({"image": PICTURES, "label": labels}), tmp_path / "a.parquet")
    source = open_source(str(tmp_path), cache=tmp_path)
    shards = ShardSet.open(tmp_path, cache=tmp_path / "cache")
    assert source.class_names == shards.info.class_names == classes
    assert [path[10] for path in source.rows["path"].to_pylist()] == ["0", "2", "4", "5"]
    assert source.notes == ("skipped 2 rows without a label",)
    with pytest.raises(DatasetError, match=r"row 1: label .* is none of the . classes; `sagitta convert` leaves rows"):
        _ = shards.splits["train"].labels


def test_views_of_bytes_in_structs_are_images(tmp_path: Path) -> None:
    rows = pa.array([{"bytes": data} for data in PICTURES], pa.struct([("bytes", pa.binary_view())]))
    pq.write_table(pa.table({"image": rows, "label": WORDS}), tmp_path / "a.parquet")
    source = open_source(str(tmp_path), cache=tmp_path)
    assert [source.reader.read(path) for path in source.rows["path"].to_pylist()] == PICTURES
    train = ShardSet.open(tmp_path, cache=tmp_path / "cache").splits["train"]
    assert [bytes(train.image(row)) for row in range(6)] == PICTURES


def test_a_file_without_any_label_is_named_among_those_skipped(tmp_path: Path) -> None:
    write_two(
        tmp_path,
        with_features({"image": PICTURES, "label": NUMBERS}, label=KINDS),
        with_features({"image": PICTURES, "label": [-1] * 6}, label=KINDS),
    )
    source = open_source(str(tmp_path), cache=tmp_path)
    assert source.notes == ("skipped 6 rows without a label (all of test.parquet)",)


def test_a_column_divides_the_rows_or_is_refused_where_it_cannot(tmp_path: Path) -> None:
    cells = ["train", "dev", "holdout"] * 2
    pq.write_table(pa.table({"image": PICTURES, "label": WORDS, "split": cells}), tmp_path / "a.parquet")
    source = open_source(str(tmp_path), cache=tmp_path)
    assert source.rows["split"].to_pylist() == ["train", "val", "test"] * 2
    assert source.notes == ("splits of column 'split' (train -> train, dev -> val, holdout -> test)",)
    with pytest.raises(DatasetError, match=r"a\.parquet: its column 'split' gives rows to test and train and val;"):
        ShardSet.open(tmp_path, cache=tmp_path / "cache")
    assert open_source(str(tmp_path), SourceOptions(split_column="none"), cache=tmp_path).rows["split"].null_count == 6


def test_booleans_of_validation_are_a_split_of_the_file_for_training_only(tmp_path: Path) -> None:
    flags = pa.table({"image": PICTURES, "label": WORDS, "is_valid": [False, True] + [False] * 4})
    write_two(tmp_path, flags, flags.set_column(2, "is_valid", pa.array([False] * 6)))
    source = open_source(str(tmp_path), cache=tmp_path)
    assert source.rows["split"].to_pylist() == ["test"] * 6 + ["train", "val"] + ["train"] * 4


def test_a_column_that_contradicts_its_files_name_is_refused(tmp_path: Path) -> None:
    given = pa.table({"image": PICTURES, "label": WORDS, "split": ["train"] * 6})
    write_two(tmp_path, given, given)
    with pytest.raises(SourceError, match=r"test\.parquet: is test by its name, but has train in splits of column"):
        open_source(str(tmp_path), cache=tmp_path)
    with pytest.raises(DatasetError, match=r"test\.parquet: its column 'split' gives rows to train, its name to test"):
        ShardSet.open(tmp_path, cache=tmp_path / "cache")


def test_values_of_a_split_column_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": PICTURES, "label": WORDS, "split": [0, 1, 2] * 2}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: split column 'split' holds 0, 1, 2; write train, val or test"):
        open_source(str(tmp_path), cache=tmp_path)


def test_images_of_which_only_the_path_is_stored_are_read_beside_the_file(tmp_path: Path) -> None:
    root = tmp_path / "given"
    (root / "data").mkdir(parents=True)
    (tmp_path / "out.png").write_bytes(image(9))
    (root / "data" / "a.png").write_bytes(image(0))
    (root / "b.png").write_bytes(image(1))
    paths = ["a.png", "b.png", str(root / "b.png"), "far.png", "../out.png", str(tmp_path / "out.png")]
    rows = pa.array([{"bytes": None, "path": path} for path in paths], IMAGE)
    pq.write_table(pa.table({"image": rows, "label": WORDS}), root / "data" / "x.parquet")
    source = open_source(str(root), cache=tmp_path)
    names = source.rows["path"].to_pylist()
    assert [source.reader.read(name) for name in names[:3]] == [image(0), image(1), image(1)]
    for name in names[3:]:
        with pytest.raises(ImageError, match=r"x\.parquet, row \d: no image bytes, and no file .*\.png beside"):
            source.reader.read(name)
    with pytest.raises(DatasetError, match=r"row 0: the image is null, only its path 'a\.png' is there"):
        ShardSet.open(root, cache=tmp_path / "cache").splits["train"].image(0)


def test_labels_that_are_no_text_are_an_error_of_ours(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": PICTURES, "label": [{"a": 1}] * 6}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"column 'label' of struct<a: int64> is no text or number"):
        open_source(str(tmp_path), cache=tmp_path)
    with pytest.raises(DatasetError, match=r"column 'label' of struct<a: int64> is no text or number"):
        ShardSet.open(tmp_path, cache=tmp_path / "cache")


@pytest.mark.parametrize("folder", ["", "test/"])
def test_the_only_folder_of_parquet_tells_its_split_in_both(tmp_path: Path, folder: str) -> None:
    (tmp_path / "given" / folder).mkdir(parents=True)
    pq.write_table(PLAIN, tmp_path / "given" / folder / "0.parquet")
    expected = "test" if folder else None
    assert set(open_source(str(tmp_path / "given"), cache=tmp_path).rows["split"].to_pylist()) == {expected}
    assert [*ShardSet.open(tmp_path / "given", cache=tmp_path / "cache").splits] == [expected or "train"]
