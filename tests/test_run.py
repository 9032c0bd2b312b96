"""Run directories: never overwritten, readable again, and drawn as sparklines."""

import os
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from sagitta.errors import ConfigError
from sagitta.run import (
    append_test_log,
    find_checkpoint,
    from_first_process,
    history,
    new_run_directory,
    read_metrics,
    read_record,
    sparkline,
    told_to_other_ranks,
    write_record,
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAGITTA_RUN", raising=False)


def test_runs_are_numbered_and_ranks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_run_directory(None, "data/my photos")
    assert first == Path("runs/my-photos-1")
    with told_to_other_ranks(first):
        assert new_run_directory(None, "data/my photos") == Path("runs/my-photos-2")  # a second run in this process
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        assert new_run_directory(None, "data/my photos") == first  # what a process that Lightning started sees
    assert "SAGITTA_RUN" not in os.environ


def test_an_earlier_run_is_never_overwritten(tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    assert new_run_directory(out, "digits") == out
    (out / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="never overwritten"):
        new_run_directory(out, "digits")


def test_record_keeps_what_was_there(tmp_path: Path) -> None:
    write_record(tmp_path, seed=3)
    write_record(tmp_path, result={"test_acc": 0.5})
    record = read_record(tmp_path)
    assert record["seed"] == 3 and record["result"] == {"test_acc": 0.5}
    assert {"python", "torch", "lightning", "pyarrow", "sagitta"} <= set(record["versions"])
    assert record["hardware"]["cpus"] >= 1


def test_checkpoint_is_the_best_then_the_last(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such run"):
        find_checkpoint(tmp_path / "missing")
    with pytest.raises(ConfigError, match="no checkpoint in it"):
        find_checkpoint(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "last.ckpt").touch()
    assert find_checkpoint(tmp_path) == folder / "last.ckpt"
    (folder / "best.ckpt").touch()
    write_record(tmp_path, best_checkpoint="checkpoints/best.ckpt")
    assert find_checkpoint(tmp_path) == folder / "best.ckpt"
    assert find_checkpoint(folder / "last.ckpt") == folder / "last.ckpt"


def test_metrics_of_a_resumed_run_are_one_series(tmp_path: Path) -> None:
    for number, text in enumerate(
        ("epoch,step,val_loss\n0,9,0.9\n1,19,0.7\n", "epoch,step,val_loss,val_acc\n1,19,0.6,\n2,29,0.5,0.8\n")
    ):
        (folder := tmp_path / "lightning_logs" / f"version_{number}").mkdir(parents=True)
        (folder / "metrics.csv").write_text(text)
    assert read_metrics(tmp_path) == {"val_loss": [0.9, 0.6, 0.5], "val_acc": [0.8]}


def test_test_log_grows_by_a_line(tmp_path: Path) -> None:
    append_test_log(tmp_path, "digits", Path("a.ckpt"), {"test_acc": 0.5})
    append_test_log(tmp_path, "others", Path("a.ckpt"), {"test_acc": 0.25, "test_f1": 0.2}, flip=True)
    assert (tmp_path / "test_logs.csv").read_text() == (
        "dataset,checkpoint,tta,test_acc,test_f1\ndigits,a.ckpt,,0.5,\nothers,a.ckpt,flip,0.25,0.2\n"
    )


@pytest.mark.parametrize(
    ("values", "width", "drawing"),
    [
        ([], 5, ""),
        ([1.0], 5, "▁"),
        ([0.0, 1.0, 2.0, 3.0], 4, "▁▃▆█"),
        ([3.0, 3.0, 0.0, 0.0], 2, "█▁"),
        ([float("nan"), 1.0, 2.0], 5, "▁█"),
    ],
)
def test_sparkline(values: list[float], width: int, drawing: str) -> None:
    assert sparkline(values, width) == drawing


def test_history_shows_series_and_final_values(tmp_path: Path) -> None:
    (folder := tmp_path / "lightning_logs" / "version_0").mkdir(parents=True)
    (folder / "metrics.csv").write_text("epoch,step,val_loss\n0,9,0.9\n1,19,0.1\n")
    text = history(tmp_path, {"test_acc": 0.98765})
    assert "val_loss  █▁" in text and "test_acc  0.9877" in text


def test_other_processes_take_over_what_the_first_one_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setenv("SAGITTA_AUTO_LR", "0.25")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert from_first_process("lr", lambda: 1.0) == 0.25
    monkeypatch.delenv("SAGITTA_AUTO_LR")
    with pytest.raises(ConfigError, match="lr auto: cannot be found under torchrun"):
        from_first_process("lr", lambda: 1.0)
