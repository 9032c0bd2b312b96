import functools
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sagitta.errors import SourceError
from sagitta.sources.builtin import BUILTIN, MIRROR_VARIABLE
from sagitta.sources.detect import open_source

from .conftest import image, write_files


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free loopback port and yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a loopback server gives as the mirror."""
    root = tmp_path / "mirror"
    root.mkdir()
    with serving(functools.partial(Quiet, directory=str(root))) as address:
        monkeypatch.setenv(MIRROR_VARIABLE, address)
        yield root


def test_digits_are_the_real_ones(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    source = open_source("digits", cache=tmp_path)
    assert source.rows.num_rows == 1797
    assert source.class_names == tuple("0123456789")
    pixels = np.asarray(Image.open(io.BytesIO(source.reader.read(source.rows["path"][100].as_py()))))
    assert np.array_equal(np.rint(pixels / 255 * 16), load_digits().images[100])
    assert source.rows["label"].to_pylist() == [str(label) for label in load_digits().target]
    assert list(tmp_path.iterdir()) == []


def test_mnist_is_downloaded_once_and_verified(data_dir: Path, mirror: Path, tmp_path: Path) -> None:
    (mirror / "mnist").symlink_to(data_dir / "mnist")
    source = open_source("mnist", cache=tmp_path / "cache")
    assert (source.location, source.rows.num_rows, source.class_names) == ("mnist", 70_000, tuple("0123456789"))
    (mirror / "mnist").unlink()
    assert open_source("mnist", cache=tmp_path / "cache").rows.equals(source.rows)


def test_a_download_with_another_checksum_is_refused_and_removed(mirror: Path, tmp_path: Path) -> None:
    write_files(mirror, {"cifar10/cifar-10-python.tar.gz": b"not the batches"})
    with pytest.raises(SourceError, match=r"cifar-10-python\.tar\.gz: MD5 is .*, not c58f3.*; the download is damaged"):
        open_source("cifar10", cache=tmp_path / "cache")
    assert list((tmp_path / "cache/cifar10").iterdir()) == []


@pytest.mark.parametrize("name", [name for name in BUILTIN if name != "digits"])
def test_without_a_server_the_message_says_which_files_go_where(name: str, mirror: Path, tmp_path: Path) -> None:
    assert list(mirror.iterdir()) == []
    where = tmp_path / "cache" / name
    with pytest.raises(SourceError, match=rf"{name}: cannot be downloaded .*404.* put \S+gz?.* into {where}"):
        open_source(name, cache=tmp_path / "cache")
    assert list(where.iterdir()) == []


def test_files_put_into_the_cache_are_used_and_classes_get_their_names(tmp_path: Path) -> None:
    root = write_files(tmp_path / "imagenette2-320", {"train/n01440764/a.JPEG": None, "val/n03888257/b.JPEG": None})
    (root / "noisy_imagenette.csv").write_text("path,noisy_labels_0\ntrain/n01440764/a.JPEG,n01440764\n")
    folder = tmp_path / "cache/imagenette"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "imagenette2-320.tgz", "w:gz") as tar:
        tar.add(root, root.name)
    source = open_source("imagenette", cache=tmp_path / "cache")
    assert source.rows.select(["path", "label", "split"]).to_pylist() == [
        {"path": "train/n01440764/a.JPEG", "label": "tench", "split": "train"},
        {"path": "val/n03888257/b.JPEG", "label": "parachute", "split": "val"},
    ]
    assert source.class_names[0] == "tench"
    assert len(source.class_names) == 10
    assert source.reader.read("val/n03888257/b.JPEG") == image(1)


def test_a_folder_called_as_a_built_in_needs_a_separator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"digits/cat/1.png": None, "digits/dog/1.png": None})
    monkeypatch.chdir(tmp_path)
    assert open_source("./digits", cache=tmp_path / "cache").class_names == ("cat", "dog")
    assert open_source("digits", cache=tmp_path / "cache").rows.num_rows == 1797


def test_a_hub_repository_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=r"hf://user/name: cannot be downloaded .*; check the name and the network"):
        open_source("hf://user/name", cache=tmp_path)
    with pytest.raises(SourceError, match=r"hf://name: not a repository; write hf://USER/NAME"):
        open_source("hf://name", cache=tmp_path)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's protocol as a download of ``user/name``, one file at one commit, needs."""

    data = b""
    commit = "0" * 40

    def do_HEAD(self) -> None:
        self._answer(self.data if "/resolve/" in self.path else b"")

    def do_GET(self) -> None:
        files = [
            {"type": "file", "path": name, "size": len(self.data), "oid": "abc"} for name in ("train.parquet", "a.md")
        ]
        info = {"id": "user/name", "sha": self.commit, "siblings": [{"rfilename": file["path"]} for file in files]}
        listing = json.dumps(files if "/tree/" in self.path else info).encode()
        self._answer(self.data if "/resolve/" in self.path else listing)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"abc"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


def test_a_hub_repository(tmp_path: Path) -> None:
    """In a process of its own, because the Hub's address is read from the environment once."""
    images = [{"bytes": image(i), "path": None} for i in range(2)]
    pq.write_table(pa.table({"image": images, "label": ["a", "b"]}), tmp_path / "given.parquet")
    Hub.data = (tmp_path / "given.parquet").read_bytes()
    script = (
        "import sys; from pathlib import Path; from sagitta.sources import open_source;"
        "print(open_source('hf://datasets/user/name', cache=Path(sys.argv[1])).describe())"
    )
    with serving(Hub) as address:
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.startswith("hf://datasets/user/name: Parquet with images, 1 file, 2 images in 2 classes"), (
        done.stderr
    )
