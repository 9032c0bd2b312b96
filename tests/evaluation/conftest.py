"""A run on images that a mark decides, for tests of what is done with a run."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sagitta


@pytest.fixture(scope="session")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``run``, trained on ``images``: noise with a red or a green mark, by class; and a cache."""
    work = tmp_path_factory.mktemp("marked")
    random = np.random.default_rng(0)
    for number in range(120):
        name = ("green", "red")[number % 2]
        pixels = random.integers(60, 180, (30, 24, 3), np.uint8)
        top, left = random.integers(4, 20), random.integers(0, 18)
        pixels[top : top + 6, left : left + 6] = (255, 0, 0) if name == "red" else (0, 255, 0)
        (work / "images" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(work / "images" / name / f"{number:03}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setenv("SAGITTA_CACHE", str(work / "cache"))
        sagitta.fit("images", epochs=4, batch_size=16, lr=2e-3, model="simple-cnn", image_size=24, out="run")
    return work


@pytest.fixture
def inside(marked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``marked``, as the working directory."""
    assert os.environ.get("SAGITTA_CACHE") != str(marked / "cache")
    monkeypatch.chdir(marked)
    monkeypatch.setenv("SAGITTA_CACHE", str(marked / "cache"))
    return marked
