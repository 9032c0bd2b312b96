"""Real small images for the tests: scikit-learn's digits and sample photos; SAGITTA_DATA adds the large real sets."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

# Several workers with as many threads each as there are cores would mostly wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it for its workers, and lines would be broken there

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images


class Command(Protocol):
    """Runs in ``cwd`` with a cache there, asserts that the command succeeds, and returns what it printed."""

    def __call__(self, *arguments: object, cwd: Path) -> str: ...


@pytest.fixture(scope="session")
def sagitta_process() -> Command:
    """`sagitta ARGUMENTS` in a process of its own, for what needs one; see ``test_cli.sagitta`` for all else."""

    def run(*arguments: object, cwd: Path) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "sagitta", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "SAGITTA_CACHE": str(cwd / "cache")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture(autouse=True)
def _no_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs of this process leave no page, but in tests of pages: all others would be a third slower."""
    if request.node.get_closest_marker("page") is None:
        import sagitta.reporting

        monkeypatch.setitem(vars(sagitta.reporting), "leave_report", lambda *_: None)


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with an own cache and ``weights.pth``, a resnet20 of five other classes."""
    import torch  # here, since most tests need neither

    from sagitta.models.networks import build_network

    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save({"state_dict": build_network("resnet20", 5, 3, (32, 32)).state_dict()}, "weights.pth")
    return tmp_path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real datasets; tests over them are skipped without (.ci/run sets it and fails if it is missing)."""
    root = os.environ.get("SAGITTA_DATA")
    if not root:
        pytest.skip("SAGITTA_DATA is not set")
    return Path(root)


@pytest.fixture(scope="session")
def photos() -> dict[str, np.ndarray]:
    """scikit-learn's two sample photos, (427, 640, 3) uint8."""
    images = load_sample_images()
    return dict(zip(("china", "flower"), images.images, strict=True))


@pytest.fixture
def photo_folder(tmp_path: Path, photos: dict[str, np.ndarray]) -> Path:
    """Class folders ``china`` and ``flower`` of 20 JPEGs each: crops of the sample photos, 64 to 120 pixels a side."""
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name, pixels in photos.items():
        (root / name).mkdir(parents=True)
        for index in range(20):
            height, width = rng.integers(64, 121, 2)
            top, left = rng.integers(0, 427 - height), rng.integers(0, 640 - width)
            Image.fromarray(pixels[top : top + height, left : left + width]).save(
                root / name / f"{index:03d}.jpg", quality=90
            )
    return root
