"""The same batches whatever the threads and ranks; state by delivered samples; errors at the batch, with the row."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torchvision.transforms import v2

from sagitta.conversion.options import ConvertOptions
from sagitta.conversion.pipeline import convert
from sagitta.dataset.shards import ShardSet
from sagitta.errors import ConfigError, DatasetError
from sagitta.loading import loader, pixels
from sagitta.loading.augmentation import Augmentation
from sagitta.loading.loader import Batch, Loader, match_labels
from sagitta.loading.plan import Plan
from sagitta.sources.detect import open_source


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    convert(open_source("digits", cache=root / "cache"), root / "dataset")
    return root / "dataset"


@pytest.fixture
def photos_dataset(tmp_path: Path, photo_folder: Path) -> Path:
    convert(
        open_source(str(photo_folder), cache=tmp_path / "cache"),
        tmp_path / "dataset",
        ConvertOptions(val=0.2, test=0.2),
    )
    return tmp_path / "dataset"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threads_change_nothing(digits: Path, photos_dataset: Path, threads: int) -> None:
    for path in (digits, photos_dataset):
        reference = Loader(path, batch_size=5, threads=0, normalize=False)
        assert same(list(reference), list(Loader(path, batch_size=5, threads=threads, normalize=False)))


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threads_change_nothing_about_augmented_and_balanced_batches(
    digits: Path, photos_dataset: Path, threads: int
) -> None:
    augmentation = Augmentation(flip=0.5, auto="trivial", erase=0.3, cutout=0.2)
    for path in (digits, photos_dataset):
        reference = Loader(path, batch_size=10, threads=0, balanced=True, augmentation=augmentation)
        batches = list(Loader(path, batch_size=10, threads=threads, balanced=True, augmentation=augmentation))
        assert same(list(reference), batches)
        assert not same(batches, list(Loader(path, batch_size=10)))


def test_balanced_batches_show_every_class_equally_often(tmp_path: Path, photo_folder: Path) -> None:
    data = [path.read_bytes() for path in sorted(photo_folder.rglob("*.jpg"))]
    images = pa.array([{"bytes": image, "path": None} for image in data])
    labels = [0] * 34 + [1] * 6
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train.parquet")
    batches = list(Loader(tmp_path / "train.parquet", batch_size=40, balanced=True))
    assert [torch.bincount(labels).tolist() for _, labels in batches] == [[20, 20]]
    rare = batches[0][0][batches[0][1] == 1]
    assert len(torch.unique(rare.flatten(1), dim=0)) == 20  # six photos, each crop another one
    assert (
        torch.cat([labels for _, labels in Loader(tmp_path / "train.parquet", train=False, balanced=True)]).sum() == 6
    )


def test_epochs_and_seeds_differ_and_repeat(photos_dataset: Path) -> None:
    loader = Loader(photos_dataset, batch_size=8)
    first, second = list(loader), list(loader)
    assert not same(first, second)
    again = Loader(photos_dataset, batch_size=8)
    again.set_epoch(1)
    assert same(second, list(again))
    assert not same(first, list(Loader(photos_dataset, batch_size=8, seed=1)))


def test_batches_are_normalised_float_or_uint8(digits: Path) -> None:
    images, labels = next(iter(Loader(digits, batch_size=32)))
    assert images.shape == (32, 1, 8, 8) and images.dtype == torch.float32
    assert labels.shape == (32,) and labels.dtype == torch.int64
    raw, _ = next(iter(Loader(digits, batch_size=32, normalize=False)))
    loader = Loader(digits, batch_size=32)
    assert raw.dtype == torch.uint8
    torch.testing.assert_close(loader.preprocessing.normalize(raw), images)
    whole = torch.cat([images for images, _ in Loader(digits, "train", train=False)])
    assert abs(float(whole.mean())) < 0.1 and abs(float(whole.std()) - 1) < 0.1


def test_training_drops_the_tail_and_evaluation_sees_every_row_once(digits: Path) -> None:
    train, test = Loader(digits, "train", 100), Loader(digits, "test", 100)
    rows = len(train.shards.splits["train"])
    assert len(train) == len(list(train)) == rows // 100
    labels = torch.cat([labels for _, labels in test])
    assert len(list(test)) == len(test) == 2
    assert sorted(labels.tolist()) == sorted(test.shards.splits["test"].labels.tolist())


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("delivered", [0, 1, 3])
def test_resume_gives_exactly_the_remaining_batches(photos_dataset: Path, threads: int, delivered: int) -> None:
    loader = Loader(photos_dataset, batch_size=4, threads=2)
    list(loader)  # epoch 0
    batches = iter(loader)
    for _ in range(delivered):
        next(batches)
    state = json.loads(json.dumps(loader.state_dict()))
    rest = list(batches)
    if delivered:
        assert state["epoch"] == 1 and state["samples"] == 4 * delivered
    resumed = Loader(photos_dataset, batch_size=4, threads=threads)
    resumed.load_state_dict(state)
    assert same(list(resumed), rest)
    assert len(list(resumed)) == len(loader)  # and then a whole epoch


def test_the_state_after_the_last_batch_is_the_next_epoch(photos_dataset: Path) -> None:
    loader = Loader(photos_dataset, batch_size=4)
    for _ in loader:
        state = loader.state_dict()
    assert (state["epoch"], state["samples"]) == (1, 0)


def test_a_broken_off_epoch_is_followed_by_the_next(photos_dataset: Path) -> None:
    loader = Loader(photos_dataset, batch_size=4)
    next(iter(loader))
    expected = Loader(photos_dataset, batch_size=4)
    expected.set_epoch(1)
    assert same(list(loader), list(expected))


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 5}])
def test_resume_refuses_another_run(digits: Path, change: dict[str, int]) -> None:
    state = Loader(digits, batch_size=4).state_dict()
    with pytest.raises(ConfigError, match="cannot resume"):
        Loader(digits, **{"batch_size": 4, **change}).load_state_dict(state)  # type: ignore[arg-type]


def test_resume_refuses_another_dataset(digits: Path, photos_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="cannot resume: the dataset was"):
        Loader(photos_dataset, batch_size=4).load_state_dict(Loader(digits, batch_size=4).state_dict())


def test_transforms_are_seeded_by_row(photos_dataset: Path) -> None:
    transform = v2.Compose([v2.RandomRotation(20), v2.ColorJitter(0.4)])
    arguments = {"batch_size": 4, "transform": transform}
    plain = list(Loader(photos_dataset, batch_size=4))
    first = list(Loader(photos_dataset, threads=0, **arguments))
    torch.rand(7)  # somebody else draws numbers
    assert same(first, list(Loader(photos_dataset, threads=3, **arguments)))
    assert not same(first, plain) and first[0][0].dtype == torch.float32


def test_labels_are_matched_by_name(digits: Path) -> None:
    names = [str(label) for label in reversed(range(10))]
    plain, turned = Loader(digits, "test", 500), Loader(digits, "test", 500, class_names=names)
    assert torch.equal(next(iter(turned))[1], 9 - next(iter(plain))[1])
    with pytest.raises(ConfigError, match="2 classes that the model does not know: 8, 9"):
        Loader(digits, "test", class_names=names[2:])


def test_match_labels_as_a_literal() -> None:
    labels = np.array([0, 1, 1, 2])
    assert match_labels(labels, ["a", "b", "c"], ["c", "x", "a", "b"]).tolist() == [2, 3, 3, 0]


def test_errors_name_what_is_wrong(digits: Path) -> None:
    with pytest.raises(ConfigError, match="batch size 0"):
        Loader(digits, batch_size=0)
    with pytest.raises(DatasetError, match="no split 'validation'; the dataset has train, val, test"):
        Loader(digits, "validation")


@pytest.mark.parametrize("threads", [0, 2])
def test_a_bad_image_surfaces_at_its_batch_with_file_and_row(tmp_path: Path, photo_folder: Path, threads: int) -> None:
    good = (photo_folder / "china" / "000.jpg").read_bytes()
    files = [(f"{row}.jpg", good if row != 6 else good[: len(good) // 2]) for row in range(8)]
    images = pa.array([{"bytes": data, "path": path} for path, data in files])
    (tmp_path / "foreign").mkdir()
    pq.write_table(
        pa.table({"image": images, "label": [0, 1] * 4}), tmp_path / "foreign" / "train-00000-of-00001.parquet"
    )
    batches = iter(Loader(tmp_path / "foreign", batch_size=2, train=False, threads=threads))
    for _ in range(3):
        next(batches)
    with pytest.raises(DatasetError, match=r"6\.jpg \(train row 6\)"):
        next(batches)


def test_an_image_that_was_damaged_since_it_was_converted_is_told_from_a_bad_one(
    photos_dataset: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(photos_dataset, tmp_path / "copy"))
    path = root / "val" / "00000.parquet"
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xd8\xff")] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"val/00000.parquet, row 0: not the image that was converted .* damaged; "):
        next(iter(Loader(root, "val", batch_size=2, train=False)))


def test_nothing_leaks_over_many_openings(photos_dataset: Path) -> None:
    def held() -> tuple[int, int, set[str]]:
        return open_files(), threading.active_count(), {path.name for path in Path("/dev/shm").iterdir()}

    def open_and_close() -> None:
        shards = ShardSet.open(photos_dataset)
        batches = iter(Loader(shards, batch_size=4, threads=2))
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        shards.close()

    open_and_close()
    before = held()
    for _ in range(200):
        open_and_close()
    files, threads, shared = held()
    assert (files, threads) == before[:2]
    assert (
        not shared - before[2] - {path.name for path in Path("/dev/shm").glob("sem.*")}
    )  # other processes' semaphores


def test_threads_share_a_batch_where_memory_allows_few(photos_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = list(Loader(photos_dataset, batch_size=8, threads=0))
    size = reference[0][0].nbytes
    monkeypatch.setattr(loader, "_PREFETCH_BYTES", size)
    assert same(list(Loader(photos_dataset, batch_size=8, threads=4)), reference)
    monkeypatch.setattr(loader, "_PREFETCH_BYTES", 2 * size)
    assert same(list(Loader(photos_dataset, batch_size=8, threads=4)), reference)


def test_mapped_pages_are_released(photos_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_MAPPED_BYTES", 1)
    few = Loader(photos_dataset, batch_size=4, threads=2)
    view = few.shards.splits["train"].image(0)
    before = bytes(view)
    assert same(list(few), list(Loader(photos_dataset, batch_size=4, threads=0)))
    assert bytes(view) == before


def test_the_order_is_the_plans(digits: Path) -> None:
    loader = Loader(digits, batch_size=50, seed=7)
    rows = len(loader.shards.splits["train"])
    expected = loader.shards.splits["train"].labels[Plan(rows, 50, seed=7).batch_rows(0, 3)]
    assert list(loader)[3][1].tolist() == expected.tolist()


@pytest.mark.parametrize("balanced", [False, True])
def test_the_rows_of_a_batch_are_known_and_can_be_the_same_every_epoch(digits: Path, balanced: bool) -> None:
    loader = Loader(digits, batch_size=50, balanced=balanced, augmentation=Augmentation(shift=0.25))
    labels = loader.shards.splits["train"].labels

    def epoch() -> list[Batch]:
        batches = list(loader)
        rows = [loader.rows_of(loader.state_dict()["epoch"] - 1, number) for number in range(len(loader))]
        assert all((labels[some] == batch[1].numpy()).all() for some, batch in zip(rows, batches, strict=True))
        return batches

    usual = [epoch(), epoch()]
    assert any((left[1] != right[1]).any() for left, right in zip(*usual, strict=True))
    loader.same_rows = True
    for batch, first in zip(epoch(), usual[0], strict=True):
        assert torch.equal(batch[1], first[1]) and not torch.equal(batch[0], first[0])  # augmented anew


@pytest.mark.parametrize("threads", [0, 2])
def test_an_iterator_that_is_left_when_the_program_ends_says_nothing(photos_dataset: Path, threads: int) -> None:
    """Kept where it outlives the modules that its threads end with."""
    program = (
        "import os, sys\n"
        "from sagitta import Loader\n"
        "from sagitta.loading import DecodedAhead, EncodedFiles\n"
        f"loader = Loader({str(photos_dataset)!r}, batch_size=4, threads={threads})\n"
        "files = DecodedAhead(EncodedFiles([sys.argv[1]] * 8), [loader.preprocessing], 2)\n"
        "os.kept = iter(loader), iter(files)\n"
        "for each in os.kept: next(each)\n"
    )
    photo = str(photos_dataset.parent / "photos" / "china" / "000.jpg")
    done = subprocess.run([sys.executable, "-c", program, photo], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_fifty_epochs_take_no_more_than_ten(photos_dataset: Path) -> None:
    """Memory, descriptors, threads and shared memory."""

    def held() -> tuple[int, int, int, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return open_files(), threading.active_count(), len(list(Path("/dev/shm").glob("torch*"))), pages * 4096

    loader = Loader(photos_dataset, batch_size=4, threads=2, augmentation=Augmentation(auto="trivial"))
    for epoch in range(50):
        for _ in loader:
            pass
        if epoch == 9:
            before = held()
    after = held()
    assert after[:3] == before[:3]
    assert after[3] - before[3] < 16 * 2**20
