"""`fit` that is interrupted: one line on how to go on, and it goes on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .test_cli import sagitta


@pytest.mark.parametrize(("number", "what"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended by SIGTERM")])
def test_an_interrupted_fit_says_how_to_go_on(tmp_path: Path, number: signal.Signals, what: str) -> None:
    options = ("--model", "simple-cnn", "--epochs", "3000", "--patience", "0", "--out", "run")
    command = [sys.executable, "-m", "sagitta", "fit", "digits", *options]
    environment = {"SAGITTA_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        ["env", *(f"{name}={value}" for name, value in environment.items()), *command],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch   2/"):
                break
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("sagitta: ")]
    assert line.startswith(f"sagitta: {what}; ") and line.endswith("sagitta fit --resume run")
    assert "Traceback" not in errors
    refused = sagitta("fit", "--resume", "run", "--epochs", 1, cwd=tmp_path)
    assert refused.returncode == 2 and "--epochs 1: run has" in refused.stderr
