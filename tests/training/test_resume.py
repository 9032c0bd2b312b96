"""How a run is gone on with: what may change, where it stands, what is damaged, and what is left of its log."""

import contextlib
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

import sagitta
from sagitta.cli import main
from sagitta.errors import ConfigError
from sagitta.models.optim import build_schedule
from sagitta.run import held, history_table, read_record, resumable
from sagitta.settings import Settings, read_values, settings_of
from sagitta.training import fit
from sagitta.training.resume import find_last, is_complete

BEGIN: dict[str, Any] = {"model": "simple-cnn", "image_size": 16, "batch_size": 8}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 small images, hard to tell apart."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(0, 200, (20, 20, 3), np.uint8)
        pixels[..., number % 3] += 30
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def stored(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two epochs with a cosine, an average and a patience, that came to its end; only to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGITTA_CACHE", str(tmp_path_factory.mktemp("cache")))
        settings = {"trainer.log_every_n_steps": 1, "model.schedule": "cosine", "model.lr": 0.003}
        out = tmp_path_factory.mktemp("stored") / "run"
        sagitta.fit(images, **BEGIN, epochs=2, patience=5, ema=0.9, settings=settings, out=out)
        yield out


@pytest.fixture
def run(stored: Path, work: Path) -> Path:
    assert work == Path.cwd()
    return Path(shutil.copytree(stored, "run"))


def unfinish(run: Path) -> None:
    """Make of a finished run one that was killed behind its last epoch."""
    record = read_record(run)
    for name in ("best_checkpoint", "epochs", "result"):
        del record[name]
    (run / "run.json").write_text(json.dumps(record))


def last(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return found


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def damage(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--seed 3", "--seed 3: run began with 0, and order and crops follow it"),
        ("--model resnet20", "--model resnet20: run began with simple-cnn, and the weights are of it"),
        ("--image-size 24", "--image-size 24: run began with 16"),
        ("--model.optimizer sgd", "--model.optimizer sgd: run began with"),
        ("--ema 0", "--ema 0: run began with an average"),
        ("--val 0.5", "--val 0.5: run began with none, and the rows follow it"),
        ("--batch-size 4", "run: has 8 images a step, not 4; give --batch-size 8"),
        ("--epochs 1", "--epochs 1: run has 2 epochs behind it"),
        ("--trainer.max_steps 3", "run: is finished, so --trainer.max_steps would change nothing"),
        ("--trainer.max_steps 3 --epochs 3", "--trainer.max_steps 3: run has "),
        (
            "--patience 3 --lr 0.1",
            "run: is finished, so --lr and --patience would change nothing; give a larger --epochs",
        ),
        ("--out other", "--out and --resume: a run is gone on with where it is, in run"),
    ],
)
def test_what_would_be_another_training_is_refused_and_changes_nothing(
    run: Path, given: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    assert main(["fit", "--resume", "run", *given.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert contents(run) == before


def test_other_data_is_refused_and_the_same_data_elsewhere_taken(
    run: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "digits", "--resume", "run", "--epochs", "3"]) == 2
    assert "run: was trained before images, labels or the options of digits changed" in capsys.readouterr().err
    shutil.copytree(images, "moved")
    assert main(["fit", "moved", "--resume", "run", "--epochs", "3"]) == 0
    moved = str(Path("moved").absolute())
    assert read_values(run / "config.yaml")["source"] == moved and read_record(run)["epochs"] == 3
    Path("elsewhere").mkdir()
    run.rename("elsewhere/run")
    with contextlib.chdir("elsewhere"):
        assert main(["fit", "--resume", "run", "--epochs", "4"]) == 0 and main(["test", "run"]) == 0


def test_a_finished_run_says_so_and_stays_as_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    assert main(["fit", "--resume", "run"]) == 0
    printed = capsys.readouterr().out
    assert "run: is finished, nothing is left to do" in printed and "test_acc" in printed
    assert contents(run) == before
    shutil.rmtree("run/checkpoints")
    assert main(["fit", "--resume", "run"]) == 2
    assert "it came to its end without checkpoints/last.ckpt" in capsys.readouterr().err


def test_killed_behind_its_last_epoch_a_run_is_tested(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, epochs = read_record(run)["result"], last(run)["epoch"]
    unfinish(run)
    assert main(["fit", "--resume", "run"]) == 0
    assert "resume: goes on after epoch 2\n" in capsys.readouterr().out
    assert read_record(run)["result"] == result and last(run)["epoch"] == epochs


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
@pytest.mark.usefixtures("work")
def test_more_epochs_follow_the_schedule_of_them_all(images: Path, schedule: str) -> None:
    """The rates of epochs 2 and 3 are those of a training that was planned for three."""
    settings = {"model.schedule": schedule, "model.warmup": 0.25, "trainer.log_every_n_steps": 1}
    rates: dict[str, list[float]] = {"whole": [], "parts": []}

    class Rates(pl.Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            rates[self.name].append(trainer.optimizers[0].param_groups[0]["lr"])

    for name, epochs in (("whole", 3), ("parts", 1)):
        begin = settings_of(images, {**BEGIN, "epochs": epochs, "lr": 0.003}, settings)
        fit(begin, Path(name), callbacks=[Rates(name)])
    del rates["parts"][:]
    fit(
        Settings.read(Path("parts/config.yaml"), {"trainer.max_epochs": 3}),
        None,
        Path("parts"),
        callbacks=[Rates("parts")],
    )
    steps = len(rates["whole"])
    assert rates["parts"] == rates["whole"][steps // 3 :] and len(set(rates["whole"])) > 1
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.003)
    planned = build_schedule(optimizer, schedule, steps, 0.25)  # type: ignore[arg-type]
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        planned.step()
        found.append(optimizer.param_groups[0]["lr"])
    assert rates["whole"] == pytest.approx(found)
    assert read_values(Path("parts/config.yaml"))["trainer.max_epochs"] == 3


def test_another_rate_and_patience_are_taken_over_and_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = last(run)["lr_schedulers"][0]["base_lrs"]
    assert main(["fit", "--resume", "run", "--epochs", "3", "--lr", "0.5", "--patience", "7", "--ema", "0.8"]) == 0
    printed = capsys.readouterr().out
    assert "resume: goes on after epoch 2; " in printed and "--epochs 3 instead of 2" in printed
    after = last(run)
    assert after["lr_schedulers"][0]["base_lrs"] == [0.5] * len(before) != before
    assert [group["initial_lr"] for group in after["optimizer_states"][0]["param_groups"]] == [0.5] * len(before)
    (stopping,) = (state for name, state in after["callbacks"].items() if name.startswith("EarlyStopping"))
    assert stopping["patience"] == 7
    kept = read_values(run / "config.yaml")
    assert (kept["model.lr"], kept["patience"], kept["ema"], kept["trainer.max_epochs"]) == (0.5, 7, 0.8, 3)


@pytest.mark.usefixtures("work")
def test_what_early_stopping_ended_is_not_trained_on(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rate is so high that no later epoch is better than the first."""
    settings = {"trainer.max_epochs": 9, "model.schedule": "constant"}
    sagitta.fit(images, **BEGIN, lr=0.3, patience=1, ema=0, settings=settings, out="run")
    run = Path("run")
    ended, result = last(run), read_record(run)["result"]
    assert ended["epoch"] < 8
    unfinish(run)
    capsys.readouterr()
    assert main(["fit", "--resume", "run"]) == 0
    assert "early stopping had ended the training there, --patience above 1 goes on" in capsys.readouterr().out
    assert read_record(run)["result"] == result and last(run)["global_step"] == ended["global_step"]
    assert main(["fit", "--resume", "run", "--patience", "9"]) == 0
    assert last(run)["epoch"] > ended["epoch"]


def test_killed_before_its_first_checkpoint_a_run_begins_anew(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, history = last(run)["state_dict"], history_table(run)
    unfinish(run)
    (run / "checkpoints" / "last.ckpt").unlink()
    assert main(["fit", "--resume", "run"]) == 0
    assert "run ended before its first checkpoint; it begins anew" in capsys.readouterr().out
    again = last(run)["state_dict"]
    assert weights.keys() == again.keys() and all(torch.equal(weights[name], again[name]) for name in weights)
    assert history_table(run).equals(history)


def test_of_a_damaged_checkpoint_the_one_before_is_taken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "checkpoints"
    shutil.copy(folder / "last.ckpt", folder / "previous.ckpt")
    assert find_last(run) == folder / "last.ckpt"
    damage(folder / "last.ckpt")
    assert find_last(run) == folder / "previous.ckpt"
    assert "last.ckpt is damaged; the run goes on from previous.ckpt" in capsys.readouterr().out
    assert main(["fit", "--resume", "run", "--epochs", "3"]) == 0
    assert is_complete(folder / "last.ckpt") and not (folder / "previous.ckpt").exists()
    damage(folder / "last.ckpt")
    with pytest.raises(ConfigError, match=r"last\.ckpt: damaged; the run came to its end, and its weights can be"):
        find_last(run)
    unfinish(run)
    with pytest.raises(ConfigError, match=r"last\.ckpt: damaged, and so is every other one"):
        find_last(run)


def test_damaged_weights_are_not_tested(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run / read_record(run)["best_checkpoint"])
    assert main(["test", "run"]) == 2
    assert "damaged, not as it was written" in capsys.readouterr().err


def test_killed_behind_its_last_checkpoint_no_figure_is_lost(run: Path) -> None:
    """Before Lightning has logged the epoch: its row is in the checkpoint."""
    result, history = read_record(run)["result"], history_table(run)
    path = next(run.glob("lightning_logs/version_*/metrics.csv"))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines[:-1]))
    unfinish(run)
    assert main(["fit", "--resume", "run"]) == 0
    assert read_record(run)["result"] == result and history_table(run).equals(history)


@pytest.mark.parametrize("size", [0, 1, 3, -1, -1000])
def test_a_cut_checkpoint_is_not_complete(run: Path, size: int) -> None:
    path = run / "checkpoints" / "last.ckpt"
    assert is_complete(path)
    path.write_bytes(path.read_bytes()[:size])
    assert not is_complete(path)


def test_every_changed_bit_of_a_checkpoint_that_would_be_read_is_seen(tmp_path: Path) -> None:
    """Whatever else may change, such as a date, what is read stays the same."""
    torch.save(content := {"a": torch.arange(300.0), "b": {"c": 5}}, path := tmp_path / "x.ckpt")
    whole = path.read_bytes()
    unseen = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        if is_complete(path):
            unseen += 1
            found = torch.load(path, weights_only=True)
            assert torch.equal(found["a"], content["a"]) and found["b"] == content["b"]  # type: ignore[arg-type]
    assert unseen < len(whole) / 14


def test_the_log_behind_the_checkpoint_is_cut_and_half_a_row_too(run: Path) -> None:
    history = history_table(run)
    path = next(run.glob("lightning_logs/version_*/metrics.csv"))
    with path.open(newline="") as file:
        header = next(csv.reader(file))
    steps = last(run)["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
    row = ["9.0" if name != "step" else str(steps) for name in header]
    with path.open("a") as file:
        file.write(",".join(row) + "\n" + ",".join(row)[:5])
    unfinish(run)
    assert main(["fit", "--resume", "run"]) == 0
    assert history_table(run).equals(history)


def test_two_do_not_train_in_one_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    with held(run):
        assert main(["fit", "--resume", "run", "--epochs", "3"]) == 2
        assert "run: another process is training in it" in capsys.readouterr().err
    assert contents(run) == before
    assert main(["fit", "--resume", "run", "--epochs", "3"]) == 0


@pytest.mark.usefixtures("work")
def test_a_run_without_its_settings_cannot_be_resumed() -> None:
    with pytest.raises(ConfigError, match=r"nowhere: cannot be resumed, there is no such run directory"):
        resumable(Path("nowhere"))


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_as_one_that_was_left_alone() -> None:
    """Real processes and SIGKILL, in the mode that has everything at once; bench/kills.py has the others."""
    script = Path(__file__).parents[2] / "bench" / "kills.py"
    command = [sys.executable, "-W", "ignore", str(script), "--kills", "1", "--modes", "all", "head first"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "4 kills, 0 of 4 trials not equal" in done.stdout
