"""The processes of one run: what a single one does without others, and what has to be given for several machines."""

import os
import subprocess
import sys

import lightning.pytorch as pl
import pytest

from sagitta.errors import ConfigError
from sagitta.pool import usable_cores
from sagitta.ranks import _RANKS, check_alike, connected, is_first_process, launched, shared


def trainer(machines: int = 1) -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", devices=1, num_nodes=machines, logger=False, enable_checkpointing=False)


def test_a_process_alone_is_the_first_and_finds_by_itself() -> None:
    alone = trainer()
    with connected(alone), launched(alone, lambda: "go on"):
        assert is_first_process() and shared("answer", lambda: 42) == 42
        check_alike("data", "fingerprint", "another one")
    with pytest.raises(ZeroDivisionError), connected(alone), launched(alone, lambda: "go on"):
        shared("answer", lambda: 1 // 0)


def test_far_more_processes_than_cores_are_refused() -> None:
    many = pl.Trainer(accelerator="cpu", devices=4 * usable_cores() + 1, logger=False, enable_checkpointing=False)
    with pytest.raises(ConfigError, match=rf"for {usable_cores()} cores; give"), launched(many, lambda: "go on"):
        pass


def test_several_machines_have_to_be_told_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    several = trainer(2)
    with pytest.raises(ConfigError, match="set MASTER_ADDR and MASTER_PORT"), connected(several):
        pass


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "1"}, True),  # as Lightning takes them: the first that is set
        ({"LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
        ({"NODE_RANK": "1"}, False),  # the first process of another machine, before it has started its own others
        ({"NODE_RANK": "0"}, True),
    ],
)
def test_before_lightning_is_loaded_what_started_a_process_says_its_rank(given: dict[str, str], first: bool) -> None:
    code = "import sys, sagitta.ranks as ranks; print(ranks.is_first_process(), 'torch' in sys.modules)"
    kept = {name: value for name, value in os.environ.items() if name not in _RANKS}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept | given)
    assert done.stdout.split() == [str(first), "False"]
