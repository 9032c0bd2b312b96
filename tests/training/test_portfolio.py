"""`fit --time`: what is tried stands in the run, the run is an ordinary one, and what contradicts is one line."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sagitta.cli import main
from sagitta.models.networks import build_network
from sagitta.settings import settings_of
from sagitta.training import fit_in_time
from sagitta.training.candidates import sides


@pytest.fixture
def work(weights_folder: Path) -> None:
    torch.save({"state_dict": build_network("test_resnet", 5, 3, (32, 32)).state_dict()}, weights_folder / "other.pth")


def record(run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run, "run.json").read_text())
    return found


@pytest.mark.usefixtures("work")
def test_heads_are_compared_and_one_is_fine_tuned(photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = ["--model", "resnet20,test_resnet", "--weights", "weights.pth,other.pth", "--batch-size", "8"]
    assert main(["fit", str(photo_folder), *two, "--time", "10m", "--patience", "1", "--out", "run"]) == 0
    printed = capsys.readouterr().out
    found = record("run")
    first, second, *_, last = tried = found["tried"]
    assert [first["what"], second["what"]] == ["head of resnet20", "head of test_resnet"]
    assert last["what"].startswith("fine-tuning of ") and last["epochs"] == found["epochs"] > 0
    assert sum(each["kept"] for each in tried) == 1 and found["time"] == "10m"
    assert "Tried in 10m\n" in printed and printed.count(" kept\n") == 1
    kept = next(each for each in tried if each["kept"])
    assert kept["val_loss"] == pytest.approx(found["result"]["val_loss"], rel=1e-5)

    config = Path("run/config.yaml").read_text()
    assert "\ntime:" not in config
    assert main(["fit", "--config", "run/config.yaml", "--out", "again"]) == 0
    assert record("again")["result"] == pytest.approx(found["result"], rel=1e-4)
    assert main(["fit", "--resume", "run", "--time", "1m"]) == 2 and not Path("runs").exists()
    assert "is resumed without it" in capsys.readouterr().err


@pytest.mark.usefixtures("work")
def test_where_nothing_fits_there_is_a_head_all_the_same(
    photo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"model": "resnet20", "weights": "weights.pth", "batch_size": 8, "time": "1m"}
    fit_in_time(settings_of(photo_folder, options), time.monotonic() - 1e4, Path("run"))  # over before it began
    printed = capsys.readouterr().out
    assert "it is the least that gives a classifier" in printed and "more than the 1m that were given" in printed
    (only,) = record("run")["tried"]
    assert only["kept"] and only["epochs"] == 0 and "max_epochs: 0" in Path("run/config.yaml").read_text()
    assert main(["fit", "--resume", "run"]) == 2
    assert "cannot be resumed" in capsys.readouterr().err
    assert main(["fit", "--config", "run/config.yaml", "--out", "again"]) == 0
    assert record("again")["result"] == record("run")["result"]
    assert main(["predict", "again", str(photo_folder / "china")]) == 0


@pytest.mark.usefixtures("work")
def test_from_scratch_too_some_steps_are_better_than_nothing(photo_folder: Path) -> None:
    options = {"model": "simple-cnn", "image_size": 16, "batch_size": 16, "time": "1m"}
    fit_in_time(settings_of(photo_folder, options), time.monotonic() - 1e4, Path("run"))
    (only,) = record("run")["tried"]
    assert only == only | {"what": "training of simple-cnn", "image_size": 16, "kept": True}
    config = Path("run/config.yaml").read_text()
    assert "max_epochs: 1\n" in config and "limit_train_batches: 0.75\n" in config  # 1 of 2 batches of 16


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--time", "10"], "did you mean 10m, or 10s?"),
        (["--time", "soon"], "such as 90s, 10m or 1h30m"),
        (["--time", "0m"], "such as 90s"),
        (["--time", "1m", "--epochs", "3"], "--time and --epochs both say how long to train"),
        (["--time", "1m", "--folds", "3"], "--time and --folds"),
        (["--time", "1m", "--trainer.max_time", "00:00:01:00"], "--time and --trainer.max_time"),
        (["--time", "1m", "--lr", "auto"], "--time and --lr auto"),
        (["--time", "1m", "--model", "resnet20,resnet18"], "give --pretrained or --weights"),
        (["--time", "1m", "--model", "resnet20,a,b", "--weights", "weights.pth,x"], "names 3 networks and --weights 2"),
        (["--epochs", "0"], "must be above 0"),
    ],
)
def test_what_contradicts_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["fit", "digits", "--out", "run", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line and not Path("run").exists()


@pytest.mark.usefixtures("work")
def test_no_epoch_is_for_a_head_that_can_be_solved(photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(photo_folder / "flower")
    for name in ("a", "b"):  # one image a class
        (photo_folder / name).mkdir()
        shutil.copy(photo_folder / "china" / f"00{'ab'.index(name)}.jpg", photo_folder / name)
    torch.save({"state_dict": build_network("resnet20", 3, 3, (32, 32)).state_dict()}, "same.pth")
    begin = ["fit", str(photo_folder), "--model", "resnet20", "--batch-size", "8", "--epochs", "0"]
    assert main([*begin, "--weights", "same.pth", "--out", "same"]) == 2  # it brings a head
    assert "--epochs 0" in capsys.readouterr().err and not Path("same").exists()


@pytest.mark.usefixtures("work")
def test_weights_that_have_seen_val_have_their_head_solved_anew(photo_folder: Path) -> None:
    probe = ["probe", str(photo_folder), "--model", "resnet20", "--weights", "weights.pth", "--out", "probed"]
    assert main(probe) == 0
    options = {"weights": "probed", "batch_size": 8, "time": "1m"}
    fit_in_time(settings_of(photo_folder, options), time.monotonic() - 1e4, Path("run"))
    (only,) = record("run")["tried"]
    assert only["what"] == "head of resnet20" and only["kept"]


def test_sides_are_multiples_of_what_networks_halve() -> None:
    assert sides(224, (1.25, 1.5)) == [288, 320] and sides(224, (0.75, 0.5)) == [160, 128]
    assert sides(32, (1.25, 1.5)) == [64] and sides(32, (0.75, 0.5)) == [] and sides(64, (0.75, 0.5)) == [32]
