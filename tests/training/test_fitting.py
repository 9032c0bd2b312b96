"""Fitting through the command line: recipes, weights from a file or a run, what a resumed run needs."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sagitta.cli import main
from sagitta.models.networks import build_network


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": build_network("resnet20", 5, 3, (32, 32)).state_dict()}, "weights.pth")


@pytest.mark.usefixtures("work")
def test_fine_tuning_by_recipe_and_from_a_run(photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's weights, the recipe in the configuration; then a run's weights, resumed after their file has gone."""
    begin = ["fit", str(photo_folder), "--model", "resnet20", "--batch-size", "8", "--epochs", "2"]
    assert main([*begin, "--weights", "weights.pth", "--out", "first"]) == 0
    printed = capsys.readouterr().out
    assert "recipe: fine-tuning pretrained weights on few photos" in printed
    assert "weights: weights.pth: 95 of 97 tensors matched, the head (linear) is new" in printed
    config = Path("first/config.yaml").read_text()
    assert all(line in config for line in ("schedule: cosine", "auto: trivial", "batch_size: 8", "ema: 0.9"))

    from_run = ["fit", str(photo_folder), "--weights", "first", "--tune", "gradual", "--batch-size", "8"]
    assert main([*from_run, "--epochs", "2", "--model.schedule", "constant", "--out", "second"]) == 0
    assert "the head (linear) too" in capsys.readouterr().out
    shutil.rmtree("first")
    Path("weights.pth").unlink()
    assert main(["fit", "--resume", "second", "--epochs", "3"]) == 0
    record = json.loads(Path("second/run.json").read_text())
    assert record["epochs"] == 3 and record["dataset"]["transforms"]["evaluation"]["size"] == [32, 32]
    assert main(["test", "second"]) == 0


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights", "none.pth", "--model", "resnet20"], "none.pth: no such checkpoint"),
        (["--weights", "weights.pth"], "name it with --model"),
        (["--weights", "weights.pth", "--model", "resnet18"], "beyond the head"),
        (["--weights", "weights.pth", "--pretrained", "--model", "resnet20"], "give one of the two"),
        (["--pretrained", "--model", "resnet20"], "pretrained weights are known"),
        (["--ema", "1.5"], "ema 1.5"),
        (["--tune", "tail"], "tail"),
    ],
)
def test_what_does_not_fit_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["fit", "digits", "--epochs", "1", "--out", "run", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line
