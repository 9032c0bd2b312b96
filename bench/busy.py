"""A network's forward pass on a quiet machine, and beside processes that want the cores, too.

    python bench/busy.py --spin      # how long idle OpenMP threads spin: about 12 minutes
    python bench/busy.py --batch     # images at a time, for probe and predict: about 25 minutes
    python bench/busy.py --batch --seconds 1 --repeats 1 --sizes 4 16 --results /tmp/busy.json    # a smoke

Every measurement has a process of its own, with as many threads as there are usable cores, two of them at most, and
random weights of mobilenetv2_100 at 224 pixels. The cases alternate, quiet and busy; busy means two processes that
count. ``images_s`` are images a second of wall-clock time, ``cpu_ms`` the processor time of all threads an image.

- ``--spin``: the environment as it is (OpenMP's default), ``OMP_WAIT_POLICY=passive``, ``GOMP_SPINCOUNT``; what
  does not lose on a quiet machine belongs into ``sagitta.pool.spin_little``.
- ``--batch``: the network as ``probe`` has it (without head, BatchNorm folded) and as ``predict`` has it, in the
  environment of the command line; the best compromise belongs into ``sagitta.models.inference_batch``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measure import machine

RESULTS = Path(__file__).parent / "results" / "busy.json"
MODEL, SIDE, THREADS, OTHERS = "mobilenetv2_100", 224, 2, 2
SPIN: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "1000": {"GOMP_SPINCOUNT": "1000"},
    "50000": {"GOMP_SPINCOUNT": "50000"},
}
SPIN_BATCH, SIZES = 16, (1, 2, 4, 8, 16, 32, 64)
DECIDE = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")

Run = dict[str, float]


def network(kind: str) -> Any:
    """Return the network as ``probe`` or ``predict`` has it."""
    import torch

    from sagitta.models import build_network, prepare, split_head

    torch.manual_seed(0)
    whole = build_network(MODEL, 1000, 3, (SIDE, SIDE)).eval()
    if kind == "probe":
        return prepare(split_head(whole, MODEL)[0])
    return whole.to(memory_format=torch.channels_last)


def one(kind: str, batch: int, seconds: float) -> Run:
    """Return the rates of one network and batch in this process."""
    import torch

    from sagitta.pool import usable_cores

    torch.set_num_threads(min(THREADS, usable_cores()))
    body = network(kind)
    images = torch.rand(batch, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(2):
            body(images)
        count, began, used = 0, time.perf_counter(), time.process_time()
        while (elapsed := time.perf_counter() - began) < seconds:
            body(images)
            count += batch
        elapsed = time.perf_counter() - began
    return {"images_s": count / elapsed, "cpu_ms": 1000 * (time.process_time() - used) / count}


@contextmanager
def others(count: int) -> Iterator[None]:
    """Have processes beside, each of which wants a core."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(kind: str, batch: int, seconds: float, environment: dict[str, str]) -> Run:
    """Run one measurement in a process of its own, in which nothing else decides about threads."""
    clean = {name: value for name, value in os.environ.items() if name not in DECIDE}
    command = [sys.executable, __file__, "--one", kind, "--sizes", str(batch), "--seconds", str(seconds)]
    found = subprocess.run(command, check=True, env=clean | environment, stdout=subprocess.PIPE, text=True)
    result: Run = json.loads(found.stdout.splitlines()[-1])
    return result


def in_turn(cases: dict[str, tuple[str, int, dict[str, str]]], repeats: int, seconds: float) -> dict[str, Any]:
    """Measure all cases quiet and busy, and again; returns medians with their spread, and every run."""
    runs: dict[str, dict[str, list[Run]]] = {}
    for _ in range(repeats):
        for state, count in (("quiet", 0), ("busy", OTHERS)):
            for name, (kind, batch, environment) in cases.items():
                with others(count):
                    run = measure(kind, batch, seconds, environment)
                runs.setdefault(state, {}).setdefault(name, []).append(run)
                print(f"{state:5} {name:14} {run['images_s']:8.1f} images/s {run['cpu_ms']:8.1f} ms", flush=True)
    return {
        state: {name: {key: spread([run[key] for run in each]) for key in each[0]} for name, each in named.items()}
        for state, named in runs.items()
    } | {"runs": runs}


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum, rounded."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def main() -> None:
    """Measure what is asked for, and put it in the place of what the JSON has of that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spin", action="store_true")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--one", choices=("probe", "predict"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.sizes[0], options.seconds)))
        return
    from sagitta.pool import spin_little

    ours: dict[str, str] = {}
    spin_little(ours)
    cases: dict[str, dict[str, tuple[str, int, dict[str, str]]]] = {
        "spin": {name: ("predict", SPIN_BATCH, environment) for name, environment in SPIN.items()},
        "batch": {f"{kind} {size}": (kind, size, ours) for kind in ("probe", "predict") for size in options.sizes},
    }
    for mode in ("spin", "batch"):
        if getattr(options, mode):
            found = in_turn(cases[mode], options.repeats, options.seconds)
            add(options.results, {mode: found | {"seconds": options.seconds}})


def add(path: Path, found: dict[str, Any]) -> None:
    """Put results into the JSON beside those of the other mode."""
    before = json.loads(path.read_text()) if path.is_file() else {}
    record = {
        "command": "python bench/busy.py --spin --batch",
        "machine": machine(),
        "versions": {package: version(package) for package in ("sagitta", "torch", "timm")},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(before | record | found, indent=2) + "\n")


if __name__ == "__main__":
    main()
