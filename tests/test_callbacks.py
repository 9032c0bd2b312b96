"""Predictions on sample images: a grid a person can read, for any LightningModule."""

import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from sagitta.callbacks import EpochLines, PredictionImages, Throughput, prediction_grid
from sagitta.model import Classifier


def tile(value: int) -> Image.Image:
    return Image.fromarray(np.full((20, 30, 3), value, np.uint8))


def test_grid_frames_right_green_and_wrong_red() -> None:
    grid = prediction_grid([(tile(0), "cat", "cat", 0.9), (tile(255), "cat", "a very long class name " * 5, 0.6)])
    colours = {colour for _, colour in grid.getcolors(1 << 20) or []}
    assert (34, 139, 34) in colours and (200, 30, 30) in colours
    assert grid.width < 2 * 200 and grid.height < 2 * 220


def test_every_epoch_leaves_a_picture_and_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 16, 16), torch.arange(8) % 2), 8)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[PredictionImages(4), EpochLines()],
    )
    trainer.fit(Classifier("simple-cnn", num_classes=2), loader, loader)
    pictures = sorted((tmp_path / "predictions").iterdir())
    assert [path.name for path in pictures] == ["epoch=00.png", "epoch=01.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (2 * 168, 2 * 204)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert all(word in lines[0] for word in ("train_loss", "val_loss", "val_acc"))


def test_throughput_names_the_bottleneck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Slow(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return 24

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            time.sleep(0.05)
            return torch.rand(3, 16, 16), index % 2

    watch = Throughput()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    trainer.fit(Classifier("simple-cnn", num_classes=2), DataLoader(Slow(), 2), DataLoader(Slow(), 12))
    assert watch.images == (12 - 5) * 2
    assert watch.wait_share > 0.5
    assert "the data is the bottleneck: give the DataLoader more workers" in capsys.readouterr().out


def test_throughput_sees_when_the_model_is_slow() -> None:
    watch = Throughput()
    watch.waited, watch.computed, watch.images = 0.01, 0.99, 50
    assert watch.diagnosis(None).startswith("throughput: 50 images/s, 1% of the time waiting for data; the model")
