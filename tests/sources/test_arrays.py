import gzip
import io
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagitta.dataset.schema import Source
from sagitta.errors import SourceError
from sagitta.sources.arrays import read_pickle
from sagitta.sources.detect import open_source

Open = Callable[..., Source]
RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (11, 5, 4), dtype=np.uint8)
TEST = RNG.integers(0, 256, (3, 5, 4), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def mnist(packed: bool) -> dict[str, bytes]:
    files = {
        "train-images-idx3-ubyte": idx(TRAIN),
        "train-labels-idx1-ubyte": idx(np.arange(11)),
        "t10k-images-idx3-ubyte": idx(TEST),
        "t10k-labels-idx1-ubyte": idx(np.arange(3)),
    }
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if packed else files


def pixels(source: Source, path: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source.reader.read(path))))


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_become_grey_png(open_files: Open, packed: bool) -> None:
    source = open_files(mnist(packed))
    paths = source.rows["path"].to_pylist()
    assert paths == [f"train/{i:02d}.png" for i in range(11)] + [f"test/{i}.png" for i in range(3)]
    assert source.rows["split"].to_pylist() == ["train"] * 11 + ["test"] * 3
    assert source.class_names == tuple(str(i) for i in range(11))
    read = pickle.loads(pickle.dumps(source))
    assert all(np.array_equal(pixels(read, f"train/{i:02d}.png"), TRAIN[i]) for i in range(11))
    assert np.array_equal(pixels(read, "test/2.png"), TEST[2])
    assert len(pickle.dumps(source.reader)) < 10_000


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"t10k-labels-idx1-ubyte": None}, r"t10k-images-idx3-ubyte is there but t10k-labels-idx1-ubyte is not"),
        ({"t10k-labels-idx1-ubyte": idx(np.arange(4))}, r"t10k-images-idx3-ubyte has 3 images but 4 labels"),
        ({"t10k-images-idx3-ubyte": idx(TEST)[:-1]}, r"59 bytes of data where \[3, 5, 4\] needs 60"),
        ({"t10k-images-idx3-ubyte": idx(np.arange(3))}, r"t10k-images-idx3-ubyte: not an idx file of 3 dimensions"),
        ({"t10k-images-idx3-ubyte": b""}, r"not an idx file"),
        ({"train-images-idx3-ubyte": gzip.compress(idx(TRAIN))[:-9]}, r"train-images-idx3-ubyte: damaged gzip file"),
        (
            {"t10k-images-idx3-ubyte": gzip.compress(idx(TEST) + bytes(9))},
            r"61 or more bytes of data where \[3, 5, 4\]",
        ),
    ],
)
def test_damaged_idx_files_are_named(open_folder: Open, files: dict[str, bytes | None], message: str) -> None:
    given = {name: data for name, data in {**mnist(False), **files}.items() if data is not None}
    with pytest.raises(SourceError, match=message):
        open_folder(given)


def npy(array: np.ndarray) -> bytes:
    written = io.BytesIO()
    np.save(written, array)
    return written.getvalue()


MEDMNIST = {
    "train_images.npy": npy(TRAIN),
    "train_labels.npy": npy(np.arange(11)[:, None] % 3),
    "test_images.npy": npy(TEST),
    "test_labels.npy": npy(np.arange(3)[:, None]),
}


def test_arrays_of_numpy(open_files: Open) -> None:
    source = open_files(MEDMNIST)
    assert source.layout == "NumPy arrays" and source.class_names == ("0", "1", "2")
    assert source.rows["split"].to_pylist() == ["test"] * 3 + ["train"] * 11
    assert source.rows["label"].to_pylist() == [str(i) for i in range(3)] + [str(i % 3) for i in range(11)]
    read = pickle.loads(pickle.dumps(source))
    assert all(np.array_equal(pixels(read, f"train_images.npy/{i:02d}.png"), TRAIN[i]) for i in range(11))


def test_keras_calls_them_otherwise(tmp_path: Path) -> None:
    labels = np.arange(11, dtype=np.uint8) % 2
    np.savez(tmp_path / "mnist.npz", x_train=TRAIN, y_train=labels, x_test=TEST, y_test=np.array([1, 0, 1]))
    source = open_source(str(tmp_path / "mnist.npz"), cache=tmp_path)
    assert source.rows["split"].to_pylist() == ["test"] * 3 + ["train"] * 11
    assert source.rows["label"].to_pylist()[:4] == ["1", "0", "1", "0"]
    assert np.array_equal(pixels(source, "x_train.npy/10.png"), TRAIN[10])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 1), (6, 5, 4, 3)])
def test_an_npz_is_an_archive_of_them(shape: tuple[int, ...], order: Literal["C", "F"], tmp_path: Path) -> None:
    images = np.array(RNG.integers(0, 256, shape, dtype=np.uint8), order=order)
    np.savez_compressed(tmp_path / "cells.npz", x=images, y=np.array([0, 1, 1, 0, 2, 2], np.int16))
    source = open_source(str(tmp_path / "cells.npz"), cache=tmp_path)
    assert source.rows["label"].to_pylist() == ["0", "1", "1", "0", "2", "2"]
    assert source.rows["split"].null_count == 6
    assert all(np.array_equal(pixels(source, f"x.npy/{i}.png"), images[i].squeeze()) for i in range(6))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"test_labels.npy": None}, "test_images.npy is there but test_labels.npy is not"),
        ({"test_labels.npy": npy(np.arange(4))}, "test_images.npy has 3 images but test_labels.npy 4 labels"),
        ({"test_labels.npy": npy(np.eye(3))}, r"one integer an image, not \(3, 3\) of float64"),
        ({"test_labels.npy": npy(np.array(3))}, r"one integer an image, not \(\) of int64"),
        ({"test_images.npy": npy(TEST / 255)}, r"not \(3, 5, 4\) of float64; convert"),
        ({"test_images.npy": npy(np.zeros((3, 3, 5, 4), np.uint8))}, r"not \(3, 3, 5, 4\) of uint8"),
        ({"test_images.npy": npy(TEST)[:-1]}, "60 bytes of data wanted, 59 there"),
        ({"test_images.npy": npy(TEST).replace(b"(3, 5, 4)", b"(9, 9, 9)")}, "729 bytes of data wanted, 60 there"),
        ({"test_images.npy": npy(np.array([{}], dtype=object))}, "it holds objects"),
        ({"test_images.npy": b"\x93NUMPY\x01"}, "test_images.npy: not a NumPy array"),
        ({"test_images.npy": b"\x93NUMPY\x07\x00" + bytes(20)}, "test_images.npy: not a NumPy array"),
        ({"test_images.npy": b""}, "test_images.npy: not a NumPy array"),
    ],
)
def test_damaged_arrays_of_numpy_are_named(open_folder: Open, files: dict[str, bytes | None], message: str) -> None:
    given = {name: data for name, data in {**MEDMNIST, **files}.items() if data is not None}
    with pytest.raises(SourceError, match=message):
        open_folder(given)


def test_arrays_beside_images_are_somebodys_features(open_folder: Open) -> None:
    photo = io.BytesIO()
    Image.fromarray(TRAIN[0]).save(photo, "PNG")
    source = open_folder({"a/1.png": photo.getvalue(), "b/1.png": photo.getvalue(), "x.npy": npy(np.eye(2))})
    assert source.class_names == ("a", "b")


def test_mnist(data_dir: Path, tmp_path: Path) -> None:
    source = open_source(str(data_dir / "mnist"), cache=tmp_path)
    assert source.rows.num_rows == 70_000
    assert source.class_names == tuple("0123456789")
    assert source.rows["path"][0].as_py() == "train/00000.png"
    assert pixels(source, "test/9999.png").shape == (28, 28)


def cifar_batch(key: bytes, labels: list[int], data: np.ndarray) -> bytes:
    return pickle.dumps({key: labels, b"data": data, b"filenames": []}, protocol=4)


def test_cifar_batches(open_files: Open) -> None:
    data = RNG.integers(0, 256, (3, 3072), dtype=np.uint8)
    source = open_files(
        {
            "cifar-10-batches-py/batches.meta": pickle.dumps({b"label_names": [b"cat", b"ant"]}),
            "cifar-10-batches-py/data_batch_1": cifar_batch(b"labels", [0, 1, 1], data),
            "cifar-10-batches-py/data_batch_2": cifar_batch(b"labels", [1], data[:1]),
            "cifar-10-batches-py/test_batch": cifar_batch(b"labels", [0, 1], data[1:]),
        }
    )
    assert source.class_names == ("cat", "ant")
    assert source.rows["label"].to_pylist() == ["cat", "ant", "ant", "ant", "cat", "ant"]
    assert source.rows["split"].to_pylist() == ["train"] * 4 + ["test"] * 2
    expected = data[2].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(pixels(source, "data_batch_1/2.png"), expected)
    assert np.array_equal(pixels(source, "test_batch/1.png"), expected)


def test_cifar100_uses_fine_labels(open_folder: Open) -> None:
    data = np.zeros((2, 3072), np.uint8)
    names = {b"fine_label_names": [b"a", b"b"], b"coarse_label_names": [b"z"]}
    train, test = cifar_batch(b"fine_labels", [1, 0], data), cifar_batch(b"fine_labels", [0, 0], data)
    source = open_folder({"meta": pickle.dumps(names), "train": train, "test": test})
    assert source.rows["label"].to_pylist() == ["b", "a", "a", "a"]
    assert source.rows["split"].to_pylist() == ["train", "train", "test", "test"]


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("it-ran",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(
    open_folder: Open, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    meta = pickle.dumps({"label_names": Malicious()}, protocol=protocol)
    with pytest.raises(SourceError, match=r"batches\.meta: .*refused \(it asks for posix\.mkdir\)"):
        open_folder({"batches.meta": meta, "test_batch": b""})
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (b"", "test_batch: not a CIFAR batch"),
        (pickle.dumps([1, 2]), "test_batch: not a CIFAR file, it has no 'labels'"),
        (pickle.dumps({b"labels": [0], b"data": b"x" * 3072}), "its data are not rows of 3,072 bytes"),
        (cifar_batch(b"labels", [0], np.zeros((2, 3072), np.uint8)), "2 images but 1 labels"),
        (cifar_batch(b"labels", [7], np.zeros((1, 3072), np.uint8)), "a label is outside the 1 class names"),
    ],
)
def test_damaged_cifar_batches_are_named(open_folder: Open, batch: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_folder({"batches.meta": pickle.dumps({b"label_names": [b"a"]}), "test_batch": batch})


_BOMBS = """
import gzip, io, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from sagitta.errors import SourceError
from sagitta.sources import arrays
packed = io.BytesIO()
with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
    file.write(bytes((0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2)))
    for _ in range(2**11):
        file.write(bytes(2**20))
for read in (
    lambda: arrays._parse_idx("images", packed.getvalue(), 3),
    lambda: arrays._parse_idx("claims", bytes((0, 0, 8, 3)) + b"\\xff" * 12, 3),
    lambda: arrays.read_pickle("batch", b"\\x80\\x02]r" + (2**30).to_bytes(4, "little") + b"h\\0."),
):
    try:
        read()
    except SourceError as error:
        print(str(error).split(";")[0])
"""


def test_what_a_damaged_file_asks_for_is_not_taken() -> None:
    """Two gigabytes packed into two megabytes, and a place in a pickle's memo that would take eight."""
    told = subprocess.run([sys.executable, "-c", _BOMBS], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [
        "images: 5 or more bytes of data where [1, 2, 2] needs 4",
        "claims: 0 bytes of data where [4294967295, 4294967295, 4294967295] needs 79228162458924105385300197375",
        "batch: not a CIFAR batch, refused (Memo value not found at index 0)",
    ]


@settings(max_examples=200, deadline=None)
@given(start=st.integers(0, 300), noise=st.binary(min_size=1, max_size=8))
def test_a_corrupt_pickle_raises_only_our_error(start: int, noise: bytes) -> None:
    data = bytearray(cifar_batch(b"labels", [0, 1], np.zeros((2, 8), np.uint8)))
    data[start : start + len(noise)] = noise
    with suppress(SourceError):
        read_pickle("x", bytes(data))


def test_the_real_cifar10_test_batch(data_dir: Path, tmp_path: Path) -> None:
    source = open_source(str(data_dir / "cifar-10-batches-py"), cache=tmp_path)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert (source.rows.num_rows, source.class_names) == (10_000, names)
    assert set(source.rows["split"].to_pylist()) == {"test"}  # which a training divides and a test does not
    assert pixels(source, "test_batch/0000.png").shape == (32, 32, 3)
