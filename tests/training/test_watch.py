"""Predictions on sample images: a grid a person can read, for any LightningModule."""

import csv
import io
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from sagitta.conversion.options import ConvertOptions
from sagitta.conversion.pipeline import convert
from sagitta.dataset.shards import ShardSet
from sagitta.errors import ConfigError
from sagitta.images.grid import prediction_grid
from sagitta.loading.loader import Loader
from sagitta.loading.preprocessing import Preprocessing
from sagitta.models.classifier import Classifier
from sagitta.run import COMMAND
from sagitta.sources.detect import open_source
from sagitta.training.callbacks import WeightEMA
from sagitta.training.watch import EpochBar, EpochLines, PredictionImages, Throughput


def tile(value: int) -> Image.Image:
    return Image.fromarray(np.full((20, 30, 3), value, np.uint8))


def test_grid_frames_right_green_and_wrong_red() -> None:
    grid = prediction_grid([(tile(0), "cat", "cat", 0.9), (tile(255), "cat", "a very long class name " * 5, 0.6)])
    colours = {colour for _, colour in grid.getcolors(1 << 20) or []}
    assert (34, 139, 34) in colours and (200, 30, 30) in colours
    assert grid.width < 2 * 200 and grid.height < 2 * 220


def plain_trainer(folder: Path, *callbacks: pl.Callback, epochs: int, **arguments: Any) -> pl.Trainer:
    """A Trainer on the CPU that writes nothing of its own."""
    off: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary"), False)
    where: dict[str, Any] = {"accelerator": "cpu", "default_root_dir": folder}
    return pl.Trainer(max_epochs=epochs, callbacks=list(callbacks), **off, **where, **arguments)


def test_every_epoch_leaves_a_picture_and_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 16, 16), torch.arange(8) % 2), 8)
    trainer = plain_trainer(tmp_path, PredictionImages(4), EpochLines(), epochs=2, enable_progress_bar=False)
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

    watch = Throughput(tmp_path / "pace.csv")
    trainer = plain_trainer(tmp_path, watch, epochs=2, enable_progress_bar=False)
    trainer.fit(Classifier("simple-cnn", num_classes=2), DataLoader(Slow(), 2), DataLoader(Slow(), 12))
    assert watch.images == (12 - 5) * 2 + 24
    first, second = csv.DictReader((tmp_path / "pace.csv").read_text().splitlines())
    assert (first["epoch"], second["epoch"]) == ("0", "1") and float(first["seconds"]) >= 12 * 2 * 0.05
    assert float(second["wait_share"]) > 0.5 and 0 < float(second["images_per_second"]) <= 20
    assert float(second["lr"]) == trainer.optimizers[0].param_groups[0]["lr"]
    assert watch.wait_share > 0.5
    assert "the data is the bottleneck; faster:\n  more workers of the DataLoader" in capsys.readouterr().out


def test_throughput_sees_when_the_model_is_slow() -> None:
    watch = Throughput()
    watch.waited, watch.computed, watch.images = 0.01, 0.99, 50
    assert watch.diagnosis(None).startswith("throughput: 50 images/s, 1% of the time waiting for data; the model")
    assert "precision" not in watch.diagnosis(None)  # what a GPU would gain by
    assert "(precision='bf16-mixed')" in watch.diagnosis(None, "cuda")
    assert "precision" not in watch.diagnosis(None, "cuda", "bf16-mixed")
    assert max(map(len, watch.diagnosis(None, "cuda").splitlines())) <= 110


def test_settings_are_named_as_their_reader_writes_them() -> None:
    watch = Throughput()
    watch.waited, watch.computed, watch.images = 0.01, 0.99, 50
    token = COMMAND.set("sagitta fit digits")
    try:
        assert "(--precision bf16-mixed)" in watch.diagnosis(None, "cuda")
        assert "(--batch-size auto)" in watch.diagnosis(None, "cuda")
    finally:
        COMMAND.reset(token)


def _train(folder: Path, callbacks: list[pl.Callback]) -> tuple[pl.Trainer, Classifier, DataLoader[Any]]:
    pl.seed_everything(0, verbose=False)
    loader = DataLoader(TensorDataset(torch.rand(32, 3, 16, 16), torch.arange(32) % 2), 8)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    classifier = Classifier("resnet20", num_classes=2, lr=0.1)
    trainer.fit(classifier, loader, loader)
    return trainer, classifier, loader


def test_what_is_kept_and_tested_is_the_average(tmp_path: Path) -> None:
    """The average that the checkpoints must hold is computed here a second time, from the weights after each step."""
    averages: list[dict[str, torch.Tensor]] = []

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            now = {name: value.clone() for name, value in pl_module.state_dict().items()}
            n = len(averages)  # updates before this one; the first one copies
            keep = 0.0 if n == 0 else min(0.9, (1 + n) / (10 + n))
            averages.append(
                {
                    name: keep * averages[-1][name] + (1 - keep) * value
                    if keep and value.is_floating_point()
                    else value
                    for name, value in now.items()
                }
            )

    kept = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1, save_last=True)
    trainer, classifier, loader = _train(tmp_path, [Recorder(), WeightEMA(0.9), kept])
    final = {name: value.clone() for name, value in classifier.state_dict().items()}
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name, value in averages[-1].items():
        torch.testing.assert_close(last["state_dict"][name], value)
        torch.testing.assert_close(final[name], value)
    assert not torch.equal(
        last["state_dict"]["network.linear.weight"], last["current_model_state"]["network.linear.weight"]
    )
    best = torch.load(kept.best_model_path, weights_only=True)["state_dict"]
    tested = trainer.test(classifier, loader, ckpt_path=kept.best_model_path, verbose=False, weights_only=True)[0]
    assert all(torch.equal(value, best[name]) for name, value in classifier.state_dict().items())
    assert tested["test_loss"] == pytest.approx(float(kept.best_model_score or 0), rel=1e-4)


def test_an_average_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ema 1\.0"):
        WeightEMA(1.0)


def test_throughput_knows_what_would_make_our_loader_faster(tmp_path: Path, photo_folder: Path) -> None:
    watch = Throughput()
    watch.waited, watch.computed, watch.images = 3.0, 1.0, 100
    said = []
    for name, options in (("plain", ConvertOptions()), ("marked", ConvertOptions(restart_markers=True))):
        convert(open_source(str(photo_folder), cache=tmp_path / "cache"), tmp_path / name, options)
        how = replace(Preprocessing.of_dataset(ShardSet.open(tmp_path / name).info), size=(32, 32))
        said.append(watch.diagnosis(Loader(tmp_path / name, preprocessing=how, threads=0)))
    assert said[0].startswith("throughput: 25 images/s, 75% of the time waiting for data; the data is the bottleneck")
    assert "(threads=" in said[0]
    assert "convert(…, restart_markers=True)" in said[0] and "restart_markers" not in said[1]
    assert all("convert(…, resize=48)" in line for line in said)


def test_tall_and_wide_strips_are_no_large_images(tmp_path: Path) -> None:
    """Of 20 x 400 and 400 x 20 pixels the largest height and width are 400, and no image could be stored smaller."""
    for label, size in (("tall", (20, 400)), ("wide", (400, 20))):
        (tmp_path / "strips" / label).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", size, (number * 40, 0, 0)).save(tmp_path / "strips" / label / f"{number}.jpg")
    convert(open_source(str(tmp_path / "strips"), cache=tmp_path / "cache"), tmp_path / "data", ConvertOptions())
    how = replace(Preprocessing.of_dataset(ShardSet.open(tmp_path / "data").info), size=(32, 32))
    watch = Throughput()
    watch.waited, watch.computed, watch.images = 3.0, 1.0, 100
    said = watch.diagnosis(Loader(tmp_path / "data", preprocessing=how, threads=0))
    assert "resize" not in said and "restart_markers" not in said


def test_bar_and_lines_count_epochs_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = io.StringIO()
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 16, 16), torch.arange(8) % 2), 4)
    bar = EpochBar(console_kwargs={"file": drawn, "force_terminal": True, "width": 80})
    trainer = plain_trainer(tmp_path, EpochLines(), bar, epochs=2)
    trainer.fit(Classifier("simple-cnn", num_classes=2), loader, loader)
    shown = drawn.getvalue() + capsys.readouterr().out
    assert set(re.findall(r"(?i)epoch +\d+/\d+", shown)) == {"epoch   1/2", "epoch   2/2"}
    assert "train_loss_step" not in shown
