"""Time and memory of Sagitta's head, given features, beside the time in which this machine computes the features."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import features
import plain_heads
from plain_heads import Task

TIMES = {"100/2": (100, 2), "100/50": (100, 50), "20000/2": (20_000, 2), "20000/1000": (20_000, 1000)}
"""Images and classes: a hundred images are too few for a thousand classes, so there are two each of fifty."""
DIMENSIONS = 1280
PASSES = 3


def measure_head(count: int, classes: int) -> dict[str, Any]:
    """Time the head on generated features, ``PASSES`` times, each in a process of its own."""
    data = features.generated(classes, DIMENSIONS, count // classes, seed=0)
    rows = np.random.default_rng(0).permutation(count)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npz"
        np.savez(file, features=data.features[rows], labels=data.labels[rows])
        del data
        passes = [_ask("head", str(file)) for _ in range(PASSES)]
    return {"images": count, "classes": classes} | {
        key: statistics.median(each[key] for each in passes) for key in passes[0]
    }


def measure_features(network: str, name: str) -> float:
    """Return images a second from a set's files to features in an empty cache: the median of ``PASSES``."""
    rates = []
    for _ in range(PASSES):
        with tempfile.TemporaryDirectory() as cache:
            rates.append(_ask("features", name, network, SAGITTA_CACHE=cache)["images_s"])
    return statistics.median(rates)


def _ask(*arguments: str, **environment: str) -> dict[str, float]:
    """Run this file in a process of its own; returns what it prints."""
    command = [sys.executable, __file__, *arguments]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    result: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return result


def _head(file: str) -> dict[str, float]:
    """Fit the head on kept features."""
    few = features.generated(2, 16, 10, seed=0)
    plain_heads.ours(Task(few.features, few.labels, few.features))  # imports
    with np.load(file) as kept:
        task = Task(kept["features"], kept["labels"], kept["features"][:1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    plain_heads.ours(task)
    return {
        "seconds": round(time.perf_counter() - began, 3),
        "cpu": round(time.process_time() - cpu, 3),
        "features_mib": round(task.features.nbytes / 2**20, 1),
        "more_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
    }


def _features(name: str, network: str) -> dict[str, float]:
    """Compute the features of a set."""
    found = features.compute(features.images(name), network)
    return {"images_s": round(len(found.splits) / found.seconds, 1)}


if __name__ == "__main__":
    print(json.dumps(_head(*sys.argv[2:]) if sys.argv[1] == "head" else _features(*sys.argv[2:])))
