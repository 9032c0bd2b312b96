import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from sagitta.errors import ImageError, SourceError
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
        ({"label": ["a"], "s": ["dev"]}, SourceOptions(split_column="s"), r"split column 's' holds dev; write train"),
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
