"""Fitting through the command line: recipes, weights from a file or a run, what a resumed run needs."""

import gc
import json
import shutil
import threading
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from sagitta.cli import main
from sagitta.models.networks import build_network
from sagitta.settings import settings_of
from sagitta.training.fitting import fit, validated


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


class Held(pl.Callback):
    """Descriptors, threads, shared memory and bytes that the process holds after the tenth and the fiftieth epoch."""

    def __init__(self) -> None:
        self.after: dict[int, tuple[int, int, int, int]] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch not in (9, 49):  # to collect garbage takes longer than such an epoch
            return
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files, shared = (
            len(list(Path(name).glob(what))) for name, what in (("/proc/self/fd", "*"), ("/dev/shm", "torch*"))
        )
        self.after[trainer.current_epoch] = files, threading.active_count(), shared, pages * 4096


@pytest.mark.usefixtures("work")
def test_fifty_epochs_take_no_more_than_ten() -> None:
    held = Held()
    options = {"epochs": 50, "patience": 0, "ema": 0.9, "mixup": 0.2, "batch_size": 16, "model": "resnet20"}
    how = {"trainer.limit_train_batches": 1, "trainer.limit_val_batches": 1, "data.augmentation.auto": "trivial"}
    fit(settings_of("digits", options, how), Path("run"), callbacks=[held], verbose=False)
    before, after = held.after[9], held.after[49]
    assert after[:3] == before[:3]
    assert after[3] - before[3] < 32 * 2**20


def test_the_result_is_of_one_epoch(tmp_path: Path) -> None:
    (folder := tmp_path / "lightning_logs" / "version_0").mkdir(parents=True)
    rows = ["epoch,step,train_loss_step,train_acc,val_loss,val_acc"]
    for epoch, (train, inside, end) in enumerate([(0.5, 0.9, 0.8), (0.7, 0.3, 0.6), (0.9, 0.7, 0.7)]):
        rows += [f"{epoch},{10 * epoch + 5},0.1,,{inside},{inside}", f"{epoch},{10 * epoch + 9},,,{end},{end}"]
        rows += [f"{epoch},{10 * epoch + 9},,{train},,"]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    assert validated(tmp_path) == {"train_acc": 0.7, "val_loss": 0.3, "val_acc": 0.3}
    (folder / "metrics.csv").write_text("epoch,step,train_acc\n0,9,0.5\n1,19,0.6\n")
    assert validated(tmp_path) == {"train_acc": 0.6}
