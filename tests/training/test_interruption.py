"""A signal ends a validation or a test within a batch, too, and the run then ends as one that was left alone."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import sagitta
from sagitta.run import history_table, read_record
from tests.cli.test_cli import sagitta as command
from tests.distributed.processes import SAGITTA, TWO, begin

ROOT = Path(__file__).parents[2]
BATCHES = 12  # of val, and of test: each 180 images
FIT = ("fit", "data", "--model", "simple-cnn", "--epochs", 2, "--ema", 0.9, "--trainer.log_every_n_steps", 1)
SLOW = ("--trainer.callbacks+", "tests.distributed.slow.Slow")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, and a run of it that nobody interrupted."""
    folder = tmp_path_factory.mktemp("interrupted")
    assert command("convert", "digits", "data", cwd=folder).returncode == 0
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    begun = begin((*SAGITTA, *FIT, *SLOW, "--batch-size", 16, "--out", "whole"), folder, folder / "cache", path)
    assert begun.ended(300)[0] == 0, begun.text()
    return folder


def interrupted(work: Path, stage: str, *arguments: object) -> None:
    """Begin a run, end it in the third batch of a stage, and make sure that it ended there."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    begun = begin((*SAGITTA, *FIT, *SLOW, *arguments), work, work / "cache", {"PYTHONPATH": path, "SLOW": stage})
    try:
        begun.says(f"{stage} batch 2")
        os.kill(begun.process.pid, signal.SIGTERM)
        code, (line,) = begun.ended(60)
    finally:
        begun.end()
    assert code == 143 and line.startswith("sagitta: ended by SIGTERM; what was done up to its last checkpoint is kept")
    last = max(int(number) for number in re.findall(rf"{stage} batch (\d+)", begun.text()))
    assert last < 5 < BATCHES // 2, begun.text()


def last(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return found


@pytest.mark.parametrize("stage", ["validation", pytest.param("test", marks=pytest.mark.slow)])
def test_what_is_interrupted_goes_on_to_the_same_end(work: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("SAGITTA_CACHE", str(work / "cache"))
    interrupted(work, stage, "--batch-size", 16, "--out", stage)
    inside = last(work / stage)
    assert inside["global_step"] == last(work / "whole")["global_step"] // (2 if stage == "validation" else 1)
    sagitta.fit(resume=stage)
    whole, run = work / "whole", work / stage
    assert history_table(run).equals(history_table(whole))
    assert read_record(run)["result"] == read_record(whole)["result"]
    for name in ("state_dict", "current_model_state"):
        mine, its = last(run)[name], last(whole)[name]
        assert all(torch.equal(mine[key], its[key]) for key in its)
    assert last(run)["loops"] == last(whole)["loops"]
    assert [path.name for path in (run / "tests").iterdir()] == ["001-data"]


@pytest.mark.slow
def test_two_processes_end_a_validation_together(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("SAGITTA_CACHE", str(work / "cache"))
    monkeypatch.syspath_prepend(str(ROOT))
    interrupted(work, "validation", "--batch-size", 8, "--out", "two", *TWO)
    assert last(work / "two")["global_step"] == last(work / "whole")["global_step"] // 2
    sagitta.fit(resume="two", devices=1, batch_size=16, settings={"trainer.strategy": "auto"})
    # Normalised by half as many images a time, its figures are others, but they are those of the same steps.
    history, whole = (history_table(work / name) for name in ("two", "whole"))
    assert history.column_names == whole.column_names
    assert all(history[name].is_valid().equals(whole[name].is_valid()) for name in whole.column_names)
