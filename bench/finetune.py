"""Fine-tuning by Sagitta and by others from the same weights, on the same rows; each run a process of its own.

A set is divided once: of each class a quarter for the test, 15 % for val, the rest for train, at least one image of a
class with two for the test and of one with four for val. ``SYSTEMS`` are

- ``ours``: `sagitta fit DATA --model NETWORK --weights FILE --refit`, nothing else set, from an empty cache; `--refit`
  lets the final head learn from val, which the plain heads do, too;
- those of :mod:`trainers`, which may use three times our processor time, the median of our seeds;
- the plain heads of :mod:`plain_heads` and Sagitta's, on features, fitted on train and val. Their processor time is the
  head's alone; ``features_cpu`` is that of the features of all splits.

Processor time is user and system time of the process and of all that it started (``wait4``).
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import environments
import features
import plain_heads
from measure import processes

DEVELOP = ("birds", "cat-breeds")
JUDGE = ("butterflies", "dogs-vs-cats")
SETS = (*DEVELOP, *JUDGE)
GROUPS = {"develop": DEVELOP, "judge": JUDGE, "all": SETS}
OURS, HEADS = "ours", "heads"
ENVIRONMENTS = {"fastai": "fastai", "timm": "sagitta", "autogluon": "autogluon", "lightly": "lightly"}
CAPPED = tuple(ENVIRONMENTS)
SYSTEMS = (OURS, HEADS, *CAPPED)
ONCE = ("autogluon", "lightly")
TIMES = 3
"""Of our processor time, for the others."""


@dataclass(frozen=True)
class Job:
    """One run."""

    data: str
    network: str
    system: str
    seed: int

    @property
    def key(self) -> str:
        """Return its name in the JSON."""
        return f"{self.data}/{self.network}/{self.system}/{self.seed}"


def jobs(sets: Sequence[str], networks: Sequence[str], systems: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    """Yield what is to be run: all seeds of a system before the next; AutoGluon, lightly-train and heads once."""
    for name in sets:
        for network in networks:
            for system in sorted(systems, key=SYSTEMS.index):
                for seed in seeds[:1] if system in (*ONCE, HEADS) else seeds:
                    yield Job(name, network, system, seed)


def limit(job: Job, runs: dict[str, Any]) -> float | None:
    """Return the processor time that a peer may use: three times the median of ours; None where there is none."""
    mine = [
        run["cpu"]
        for key, run in runs.items()
        if key.startswith(f"{job.data}/{job.network}/{OURS}/") and "error" not in run
    ]
    return TIMES * statistics.median(mine) if mine and job.system in CAPPED else None


def divided(name: str) -> Path:
    """Return a set as folders train, val and test of class folders, copied where they are not yet."""
    folder = features.root() / "divided" / name
    if not (folder / "complete").exists():
        rng = np.random.default_rng(0)
        for source in sorted(features.images(name).iterdir()):
            files = sorted(source.iterdir())
            count = len(files)
            test = max(1, round(0.25 * count)) if count > 1 else 0
            val = max(1, round(0.15 * count)) if count > 3 else 0
            splits = ["test"] * test + ["val"] * val + ["train"] * (count - test - val)
            for split, number in zip(splits, rng.permutation(count).tolist(), strict=True):
                target = folder / "data" / split / source.name / files[number].name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(files[number], target)
        (folder / "complete").touch()
    return folder / "data"


def run(job: Job, cpu_limit: float | None) -> dict[str, Any]:
    """Run a job; returns accuracy and log loss of the test, processor and wall seconds, or why there is nothing."""
    data = divided(job.data)
    if job.system == HEADS:
        return plain(job, data)
    return _attempt(job.system, data, job.network, job.seed, cpu_limit, None)


def check(system: str, network: str, cpu_limit: float | None) -> dict[str, Any]:
    """Run a system on two butterflies; ``reported`` must be ``acc``, which scikit-learn says of its answers.

    Args:
        system: in ``SYSTEMS``.
        network: in :data:`features.NETWORKS`.
        cpu_limit: what it may use, to see it stop; None lets it run for one epoch.
    """
    if system == HEADS:
        return {"skipped": "`quality.py heads` compares them"}
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "data"
        for split, first, last in (("train", 0, 16), ("val", 16, 22), ("test", 22, 44)):
            for source in sorted(features.images("butterflies").iterdir())[5:7]:
                for file in sorted(source.iterdir())[first:last]:
                    target = few / split / source.name / file.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
        return _attempt(system, few, network, 0, cpu_limit, 1 if cpu_limit is None else None)


def _attempt(
    system: str, data: Path, network: str, seed: int, cpu_limit: float | None, epochs: int | None
) -> dict[str, Any]:
    if reason := environments.make(ENVIRONMENTS.get(system, "sagitta")):
        return {"error": f"cannot be installed: {reason}"}
    with tempfile.TemporaryDirectory() as folder:
        out, weights = Path(folder), str(features.weights_file(network))
        if system == OURS:
            command = [sys.executable, "-m", "sagitta", "fit", str(data), "--model", network]
            command += ["--weights", weights, "--seed", str(seed), "--refit", "--out", str(out / "run")]
            command += ["--epochs", str(epochs)] if epochs else []
        else:
            asked: dict[str, Any] = {"data": str(data), "network": network, "weights": weights, "seed": seed}
            asked |= {"cpu_seconds": cpu_limit, "epochs": epochs, "out": str(out)}
            (out / "job.json").write_text(json.dumps(asked))
            script = str(Path(__file__).with_name("trainers.py"))
            command = [str(environments.python(ENVIRONMENTS[system])), script, system, str(out / "job.json")]
        spent = _execute(command, out, None if cpu_limit is None else 2 * cpu_limit + 600)
        found = spent | ({} if cpu_limit is None else {"cpu_limit": round(cpu_limit, 1)})
        if "error" in spent:
            return found
        return found | (_our_answer(out / "run") if system == OURS else _answer(out))


def _execute(command: list[str], out: Path, seconds: float | None) -> dict[str, Any]:
    """Run a command as a session of its own that has ``seconds`` at most; returns its processor and wall seconds."""
    log = out / "log"
    environment = os.environ | {"SAGITTA_CACHE": str(out / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    if command[0] != sys.executable:
        environment.pop("PYTHONPATH", None)  # a peer sees its own environment alone
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True, cwd=out
        )
    timer = threading.Timer(seconds or 86_400, _end, [process.pid])
    timer.start()
    _pid, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    _end(process.pid)
    found = {"cpu": round(usage.ru_utime + usage.ru_stime, 1), "seconds": round(time.monotonic() - began, 1)}
    if process.returncode:
        tail = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-3:]
        return found | {"error": f"ended with {process.returncode}: " + " | ".join(tail)[-400:]}
    return found


def _end(session: int) -> None:
    """End what is left of a session."""
    for process in processes(session):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _our_answer(run: Path) -> dict[str, Any]:
    """Return what our run says of its test, checked against the predictions that it keeps."""
    import pyarrow.parquet as pq

    record = json.loads((run / "run.json").read_text())
    (file,) = (run / "tests").glob("*/predictions.parquet")
    table = pq.read_table(file)
    right = np.mean([a == b for a, b in zip(table["label"].to_pylist(), table["predicted"].to_pylist(), strict=True)])
    result = record["result"]
    return {
        "acc": round(float(right), 5),
        "loss": round(result["test_log_loss"], 5),
        "reported": round(result["test_acc"], 5),
        "epochs": record["epochs"],
    }


def _answer(out: Path) -> dict[str, Any]:
    """Return accuracy and log loss of a peer's answer, by scikit-learn and the folders' names."""
    from sklearn.metrics import accuracy_score, log_loss

    with np.load(out / "answer.npz") as kept:
        truth = [Path(file).parent.name for file in kept["files"].tolist()]
        names, probabilities = kept["classes"].tolist(), kept["probabilities"].astype(np.float64)
    order = np.argsort(names)
    told: dict[str, Any] = json.loads((out / "answer.json").read_text())
    probabilities = np.clip(probabilities, 1e-12, None)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return {
        "acc": round(float(accuracy_score(truth, np.array(names)[probabilities.argmax(axis=1)])), 5),
        "loss": round(float(log_loss(truth, probabilities[:, order], labels=np.array(names)[order])), 5),
        "reported": round(told.pop("reported"), 5),
    } | told


def plain(job: Job, data: Path) -> dict[str, Any]:
    """Fit every plain head, and ours, on the features of train and val; returns what each says of the test."""
    kept = features.root() / "features" / f"divided-{job.data}-{job.network}-stages.npz"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ, SAGITTA_CACHE=empty):
            found = features.compute(data, job.network)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **vars(found.labelled), test=found.splits == "test", cpu=found.cpu)
    with np.load(kept) as stored:
        rows, labels, stages = (stored[name] for name in ("features", "labels", "stages"))
        test, cpu, widths = stored["test"], stored["cpu"], tuple(stored["widths"].tolist())
    seen = (stages[~test], stages[test])
    task = plain_heads.Task(rows[~test], labels[~test], rows[test], seen, widths)
    results = {head: plain_heads.judge(head, task, labels[test]) for head in plain_heads.HEADS}
    return {"features_cpu": round(float(cpu), 1), "heads": results}


def versions() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    return environments.versions(environments.TRAINERS)
