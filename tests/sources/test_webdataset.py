import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sagitta.dataset.schema import Source
from sagitta.errors import SourceError
from sagitta.sources.detect import open_source

from .conftest import Files, image, pack, write_files

Open = Callable[..., Source]
SHARD: Files = {"000.jpg": None, "000.cls": "1\n", "001.x.png": None, "001.cls": "0", "002.jpg": None}


def write_shards(root: Path, shards: dict[str, Files]) -> Path:
    """Write each shard as a tar in ``root``."""
    for name, files in shards.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        pack(write_files(root.parent / "parts" / name / "given", files), "tar").rename(target)
    return root


def test_one_tar(open_files: Open) -> None:
    source = open_files(SHARD)
    shard = Path(source.location).name
    assert source.rows["path"].to_pylist() == [f"{shard}/000.jpg", f"{shard}/001.x.png"]
    assert source.rows["label"].to_pylist() == ["1", "0"]
    assert source.class_names == ("0", "1")
    assert source.notes == ("skipped 1 sample without a label",)
    assert source.reader.read(f"{shard}/000.jpg") == image(0)


def test_shards_with_splits_and_class_names(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards", {"train-00.tar": SHARD, "train-01.tar": SHARD, "sub/val-00.tar": SHARD})
    (root / "sizes.json").write_text('{"train-00.tar": 3}')
    (root / "classnames.txt").write_text("zebra\nant\n")
    source = open_source(str(root), cache=tmp_path)
    assert source.layout == "WebDataset, 3 shards"
    assert source.class_names == ("zebra", "ant")
    assert list(zip(*(source.rows[name].to_pylist() for name in ("path", "label", "split")), strict=True)) == [
        ("sub/val-00.tar/000.jpg", "ant", "val"),
        ("sub/val-00.tar/001.x.png", "zebra", "val"),
        ("train-00.tar/000.jpg", "ant", "train"),
        ("train-00.tar/001.x.png", "zebra", "train"),
        ("train-01.tar/000.jpg", "ant", "train"),
        ("train-01.tar/001.x.png", "zebra", "train"),
    ]
    assert source.reader.read("train-01.tar/001.x.png") == image(2)


def test_labels_in_json(open_files: Open) -> None:
    labels = {"a.json": json.dumps({"label": "cat"}), "b.json": json.dumps({"class": 7}), "c.json": "{"}
    assert open_files({"a.jpg": None, "b.jpg": None, "c.jpg": None} | labels).rows["label"].to_pylist() == ["cat", "7"]


def test_json_beside_images_in_class_folders_is_not_a_label(open_folder: Open) -> None:
    files = {"cat/a.jpg": None, "cat/a.json": '{"shapes": []}', "dog/b.jpg": None, "dog/b.json": '{"shapes": []}'}
    assert open_folder(files).layout == "class folders"


def test_a_label_outside_the_class_names(open_folder: Open) -> None:
    with pytest.raises(SourceError, match=r"000\.cls has label 1, but classnames\.txt has only 1 other line"):
        open_folder({**SHARD, "classnames.txt": "ant\n"})
    names = {"000.cls": "ant", "001.cls": "1", "classnames.txt": "ant\nbee\n"}
    assert open_folder({**SHARD, **names}).rows["label"].to_pylist() == ["ant", "bee"]
    with pytest.raises(SourceError, match=r"000\.cls has label cow, but classnames\.txt has only 2 other lines; mend"):
        open_folder({**SHARD, **names, "000.cls": "cow"})


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards", {"00.tar": SHARD})
    (root / "01.tar").write_bytes(b"\x1f\x8b not a tar")
    with pytest.raises(SourceError, match=r"01\.tar: not a whole, uncompressed tar"):
        open_source(str(root), cache=tmp_path)


def test_the_plain_extension_is_the_image(open_folder: Open) -> None:
    source = open_folder({"0.depth.png": None, "0.jpg": None, "0.cls": "a", "1.rgb.png": None, "1.cls": "b"})
    assert [path.rpartition("/")[2] for path in source.rows["path"].to_pylist()] == ["0.jpg", "1.rgb.png"]


@pytest.mark.parametrize("names", [("0.jpg", "0.png"), ("0.left.jpg", "0.right.jpg")])
def test_two_images_of_one_sample_are_refused(open_folder: Open, names: tuple[str, str]) -> None:
    with pytest.raises(SourceError, match=f"{names[0]} and {names[1]} are two images of one sample; leave one"):
        open_folder({**dict.fromkeys(names), "0.cls": "a"})


def test_words_in_the_names_of_shards_are_mapped_and_said(tmp_path: Path) -> None:
    root = write_shards(tmp_path / "shards", {"x-training-0.tar": SHARD, "x-eval-0.tar": SHARD, "x-more-0.tar": SHARD})
    source = open_source(str(root), cache=tmp_path)
    assert source.rows["split"].to_pylist() == ["test"] * 2 + ["train"] * 4
    assert source.notes[0] == "splits: x-more-0.tar -> train, training -> train, eval -> test"
