"""Runs to export."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagitta.cli import main


@pytest.fixture(scope="module", autouse=True)
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with ``run``, ``several`` (labels an image) and ``timms``, a network of timm's."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAGITTA_CACHE", str(folder / "cache"))
        rng = np.random.default_rng(0)
        rows = ["path,r,g,b,odd"]
        for number in range(60):
            kind = number % 3
            pixels = rng.integers(0, 120, (20 + number % 7, 24, 3), np.uint8)
            pixels[..., kind] += 130
            place = folder / "photos" / "rgb"[kind] / f"{number:02d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place)
            rows.append(f"photos/{'rgb'[kind]}/{number:02d}.png,{('1,0,0,0', '0,1,0,1', '0,0,1,1')[kind]}")
        (folder / "several.csv").write_text("\n".join(rows) + "\n")
        small = ["--model", "simple-cnn", "--image-size", "16", "--epochs", "2", "--batch-size", "8"]
        assert main(["fit", "photos", *small, "--out", "run"]) == 0
        assert main(["fit", "several.csv", *small, "--label-column", "r,g,b,odd", "--out", "several"]) == 0
        own = ["--model", "test_resnet", "--image-size", "32", *small[4:]]
        assert main(["fit", "photos", *own, "--out", "timms"]) == 0
        yield folder
