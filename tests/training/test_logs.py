"""The log as CSV: a new column is a new file under the old name, never an emptied one."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sagitta.training.logs import WholeCSVLogger

# Killed as soon as anything is about to take the place of the log, or to open it for writing it anew.
KILLED = """
import os, signal, sys
from sagitta.training.logs import WholeCSVLogger
logger = WholeCSVLogger(sys.argv[1], "logs")
logger.log_metrics({"a": 1.0}, 0)
logger.save()
def hook(event, arguments):
    if event == "os.rename" or (event == "open" and "metrics.csv" in str(arguments[0]) and arguments[1] == "w"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
logger.log_metrics({"b": 2.0}, 1)
logger.save()
"""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "version_0" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_are_added(tmp_path: Path) -> None:
    logger = WholeCSVLogger(tmp_path, "logs")
    every: list[dict[str, torch.Tensor | float]] = [{"a": 1.0}, {"b": 2.0}]
    for step, values in enumerate(every):
        logger.log_metrics(values, step)
        logger.save()
    assert rows(tmp_path) == [{"a": "1.0", "b": "", "step": "0"}, {"a": "", "b": "2.0", "step": "1"}]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX only")
def test_a_kill_in_between_loses_no_row(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert rows(tmp_path) == [{"a": "1.0", "step": "0"}]
