"""Data sets known by name, and Hugging Face repositories: fetched once, verified, kept in the cache."""

import hashlib
import http.client
import os
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sagitta.dataset import BUILT_IN, ROWS, Source
from sagitta.errors import SourceError
from sagitta.files import new_file
from sagitta.network import reach
from sagitta.sources.arrays import Part, Pixels, array_source, cifar, idx
from sagitta.sources.base import SourceOptions
from sagitta.sources.folders import folders
from sagitta.sources.tree import Tree, archive_tree, folder_tree

if TYPE_CHECKING:
    from rich.progress import Progress

MIRROR_VARIABLE = "SAGITTA_MIRROR"
"""Environment variable: base URL to download from instead; files are at ``MIRROR/NAME/FILE``."""

_TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Builtin:
    """A data set that can be downloaded.

    Attributes:
        url: folder of the files, ending in '/'.
        files: file name -> MD5 of its bytes, as published.
        layout: reads them.
        classes: label as it is in the files -> class name, in label order; empty where the files name their classes.
    """

    url: str
    files: Mapping[str, str]
    layout: Callable[[Tree, SourceOptions], Source | None]
    classes: Mapping[str, str]


def _idx_files(*checksums: str) -> dict[str, str]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return {f"{name}-ubyte.gz": checksum for name, checksum in zip(names, checksums, strict=True)}


_FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
_IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}

# Addresses and checksums are those that torchvision publishes for the same files.
_DOWNLOADS = {
    "mnist": Builtin(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        _idx_files(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        idx,
        {},
    ),
    "fashion-mnist": Builtin(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        _idx_files(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        idx,
        {str(label): name for label, name in enumerate(_FASHION)},
    ),
    "cifar10": Builtin(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        cifar,
        {},
    ),
    "cifar100": Builtin(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
        cifar,
        {},
    ),
    "imagenette": Builtin(
        "https://s3.amazonaws.com/fast-ai-imageclas/",
        {"imagenette2-320.tgz": "3df6f0d01a2c9592104656642f5e78a3"},
        folders,
        _IMAGENETTE,
    ),
}

BUILTIN = ("digits", *_DOWNLOADS)
"""Names that mean a data set wherever they are written without a path separator."""


def open_builtin(name: str, cache: Path) -> Source:
    """Return the built-in data set ``name``, downloaded into ``cache/NAME`` unless its files lie there.

    Raises:
        SourceError: it cannot be downloaded (the message says which files to put where), or is damaged.
    """
    if name == "digits":
        return _digits()
    builtin, folder = _DOWNLOADS[name], cache / name
    for file, checksum in builtin.files.items():
        if not (folder / file).exists():
            _download(name, builtin, file, checksum, folder)
    archive = archive_tree(name, folder / next(iter(builtin.files)), cache)
    tree = archive or folder_tree(name, folder)
    while top := tree.only_folder():
        tree = tree.below(top)
    source = builtin.layout(tree, SourceOptions())
    if source is None:
        raise SourceError(f"{folder}: not the files of {name}; remove the folder to download them again")
    source = replace(source, location=name, layout=f"{BUILT_IN} {source.layout}")
    return _renamed(source, builtin.classes) if builtin.classes else source


def _renamed(source: Source, classes: Mapping[str, str]) -> Source:
    labels = pa.array([classes[label] for label in source.rows["label"].to_pylist()], pa.string())
    rows = source.rows.set_column(1, ROWS.field("label"), labels)
    return replace(source, rows=rows, class_names=tuple(classes.values()))


def _digits() -> Source:
    labels = [str(label) for label in _digits_table()[:, 64].tolist()]
    part = Part("digits", labels, image_bytes=64, split=None)
    names = [str(digit) for digit in range(10)]
    return array_source("digits", f"{BUILT_IN} handwritten digits, 8x8", [part], _digit_pixels, names)


def _digit_pixels(_part: str) -> Pixels:
    """Return (1797, 8, 8) uint8: scikit-learn's 0..16 scaled to 0..255."""
    pixels: Pixels = np.rint(_digits_table()[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return pixels


def _digits_table() -> npt.NDArray[np.int64]:
    """Return (1797, 65): 64 pixels and the label, of the file behind scikit-learn's ``load_digits``.

    Read past that, which would import pandas and most of SciPy: a tenth of the time that a fit of the digits takes.
    """
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    return np.loadtxt(str(file), np.int64, delimiter=",")


def _download(name: str, builtin: Builtin, file: str, checksum: str, folder: Path) -> None:
    """Fetch one file into ``folder``, verified, whole or not at all."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    url = f"{mirror.rstrip('/')}/{name}/{file}" if mirror else builtin.url + file
    try:
        reach(url)
        with new_file(folder / file) as temporary:
            found = _fetch(url, temporary)
            if found != checksum:
                raise SourceError(
                    f"{url}: MD5 is {found}, not {checksum}; the download is damaged or another file, try again"
                )
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(
            f"{name}: cannot be downloaded from {url} ({error}); "
            f"without network put {', '.join(builtin.files)} into {folder}"
        ) from error


def _fetch(url: str, target: Path) -> str:
    """Write what ``url`` serves to ``target`` and return its MD5; shows progress where stderr is a terminal."""
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, target.open("wb") as file, _progress() as progress:
        length = response.headers.get("Content-Length")
        task = progress.add_task(url.rpartition("/")[2], total=int(length) if length else None)
        while block := response.read(1 << 20):
            file.write(block)
            digest.update(block)
            progress.advance(task, len(block))
    return digest.hexdigest()


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


def hub_folder(location: str, cache: Path) -> Path:
    """Return the local folder of the Parquet files of ``hf://[datasets/]USER/NAME``, downloaded into ``cache``.

    A repository that holds images in another form is read through the Parquet copy that the Hub makes of it.

    Raises:
        SourceError: the repository is not there, holds no Parquet, or there is no network.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    repository = location.removeprefix("hf://").removeprefix("datasets/").strip("/")
    if repository.count("/") != 1:
        raise SourceError(f"{location}: not a repository; write hf://USER/NAME")
    unreached = _unreached(constants.ENDPOINT)
    for revision in ("main", "refs/convert/parquet"):
        try:
            folder = snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision,
                allow_patterns=["*.parquet"],
                cache_dir=cache / "huggingface",
                local_files_only=bool(unreached),
            )
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = unreached or str(error).strip().partition("\n")[0]
            raise SourceError(
                f"{location}: cannot be downloaded ({reason}); check the name and the network, or give a local copy"
            ) from error
        if any(Path(folder).rglob("*.parquet")):
            return Path(folder)
    raise SourceError(f"{location}: no Parquet files in it; download it and give the folder")


def _unreached(url: str) -> str:
    """Return why nobody answers at an address; nothing where somebody does."""
    try:
        reach(url)
    except ConnectionError as error:
        return str(error)
    return ""
