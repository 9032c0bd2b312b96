import gzip
import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
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
        ({"test_labels.npy": npy(np.array(["a", "b", "c"]))}, "test_labels.npy: .*it holds '<U1'"),
        ({"test_images.npy": npy(np.zeros((3, 0, 4), np.uint8))}, "test_images.npy: images of 4x0 pixels"),
        ({"x_test.npy": npy(TEST), "y_test.npy": npy(np.arange(3))}, "test_images.npy and x_test.npy are both test; k"),
        ({"images.npy": npy(TEST), "x.npy": npy(TEST)}, "images.npy and x.npy are both images without a split; keep"),
    ],
)
def test_damaged_arrays_of_numpy_are_named(open_folder: Open, files: dict[str, bytes | None], message: str) -> None:
    given = {name: data for name, data in {**MEDMNIST, **files}.items() if data is not None}
    with pytest.raises(SourceError, match=message):
        open_folder(given)


def headed(header: str, data: bytes = b"") -> bytes:
    """Return an array's file of this header."""
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode() + data


def described(descr: str = "'|u1'", shape: str = "(3, 5, 4)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': (\n", "header is damaged"),
        ("{[]: 1}", "header is damaged"),
        ("-" * 4000, "header is damaged"),
        ("-" * 9000, "header is damaged"),
        (described("('|u1',)"), "header is damaged"),
        (described("('|u1', (8,))"), "header is damaged"),
        (described("[('a', '|u1')]"), "header is damaged or of records"),
        (described("'|V0'"), r"it holds '\|V0'"),
        (described("'<U0'"), "it holds '<U0'"),
        (described("'|u3'"), r"it holds '\|u3'"),
        (described("'|O'"), "it holds objects"),
        (described(shape="(True, 8, 8)"), "header is damaged"),
        (described(shape="(-1, -6, 10)"), "header is damaged"),
        (described(shape="(3, 5, 4), 'shape': (3, 5, 4)"), "header is damaged"),
        (described(shape=f"({'9' * 5000},)"), "header is damaged"),
        (described(shape="(0, 99999999999, 99999999999)"), "60 there"),
        (described(shape="(60" + ", 1" * 70 + ")"), "images must be"),
    ],
)
def test_a_damaged_header_of_numpy_is_named(open_folder: Open, header: str, message: str) -> None:
    with pytest.raises(SourceError, match=rf"^test_images\.npy: .*{message}.*; (get|convert) [^\n]*$"):
        open_folder({**MEDMNIST, "test_images.npy": headed(header, TEST.tobytes())})


def test_no_images_of_impossible_sides(open_folder: Open) -> None:
    with pytest.raises(SourceError, match=r"x\.npy: images of 99999999999x99999999999 pixels, not 1 to 89,478,485"):
        open_folder({"x.npy": headed(described(shape="(0, 99999999999, 99999999999)")), "y.npy": npy(np.arange(0))})


@pytest.mark.parametrize(
    "header",
    [
        "{'shape':(3,5,4),'fortran_order':False,'descr':'|u1'}",
        '{"descr": "<u1", "fortran_order": False, "shape": (3L, 5L, 4L)}',
        "  { 'descr' : 'u1' , 'shape' : ( 3 , 5 , 4 , ) , 'fortran_order' : False , }  \n",
    ],
)
def test_headers_as_others_than_numpy_write_them(open_folder: Open, header: str) -> None:
    source = open_folder({"x.npy": headed(header, TEST.tobytes()), "y.npy": npy(np.array([0, 1, 0]))})
    assert all(np.array_equal(pixels(source, f"x.npy/{i}.png"), TEST[i]) for i in range(3))


@settings(max_examples=500, deadline=None)
@given(
    header=st.one_of(
        st.builds(
            described,
            st.sampled_from(["'|u1'", "'<i8'", "'|V0'", "'|O'", "('|u1',)", "None", "'u1"]),
            st.lists(st.integers(-9, 9) | st.sampled_from([True, 10**11, 10**30, "", "L", ()]), max_size=5).map(
                lambda sides: f"({', '.join(map(str, sides))})"
            ),
        ),
        st.text(st.sampled_from("{}()[]',:-\\\n #0u|dTrue"), max_size=60),
        st.tuples(st.integers(0, 60), st.text(min_size=1, max_size=4)).map(
            lambda at: described()[: at[0]] + at[1] + described()[at[0] + len(at[1]) :]
        ),
    ),
    name=st.sampled_from(["x.npy", "y.npy"]),
)
def test_any_header_gives_images_or_our_error(tmp_path_factory: pytest.TempPathFactory, header: str, name: str) -> None:
    folder = tmp_path_factory.mktemp("given")
    (folder / "x.npy").write_bytes(npy(TEST))
    (folder / "y.npy").write_bytes(npy(np.arange(3)))
    (folder / name).write_bytes(headed(header, TEST.tobytes()))
    with suppress(SourceError):
        source = open_source(str(folder), cache=folder)
        assert source.rows.num_rows == 3 and pixels(source, "x.npy/2.png").nbytes == 20


_PACKED_ARRAYS = """
import resource, zipfile
from pathlib import Path
from sagitta.errors import SourceError
from sagitta.sources import open_source
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**28, 3 * 2**28))
HUGE = 2**29

def member(archive, name, kind, shape, size):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    with archive.open(name, "w", force_zip64=True) as file:
        file.write(b"\\x93NUMPY\\1\\0" + len(header).to_bytes(2, "little") + header)
        for start in range(0, size, 2**20):
            file.write(bytes(min(2**20, size - start)))

for name, images, size, labels, most, method in (
    ("size", (5, 8, 8), HUGE, 5, 5, zipfile.ZIP_DEFLATED),
    ("few", (HUGE // 64, 8, 8), HUGE, 5, 5, zipfile.ZIP_DEFLATED),
    ("many", (5, 8, 8), 320, HUGE, HUGE, zipfile.ZIP_DEFLATED),
    ("side", (2, 2**14, 2**14), HUGE, 2, 2, zipfile.ZIP_DEFLATED),
    ("whole", (8, 2**13, 2**13), HUGE, 8, 8, zipfile.ZIP_DEFLATED),
    ("method", (5, 8, 8), 320, 5, 5, zipfile.ZIP_BZIP2),
):
    with zipfile.ZipFile(name + ".npz", "w", method, compresslevel=1) as archive:
        member(archive, "x.npy", "|u1", images, size)
        member(archive, "y.npy", "|u1", (labels,), most)
    try:
        source = open_source(name + ".npz", cache=Path())
        source.reader.read("x.npy/0.png")
    except SourceError as error:
        print(str(error))
"""


def test_what_an_npz_claims_is_compared_before_it_is_unpacked(tmp_path: Path) -> None:
    """Zeros, packed to a thousandth, are more than the process may take; the fifth file is all that it claims to be."""
    command = [sys.executable, "-c", _PACKED_ARRAYS]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert told.splitlines() == [
        "x.npy: not a whole NumPy array of numbers (320 bytes of data wanted, 536,870,912 there); get it again",
        "few.npz: x.npy has 8388608 images but y.npy 5 labels; make them agree",
        "many.npz: x.npy has 5 images but y.npy 536870912 labels; make them agree",
        "x.npy: images of 16384x16384 pixels, not 1 to 89,478,485; convert them anew",
        "x.npy: more than the memory that is free, and each worker takes all of it; give fewer workers, or save its "
        "images as files",
        "x.npy: method.npz packs this file by another method than deflate; get it again, or pack it anew",
    ]


def test_a_damaged_npz_names_the_array(tmp_path: Path) -> None:
    file = tmp_path / "cells.npz"
    np.savez(file, x=TEST, y=np.array([0, 1, 0]))
    file.write_bytes(file.read_bytes().replace(TEST[1].tobytes(), TEST[2].tobytes()))
    with pytest.raises(
        SourceError,
        match=r"^x\.npy: .*cells\.npz does not give this file: Bad CRC-32.*; get it again, or pack it anew$",
    ):
        open_source(str(file), cache=tmp_path).reader.read("x.npy/0.png")


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


def test_images_of_idx_files_are_not_kept_in_memory_at_opening(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(
        bytes((0, 0, 8, 3)) + np.array([1000, 200, 200], ">u4").tobytes()
    )
    with (tmp_path / "train-images-idx3-ubyte").open("r+b") as file:
        file.truncate(16 + 1000 * 200 * 200)
    (tmp_path / "packed-images-idx3-ubyte.gz").write_bytes(
        gzip.compress((tmp_path / "train-images-idx3-ubyte").read_bytes(), 1)
    )
    for name in ("train", "packed"):
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(1000) % 7))
    tracemalloc.start()
    try:
        source = open_source(str(tmp_path), cache=tmp_path / "cache")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert source.rows.num_rows == 2000 and most < 20e6  # the pixels are 80 MB
    assert np.asarray(Image.open(io.BytesIO(source.reader.read("packed/0999.png")))).shape == (200, 200)
