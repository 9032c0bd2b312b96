"""The benchmark: Sagitta's engine beside its peers, one command, results as JSON.

    SAGITTA_DATA=DATA python bench/loader.py [--rows train float32 ...] [--repeats 5] [--out bench/results/loader.json]

Peers are loaded in turn within each repeat (A B C ... A B C ...), each in a process of its own that has loaded an epoch
before. Memory and time to the first batch come from a run in which nobody else has a process.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import convert
import data
import environments
from formats import WRITERS
from measure import LoaderError, Server, machine, wait_until_idle
from rows import PEERS, ROWS

Results = dict[str, dict[str, Any]]
HERE = Path(__file__).parent

MAX_OTHERS = 0.05
"""An epoch counts if other people's processes took no more than this share of the machine."""
MAX_ATTEMPTS, MAX_WAIT_SECONDS = 10, 300


def serve(name: str, row: str) -> Server:
    """Start a loader's process."""
    log = environments.cache() / "logs" / f"{row}-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    python = environments.python(PEERS[name].environment)
    return Server([str(python), str(HERE / "serve.py"), name, row, str(_root())], log)


def prepare(name: str, row: str) -> None:
    """Write a loader's format unless that was done."""
    written = ROWS[row].work(_root(), name).folder
    if WRITERS[PEERS[name].format] and not (written / "complete").exists():
        with serve(name, row) as server:
            server.ask("prepare")


def compare(row: str, repeats: int) -> Results:
    """Measure a row of ``ROWS``; a peer that cannot do it has an ``error`` in place of numbers."""
    results: Results = {}
    for name in ROWS[row].peers:
        results[name] = _attempt(lambda name=name: _alone(name, row))  # type: ignore[misc]
        print(f"  {name}: {results[name].get('error') or 'prepared'}", flush=True)
    with ExitStack() as stack:
        servers = {}
        for name in [name for name in results if "error" not in results[name]]:
            servers[name] = server = stack.enter_context(serve(name, row))
            results[name] |= _attempt(lambda server=server: {"batch": server.ask("epoch")["batch"]})  # type: ignore[misc]
        servers = {name: server for name, server in servers.items() if "error" not in results[name]}
        for _ in range(repeats):
            for name, server in servers.items():
                epoch = quiet_epoch(server)
                results[name]["images_per_second"].append(round(epoch["images"] / epoch["seconds"], 1))
                results[name]["others"].append(round(epoch["others"], 3))
                results[name]["cpu_seconds_per_1000"].append(round(1000 * epoch["cpu"] / epoch["images"], 4))
    return results


def quiet_epoch(server: Server) -> dict[str, Any]:
    """Return an epoch during which nobody else computed; waits for one, though not for ever."""
    for _ in range(MAX_ATTEMPTS):
        wait_until_idle(MAX_OTHERS, MAX_WAIT_SECONDS)
        epoch = server.ask("epoch")
        if epoch["others"] <= MAX_OTHERS:
            break
    return epoch


def _alone(name: str, row: str) -> dict[str, Any]:
    """Write a peer's format if need be; measure its first epoch's memory and time to the first batch if wanted."""
    data.write(_root(), PEERS[name].data or ROWS[row].data)
    if reason := environments.make(PEERS[name].environment):
        raise LoaderError(f"cannot be installed: {reason}")
    prepare(name, row)
    result: dict[str, Any] = {"images_per_second": [], "cpu_seconds_per_1000": [], "others": []}
    if ROWS[row].costs:
        wait_until_idle(MAX_OTHERS, MAX_WAIT_SECONDS)
        with serve(name, row) as server:
            epoch, memory = server.ask_watched("epoch")
        result["first_batch_seconds"] = round(epoch["first"], 3)
        result["memory_mib"] = {kind.lower(): round(size / 2**20) for kind, size in memory.items()}
    return result


def compare_pixels(row: str, _repeats: int) -> Results:
    """Compare each peer's evaluation crops with Pillow's, once: pixels do not vary."""

    def ask(name: str) -> dict[str, Any]:
        prepare(name, row)
        with serve(name, row) as server:
            return server.ask("pixels")

    return {name: _attempt(lambda name=name: ask(name)) for name in ROWS[row].peers}  # type: ignore[misc]


def measure_random_rows(_row: str, repeats: int) -> Results:
    """Measure a view of one row's bytes, at random: microseconds, the median of a hundred rows at a time."""
    from sagitta import ShardSet

    split = ShardSet.open(_root() / "photos" / "sagitta" / "dataset").splits["train"]
    microseconds = []
    for _ in range(100 * repeats):
        numbers = np.random.randint(len(split), size=100).tolist()
        start = time.perf_counter()
        for number in numbers:
            split.image(number)
        microseconds.append(1e6 * (time.perf_counter() - start) / len(numbers))
    quartiles = [round(value, 3) for value in statistics.quantiles(microseconds, n=4)]
    return {"Sagitta": {"microseconds": quartiles[1], "quartiles": quartiles}}


def compare_converters(row: str, repeats: int) -> Results:
    """Measure the peers' writers on many photos; see :mod:`convert`."""
    return convert.compare(_root(), lambda name: serve(name, row), repeats)


MEASUREMENTS: dict[str, Callable[[str, int], Results]] = {
    **dict.fromkeys(("train", "float32", "eval", "camera", "cifar"), compare),
    "pixels": compare_pixels,
    "row": measure_random_rows,
    "convert": compare_converters,
}


def _attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except LoaderError as error:
        return {"error": str(error)}


def _root() -> Path:
    return environments.cache() / "data"


def _versions() -> dict[str, str]:
    from sagitta.images.decoding import engine

    own = {name: version(name) for name in ("sagitta", "torch", "numpy", "pyarrow", "pillow", "simplejpeg")}
    return {**own, "engine": engine(), **environments.versions()}


def main() -> None:
    """Measure the rows that are named, or all; rows of an earlier run that are not named stay as they were."""
    parser = argparse.ArgumentParser(description="Compare Sagitta's engine with its peers.")
    parser.add_argument("--rows", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "loader.json")
    options = parser.parse_args()
    data.source()
    report = json.loads(options.out.read_text()) if options.out.exists() else {"rows": {}}
    for row in options.rows:
        print(f"{row} ({datetime.now(UTC):%H:%M})", flush=True)
        load = os.getloadavg()[0]
        results = MEASUREMENTS[row](row, options.repeats)
        report["rows"][row] = {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "command": " ".join(["python", "bench/loader.py", "--rows", row, "--repeats", str(options.repeats)]),
            "load_before": round(load, 2),
            "results": results,
        }
        report |= {"machine": machine(), "versions": _versions()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
