"""However a run of several processes ends, all of them end, within seconds, and one line says how to go on."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_cli import sagitta
from tests.distributed.processes import SAGITTA, TWO, Begun, begin

ROOT = Path(__file__).parent.parent.parent
FIT = ("fit", "data", "--model", "simple-cnn", "--epochs", 300, "--patience", 0, "--out")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "sagitta")
SECONDS = 40  # for a machine that has much else to do; alone it takes less than ten


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ends")
    assert sagitta("convert", "digits", "data", cwd=folder).returncode == 0
    return folder


def first(begun: Begun, number: int) -> None:
    os.kill(begun.process.pid, number)


def second(begun: Begun, number: int) -> None:
    (pid,) = (pid for pid, rank in begun.members().items() if rank == 1)
    os.kill(pid, number)


def both(begun: Begun, number: int) -> None:
    """As a terminal does with Ctrl-C, and a scheduler at the end of a job."""
    for pid in begun.members():
        os.kill(pid, number)


def ended_by(begun: Begun, whom: Callable[[Begun, int], None], number: int) -> tuple[int, str]:
    """Send a signal in the second epoch; returns the exit code, and the one line that is said."""
    try:
        begun.says("epoch   2/300")
        whom(begun, number)
        code, (line,) = begun.ended(SECONDS)
    finally:
        begun.end()
    return code, line


@pytest.mark.parametrize(
    ("whom", "number", "expected", "words"),
    [
        (first, signal.SIGTERM, 143, "ended by SIGTERM; "),
        pytest.param(second, signal.SIGTERM, 143, "ended by SIGTERM; ", marks=pytest.mark.slow),
        pytest.param(both, signal.SIGINT, 130, "interrupted; ", marks=pytest.mark.slow),
        (second, signal.SIGKILL, 2, "process 2 of 2 was ended by SIGKILL; "),
        pytest.param(
            first, signal.SIGKILL, -9, "the first process of this machine has ended; ", marks=pytest.mark.slow
        ),
    ],
)
def test_two_processes_end_together(
    work: Path, whom: Callable[[Begun, int], None], number: int, expected: int, words: str
) -> None:
    out = f"{whom.__name__}-{number}"
    begun = begin((*SAGITTA, *FIT, out, *TWO), work, work / "cache")
    assert ended_by(begun, whom, number) == (
        expected,
        f"sagitta: {words}what was done up to its last checkpoint is kept: sagitta fit --resume {out}",
    )
    assert "Traceback" not in begun.text() and (work / out / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("callback", "words", "tracebacks"),
    [("One", "process 2 of 2 has ended with an error (exit code 1); ", 1), ("All", "all have failed", 0)],
)
def test_an_error_is_told_once(work: Path, callback: str, words: str, tracebacks: int) -> None:
    arguments = ("--trainer.callbacks+", f"tests.distributed.failing.{callback}")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    begun = begin((*SAGITTA, *FIT, callback, *TWO, *arguments), work, work / "cache", {"PYTHONPATH": path})
    try:
        code, (line,) = begun.ended(120)
    finally:
        begun.end()
    assert code == 2 and line.startswith(f"sagitta: {words}")
    assert begun.text().count("Traceback") == tracebacks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whom", "number", "words"),
    [
        (first, signal.SIGTERM, "ended by SIGTERM; "),
        # What is noticed first: that the other one has gone, or that torchrun ends this one, too.
        (second, signal.SIGKILL, "(another process of this run has ended, which may say why|ended by SIGTERM); "),
    ],
)
def test_under_torchrun(work: Path, whom: Callable[[Begun, int], None], number: int, words: str) -> None:
    """Its own process says what it has to say, too; those of the run say one line, and the run is one directory."""
    (folder := work / f"torchrun-{number}").mkdir()
    (folder / "data").symlink_to(work / "data")
    begun = begin((*TORCHRUN, *FIT[:-1], *TWO), folder, work / "cache")
    code, line = ended_by(begun, whom, number)
    told = f"sagitta: {words}what was done up to its last checkpoint is kept: sagitta fit --resume runs/data-1"
    assert code == 1 and re.fullmatch(told, line)
    assert [path.name for path in (folder / "runs").iterdir()] == ["data-1"]
