"""Which images a model has seen: written by a run, added up over what its weights were before, and found again."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sagitta.conversion import ConvertOptions
from sagitta.dataset import ShardSet
from sagitta.errors import DatasetError
from sagitta.evaluation.overlap import SEEN_FILE, Seen, digests_of, keep_seen, overlap_warnings, read_seen, seen_of
from sagitta.loading import ImageData
from sagitta.run import write_record


def shards(source: Path, **options: object) -> ShardSet:
    data = ImageData(source, convert=ConvertOptions(**options))  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data.shards


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))


def test_an_image_is_known_again_by_its_source_or_by_what_is_stored(photo_folder: Path) -> None:
    whole, small = shards(photo_folder), shards(photo_folder, resize=32)
    seen = seen_of(whole.splits, trained=("train",), chose=("val", "nothing"))
    rows = {name: len(split) for name, split in whole.splits.items()}
    assert (len(seen.trained), len(seen.chose)) == (rows["train"], rows["val"])  # stored as it was given: one digest
    for other in (whole, small):
        counts = {name: seen.count(digests_of(split), "trained") for name, split in other.splits.items()}
        assert counts == {"train": rows["train"], "val": 0, "test": 0}
        assert seen.count(digests_of(other.splits["val"]), "chose") == rows["val"]
    assert digests_of(small.splits["test"], [0, 2]).shape == (2, 2)
    assert len(seen_of(small.splits, trained=("train",), chose=()).trained) == 2 * rows["train"]


def test_a_run_knows_what_its_weights_were_trained_on_before(tmp_path: Path) -> None:
    def seen(*numbers: int) -> Seen:
        return Seen(np.array(numbers, np.uint64), np.array([2**64 - 1], np.uint64))

    for name in ("first", "second"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        write_record(tmp_path / name)
    (weights := tmp_path / "first" / "checkpoints" / "a.ckpt").touch()
    assert read_seen(tmp_path / "first") is None
    keep_seen(tmp_path / "first", seen(3, 5), tmp_path / "published.safetensors", None)
    keep_seen(tmp_path / "second", seen(5, 7), weights)
    keep_seen(tmp_path / "second", seen(11))  # a resumed run, whose data has grown
    found = read_seen(tmp_path / "second" / "checkpoints")
    assert found is None
    found = read_seen(tmp_path / "second")
    assert found is not None and found.trained.tolist() == [3, 5, 7, 11] and found.chose.tolist() == [2**64 - 1]


def test_a_bit_that_flips_in_it_is_found(tmp_path: Path) -> None:
    write_record(tmp_path)
    seen = Seen(np.array([3, 5, 2**40], np.uint64), np.array([7], np.uint64))
    keep_seen(tmp_path, seen)
    path = tmp_path / SEEN_FILE
    whole, ends = path.read_bytes(), Counter[str]()
    for place in range(0, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            found = read_seen(tmp_path)
            ends["the same" if found and found.checksum == seen.checksum else "wrong"] += 1
        except DatasetError as error:
            ends[str(error).partition(".")[0]] += 1
    assert set(ends) == {"the same", f"{tmp_path}/training_images"}
    assert ends["the same"] < 200  # statistics and the like, which nobody reads


def test_one_without_a_checksum_is_read(tmp_path: Path) -> None:
    write_record(tmp_path)
    keep_seen(tmp_path, seen := Seen(np.array([3, 5], np.uint64), np.array([7], np.uint64)))
    table = pq.read_table(tmp_path / SEEN_FILE)
    pq.write_table(table.replace_schema_metadata(None), tmp_path / SEEN_FILE)
    found = read_seen(tmp_path)
    assert found is not None and found.checksum == seen.checksum


def test_what_is_said_of_it() -> None:
    assert overlap_warnings(1600, 1280, 0) == [
        "1,280 of 1,600 images were trained on: the figures say little about new ones"
    ]
    assert overlap_warnings(10, 1, 2) == [
        "1 of 10 images was trained on: the figures say little about new ones",
        "2 of 10 images chose the checkpoint (val): the figures are somewhat too good",
    ]
    assert overlap_warnings(64, 1, None) == ["1 of 64 images was trained on: the figures are a little too good"]
    assert overlap_warnings(10, None, None) == overlap_warnings(10, 0, 0) == []
