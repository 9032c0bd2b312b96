import functools
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagitta.schema import SourceError
from sagitta.sources import BUILTIN, open_source
from sagitta.sources.builtin import MIRROR_VARIABLE

from .conftest import image, write_files


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a loopback server gives as the mirror."""
    root = tmp_path / "mirror"
    root.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv(MIRROR_VARIABLE, f"http://127.0.0.1:{server.server_address[1]}/")
        yield root
        server.shutdown()
        thread.join()


def test_digits_are_the_real_ones(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    source = open_source("digits", cache=tmp_path)
    assert source.rows.num_rows == 1797
    assert source.class_names == tuple("0123456789")
    pixels = np.asarray(Image.open(io.BytesIO(source.reader.read(source.rows["path"][100].as_py()))))
    assert np.array_equal(np.rint(pixels / 255 * 16), load_digits().images[100])
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
