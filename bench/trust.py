"""What the parts that make a run believable add to it: the glance before, calibration, what is familiar, the report.

    python bench/trust.py                        # writes bench/results/trust.json; about five minutes
    python bench/trust.py --only digits probe    # these alone; the rest stays as it is in the JSON

Each command is a process of its own with an empty cache, in which the real functions are timed where they are called.
Of each part: seconds, and CPU seconds of the process with its children and threads, which other work on the machine
changes less. The rest is the whole command, with imports, conversion and test, less these parts: they may add a tenth
of it, or ten seconds where that is more. Epochs are fewer than by default, so the rest is less than it would be.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import machine

RESULTS = Path(__file__).parent / "results" / "trust.json"
NETWORK = ["--model", "mobilenetv2_100", "--weights", "WEIGHTS"]
DIVIDED = ["--val", "0.1", "--test", "0.2"]
COMMANDS: dict[str, list[str]] = {
    "digits": ["fit", "digits"],
    "cifar": ["fit", "DATA/cifar-10-batches-py", "--epochs", "2", "--trainer.limit_train_batches", "0.05"],
    "butterflies": ["fit", "DATA/butterflies", *DIVIDED, *NETWORK, "--epochs", "1"],
    "birds": ["fit", "DATA/birds", *DIVIDED, *NETWORK, "--epochs", "1"],
    "probe": ["probe", "DATA/butterflies", *DIVIDED, *NETWORK],
}
LEAST, SHARE = 10.0, 0.1
"""Seconds that may be added whatever a run takes, and the share of it that may be added where that is more."""

TIMED = r"""
import functools, importlib, json, os, sys, time

def cpu():
    return sum(os.times()[:4])

wholly, spent, depth = time.perf_counter(), {}, 0

def timed(part, owner, name):
    function = getattr(owner, name)

    @functools.wraps(function)
    def call(*arguments, **options):
        global depth
        began, before = time.perf_counter(), cpu()
        depth += 1
        try:
            return function(*arguments, **options)
        finally:
            depth -= 1
            if not depth:  # a part within a part is counted once
                found = spent.setdefault(part, [0.0, 0.0])
                found[0] += time.perf_counter() - began
                found[1] += cpu() - before

    setattr(owner, name, call)

diagnosis = importlib.import_module("sagitta.diagnosis.examination")
fitting = importlib.import_module("sagitta.training.fitting")
probing = importlib.import_module("sagitta.training.probing")
reporting = importlib.import_module("sagitta.reporting")
timed("glance", diagnosis.Glance, "__call__")
timed("label errors", diagnosis.Glance, "judge")
timed("validation after", fitting, "validate_kept")
timed("calibration and familiar", fitting, "_trust")
timed("calibration and familiar", probing, "_calibrated")
timed("calibration and familiar", probing, "_note_known")
timed("report", reporting, "leave_report")
target = sys.argv.pop(1)
from sagitta.cli import main
try:
    ended = main()
finally:
    with open(target, "w") as file:
        json.dump({"whole": [time.perf_counter() - wholly, cpu()], "parts": spent}, file)
sys.exit(ended)
"""


def measured(command: list[str]) -> dict[str, Any]:
    """Run a command of Sagitta; returns (seconds, CPU seconds) of its parts and of the rest, and what is allowed."""
    data = Path(os.environ["SAGITTA_DATA"])
    weights = data / "weights" / "mobilenetv2_100.imagenet1k.safetensors"
    filled = [part.replace("DATA", str(data)).replace("WEIGHTS", str(weights)) for part in command]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "seconds.json"
        arguments = [str(target), *filled, "--out", f"{folder}/run"]
        environment = os.environ | {"SAGITTA_CACHE": f"{folder}/cache"}
        subprocess.run([sys.executable, "-c", TIMED, *arguments], check=True, env=environment)
        found = json.loads(target.read_text())
    added = [sum(part[unit] for part in found["parts"].values()) for unit in (0, 1)]
    rest = [found["whole"][unit] - added[unit] for unit in (0, 1)]
    return {
        "command": " ".join(["sagitta", *command]),
        "parts": {name: [round(value, 2) for value in part] for name, part in found["parts"].items()},
        "added": [round(value, 2) for value in added],
        "rest": [round(value, 2) for value in rest],
        "allowed": round(max(LEAST, SHARE * rest[0]), 1),
        "within": added[0] <= max(LEAST, SHARE * rest[0]),
    }


def main() -> None:
    """Measure what is asked for, and write it into the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=COMMANDS, default=list(COMMANDS))
    a = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results |= {"machine": machine(), "unit": "[seconds, CPU seconds]"}
    for name in a.only:
        results[name] = measured(COMMANDS[name])
        print(name, json.dumps(results[name]), flush=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
