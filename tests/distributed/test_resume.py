"""Killed in the middle of an epoch and resumed, a run ends with the weights of one that was never interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Each run is a fork, so that torch is imported once.
RUNS = """
import os, signal, sys
import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sagitta import Classifier, ImageData
from sagitta.training import StepSeed

source, folder = sys.argv[1:]
STEPS_AN_EPOCH, KILLED_AT = 8, 13  # in the middle of the second epoch

class Killed(pl.Callback):
    def on_train_batch_end(self, trainer, *rest):
        if trainer.global_step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)

def fit(name, threads, kill=False, resume=None):
    data = ImageData(source, batch_size=4, image_size=32, threads=threads, seed=1)
    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, num_sanity_val_steps=0,
        callbacks=[StepSeed(1), ModelCheckpoint(f"{folder}/{name}", every_n_train_steps=3, save_top_k=-1)]
        + [Killed()] * kill,
    )
    trainer.fit(model := Classifier("simple-cnn"), data, ckpt_path=resume, weights_only=True)
    assert trainer.global_step == 3 * STEPS_AN_EPOCH
    torch.save(model.state_dict(), f"{folder}/{name}.pt")

def run(*arguments):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    fit(*arguments)
    os._exit(0)

assert run("whole", 2) == 0
assert run("killed", 0, True) == -signal.SIGKILL
last = max(os.scandir(f"{folder}/killed"), key=lambda entry: entry.stat().st_mtime_ns)
assert "step=12" in last.name
assert run("resumed", 3, False, last.path) == 0
whole, resumed = (torch.load(f"{folder}/{name}.pt", weights_only=True) for name in ("whole", "resumed"))
assert whole.keys() == resumed.keys()
assert all(torch.equal(whole[name], resumed[name]) for name in whole)
"""


@pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(signal, "SIGKILL"), reason="POSIX only")
def test_killed_in_mid_epoch_and_resumed_ends_with_the_same_weights(photo_folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SAGITTA_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", RUNS, str(photo_folder), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
