import base64
import io
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sagitta.dataset.schema import DatasetInfo, SplitInfo, image_schema
from sagitta.dataset.shards import ShardSet
from sagitta.errors import DatasetError
from sagitta.files import content_hash

UNCOMPRESSED: dict[str, Any] = {"compression": "none", "use_dictionary": False}


def random_images(count: int, seed: int = 0, largest: int = 60) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [rng.bytes(int(size)) for size in rng.integers(0, largest, count)]


def table_of(images: Sequence[bytes | None], labels: Sequence[Any] | None = None) -> pa.Table:
    structs = [{"bytes": image, "path": f"{row}.jpg"} for row, image in enumerate(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [row % 2 for row in range(len(images))] if labels is None else labels
    return pa.table({"image": pa.array(structs, kind), "label": values})


def write_dataset(root: Path, images: Sequence[bytes], shards: int = 2) -> ShardSet:
    """Write ``images`` as a converted dataset with one split and open it."""
    labels = [row % 2 for row in range(len(images))]
    files = []
    (root / "train").mkdir(parents=True)
    for shard, rows in enumerate(np.array_split(np.arange(len(images)), shards)):
        columns = {
            "image": [{"bytes": images[row], "path": f"a/{row}.jpg"} for row in rows],
            "label": [labels[row] for row in rows],
            "width": [10 + int(row) for row in rows],
            "height": [20] * len(rows),
            "orientation": [1] * len(rows),
            "format": ["JPEG"] * len(rows),
            "mode": ["RGB"] * len(rows),
            "source_hash": [content_hash(images[row]) for row in rows],
            "content_hash": [content_hash(images[row]) for row in rows],
        }
        files.append(f"train/{shard:05d}.parquet")
        table = pa.table(columns, schema=image_schema(["cat", "dog"]))
        pq.write_table(table, root / files[-1], row_group_size=5, write_page_index=True, **UNCOMPRESSED)
    info = DatasetInfo(
        class_names=("cat", "dog"),
        channels=3,
        splits={"train": SplitInfo(len(images), tuple(files))},
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        min_size=(20, 10),
        max_size=(20, 10 + len(images)),
        fingerprint="f" * 32,
    )
    (root / "sagitta.json").write_text(info.to_json())
    return ShardSet.open(root)


def read_all(root: Path, split: str = "train") -> list[bytes]:
    with ShardSet.open(root) as shards:
        return [bytes(image) for image in shards.splits[split].images(np.arange(len(shards.splits[split])))]


# What a dataset says and gives


def test_a_converted_dataset(tmp_path: Path) -> None:
    images = random_images(23)
    shards = write_dataset(tmp_path / "out", images)
    split = shards.splits["train"]
    assert shards.info.class_names == ("cat", "dog")
    assert len(split) == 23
    assert split.zero_copy
    assert [bytes(split.image(row)) for row in range(23)] == images
    assert [bytes(image) for image in split.images(np.array([22, 0, 0, 11]))] == [images[row] for row in (22, 0, 0, 11)]
    assert split.labels.tolist() == [row % 2 for row in range(23)]
    assert split.labels.dtype == np.int64
    assert split.path(12) == "a/12.jpg"
    widths = split.column("width")
    assert widths is not None
    assert widths.tolist() == list(range(10, 33))
    assert split.column("nothing") is None


def test_views_are_read_only_and_outlive_the_dataset(tmp_path: Path) -> None:
    shards = write_dataset(tmp_path / "out", [b"one", b"two"])
    view = shards.splits["train"].image(1)
    shards.close()
    del shards
    assert view.readonly
    assert bytes(view) == b"two"


def test_a_closed_dataset_opens_again_when_used(tmp_path: Path) -> None:
    shards = write_dataset(tmp_path / "out", [b"one", b"two"])
    shards.close()
    assert bytes(shards.splits["train"].image(0)) == b"one"


def test_rows_that_do_not_exist(tmp_path: Path) -> None:
    split = write_dataset(tmp_path / "out", [b"one", b"two"]).splits["train"]
    for row in (2, -1):
        with pytest.raises(IndexError):
            split.image(row)


def test_pickling_opens_again(tmp_path: Path) -> None:
    shards = write_dataset(tmp_path / "out", [b"one", b"two"])
    data = pickle.dumps(shards)
    assert len(data) < 1000
    assert pickle.loads(data).splits["train"].image(1) == b"two"
    assert pickle.loads(pickle.dumps(shards.splits["train"])).image(1) == b"two"


def test_many_threads_read_compressed_rows(tmp_path: Path) -> None:
    images = random_images(300)
    pq.write_table(table_of(images), tmp_path / "x.parquet", row_group_size=20)
    split = ShardSet.open(tmp_path).splits["train"]
    rows = np.random.default_rng(0).integers(0, 300, (40, 10))
    with ThreadPoolExecutor(4) as pool:
        for numbers, found in zip(rows, pool.map(split.images, rows), strict=True):
            assert [bytes(image) for image in found] == [images[row] for row in numbers]


# Every way to write Parquet


writers = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["none", "none", "none", "snappy", "zstd", "gzip", "lz4"]),
        "use_dictionary": st.booleans(),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "data_page_size": st.sampled_from([1, 100, 1000, 1 << 20]),
        "write_batch_size": st.sampled_from([1, 7, 1024]),
        "row_group_size": st.integers(1, 80),
        "write_page_index": st.booleans(),
        "write_page_checksum": st.booleans(),
        "write_statistics": st.booleans(),
        "use_content_defined_chunking": st.booleans(),
        "dictionary_pagesize_limit": st.sampled_from([64, 1 << 20]),
        "store_schema": st.booleans(),
    }
)
values = st.lists(st.none() | st.binary(max_size=40) | st.sampled_from([b"", b"same"]), min_size=1, max_size=80)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=writers,
    images=values,
    binary=st.sampled_from([pa.binary(), pa.large_binary()]),
    struct=st.booleans(),
    required=st.booleans(),
    encoding=st.sampled_from([None, "PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]),
    null_structs=st.booleans(),
)
def test_bytes_equal_those_of_pyarrow_whatever_the_writer(
    tmp_path: Path,
    options: dict[str, Any],
    images: list[bytes | None],
    binary: pa.DataType,
    struct: bool,
    required: bool,
    encoding: str | None,
    null_structs: bool,
) -> None:
    if required:
        images = [image or b"" for image in images]
    inner = pa.field("bytes", binary, nullable=not required)
    if struct:
        kind = pa.struct([inner, pa.field("path", pa.string())])
        column = pa.array(
            [None if image is None and null_structs else {"bytes": image, "path": "p"} for image in images], kind
        )
    else:
        kind, column = binary, pa.array(images, binary)
    schema = pa.schema([pa.field("image", kind, nullable=not required), ("label", pa.int64())])
    table = pa.table([column, pa.array([0] * len(images))], schema=schema)
    if encoding and not options["use_dictionary"]:
        options = {**options, "column_encoding": {"image.bytes" if struct else "image": encoding}}
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, **options)
    with ShardSet.open(path) as shards:
        split = shards.splits["train"]
        plain = options["compression"] == "none" and not options["use_dictionary"] and encoding in (None, "PLAIN")
        assert split.zero_copy or not plain
        for row, expected in enumerate(images):
            if expected is None:
                with pytest.raises(DatasetError, match=f"x.parquet, row {row}: the image is null"):
                    split.image(row)
            else:
                assert split.image(row) == expected


def test_a_dictionary_that_overflows_into_plain_pages(tmp_path: Path) -> None:
    images = [b"%06d" % (row // 2) for row in range(4000)]
    options = {"compression": "none", "dictionary_pagesize_limit": 2000, "data_page_size": 500}
    pq.write_table(table_of(images), tmp_path / "x.parquet", **options)
    split = ShardSet.open(tmp_path).splits["train"]
    assert not split.zero_copy
    assert read_all(tmp_path) == images


def test_empty_row_groups_and_empty_files(tmp_path: Path) -> None:
    table = table_of([b"one", b"", b"three"])
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, **UNCOMPRESSED) as writer:
        for part in (table.slice(0, 0), table.slice(0, 1), table.slice(0, 0), table.slice(1)):
            writer.write_table(part)
    pq.write_table(table.slice(0, 0), tmp_path / "b.parquet", **UNCOMPRESSED)
    pq.write_table(table, tmp_path / "c.parquet", **UNCOMPRESSED)
    assert read_all(tmp_path) == [b"one", b"", b"three"] * 2


def test_a_struct_that_names_its_path_first(tmp_path: Path) -> None:
    kind = pa.struct([("path", pa.string()), ("bytes", pa.binary())])
    column = pa.array([{"path": "p", "bytes": b"one"}, {"path": None, "bytes": b"two"}], kind)
    pq.write_table(pa.table({"image": column, "label": [0, 1]}), tmp_path / "x.parquet", **UNCOMPRESSED)
    split = ShardSet.open(tmp_path).splits["train"]
    assert [bytes(image) for image in split.images([0, 1])] == [b"one", b"two"]
    assert split.path(0) == "p"
    assert split.path(1).endswith("x.parquet, row 1")


# Parquet of others


def test_files_of_hugging_face_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    pictures = [Image.new("RGB", (8, 8), (row, 0, 0)) for row in range(12)]
    features = datasets.Features({"img": datasets.Image(), "fine": datasets.ClassLabel(names=["cat", "dog"])})
    data = datasets.Dataset.from_dict({"img": pictures, "fine": [0, 1] * 6}, features=features)
    (tmp_path / "data").mkdir()
    data.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    data.select(range(4)).to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    shards = ShardSet.open(tmp_path / "data")
    assert shards.info.class_names == ("cat", "dog")
    assert {name: len(split) for name, split in shards.splits.items()} == {"train": 12, "val": 4}
    for row, image in enumerate(shards.splits["train"].images(np.arange(12))):
        assert Image.open(io.BytesIO(image)).getpixel((0, 0)) == (row, 0, 0)
    assert shards.splits["val"].labels.tolist() == [0, 1, 0, 1]


def test_the_sidecar_does_not_disturb_hugging_face(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", random_images(6))
    assert (tmp_path / "out" / ".sagitta-index" / "train.index").exists()
    script = "import datasets, sys; print(datasets.load_dataset(sys.argv[1])['train'].num_rows)"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "6", run.stderr


def test_files_of_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"image": [b"one", b"two", b"three"], "label": ["dog", "cat", "dog"]})
    frame.to_parquet(tmp_path / "photos.parquet")
    shards = ShardSet.open(tmp_path / "photos.parquet")
    assert shards.info.class_names == ("cat", "dog")
    assert shards.splits["train"].labels.tolist() == [1, 0, 1]
    assert [bytes(image) for image in shards.splits["train"].images([2, 0])] == [b"three", b"one"]


def test_number_labels_without_names(tmp_path: Path) -> None:
    pq.write_table(table_of([b"a", b"b"], [0, 3]), tmp_path / "x.parquet")
    assert ShardSet.open(tmp_path).info.class_names == ("0", "3")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("x.parquet", "train"),
        ("train-00000-of-00002.parquet", "train"),
        ("data/validation-00000-of-00001.parquet", "val"),
        ("test/0000.parquet", "test"),
        ("valid/train.parquet", "train"),
        ("latest/contest.parquet", "train"),
    ],
)
def test_the_split_is_told_by_name_or_folder(tmp_path: Path, path: str, split: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of([b"a"]), tmp_path / path)
    assert list(ShardSet.open(tmp_path).splits) == [split]


def test_the_fingerprint_of_foreign_files_follows_their_content_and_not_their_place(tmp_path: Path) -> None:
    for name, images in (("one", [b"a", b"b"]), ("other", [b"a", b"bc"])):
        (tmp_path / name).mkdir()
        pq.write_table(table_of(images), tmp_path / name / "x.parquet")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    fingerprints = [ShardSet.open(tmp_path / name).info.fingerprint for name in ("one", "copy", "other")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


# The sidecar


def test_a_valid_sidecar_is_taken_up(tmp_path: Path) -> None:
    images = random_images(23)
    write_dataset(tmp_path / "out", images)
    sidecar = tmp_path / "out" / ".sagitta-index" / "train.index"
    before = sidecar.stat()
    assert read_all(tmp_path / "out") == images
    assert sidecar.stat().st_ino == before.st_ino
    shutil.copytree(tmp_path / "out", tmp_path / "copy")  # of other times, and in another place
    inode = (tmp_path / "copy" / ".sagitta-index" / "train.index").stat().st_ino
    assert read_all(tmp_path / "copy") == images
    assert (tmp_path / "copy" / ".sagitta-index" / "train.index").stat().st_ino == inode


def test_a_stale_sidecar_is_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of([b"one", b"two"]), path, **UNCOMPRESSED)
    assert read_all(path) == [b"one", b"two"]
    pq.write_table(table_of([b"three", b"four", b"five"]), path, **UNCOMPRESSED)
    assert read_all(path) == [b"three", b"four", b"five"]


def test_a_sidecar_is_rebuilt_when_rows_change_places_under_the_same_footer(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    options = {**UNCOMPRESSED, "write_statistics": False}
    pq.write_table(table_of([b"one", b"three"]), path, **options)
    footer = path.read_bytes()[-300:]
    assert read_all(path) == [b"one", b"three"]
    pq.write_table(table_of([b"three", b"one"]), path, **options)
    assert path.read_bytes()[-300:] == footer
    assert read_all(path) == [b"three", b"one"]


@pytest.mark.parametrize("damage", [b"", b"not an arrow file", b"ARROW1\0\0"])
def test_a_damaged_sidecar_is_rebuilt(tmp_path: Path, damage: bytes) -> None:
    images = random_images(23)
    write_dataset(tmp_path / "out", images)
    sidecar = tmp_path / "out" / ".sagitta-index" / "train.index"
    whole = sidecar.read_bytes()
    sidecar.write_bytes(damage)
    assert read_all(tmp_path / "out") == images
    assert sidecar.read_bytes() == whole
    sidecar.write_bytes(whole[: len(whole) // 2])
    assert read_all(tmp_path / "out") == images


def test_the_sidecar_goes_to_the_given_or_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "user"))
    pq.write_table(table_of([b"one"]), tmp_path / "x.parquet", **UNCOMPRESSED)
    ShardSet.open(tmp_path / "x.parquet", cache=tmp_path / "given")
    assert len(list((tmp_path / "given").glob("*/train.index"))) == 1
    (tmp_path / ".sagitta-index").write_text("in the way")  # as good as read-only, also for root
    ShardSet.open(tmp_path / "x.parquet")
    assert len(list((tmp_path / "user").rglob("train.index"))) == 1
    (tmp_path / "user" / "index").rename(tmp_path / "user" / "elsewhere")
    (tmp_path / "user" / "index").write_text("in the way")
    assert read_all(tmp_path / "x.parquet") == [b"one"]  # without any sidecar


def open_and_read(root: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    results.put(read_all(Path(root)) == random_images(3000))


def test_many_processes_that_start_together(tmp_path: Path) -> None:
    pq.write_table(table_of(random_images(3000)), tmp_path / "x.parquet", row_group_size=100, **UNCOMPRESSED)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=open_and_read, args=(str(tmp_path), barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [True] * 3
    for worker in workers:
        worker.join()
    assert sorted(path.name for path in (tmp_path / ".sagitta-index").iterdir()) == ["train.index"]


def test_threads_that_start_together(tmp_path: Path) -> None:
    images = random_images(500)
    pq.write_table(table_of(images), tmp_path / "x.parquet", **UNCOMPRESSED)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read_all, [tmp_path] * 4)) == [images] * 4


def test_memory_does_not_grow_with_image_bytes(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from sagitta.dataset import ShardSet; import pyarrow.parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "shards = ShardSet.open(sys.argv[1]); assert shards.splits['train'].zero_copy\n"
        "print(open('/proc/self/statm').read().split()[2], len(shards.splits['train']))"
    )
    shared = []
    for name, size in (("small", 10), ("large", 400_000)):
        (tmp_path / name).mkdir()
        pq.write_table(table_of([bytes(size)] * 200), tmp_path / name / "x.parquet", row_group_size=20, **UNCOMPRESSED)
        out = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name)], capture_output=True, text=True, check=True
        )
        pages, rows = map(int, out.stdout.split())
        assert rows == 200
        shared.append(pages * 4096)
    assert shared[1] - shared[0] < 8 * 2**20  # of 80 MB of images


def test_nothing_stays_open(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", random_images(20))
    pq.write_table(table_of(random_images(20)), tmp_path / "x.parquet")

    def held() -> tuple[int, int]:
        """Open files of this dataset, and threads; what other tests left to the garbage collector does not count."""
        targets = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))  # noqa: PTH208
        names = [os.path.realpath(target) for target in targets]
        return sum(name.startswith(str(tmp_path.resolve())) for name in names), threading.active_count()

    counts = []
    for _ in range(200):
        for root in (tmp_path / "out", tmp_path / "x.parquet"):
            read_all(root)
        counts.append(held())
    assert counts[-1] == counts[5]
    assert counts[-1][0] == 0


# What is wrong is named


def test_a_wrong_length_prefix_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of([b"image-%02d" % row for row in range(30)]), path, row_group_size=10, **UNCOMPRESSED)
    data = bytearray(path.read_bytes())
    at = data.index(b"image-17") - 4
    data[at : at + 4] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"x.parquet, row 17: damaged"):
        ShardSet.open(path)


@pytest.mark.parametrize("keep", [0, 3, 11, 0.3, 0.9])
def test_a_truncated_shard(tmp_path: Path, keep: float) -> None:
    write_dataset(tmp_path / "out", random_images(20))
    path = tmp_path / "out" / "train" / "00001.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(DatasetError, match=r"train/00001.parquet: not a complete Parquet file"):
        ShardSet.open(tmp_path / "out")


def test_a_shard_that_shrinks_while_open(tmp_path: Path) -> None:
    shards = write_dataset(tmp_path / "out", random_images(20))
    path = tmp_path / "out" / "train" / "00001.parquet"
    os.truncate(path, 100)
    with pytest.raises(DatasetError, match=r"train/00001.parquet: shorter than when it was opened"):
        shards.splits["train"].image(19)
    path.unlink()
    with pytest.raises(DatasetError, match=r"train/00001.parquet: the file is missing"):
        shards.splits["train"].image(19)


@pytest.mark.parametrize("size", [0, 100])
def test_a_shard_that_is_cut_off_while_it_is_mapped(tmp_path: Path, size: int) -> None:
    images = random_images(20)
    split = write_dataset(tmp_path / "out", images).splits["train"]
    assert split.images(np.arange(20)) == images
    path = tmp_path / "out" / "train" / "00001.parquet"
    whole = path.read_bytes()
    os.truncate(path, size)
    for read in (lambda: split.image(19), lambda: split.images([0, 19])):  # no SIGBUS
        with pytest.raises(DatasetError, match=r"train/00001.parquet: shorter than when it was opened"):
            read()
    assert split.images([0, 9]) == [images[0], images[9]]
    path.write_bytes(whole)
    assert split.images(np.arange(20)) == images


def test_a_shard_that_is_written_to_while_it_is_mapped(tmp_path: Path) -> None:
    images = [b"image number %03d" % row for row in range(20)]
    split = write_dataset(tmp_path / "out", images).splits["train"]
    assert split.images([3, 13]) == [images[3], images[13]]
    with (tmp_path / "out" / "train" / "00001.parquet").open("r+b") as file:
        start = file.read().index(images[13])
        file.seek(start - 7)
        file.write(b"x" * 7)
    for read in (lambda: split.image(13), lambda: split.images([3, 12, 13])):
        with pytest.raises(DatasetError, match=r"00001.parquet, row 3: not as it was when .*sagitta verify"):
            read()
    assert not (tmp_path / "out" / ".sagitta-index" / "train.index").exists()
    with pytest.raises(DatasetError, match=r"00001.parquet, row 3: damaged"):  # found as it is indexed anew
        ShardSet.open(tmp_path / "out")


@pytest.mark.parametrize("offset", [3, 2**63 - 1, 2**63 - 10, 2000])
def test_a_sidecar_that_lies(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of(random_images(60)), path, **UNCOMPRESSED)
    sidecar = tmp_path / ".sagitta-index" / "x.parquet" / "train.index"
    read_all(path)
    head, payload = sidecar.read_bytes()[33:].split(b"\n", 1)
    lying = np.frombuffer(payload, "<i8", 60).copy()
    lying[30] = offset
    data = head + b"\n" + lying.tobytes() + payload[480:]
    sidecar.write_bytes(content_hash(data).encode() + b"\n" + data)
    split = ShardSet.open(path).splits["train"]
    for read in (lambda: split.image(30), lambda: split.images([30])):
        with pytest.raises(DatasetError, match=r"x.parquet(, row \d+)?: (shorter|not as it was)"):
            read()


def test_a_footer_on_which_arrow_ends_the_process(tmp_path: Path) -> None:
    """Asked for a column chunk of an unknown codec, pyarrow 26 calls ``std::terminate``."""
    path = tmp_path / "x.parquet"
    pq.write_table(table_of([b"a", b"b"]), path, **UNCOMPRESSED)
    data = path.read_bytes()
    codec = data.index(b"bytes\x15\x00", len(data) - int.from_bytes(data[-8:-4], "little")) + 6
    assert pq.read_metadata(path).row_group(0).column(0).compression == "UNCOMPRESSED"
    path.write_bytes(data[:codec] + b"\x7e" + data[codec + 1 :])
    script = "import pyarrow.parquet as pq, sys; pq.read_metadata(sys.argv[1]).row_group(0).column(0).compression"
    ended = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, check=False)
    if int(pa.__version__.partition(".")[0]) < 26:  # takes what it does not know for uncompressed, which it is here
        assert ended.returncode == 0 and bytes(ShardSet.open(path).splits["train"].image(0)) == b"a"
        return
    assert ended.returncode != 0
    with pytest.raises(DatasetError, match=r"x.parquet: cannot be read .*codec"):
        ShardSet.open(path).splits["train"].image(0)


def test_a_missing_shard(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", random_images(20))
    (tmp_path / "out" / "train" / "00000.parquet").unlink()
    with pytest.raises(DatasetError, match=r"train/00000.parquet: the file is missing"):
        ShardSet.open(tmp_path / "out")


def test_row_counts_that_disagree(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", random_images(20))
    info = json.loads((tmp_path / "out" / "sagitta.json").read_text())
    info["splits"]["train"]["rows"] = 21
    info["checksum"] = None  # somebody has edited it
    (tmp_path / "out" / "sagitta.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=r"20 rows, but sagitta.json says 21"):
        ShardSet.open(tmp_path / "out")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), version=st.sampled_from(["1.0", "2.0"]))
def test_one_damaged_byte_gives_bytes_or_a_dataset_error(tmp_path: Path, at: float, byte: int, version: str) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        table_of([b"a", None, b"ccc"] * 5), path, row_group_size=6, data_page_version=version, **UNCOMPRESSED
    )
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] = byte
    path.write_bytes(data)
    with suppress(DatasetError):
        split = ShardSet.open(path).splits["train"]
        for row in range(len(split)):
            with suppress(DatasetError):
                split.image(row)
        _ = split.labels


@pytest.mark.parametrize("labels", [[0, None, 1], [0, -1, 1]])
def test_a_label_that_is_no_class_names_its_row(tmp_path: Path, labels: list[int | None]) -> None:
    pq.write_table(table_of([b"a", b"b", b"c"], labels), tmp_path / "x.parquet")
    split = ShardSet.open(tmp_path).splits["train"]
    with pytest.raises(DatasetError, match=r"x.parquet, row 1: label (None|-1) is none of the 2 classes"):
        _ = split.labels


def test_files_that_are_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file or folder"):
        ShardSet.open(tmp_path / "nothing")
    with pytest.raises(DatasetError, match=r"neither sagitta.json nor any Parquet file"):
        ShardSet.open(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DatasetError, match=r"x.parquet: not a complete Parquet file"):
        ShardSet.open(tmp_path)
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="no image column among text, label"):
        ShardSet.open(tmp_path)
    pq.write_table(pa.table({"image": [b"a"], "caption": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="no label column among image, caption"):
        ShardSet.open(tmp_path)


class PlainKeys(encryption.KmsClient):  # type: ignore[misc]  # pyarrow has no type information
    def __init__(self, _: encryption.KmsConnectionConfig) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64decode(key)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_file_is_refused(tmp_path: Path, plaintext_footer: bool) -> None:
    configuration = encryption.EncryptionConfiguration(
        footer_key="footer", column_keys={"column": ["image.bytes"]}, plaintext_footer=plaintext_footer
    )
    factory = encryption.CryptoFactory(PlainKeys)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), configuration)
    pq.write_table(table_of([b"one"]), tmp_path / "x.parquet", encryption_properties=properties, **UNCOMPRESSED)
    with pytest.raises(DatasetError, match=r"x.parquet: encrypted Parquet"):
        ShardSet.open(tmp_path)


def test_a_list_of_images_is_refused(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.list_(pa.binary())), ("path", pa.string())])
    column = pa.array([{"bytes": [b"a", b"b"], "path": ""}], kind)
    pq.write_table(pa.table({"image": column, "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=r"x.parquet: "):
        ShardSet.open(tmp_path)


def test_a_file_of_other_columns_among_the_shards(tmp_path: Path) -> None:
    pq.write_table(table_of([b"a"]), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [b"a"], "label": [0]}), tmp_path / "b.parquet")
    with pytest.raises(DatasetError, match=r"b.parquet: no column image.bytes"):
        ShardSet.open(tmp_path)
