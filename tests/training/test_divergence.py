"""A loss that is not finite stops a training: one line, no such weights are kept, and the last good ones go on."""

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sagitta.cli import main
from sagitta.errors import SagittaError
from sagitta.evaluation import evaluate
from sagitta.models import load_classifier
from sagitta.settings import settings_of
from sagitta.training import fit_folds, fit_in_time
from sagitta.training.callbacks import WeightEMA
from sagitta.training.checkpoints import Checkpoints
from sagitta.training.divergence import DivergenceError, StopDiverged, anomalies_named
from sagitta.training.fitting import fit

OPTIONS: dict[str, Any] = {"model": "resnet20", "batch_size": 8, "image_size": 32, "epochs": 3, "patience": 0, "ema": 0}
HOW = {"data.augmentation.auto": None, "trainer.accelerator": "cpu"}


@pytest.fixture(autouse=True)
def work(weights_folder: Path) -> Path:
    return weights_folder


class Planted(pl.Callback):
    """Spoils a weight, or the images of a batch, of an epoch."""

    def __init__(self, epoch: int, batch: int, where: str) -> None:
        self.epoch, self.batch, self.where = epoch, batch, where

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, number: int) -> None:
        if (trainer.current_epoch, number) == (self.epoch, self.batch) and self.where == "images":
            batch[0][2, 0, 0, 0] = torch.inf

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, number: int
    ) -> None:
        if (trainer.current_epoch, number) == (self.epoch, self.batch) and self.where == "weights":
            with torch.no_grad():
                next(pl_module.parameters()).fill_(torch.nan)


def finite(path: Path) -> bool:
    return all(each.isfinite().all() for each in load_classifier(path).state_dict().values())


def kept(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("*.ckpt")) if (run / "checkpoints").is_dir() else []


@pytest.mark.parametrize(
    ("where", "batch", "ema", "words"),
    [
        ("images", 1, 0.0, "epoch 2, batch 2: the loss is nan, as the pixels of "),
        ("weights", 1, 0.0, "epoch 2, batch 3 (8 images, "),
        ("weights", 3, 0.0, "epoch 2: val_loss is nan; try a lower --lr"),  # behind the last batch
        ("weights", 3, 0.9, "network.conv1.weight is not finite any more; try a lower --lr"),  # the average is
    ],
)
def test_it_stops_with_one_line_and_goes_on_from_the_last_good_epoch(
    photo_folder: Path, where: str, batch: int, ema: float, words: str
) -> None:
    settings = settings_of(photo_folder, {**OPTIONS, "ema": ema}, HOW)
    with pytest.raises(DivergenceError) as error:
        fit(settings, Path("run"), callbacks=[Planted(1, batch, where)], verbose=False)
    line = str(error.value)
    assert words in line and line.removesuffix(" --lr RATE").endswith("sagitta fit --resume run") and "\n" not in line
    assert ".jpg" in line or "val_loss" in line
    assert Path("run/checkpoints/last.ckpt") in kept(Path("run")) and all(map(finite, kept(Path("run"))))
    assert main(["fit", "--resume", "run"]) == 0
    fit(settings, Path("whole"), verbose=False)
    resumed, whole = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("run", "whole"))
    assert all(torch.equal(tensor, whole["state_dict"][name]) for name, tensor in resumed["state_dict"].items())


def test_no_weights_that_are_not_finite_are_saved_where_nothing_is_validated(photo_folder: Path) -> None:
    settings = settings_of(photo_folder, OPTIONS, HOW, {"trainer.check_val_every_n_epoch": 3})
    with pytest.raises(
        DivergenceError, match=r"epoch 2, batch 4 \(8 images, .*\): network.* is not finite any more; try"
    ):
        fit(settings, Path("run"), callbacks=[Planted(1, 3, "weights")], verbose=False)
    assert [path.name for path in kept(Path("run"))] == ["last.ckpt"] and finite(kept(Path("run"))[0])


@pytest.mark.parametrize("more", [[], ["--trainer.detect_anomaly", "true"], ["--trainer.precision", "bf16-true"]])
@pytest.mark.filterwarnings("ignore:.*Error detected in.*")
def test_too_high_a_rate_is_one_line(photo_folder: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    flags = [
        "--model",
        "resnet20",
        "--image-size",
        "32",
        "--batch-size",
        "8",
        "--lr",
        "1e6",
        "--model.optimizer",
        "sgd",
    ]
    assert main(["fit", str(photo_folder), *flags, "--out", "run", *more]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("sagitta: epoch 1") and "try " in line and "a lower --lr (in this step it was " in line
    assert ("--precision 32-true" in line) == ("bf16-true" in more)
    assert line.endswith("it begins anew with: sagitta fit --resume run --lr RATE") and not kept(Path("run"))
    assert main(["fit", "--resume", "run", "--lr", "1e-3", "--epochs", "1"]) == 0 and all(
        map(finite, kept(Path("run")))
    )


def test_a_checkpoint_of_other_tools_that_is_not_finite_is_told_when_it_is_tested(photo_folder: Path) -> None:
    run = fit(settings_of(photo_folder, {**OPTIONS, "epochs": 1}, HOW), Path("run"), verbose=False).run
    (path,) = (each for each in kept(run) if each.name != "last.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["network.linear.bias"].fill_(torch.nan)
    torch.save(checkpoint, path)
    with pytest.raises(SagittaError, match=r"not finite for 4 images of 4, such as .*\.jpg: its training diverged"):
        evaluate(run, None, None, {}, verbose=False)


def test_a_member_that_diverges_names_the_whole_run_which_goes_on_with_it(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(_: Any, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1 and Path(trainer.default_root_dir).name == "2":
            with torch.no_grad():
                next(module.parameters()).fill_(torch.nan)

    monkeypatch.setattr(StopDiverged, "on_train_epoch_start", spoil)
    with pytest.raises(DivergenceError, match=r"epoch 2, batch 1 .*sagitta fit --resume run --lr RATE$"):
        fit_folds(settings_of(photo_folder, {**OPTIONS, "folds": 2, "epochs": 2}, HOW), Path("run"))
    assert kept(Path("run/members/1")) and all(map(finite, Path("run").rglob("*.ckpt")))
    monkeypatch.undo()
    monkeypatch.setenv("SAGITTA_CACHE", "cache")
    monkeypatch.chdir(photo_folder.parent)
    assert main(["fit", "--resume", "run"]) == 0 and kept(Path("run/members/2"))


def test_fine_tuning_that_diverges_leaves_the_head_that_was_solved(
    photo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = {**HOW, "model.optimizer": "sgd", "trainer.accelerator": "cpu"}
    options = {"model": "resnet20", "weights": "weights.pth", "time": "5m", "lr": 1e6, "batch_size": 8}
    fitted = fit_in_time(settings_of(photo_folder, options, how), time.monotonic(), Path("run"))
    assert "fine-tuning diverged, so the head is kept: epoch 1" in capsys.readouterr().out
    assert fitted.evaluation is not None and all(map(finite, kept(Path("run"))))
    assert not list(Path("run").glob("predictions/*"))


class Scripted(pl.LightningModule):
    """One weight, and losses as they are given: any module, with any loader."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.losses, self.weight = list(losses), torch.nn.Parameter(torch.ones(1))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight.sum() * self.losses.pop(0)


def trainer_of(folder: Path, *callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
    silent: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(
        max_epochs=3, accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **silent, **arguments
    )


def test_any_module_is_stopped_before_its_weights_change(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(4, 1)), 1)
    module = Scripted([1.0] * 6 + [torch.inf] * 6)
    with pytest.raises(
        DivergenceError,
        match=r"^epoch 2, batch 3: the loss is inf; try a lower --lr \(in this step it was 1.0e-01\)",
    ):
        trainer_of(tmp_path, StopDiverged(), WeightEMA(0.9), Checkpoints(tmp_path / "run")).fit(module, loader)
    assert module.weight.item() == pytest.approx(0.4, abs=1e-6)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last.ckpt"]


def test_where_the_loss_is_read_now_and_then_the_first_bad_batch_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, or on several devices."""
    monkeypatch.setattr(StopDiverged, "_sees_at_once", staticmethod(lambda *_: False))
    loader = DataLoader(TensorDataset(torch.zeros(8, 1)), 1)
    module = Scripted([1.0] * 8 + [1.0, torch.nan] + [1.0] * 6)
    trainer = trainer_of(tmp_path, StopDiverged(), Checkpoints(tmp_path), log_every_n_steps=4)
    with pytest.raises(DivergenceError, match=r"^epoch 2, batch 2: the loss is not finite; try"):
        trainer.fit(module, loader)
    assert trainer.global_step == 12 and len(module.losses) == 4
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 8


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, StopDiverged())
    with pytest.raises(RuntimeError, match="something else"), anomalies_named(trainer):
        raise RuntimeError("something else")
    with pytest.raises(RuntimeError, match="returned nan values"), anomalies_named(trainer_of(tmp_path)):
        raise RuntimeError("Function 'X' returned nan values in its 0th output.")
