"""Learning rate and batch size by measuring: sensible numbers, no trace, and a run that repeats with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sagitta.errors import ConfigError
from sagitta.training.tuning import steepest


def fit(*arguments: object, cwd: Path) -> str:
    command = [
        sys.executable,
        "-m",
        "sagitta",
        "fit",
        *map(str, arguments),
        "--epochs",
        "1",
        "--trainer.limit_test_batches",
        "2",
    ]
    environment = {**os.environ, "SAGITTA_CACHE": str(cwd / "cache")}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_steepest_fall_is_found() -> None:
    rates = 10.0 ** np.linspace(-6, 0, 61)
    losses = 2 - 1.5 / (1 + np.exp(-4 * (np.log10(rates) + 3)))  # falls most at 1e-3
    losses = np.where(rates > 1e-1, losses + 10 * (rates - 1e-1), losses)
    assert steepest(rates.tolist(), losses.tolist()) == pytest.approx(1e-3, rel=0.3)
    for hopeless in ([], [1.0, 2.0, 3.0]):
        with pytest.raises(ConfigError, match="lr auto: the loss does not fall"):
            steepest(rates[: len(hopeless)].tolist(), hopeless)


def test_noise_between_steps_does_not_decide() -> None:
    rates = 10.0 ** np.linspace(-6, 0, 100)
    fall = 4 - 3 / (1 + np.exp(-4 * (np.log10(rates) + 3)))
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=100) * 0.1
        noise[0] += 0.5  # the first loss is that of one batch alone
        assert 2e-4 < steepest(rates.tolist(), (fall + noise).tolist()) < 5e-3


def test_what_was_found_is_in_the_configuration_and_leaves_no_other_trace(tmp_path: Path) -> None:
    """A run with the numbers found, given as numbers, ends with the same weights."""
    output = fit("digits", "--lr", "auto", "--batch-size", "auto", "--out", "found", cwd=tmp_path)
    config = (tmp_path / "found" / "config.yaml").read_text()
    values = dict(line.strip().split(": ", 1) for line in config.splitlines() if ": " in line)
    lr, size = float(values["lr"]), int(values["batch_size"])
    assert f"learning rate {lr:.1e}: " in output and f"batch size {size}: " in output
    assert 1e-5 < lr < 0.3 and 8 <= size <= 1439 // 8
    fit("digits", "--lr", lr, "--batch-size", size, "--out", "given", cwd=tmp_path)
    first, second = (json.loads((tmp_path / run / "run.json").read_text())["result"] for run in ("found", "given"))
    assert first == second
    weights = [
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in ("found", "given")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
