"""The whole program on pictures that are made here, in seconds: pytest."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from predict import predict
from train import train

CONFIG = Path(__file__).with_name("config.yaml")


def test_it_learns_what_it_then_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # runs/ is made there
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(80):
        folder = Path("photos", ("blue", "red")[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (32, 32, 3), np.uint8)
        pixels[..., 0 if number % 2 else 2] += 120
        Image.fromarray(pixels).save(folder / f"{number}.png")
    quick = {"network": "resnet10t", "pretrained": False, "image_size": 32, "batch_size": 8, "epochs": 3}
    checkpoint, measured = train("photos", **yaml.safe_load(CONFIG.read_text()) | quick)
    assert measured["test_acc"] >= 0.8
    found = {path: name for path, name, _ in predict(checkpoint, ["photos"])}
    assert len(found) == 80 and sum(name == Path(path).parent.name for path, name in found.items()) >= 64
