"""The five systems, each run as its user would, on small real data."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(name: str, *arguments: object, cwd: Path) -> str:
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "SAGITTA_CACHE": str(cwd / "cache"), "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


def link_some(source: Path, target: Path, count: int) -> None:
    """Link every n-th file, so that ``count`` of them stand for the folder."""
    target.mkdir(parents=True)
    files = sorted(source.iterdir())
    for path in files[:: max(1, len(files) // count)][:count]:
        shutil.copy(path, target)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 50


def test_dogs_vs_cats(data_dir: Path, tmp_path: Path) -> None:
    for split, count in (("train", 40), ("test", 12)):
        for kind in ("cat", "dog"):
            files = sorted((data_dir / "dogs-vs-cats" / split).glob(f"{kind}.*"))[: count // 2]
            (tmp_path / "data" / split).mkdir(parents=True, exist_ok=True)
            for path in files:
                shutil.copy(path, tmp_path / "data" / split)
    run_example("dogs_vs_cats.py", "data", "--model", "resnet18", "--epochs", 1, cwd=tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert "last.ckpt" in names and any(
        re.fullmatch(r"image-classifier-epoch=00-val_loss=\d+\.\d\d\.ckpt", name) for name in names
    )
    assert any((tmp_path / "lightning_logs" / "version_0").iterdir())
    assert {"train", "test"} <= {path.name for path in (tmp_path / "data_parquet").iterdir()}
    with (tmp_path / "test_logs.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert 0 <= float(row["test_acc"]) <= 1


def test_cifar10_wandb(data_dir: Path, tmp_path: Path) -> None:
    output = run_example("cifar10_wandb.py", data_dir / "cifar-10-batches-py", "--epochs", 1, cwd=tmp_path)
    assert "Run history" in output and "Run summary" in output and "test_acc" in output
    assert any((tmp_path / "wandb").rglob("*.table.json"))


def test_swap_datamodules(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("Danaus_plexippus", "Vanessa_cardui"):
        link_some(data_dir / "butterflies" / name, tmp_path / "folder" / name, 12)
    output = run_example("swap_datamodules.py", "digits", tmp_path / "folder", cwd=tmp_path)
    assert output.count("normalisation:") == 2 and output.count("test_acc") == 2


def test_own_transforms(tmp_path: Path) -> None:
    output = run_example("own_transforms.py", "digits", cwd=tmp_path)
    assert "recorded: Compose(" in output and "my own batch: (64, 1, 8, 8), 10 classes" in output


def test_butterflies(data_dir: Path, tmp_path: Path) -> None:
    for name in ("Danaus_plexippus", "Vanessa_cardui", "Pieris_rapae"):
        link_some(data_dir / "butterflies" / name, tmp_path / "butterflies" / name, 14)
    output = run_example(
        "butterflies.py", "butterflies", "--model", "resnet18", "--scratch", "--epochs", 1, cwd=tmp_path
    )
    assert "test_acc" in output
    assert list((tmp_path / "lightning_logs" / "version_0" / "checkpoints").glob("*.ckpt"))


@pytest.mark.parametrize(("epochs", "least"), [(1, 0.96), pytest.param(3, 0.985, marks=pytest.mark.slow)])
def test_mnist_reaches_what_its_epochs_promise(data_dir: Path, tmp_path: Path, epochs: int, least: float) -> None:
    output = run_example("mnist.py", data_dir / "mnist", "--epochs", epochs, cwd=tmp_path)
    accuracy = float(re.findall(r"val_acc\D+(0\.\d+)", output)[-1])
    assert accuracy >= least
