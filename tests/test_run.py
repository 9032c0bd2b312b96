"""Run directories: never overwritten, readable again, and drawn as sparklines."""

from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from sagitta.errors import ConfigError
from sagitta.run import (
    find_checkpoint,
    find_source,
    forget_end,
    history,
    new_run_directory,
    read_metrics,
    read_record,
    run_of,
    save_config,
    sparkline,
    write_record,
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_runs_are_numbered() -> None:
    assert new_run_directory(None, "data/my photos") == Path("runs/my-photos-1")
    assert new_run_directory(None, "data/my photos") == Path("runs/my-photos-2")


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
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "preprocessing.json").write_text("{}")
    with pytest.raises(ConfigError, match="export: an export, and no run; sagitta serve answers by it"):
        find_checkpoint(tmp_path / "export")
    with pytest.raises(ConfigError, match="no such run"):
        find_checkpoint(tmp_path / "missing")
    with pytest.raises(ConfigError, match="no checkpoint in it"):
        find_checkpoint(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "last.ckpt").touch()
    assert find_checkpoint(tmp_path) == folder / "last.ckpt"
    for loss in ("0.90", "0.40", "12.00"):  # of a run that was interrupted: the best so far
        (folder / f"image-classifier-epoch=00-val_loss={loss}.ckpt").touch()
    assert find_checkpoint(tmp_path).name == "image-classifier-epoch=00-val_loss=0.40.ckpt"
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


def test_the_data_is_looked_for_where_the_run_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (made := tmp_path / "made").mkdir()
    (run := made / "runs" / "photos-1").mkdir(parents=True)
    (made / "photos").mkdir()
    monkeypatch.chdir(made)
    write_record(run)
    assert find_source(run, "photos") == "photos" and find_source(run, str(made / "photos")) == str(made / "photos")
    monkeypatch.chdir(tmp_path)
    assert find_source(run, "photos") == str(made / "photos")
    (run / "run.json").write_text("{}")  # as version 0.1.0 left it: the run lies where it was made
    assert find_source(run, "photos") == str(made / "photos")
    with pytest.raises(ConfigError, match=r"its data is not there any more, looked for .*/made/others and .*; name it"):
        find_source(run, "others")


def test_a_checkpoint_belongs_to_the_run_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run := tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (run / "last.ckpt").touch()
    assert run_of(run / "last.ckpt") is None
    write_record(tmp_path / "run")
    assert run_of(run / "last.ckpt") == tmp_path / "run" == run_of(tmp_path / "run")
    monkeypatch.chdir(run)
    assert run_of(Path("last.ckpt")) == tmp_path / "run"
    assert run_of(tmp_path) is None and run_of(tmp_path / "nothing") is None


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
    assert text.splitlines()[-2] == "Run summary"


@pytest.mark.parametrize(
    ("kept", "epochs", "title"),
    [
        ("image-classifier-epoch=02-val_loss=0.10.ckpt", 5, "Run summary: epoch 3 of 5, whose weights are kept"),
        ("last.ckpt", 2, "Run summary: the last of 2 epochs, whose weights are kept"),
        ("image-classifier-head-val_loss=0.10.ckpt", 0, "weights of image-classifier-head-val_loss=0.10.ckpt"),
        ("image-classifier-mixture-val_loss=0.10.ckpt", 2, "val_loss=0.10.ckpt; train_ is of the best epoch"),
    ],
)
def test_the_summary_says_of_which_weights_it_is(tmp_path: Path, kept: str, epochs: int, title: str) -> None:
    write_record(tmp_path, best_checkpoint=f"checkpoints/{kept}", epochs=epochs)
    assert history(tmp_path, {}).splitlines()[1].endswith(title)


def test_only_the_first_rank_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    save_config(tmp_path / "config.yaml", "seed: 1\n")
    write_record(tmp_path, seed=1)
    forget_end(tmp_path)
    assert list(tmp_path.iterdir()) == []
