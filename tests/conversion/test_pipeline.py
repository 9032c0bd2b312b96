import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sagitta.conversion.options import ConvertOptions
from sagitta.conversion.pipeline import cached, convert
from sagitta.dataset.schema import INFO_FILE, QUARANTINE_FILE, ROWS, DatasetInfo, Reader, Source, class_names_of
from sagitta.dataset.shards import ShardSet
from sagitta.errors import ConfigError, DatasetError, SagittaError, SourceError
from sagitta.files import content_hash
from sagitta.images import native
from sagitta.images.decoding import decode, read_header
from sagitta.images.encoding import add_restart_markers
from sagitta.sources.detect import open_source


@dataclass
class MemoryReader:
    images: dict[str, bytes]

    def read(self, path: str) -> bytes:
        return self.images[path]


def png(seed: int, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> bytes:
    """A small picture of noise, ``size`` (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def source_of(
    images: dict[str, bytes], splits: Sequence[str | None] | None = None, groups: Sequence[str | None] | None = None
) -> Source:
    """A source of ``CLASS/NAME`` -> bytes."""
    paths = list(images)
    labels = [path.split("/")[0] for path in paths]
    missing = [None] * len(paths)
    sizes = [len(data) for data in images.values()]
    rows = pa.table([paths, labels, splits or missing, groups or missing, sizes], schema=ROWS)
    return Source("memory", "pictures", rows, MemoryReader(images), tuple(sorted(set(labels))))


def noise(count: int, mode: str = "RGB") -> dict[str, bytes]:
    return {f"{'ab'[index % 2]}/{index:03d}.png": png(index, mode) for index in range(count)}


def heavy(source: Source) -> Source:
    """The same source, whose listing claims 100 MB: it is converted by several processes, in several parts."""
    share = -(-100 * 2**20 // source.rows.num_rows)
    return replace(source, rows=source.rows.set_column(4, "size", pa.array([share] * source.rows.num_rows)))


def read(out: Path, split: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(file, partitioning=None) for file in sorted((out / split).iterdir()))


def digests(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


# What is written.


def test_stored_bytes_are_the_files_and_columns_describe_them(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "here" / "out"
    info = convert(open_source(str(photo_folder), cache=tmp_path), out)
    assert info == DatasetInfo.read(out)
    assert {name: split.rows for name, split in info.splits.items()} == {"train": 32, "val": 4, "test": 4}
    for name in info.splits:
        rows = read(out, name).to_pylist()
        paths = [row["image"]["path"] for row in rows]
        assert paths == sorted(paths)
        for row in rows:
            data = (photo_folder / row["image"]["path"]).read_bytes()
            assert row.pop("image")["bytes"] == data
            assert info.class_names[row.pop("label")] == Path(paths.pop(0)).parts[0]
            assert row.pop("source_hash") == content_hash(data)
            told = {name: value for name, value in vars(read_header(data)).items() if name in row}
            assert row == {**told, "content_hash": content_hash(data)} and len(row) == 6
    assert not list(out.parent.glob(".*"))


def test_shards_are_uncompressed_plain_indexed_and_carry_the_class_names(tmp_path: Path) -> None:
    convert(source_of(noise(40)), tmp_path / "out")
    file = pq.ParquetFile(tmp_path / "out" / "train" / "00000.parquet")
    image = file.metadata.row_group(0).column(0)
    assert (image.path_in_schema, image.compression, image.has_dictionary_page) == (
        "image.bytes",
        "UNCOMPRESSED",
        False,
    )
    assert image.has_offset_index
    assert not image.is_stats_set
    assert set(image.encodings) == {"PLAIN", "RLE"}
    assert class_names_of(file.schema_arrow) == ("a", "b")


def test_shard_size_cuts_each_split_evenly(tmp_path: Path) -> None:
    images = noise(60)
    info = convert(source_of(images), tmp_path / "out", ConvertOptions(shard_size=4 * len(images["a/000.png"])))
    files = [pq.read_metadata(tmp_path / "out" / file).num_rows for file in info.splits["train"].files]
    assert info.splits["train"].files[:2] == ("train/00000.parquet", "train/00001.parquet")
    assert sum(files) == 48
    assert len(files) == 12
    assert max(files) <= 5


def test_statistics_weigh_each_training_image_the_same(tmp_path: Path) -> None:
    images = noise(40) | {f"a/big{index}.png": png(index, size=(40, 60)) for index in range(10)}
    info = convert(source_of(images), tmp_path / "out")
    train = [decode(row["bytes"]) / 255 for row in read(tmp_path / "out", "train")["image"].to_pylist()]
    mean = np.mean([pixels.mean((0, 1)) for pixels in train], axis=0)
    square = np.mean([(pixels**2).mean((0, 1)) for pixels in train], axis=0)
    np.testing.assert_allclose(info.mean, mean, atol=1e-6)
    np.testing.assert_allclose(info.std, np.sqrt(square - mean**2), atol=1e-6)
    assert (info.min_size, info.max_size) == ((10, 12), (60, 40))


def test_grey_images_make_one_channel_and_flat_ones_a_usable_deviation(tmp_path: Path) -> None:
    grey = convert(source_of(noise(20, "L")), tmp_path / "grey")
    assert grey.channels == 1
    assert len(grey.mean) == len(grey.std) == 1
    assert convert(source_of(noise(20, "L") | {"a/x.png": png(99)}), tmp_path / "mixed").channels == 3
    flat = {f"{label}/{index}.png": png(0, "L") for label in "ab" for index in range(3)}
    black = {path: encoded(np.zeros((4, 4), np.uint8)) for path in flat}
    info = convert(source_of(black), tmp_path / "flat", ConvertOptions(val=0, test=0))
    assert (info.mean, info.std) == ((0.0,), (0.003922,))


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_the_dataset_answers_how_it_was_prepared(tmp_path: Path) -> None:
    info = convert(source_of(noise(20)), tmp_path / "out", ConvertOptions(val=0.2, seed=3, workers=1))
    assert info.provenance["source"] == "memory"
    assert info.provenance["layout"] == "pictures"
    assert info.provenance["splits"].startswith("made from all rows: val 0.2, test 0.1 of each class")
    assert info.provenance["options"]["seed"] == 3
    assert "workers" not in info.provenance["options"]
    assert set(info.provenance["versions"]) == {"sagitta", "pyarrow", "pillow", "numpy"}


def test_given_splits_and_groups_are_kept(tmp_path: Path) -> None:
    images = noise(40)
    splits = ["test" if index < 8 else "train" for index in range(40)]
    groups = [str(index // 4) for index in range(40)]
    convert(source_of(images, splits, groups), tmp_path / "out", ConvertOptions(val=0.3))
    assert set(pc.struct_field(read(tmp_path / "out", "test")["image"], "path").to_pylist()) == set(list(images)[:8])
    val = pc.struct_field(read(tmp_path / "out", "val")["image"], "path").to_pylist()
    assert len(val) % 4 == 0
    assert len({int(path[2:5]) // 4 for path in val}) == len(val) // 4


def test_the_fingerprint_follows_content_labels_and_splits(tmp_path: Path) -> None:
    images = noise(30)
    renamed = {path.replace("0", "9"): data for path, data in images.items()}
    changed = images | {"a/000.png": png(999)}
    runs = [(images, 0), (renamed, 0), (changed, 0), (images, 1)]
    prints = [
        convert(source_of(each), tmp_path / str(number), ConvertOptions(seed=seed)).fingerprint
        for number, (each, seed) in enumerate(runs)
    ]
    assert len({prints[0], prints[2], prints[3]}) == 3


# Re-encoding.


def test_resize_reduces_the_larger_images_and_leaves_the_others_alone(tmp_path: Path) -> None:
    images = noise(20) | {f"b/big{index}.png": png(index, size=(90, 60)) for index in range(4)}
    info = convert(heavy(source_of(images)), tmp_path / "out", ConvertOptions(resize=30, val=0, test=0, workers=1))
    rows = {row["image"]["path"]: row for row in read(tmp_path / "out", "train").to_pylist()}
    assert info.max_size == (30, 45)
    for path, data in images.items():
        row = rows[path]
        assert row["content_hash"] == content_hash(row["image"]["bytes"])
        assert (row["format"], row["height"]) == ("JPEG", 30) if "big" in path else row["image"]["bytes"] == data


def test_quality_encodes_all_upright(data_dir: Path, tmp_path: Path) -> None:
    faces = {
        f"{label}/{path.name}": path.read_bytes()
        for label in "ab"
        for path in (data_dir / "exif-orientation").iterdir()
    }
    convert(source_of(faces), tmp_path / "out", ConvertOptions(quality=50, val=0, test=0))
    rows = read(tmp_path / "out", "train")
    assert set(rows["orientation"].to_pylist()) == {1}
    assert len(set(zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True))) == 1


@pytest.fixture
def core() -> None:
    if native.library() is None:
        pytest.skip("the native core is not built")


def mixed(photo_folder: Path) -> dict[str, bytes]:
    """JPEGs and PNGs, and JPEGs that cannot be marked: one cut off, others in CMYK."""
    images = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(photo_folder.rglob("*.jpg"))} | {
        f"china/{index}.png": png(index) for index in range(4)
    }
    cmyk = io.BytesIO()
    Image.new("CMYK", (40, 30), (9, 80, 7, 3)).save(cmyk, "JPEG")
    return images | {"flower/cmyk.jpg": cmyk.getvalue(), "china/cut.jpg": images["china/000.jpg"][:-600]}


@pytest.mark.usefixtures("core")
def test_restart_markers_change_bytes_but_no_pixel(photo_folder: Path, tmp_path: Path) -> None:
    images, options = mixed(photo_folder), ConvertOptions(restart_markers=True, val=0, test=0)
    info = convert(source_of(images), tmp_path / "out", options)
    assert info.provenance["options"]["restart_markers"] is True
    assert info.quarantined == 1
    rows = read(tmp_path / "out", "train").to_pylist()
    assert len(rows) == len(images) - 1
    for row in rows:
        stored, original = row["image"]["bytes"], images[row["image"]["path"]]
        assert row["content_hash"] == content_hash(stored)
        assert np.array_equal(decode(stored), decode(original))
        assert stored == add_restart_markers(original)  # which compares every coefficient
        assert (b"\xff\xd0" in stored) == (row["mode"] == "RGB" and row["format"] == "JPEG"), row["image"]["path"]
        if row["format"] == "PNG" or row["mode"] == "CMYK":
            assert stored == original


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("change", [{}, {"resize": 50}, {"quality": 60}])
def test_marked_datasets_are_the_same_bytes_for_any_workers(
    photo_folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    source = heavy(source_of(mixed(photo_folder)))
    for workers in (1, 3):
        options = ConvertOptions(restart_markers=True, shard_size=20_000, workers=workers)
        convert(source, tmp_path / str(workers), replace(options, **change))
    assert digests(tmp_path / "1") == digests(tmp_path / "3")


@pytest.mark.usefixtures("core")
def test_restart_markers_after_re_encoding(photo_folder: Path, tmp_path: Path) -> None:
    source = source_of(mixed(photo_folder))
    tables = []
    for marked in (True, False):
        options = ConvertOptions(restart_markers=marked, resize=50, quality=60, val=0, test=0)
        convert(source, tmp_path / str(marked), options)
        tables.append(read(tmp_path / str(marked), "train").to_pylist())
    for row, plain in zip(*tables, strict=True):
        stored, reencoded = row["image"]["bytes"], plain["image"]["bytes"]
        assert stored == add_restart_markers(reencoded)
        assert np.array_equal(decode(stored), decode(reencoded))
        assert min(row["height"], row["width"]) <= 50


def test_restart_markers_without_the_core_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", "0")
    with pytest.raises(ConfigError, match="restart markers need the native core"):
        convert(source_of(noise(8)), tmp_path / "out", ConvertOptions(restart_markers=True))
    assert not list(tmp_path.iterdir())


# The same bytes, whatever happens.


def test_the_number_of_workers_does_not_change_a_byte(photo_folder: Path, tmp_path: Path) -> None:
    (photo_folder / "china" / "broken.jpg").write_bytes(b"\xff\xd8 no")
    source = heavy(open_source(str(photo_folder), cache=tmp_path))
    for workers in (1, 2, 3):
        convert(source, tmp_path / str(workers), ConvertOptions(shard_size=20_000, workers=workers))
    assert digests(tmp_path / "1") == digests(tmp_path / "2") == digests(tmp_path / "3")
    assert len(digests(tmp_path / "1")) > 6


_SLOW = """
import sys, time
from dataclasses import replace
from pathlib import Path
from sagitta.conversion import ConvertOptions, convert
from sagitta.sources import open_source
source = open_source(sys.argv[1], cache=Path(sys.argv[2]))
class Slow:
    def read(self, path):
        time.sleep(float(sys.argv[4]))
        return source.reader.read(path)
convert(replace(source, reader=Slow()), Path(sys.argv[3]), ConvertOptions(shard_size=20_000))
"""


def slow(photos: Path, out: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Convert in a process that takes so long for each image."""
    command = [sys.executable, "-c", _SLOW, str(photos), str(out.parent), str(out), str(seconds)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_conversion_leaves_no_dataset_and_goes_on(
    photo_folder: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    out, work = tmp_path / "out", tmp_path / ".out.partial"
    process = slow(photo_folder, out, 0.02)
    first = work / "dataset" / "train" / "00000.parquet"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(ending)
    process.wait()
    assert not out.exists()
    with pytest.raises(DatasetError, match="not a converted dataset"):
        DatasetInfo.read(work / "dataset")
    kept = {file.name: file.stat() for file in (*(work / "scan").iterdir(), first)}
    source = open_source(str(photo_folder), cache=tmp_path)
    convert(source, out, ConvertOptions(shard_size=20_000))
    after = (out / "train" / "00000.parquet").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept[first.name].st_ino, kept[first.name].st_mtime_ns)
    convert(source, tmp_path / "whole", ConvertOptions(shard_size=20_000))
    assert digests(out) == digests(tmp_path / "whole")
    assert not work.exists()


def test_kills_at_any_moment_change_nothing(photo_folder: Path, tmp_path: Path) -> None:
    """A dataset is there whole or not at all, the next call goes on, and in the end nothing else is there."""
    convert(open_source(str(photo_folder), cache=tmp_path), tmp_path / "whole", ConvertOptions(shard_size=20_000))
    wanted, out, rng = digests(tmp_path / "whole"), tmp_path / "out", np.random.default_rng(0)
    for wait in (*rng.uniform(0, 0.7, 6), None):
        with slow(photo_folder, out, 0.005) as process:
            while not (out.exists() or (tmp_path / ".out.partial" / "key").exists()):
                time.sleep(0.002)
            if wait is not None:
                time.sleep(wait)
                process.kill()
        assert not out.exists() or digests(out) == wanted
    assert digests(out) == wanted
    with pytest.raises(DatasetError, match="exists already"):
        convert(open_source(str(photo_folder), cache=tmp_path), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos", "whole"]


_KILLED = """
import os, sys
from pathlib import Path
from sagitta.conversion import ConvertOptions, convert
from sagitta.sources import open_source
def hook(event, arguments):
    if event == "os.rename" and str(arguments[1]) == sys.argv[3]:
        os._exit(9)
source = open_source(sys.argv[1], cache=Path(sys.argv[2]))
sys.addaudithook(hook)
convert(source, Path(sys.argv[3]), ConvertOptions(shard_size=20_000, resize=32))
"""


def test_whatever_a_stopped_conversion_left_and_is_damaged_is_made_anew(photo_folder: Path, tmp_path: Path) -> None:
    """Killed at its last step, when all that it could go on from is there; then each file is damaged, once a time."""
    out, work = tmp_path / "out", tmp_path / ".out.partial"
    command = [sys.executable, "-c", _KILLED, str(photo_folder), str(tmp_path), str(out)]
    assert subprocess.run(command, capture_output=True).returncode == 9
    work.rename(tmp_path / "kept")
    source, options = open_source(str(photo_folder), cache=tmp_path), ConvertOptions(shard_size=20_000, resize=32)
    convert(source, tmp_path / "whole", options)
    wanted, rng = digests(tmp_path / "whole"), np.random.default_rng(0)
    files = sorted(path.relative_to(tmp_path / "kept") for path in (tmp_path / "kept").rglob("*") if path.is_file())
    assert {"scan", "dataset", "digests", "key"} <= {path.parts[0] for path in files}
    for file in files:
        shutil.copytree(tmp_path / "kept", work)
        data = bytearray((work / file).read_bytes() or b" ")
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        (work / file).write_bytes(data)
        convert(source, out, options)
        assert digests(out) == wanted, file
        shutil.rmtree(out)
        assert not work.exists()


@dataclass
class DeadlyReader(MemoryReader):
    """Ends its process as the system does that lacks memory, as long as a file is there."""

    deadly: Path

    def read(self, path: str) -> bytes:
        if path == "b/021.png" and self.deadly.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(path)


def test_a_worker_that_dies_is_one_line_and_the_work_goes_on(tmp_path: Path) -> None:
    source, options = heavy(source_of(noise(40))), ConvertOptions(workers=2)
    deadly = replace(source, reader=DeadlyReader(noise(40), tmp_path / "deadly"))
    (tmp_path / "deadly").touch()
    with pytest.raises(SagittaError, match=r"a worker process died, .* run the same command again"):
        convert(deadly, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    (tmp_path / "deadly").unlink()
    convert(deadly, tmp_path / "out", replace(options, workers=1))
    convert(source, tmp_path / "whole", replace(options, workers=1))
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@dataclass
class InterruptedReader(MemoryReader):
    """Behaves as if somebody pressed Ctrl-C at the tenth image of class b."""

    def read(self, path: str) -> bytes:
        if path == "b/021.png":
            raise KeyboardInterrupt
        return super().read(path)


def test_what_was_begun_with_other_options_is_not_used(tmp_path: Path) -> None:
    source = heavy(source_of(noise(40)))
    interrupted = replace(source, reader=InterruptedReader(noise(40)))
    with pytest.raises(KeyboardInterrupt):
        convert(interrupted, tmp_path / "out", ConvertOptions(resize=4, workers=1))
    assert list((tmp_path / ".out.partial" / "scan").iterdir())
    assert convert(source, tmp_path / "out", ConvertOptions(workers=1)).max_size == (10, 12)


@dataclass
class FickleReader:
    """Gives other bytes from the second reading on."""

    reader: Reader
    seen: set[str]

    def read(self, path: str) -> bytes:
        again = path in self.seen
        self.seen.add(path)
        return self.reader.read(path) + b" " * again


def test_a_file_that_changes_meanwhile_is_named(tmp_path: Path) -> None:
    source = source_of(noise(20))
    with pytest.raises(SourceError, match=r"memory: a/000\.png has changed since it was scanned"):
        convert(
            replace(source, reader=FickleReader(source.reader, set())), tmp_path / "out", ConvertOptions(test=0, val=0)
        )
    assert not (tmp_path / "out").exists()


def test_what_a_source_encodes_itself_is_encoded_once(tmp_path: Path) -> None:
    source = source_of(noise(20))
    once = replace(source, reader=FickleReader(source.reader, set()), encodes=True)
    convert(once, tmp_path / "once", ConvertOptions(workers=1))
    convert(source, tmp_path / "twice", ConvertOptions(workers=1))
    assert digests(tmp_path / "once") == digests(tmp_path / "twice")


# Bad input.


def test_unreadable_images_are_quarantined_with_a_reason(tmp_path: Path) -> None:
    images = noise(20) | {"b/empty.png": b"", "a/zero.png": b"zero", "a/cut.png": png(1)[:200]}
    info = convert(source_of(images), tmp_path / "out")
    bad = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert info.quarantined == 3
    assert [(row["path"], row["label"]) for row in bad] == [
        ("a/cut.png", "a"),
        ("a/zero.png", "a"),
        ("b/empty.png", "b"),
    ]
    assert bad[2]["reason"] == "the file is empty"
    assert "truncated" in bad[0]["reason"]


def test_on_bad_fail_names_the_first_and_how_many(tmp_path: Path) -> None:
    images = noise(20) | {"b/empty.png": b"", "a/zero.png": b"zero"}
    with pytest.raises(SourceError, match=r"2 of 22 images cannot be read, the first is a/zero\.png: not an image"):
        convert(source_of(images), tmp_path / "out", ConvertOptions(on_bad="fail"))
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_opened_is_quarantined(photo_folder: Path, tmp_path: Path) -> None:
    (photo_folder / "china" / "007.jpg").unlink()
    (photo_folder / "china" / "007.jpg").symlink_to("nowhere")
    assert convert(open_source(str(photo_folder), cache=tmp_path), tmp_path / "out").quarantined == 1
    (row,) = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert row["reason"] == "cannot be read: No such file or directory"


@pytest.mark.parametrize("after", ["listing", "scanning"])
def test_files_that_were_listed_and_are_gone_stop_the_conversion_which_goes_on(
    photo_folder: Path, tmp_path: Path, after: str
) -> None:
    """Not quarantined: of a disk that is unplugged half a dataset would be made."""
    source, out, away = open_source(str(photo_folder), cache=tmp_path), tmp_path / "out", tmp_path / "away"
    reader = GoneReader(source.reader, photo_folder, away, 0 if after == "listing" else 40)
    with pytest.raises(SagittaError, match=r"/000\.jpg: listed, but it cannot be read now .No such file"):
        convert(replace(source, reader=reader), out, ConvertOptions(shard_size=20_000))
    assert not out.exists() and (tmp_path / ".out.partial" / "scan").exists() == (after == "scanning")
    away.rename(photo_folder)
    convert(source, out, ConvertOptions(shard_size=20_000))
    convert(source, tmp_path / "whole", ConvertOptions(shard_size=20_000))
    assert digests(out) == digests(tmp_path / "whole") and out.exists()


@dataclass
class GoneReader:
    """Moves the folder away when so many files were read."""

    reader: Reader
    folder: Path
    away: Path
    count: int

    def read(self, path: str) -> bytes:
        if self.count == 0:
            self.folder.rename(self.away)
        self.count -= 1
        return self.reader.read(path)


def test_too_many_open_files_say_nothing_about_an_image(tmp_path: Path) -> None:
    source = replace(source_of(noise(20)), reader=CrowdedReader())
    with pytest.raises(SagittaError, match=r"a/000\.png: listed, but it cannot be read now .Too many open files"):
        convert(source, tmp_path / "out")


class CrowdedReader:
    def read(self, path: str) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"a/1.png": b"", "b/2.png": b"x"}, "no readable image among 2; the first is a/1.png: the file is empty"),
        (noise(8) | {"c/1.png": b""}, "class 'c' has no readable image"),
        ({"a/1.png": png(1), "a/2.png": png(2)}, "one class only"),
    ],
)
def test_sources_that_train_nothing_are_refused(images: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        convert(source_of(images), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_class_with_one_image_stops_no_other(tmp_path: Path) -> None:
    source = source_of(noise(12) | {"c/1.png": png(50)})
    info = convert(source, tmp_path / "kept")
    assert info.class_names == ("a", "b", "c")
    assert any(warning.startswith("1 class has a single readable image") for warning in info.warnings)
    without = convert(source, tmp_path / "without", ConvertOptions(min_images=2))
    assert (without.class_names, without.quarantined) == (("a", "b"), 1)
    (left_out,) = pq.read_table(tmp_path / "without" / QUARANTINE_FILE).to_pylist()
    assert left_out == {"path": "c/1.png", "label": "c", "reason": "class 'c' has fewer than 2 readable images"}
    unreadable = source_of(noise(12) | {"c/1.png": b""})
    assert convert(unreadable, tmp_path / "unreadable", ConvertOptions(min_images=1)).class_names == ("a", "b")


def test_groups_on_both_sides_of_given_splits_are_refused_unless_asked(tmp_path: Path) -> None:
    source = source_of(noise(8), ["train"] * 6 + ["test"] * 2, [f"p{index % 3}" for index in range(8)])
    with pytest.raises(SourceError, match=r"2 of 3 groups are in several splits: 'p0' is in train and test; .*overlap"):
        convert(source, tmp_path / "out")
    info = convert(source, tmp_path / "out", ConvertOptions(val=0, allow_group_overlap=True))
    assert any("groups are in several splits" in warning for warning in info.warnings)


@pytest.mark.parametrize("purpose", ["test", "val"])
def test_data_to_be_tested_keeps_every_row_and_needs_no_two_classes(purpose: Any, tmp_path: Path) -> None:
    source = source_of({f"a/{index}.png": png(index) for index in range(5)}, [None, "train", "test", None, None])
    info = convert(source, tmp_path / "out", ConvertOptions(purpose=purpose))
    rows = {name: split.rows for name, split in info.splits.items()}
    assert rows == Counter(purpose if given is None else given for given in (None, "train", "test", None, None))
    undivided = convert(source_of({"a/1.png": png(1)}), tmp_path / "one", ConvertOptions(purpose=purpose))
    assert (undivided.splits[purpose].rows, undivided.mean) == (1, ())


def test_what_a_dataset_says_comes_back_with_what_a_later_one_would_add(tmp_path: Path) -> None:
    info = convert(source_of(noise(8)), tmp_path / "out")
    path = tmp_path / "out" / INFO_FILE
    assert DatasetInfo.read(tmp_path / "out") == info
    later = replace(info, unknown={"licence": "CC0"})
    path.write_text(later.to_json())
    assert DatasetInfo.read(tmp_path / "out") == later
    path.write_text(later.to_json().replace("CC0", "CC1"))
    with pytest.raises(DatasetError, match="not as it was written"):
        DatasetInfo.read(tmp_path / "out")
    path.write_text(later.to_json().replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(DatasetError, match="format version 3, this Sagitta reads 1 and 2"):
        DatasetInfo.read(tmp_path / "out")


def test_every_image_keeps_the_hash_of_what_the_person_gave(tmp_path: Path) -> None:
    images = {f"{'ab'[index % 2]}/{index}.png": png(index, size=(40, 40)) for index in range(8)}
    convert(source_of(images), tmp_path / "out", ConvertOptions(resize=16))
    split = ShardSet.open(tmp_path / "out").splits["train"]
    wanted = {path: content_hash(data) for path, data in images.items()}
    assert split.source_hashes.to_pylist() == [wanted[split.path(row)] for row in range(len(split))]
    assert split.source_hashes != split.content_hashes


def test_an_existing_output_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="exists"):
        convert(source_of(noise(8)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize(
    "values", [{"quality": 101}, {"resize": 0}, {"workers": 0}, {"shard_size": -1}, {"on_bad": "x"}]
)
def test_options_out_of_range_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        ConvertOptions(**values)  # type: ignore[arg-type]  # one of them is wrong on purpose


_FULL = """
import resource, sys
from pathlib import Path
from sagitta.conversion import convert
from sagitta.errors import SagittaError
from sagitta.sources import open_source
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # what a full disk does to a large file
try:
    convert(open_source(sys.argv[1], cache=Path(sys.argv[2])), Path(sys.argv[3]))
except SagittaError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_the_work_goes_on(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", _FULL, str(photo_folder), str(tmp_path), str(out)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.count("\n") == 1
    assert told.startswith(f"{out}: larger than a file may be here; ") and "is kept, and the same command goes" in told
    assert not out.exists()
    assert not list((tmp_path / ".out.partial").glob("*.tmp"))
    convert(open_source(str(photo_folder), cache=tmp_path), out)


_ODD = """
import re, sys
from pathlib import Path
from sagitta.conversion import ConvertOptions, convert
from sagitta.sources import open_source
convert(open_source(sys.argv[1], cache=Path(sys.argv[2])), Path(sys.argv[3]), ConvertOptions(workers=1))
# Not ru_maxrss, in which the process that started this one counts too.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_odd_images_are_kept_or_quarantined_as_the_manifest_says(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    for name, files in (("odd", data_dir / "odd-images"), ("photo", data_dir / "butterflies" / "Pieris_rapae")):
        (folder / name).mkdir(parents=True)
        for file in files.iterdir():
            (folder / name / file.name).symlink_to(file)
    out = tmp_path / "out"
    command = [sys.executable, "-c", _ODD, str(folder), str(tmp_path), str(out)]
    kilobytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kilobytes < 2**20
    bad = {row["path"]: row["reason"] for row in pq.read_table(out / "quarantine.parquet").to_pylist()}
    rows = pa.concat_tables(read(out, name) for name in ("train", "val", "test"))
    kept = set(pc.struct_field(rows["image"], "path").to_pylist())
    manifest = (data_dir / "odd-images" / "manifest.csv").read_text().splitlines()[1:]
    assert len(manifest) == 74
    for line in manifest:
        # Of "bad zTXt" the pixels are damaged, too: plain Pillow refuses it, and gives it when asked a second time.
        path, fine = f"odd/{line.split(',')[0]}", line.endswith(",ok") and "bad zTXt" not in line
        assert path in (kept if fine else bad), line
    assert all(bad.values())
    assert all("\n" not in reason for reason in bad.values())


# The cache.


def test_the_cache_converts_once_and_again_after_a_change(photo_folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def path(options: ConvertOptions = ConvertOptions()) -> Path:
        return cached(open_source(str(photo_folder), cache=cache), cache, options)

    first = path()
    made = (first / INFO_FILE).stat()
    assert path() == first
    assert (first / INFO_FILE).stat() == made
    assert path(ConvertOptions(workers=1)) == first
    assert path(ConvertOptions(val=0.2)) != first
    photo = photo_folder / "china" / "000.jpg"
    os.utime(photo, ns=(0, 1))
    assert path() != first
    photo.unlink()
    assert DatasetInfo.read(path()).splits["train"].rows == 31


@pytest.mark.parametrize("name", [INFO_FILE, "train/00000.parquet footer", "train/00000.parquet label", "val"])
def test_what_is_damaged_in_the_cache_is_made_again(
    photo_folder: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = open_source(str(photo_folder), cache=tmp_path)
    out = cached(source, tmp_path / "cache")
    wanted = digests(out)
    (path,) = (out / name.partition(" ")[0]).glob("*.parquet") if name == "val" else [out / name.partition(" ")[0]]
    split = ShardSet.open(out).splits["test"]
    data = bytearray(path.read_bytes())
    data[data.index(b"\0\0\0\0\1\0\0\0\0\0\0\0") if "label" in name else len(data) - 40] ^= 1
    path.unlink() if name == "val" else path.write_bytes(data)
    capsys.readouterr()
    assert cached(source, tmp_path / "cache") == out
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and f"; it is made again from {photo_folder}" in told and str(path) in told
    shutil.rmtree(out / ".sagitta-index")
    assert digests(out) == wanted
    assert [each.name for each in (tmp_path / "cache" / "datasets").iterdir()] == [out.name]
    assert content_hash(split.image(0)) == split.content_hashes[0].as_py()  # who has it open goes on
    cached(source, tmp_path / "cache", progress=True)
    assert "made again" not in capsys.readouterr().out


_CACHED = """
import sys
from pathlib import Path
from sagitta.conversion import cached
from sagitta.sources import open_source
path = cached(open_source(sys.argv[1], cache=Path(sys.argv[2])), Path(sys.argv[2]))
print(path, (path / "sagitta.json").stat().st_ino)
"""


def test_of_concurrent_calls_one_converts_and_the_others_wait(photo_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CACHED, str(photo_folder), str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 3
    assert len(told) == 1
    (out,) = (tmp_path / "cache" / "datasets").iterdir()
    (out / INFO_FILE).write_text("damaged")
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    again = "".join(process.communicate()[0] for process in processes)
    assert [process.returncode for process in processes] == [0] * 3
    assert again.count("made again") == 1
    assert list((tmp_path / "cache" / "datasets").iterdir()) == [out]


# Other tools.


def test_hugging_face_datasets_opens_it(photo_folder: Path, tmp_path: Path) -> None:
    convert(open_source(str(photo_folder), cache=tmp_path), tmp_path / "out")
    script = (
        "import json, sys, datasets; d = datasets.load_dataset(sys.argv[1]);"
        "print(json.dumps({'rows': d.num_rows, 'names': d['train'].features['label'].names,"
        "'sizes': [[r['image'].size, [r['width'], r['height']]] for r in d['test']]}))"
    )
    env = {**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    told = json.loads(result.stdout)
    assert told["rows"] == {"train": 32, "validation": 4, "test": 4}
    assert told["names"] == ["china", "flower"]
    assert all(size == columns for size, columns in told["sizes"])


def test_pandas_polars_and_duckdb_open_it(photo_folder: Path, tmp_path: Path) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    convert(open_source(str(photo_folder), cache=tmp_path), tmp_path / "out")
    train = tmp_path / "out" / "train"
    frame = pd.read_parquet(train)
    assert frame["label"].value_counts().to_dict() == {0: 16, 1: 16}
    assert Image.open(io.BytesIO(frame["image"][0]["bytes"])).size == (frame["width"][0], frame["height"][0])
    assert pl.read_parquet(train / "*.parquet").group_by("label").len().sort("label")["len"].to_list() == [16, 16]
    query = f"select label, count(*), min(length(image.path)) from '{train}/*.parquet' group by 1 order by 1"
    assert duckdb.execute(query).fetchall() == [(0, 16, 13), (1, 16, 14)]
