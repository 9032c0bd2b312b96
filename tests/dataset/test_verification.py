"""One flipped bit anywhere in a dataset is found, and named: its file, its row or column where there is one."""

import json
import random
import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sagitta.conversion.options import ConvertOptions
from sagitta.conversion.pipeline import convert
from sagitta.dataset import FORMAT_VERSION, ShardSet
from sagitta.dataset.pages import damaged_values
from sagitta.dataset.parquet import mapped, read_chunks
from sagitta.dataset.verification import verify
from sagitta.errors import DatasetError, SagittaError
from sagitta.sources.base import SourceOptions
from sagitta.sources.detect import open_source


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 255, (6, 6, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    (folder / "photos" / "dog" / "bad.png").write_bytes(b"none")
    convert(open_source(str(folder / "photos"), cache=folder), folder / "data", ConvertOptions(workers=1))
    return folder / "data"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def flip(path: Path, byte: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def damage(root: Path) -> str:
    """Return the one line of what is damaged."""
    try:
        (line,) = verify(root).damage
    except DatasetError as error:
        line = str(error)
    return line


def found(path: Path, some: bytes) -> int:
    return path.read_bytes().index(some)


def test_a_whole_dataset(root: Path) -> None:
    result = verify(root)
    assert (result.rows, result.files, result.damage) == (24, 5, ())
    assert str(result) == f"{root}: 24 rows in 5 files, all as they were written"


@pytest.mark.parametrize(
    ("inside", "line"),
    [
        (b"IDAT", "row 0 (cat/1.png): not the image that was converted"),
        (b"cat/1", "rows 0 to 19: column image.path is not as it was written"),
        (b"PNG\3\0\0\0PNG", "rows 0 to 19: column format is not as it was written"),
    ],
)
def test_what_is_damaged_is_named(root: Path, inside: bytes, line: str) -> None:
    path = root / "train" / "00000.parquet"
    flip(path, found(path, inside))
    told = damage(root)
    assert told.startswith(f"{path}, {line}; fetch it again, or convert its source again")


def test_a_flipped_label_is_an_error_wherever_it_is_read(root: Path) -> None:
    path = root / "train" / "00000.parquet"
    labels = ShardSet.open(root).splits["train"].labels
    (chunk,) = read_chunks(path, "label")
    flip(path, found(path, labels.tobytes()[:40]))
    with mapped(path) as data:
        assert list(damaged_values(data, chunk.start, chunk.size, chunk.rows)) == [(0, 20)]
    with pytest.raises(DatasetError, match=r"train/00000.parquet: cannot be read .*(CRC|checksum)"):
        _ = ShardSet.open(root).splits["train"].labels
    assert damage(root).startswith(f"{path}, rows 0 to 19: column label is not as it was written")


def test_lists_of_labels_are_named_by_their_row_group(root: Path, tmp_path: Path) -> None:
    images = (root.parent / "several").resolve()
    images.mkdir()
    rows = ["path,labels"]
    for number in range(12):
        Image.new("L", (4, 4), number * 20).save(images / f"{number}.png")
        rows.append(f"{number}.png,{'a;b' if number % 3 else 'a'}")
    (images / "labels.csv").write_text("\n".join(rows))
    rule = ConvertOptions(workers=1, val=0.0, test=0.0)
    convert(open_source(str(images), SourceOptions(label_separator=";"), cache=tmp_path), tmp_path / "lists", rule)
    assert verify(tmp_path / "lists").damage == ()
    path = tmp_path / "lists" / "train" / "00000.parquet"
    (chunk,) = read_chunks(path, "label.list.element")
    assert (chunk.rows, chunk.values) == (12, 20)
    flip(path, chunk.start + chunk.size - 8)
    assert damage(tmp_path / "lists").startswith(f"{path}, rows 0 to 11: column label.list.element is not as it was")


def test_a_length_before_an_image(root: Path) -> None:
    path = root / "val" / "00000.parquet"
    flip(path, found(path, b"\x89PNG") - 4)
    assert re.search(r"val/00000.parquet, row \d: damaged", damage(root))


def test_class_names_counts_and_everything_else_in_the_json(root: Path) -> None:
    path = root / "sagitta.json"
    whole = path.read_bytes()
    for word in (b'"cat"', b'"rows": ', b'"mean"', b'"checksum"', b'"format_version"', b'"files"'):
        flip(path, found(path, word) + 2)
        for read in (verify, ShardSet.open):
            with pytest.raises(DatasetError, match=r"sagitta.json: .*convert the source again"):
                read(root)
        path.write_bytes(whole)


def test_a_footer_is_refused_before_arrow_reads_it(root: Path) -> None:
    path = root / "test" / "00000.parquet"
    flip(path, path.stat().st_size - 40)
    line = f"{path}: (another|not the) size or (the )?footer (than|that) was written; fetch it again"
    with pytest.raises(DatasetError, match=line):
        ShardSet.open(root)
    assert re.search(line, damage(root))


def test_the_table_of_what_was_left_out(root: Path) -> None:
    path = root / "quarantine.parquet"
    flip(path, found(path, b"bad.png"))
    assert damage(root).startswith(f"{path}: not the table that was written")
    path.unlink()
    assert damage(root).startswith(f"{path}: the file is missing")


def test_missing_and_shortened_shards_are_all_named(root: Path) -> None:
    (root / "val" / "00000.parquet").unlink()
    path = root / "test" / "00000.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    result = verify(root)
    assert {line.partition(": ")[0] for line in result.damage} == {str(path), str(root / "val" / "00000.parquet")}
    assert str(result).startswith(f"{root}: damaged in 2 places; fetch it again")


def test_any_flipped_bit_is_found_and_its_file_named(root: Path) -> None:
    rng = random.Random(0)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    truth = said(root)
    for _ in range(100):
        path = rng.choice(files)
        whole = path.read_bytes()
        byte, bit = rng.randrange(len(whole)), rng.randrange(8)
        flip(path, byte, bit)
        line = damage(root)
        assert str(path) in line and "as they were written" not in line, (path.name, byte, bit)
        with suppress(SagittaError):
            assert said(root) == truth, (path.name, byte, bit)
        path.write_bytes(whole)
        shutil.rmtree(root / ".sagitta-index", ignore_errors=True)


def said(root: Path) -> list[object]:
    """Return all that reading gives beside the bytes inside an image."""
    with ShardSet.open(root) as shards:
        answers: list[object] = [shards.info]
        for split in shards.splits.values():
            columns = [split.column(name) for name in ("width", "height", "orientation", "format", "mode")]
            answers += [None if column is None else column.tolist() for column in columns]
            answers += [split.labels.tolist(), split.content_hashes.to_pylist(), split.source_hashes.to_pylist()]
            answers += [(split.path(row), len(split.image(row))) for row in range(len(split))]
    return answers


def older(root: Path, *fields: str, version: int = FORMAT_VERSION) -> None:
    """Leave out what a dataset of an earlier Sagitta does not have."""
    path = root / "sagitta.json"
    values = json.loads(path.read_text())
    for name in fields:
        values.pop(name, None)
        for split in values["splits"].values():
            split.pop(name, None)
    values |= {"format_version": version}
    path.write_text(json.dumps(values | ({"checksum": None} if version > 1 else {})))


def test_a_dataset_of_0_1_0_opens_and_is_verified_by_its_hashes_and_its_fingerprint(root: Path) -> None:
    older(root, "checksum", "checksums", "footers", "quarantine_checksum", version=1)
    assert verify(root).damage == ()
    path = root / "train" / "00000.parquet"
    table = pq.read_table(path)
    labels = table["label"].to_pylist()
    other = table.set_column(1, table.schema.field(1), pa.array([1 - labels[0], *labels[1:]]))
    pq.write_table(other, path, compression="none", use_dictionary=False)
    assert damage(root).startswith(f"{root / 'sagitta.json'}: tells of other classes, labels or images")
    pq.write_table(table.slice(1), path, compression="zstd")
    assert "not the 20 rows that sagitta.json tells of" in damage(root)
    pq.write_table(table.drop_columns(["content_hash"]), path)
    assert "no column content_hash" in damage(root)


def test_images_that_somebody_has_compressed_are_verified_too(root: Path) -> None:
    older(root, "checksum", "checksums", "footers")
    path = root / "train" / "00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table, path, compression="zstd")
    assert verify(root).damage == ()
    images = table["image"].to_pylist()
    images[3]["bytes"] = images[4]["bytes"]
    other = pa.array(images, table.schema.field("image").type)
    pq.write_table(table.set_column(0, table.schema.field("image"), other), path, compression="zstd")
    name = images[3]["path"]
    assert damage(root).startswith(f"{path}, row 3 ({name}): not the image that was converted")


def test_of_many_images_the_first_are_named(root: Path) -> None:
    path = root / "train" / "00000.parquet"
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"IDAX"))
    result = verify(root)
    names = [image["path"] for image in pq.read_table(path, columns=["image"])["image"].to_pylist()[:10]]
    wanted = [f"{path}, row {row} ({name})" for row, name in enumerate(names)]
    assert [line.partition(": ")[0] for line in result.damage[:-1]] == wanted
    assert result.damage[-1].startswith(f"{path}: more images than these 10") and len(result.damage) == 11


def test_what_is_no_converted_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such dataset"):
        verify(tmp_path / "nothing")
