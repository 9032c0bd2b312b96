"""What is kept of a training: the best weights, as they were validated, and one checkpoint to go on from."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from sagitta.errors import ConfigError
from sagitta.models import SMOOTHED
from sagitta.training.callbacks import WeightEMA
from sagitta.training.checkpoints import Checkpoints


class Scripted(pl.LightningModule):
    """One weight that a step raises by 1, and validation losses as they are given."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.losses, self.weight = list(losses), torch.nn.Parameter(torch.zeros(1))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1.0, momentum=0.0)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return -self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log("val_loss", self.losses.pop(0))


def fit(
    folder: Path,
    losses: list[float],
    epochs: int,
    *callbacks: pl.Callback,
    resume: Path | None = None,
    **arguments: Any,
) -> pl.Trainer:
    """Train with four steps an epoch."""
    loader = DataLoader(TensorDataset(torch.zeros(4, 1)), 1)
    silent: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **silent, **arguments
    )
    trainer.fit(Scripted(losses), loader, loader, ckpt_path=resume, weights_only=True)
    return trainer


def read(path: Path | str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def named(epoch: int, loss: str) -> str:
    return f"image-classifier-epoch={epoch:02d}-val_loss={loss}.ckpt"


@pytest.mark.parametrize(
    ("keep", "best"), [(1, [named(1, "0.20")]), (2, [named(1, "0.20"), named(4, "0.20")]), (9, None)]
)
def test_so_many_of_the_best_and_the_last_are_kept(tmp_path: Path, keep: int, best: list[str] | None) -> None:
    callback = Checkpoints(tmp_path, keep)
    fit(tmp_path, [0.4, 0.2, float("nan"), 0.3, 0.2], 5, callback)
    every = [named(0, "0.40"), named(1, "0.20"), named(2, "inf"), named(3, "0.30"), named(4, "0.20")]
    assert kept(tmp_path) == [*(best or every), "last.ckpt"]
    assert callback.best_model_path == str(tmp_path / named(1, "0.20"))
    small, whole = read(callback.best_model_path), read(tmp_path / "last.ckpt")
    assert not {"optimizer_states", "lr_schedulers", "callbacks"} & set(small) and whole["optimizer_states"]
    assert small["state_dict"]["weight"].item() == 8 and whole["state_dict"]["weight"].item() == 20


def test_where_validation_is_inside_the_epoch_the_last_is_its_end(tmp_path: Path) -> None:
    fit(tmp_path, [0.4, 0.401, 0.3, 0.2], 2, Checkpoints(tmp_path, 4), val_check_interval=0.5)
    names = [named(0, "0.40"), named(0, "0.40").replace(".ckpt", "-v1.ckpt"), named(1, "0.20"), named(1, "0.30")]
    assert kept(tmp_path) == sorted([*names, "last.ckpt"])
    assert read(tmp_path / "last.ckpt")["global_step"] == 8
    callback = Checkpoints(tmp_path, 4)
    trainer = fit(tmp_path, [0.5, 0.6], 3, callback, resume=tmp_path / "last.ckpt", val_check_interval=0.5)
    assert trainer.global_step == 12 and callback.best_model_path.endswith(named(1, "0.20"))


def test_an_epoch_without_validation_is_gone_on_from_too(tmp_path: Path) -> None:
    fit(tmp_path, [0.4], 3, Checkpoints(tmp_path), check_val_every_n_epoch=2)
    assert kept(tmp_path) == [named(1, "0.40"), "last.ckpt"] and read(tmp_path / "last.ckpt")["global_step"] == 12


def test_of_averaged_weights_the_best_hold_the_average_that_was_validated(tmp_path: Path) -> None:
    class Seen(pl.Callback):
        """The weight at every validation, between the average's coming and going."""

        def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.last = pl_module.get_parameter("weight").item()

        def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            self.validated = pl_module.get_parameter("weight").item()

    callback, seen = Checkpoints(tmp_path), Seen()
    trainer = fit(tmp_path, [0.4], 1, seen, WeightEMA(0.9), callback)
    best, last = read(callback.best_model_path), read(tmp_path / "last.ckpt")
    assert best["state_dict"]["weight"].item() == pytest.approx(seen.validated) and "current_model_state" not in best
    assert last["current_model_state"]["weight"].item() == seen.last == 4 != seen.validated
    assert last["state_dict"]["weight"].item() == pytest.approx(seen.validated)
    assert trainer.global_step == 4


def test_a_run_that_moved_still_knows_its_best(tmp_path: Path) -> None:
    fit(tmp_path / "before", [0.1, 0.2], 2, Checkpoints(tmp_path / "before", 2))
    (tmp_path / "before").rename(folder := tmp_path / "after")
    callback = Checkpoints(folder, 2)
    fit(folder, [0.3, 0.15], 4, callback, resume=folder / "last.ckpt")
    assert kept(folder) == [named(0, "0.10"), named(3, "0.15"), "last.ckpt"]
    assert callback.best_model_path == str(folder / named(0, "0.10"))
    Path(callback.best_model_path).unlink()
    callback = Checkpoints(folder, 2)
    fit(folder, [0.5], 5, callback, resume=folder / "last.ckpt")
    assert callback.best_model_path == str(folder / named(3, "0.15"))


def test_a_run_of_the_first_version_goes_on_and_loses_no_file(tmp_path: Path) -> None:
    name = "image-classifier-{epoch:02d}-{val_loss:.2f}"
    before = ModelCheckpoint(tmp_path, name, monitor="val_loss", save_top_k=3, save_last=True)
    fit(tmp_path, [0.3, 0.2, 0.4], 3, before)
    callback = Checkpoints(tmp_path)
    fit(tmp_path, [0.25], 4, callback, resume=tmp_path / "last.ckpt")
    assert kept(tmp_path) == [named(0, "0.30"), named(1, "0.20"), named(2, "0.40"), "last.ckpt"]
    assert callback.best_model_path == str(tmp_path / named(1, "0.20"))
    assert read(tmp_path / "last.ckpt")["global_step"] == 16


def test_a_fast_development_run_keeps_nothing_and_none_of_the_best_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, [0.3], 1, Checkpoints(tmp_path), fast_dev_run=True)
    assert not kept(tmp_path)
    with pytest.raises(ConfigError, match="--keep 0: must be at least 1"):
        Checkpoints(tmp_path, 0)


class Smoothed(Scripted):
    """Logs the loss on smoothed labels, too, which falls while the other one rises."""

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log(SMOOTHED, 1 - self.losses[0])
        super().on_validation_epoch_end()


def test_the_loss_on_smoothed_labels_says_which_epoch_is_best(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(4, 1)), 1)
    states: tuple[dict[str, Any], ...] = ({}, {"best_k_models": {}})
    for number, state in enumerate(states):  # the second is that of a run of version 0.1.0
        kept = Checkpoints(tmp_path / str(number))
        if state:
            kept.load_state_dict(state)
        silent: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = pl.Trainer(max_epochs=3, accelerator="cpu", default_root_dir=tmp_path, callbacks=[kept], **silent)
        trainer.fit(Smoothed([0.1, 0.2, 0.3]), loader, loader)
        expected = "epoch=00-val_loss=0.10" if state else "epoch=02-val_loss=0.30"
        assert Path(kept.best_model_path).stem == f"image-classifier-{expected}"
        again = Checkpoints(tmp_path / str(number))
        again.load_state_dict(kept.state_dict())
        assert again.best_model_path == kept.best_model_path and again.state_dict() == kept.state_dict()


def test_inside_a_validation_a_long_one_is_gone_on_from_and_nothing_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoints, "SECONDS", 0.0)

    class Killed(pl.Callback):
        """Ends the second validation after a batch, and sees what is there after the sanity check."""

        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert not (tmp_path / "last.ckpt").exists()

        def on_validation_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
            if trainer.validating and trainer.current_epoch == 1 and rest[2] == 1:
                raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fit(tmp_path, [0.4, 0.2], 2, WeightEMA(0.5), Checkpoints(tmp_path), Killed())
    inside = read(tmp_path / "last.ckpt")
    assert inside["global_step"] == 8 and inside["current_model_state"]["weight"].item() == 8
    trainer = fit(tmp_path, [0.2], 2, WeightEMA(0.5), Checkpoints(tmp_path), resume=tmp_path / "last.ckpt")
    assert trainer.global_step == 8 and kept(tmp_path) == [named(1, "0.20"), "last.ckpt"]
    last = read(tmp_path / "last.ckpt")
    assert torch.equal(last["state_dict"]["weight"], inside["state_dict"]["weight"])
