"""Thumbnails from scratch by the default recipe, by the command that a user would type, for several seeds.

    python bench/recipes.py                               # writes bench/results/recipes.json
    python bench/recipes.py --data mnist --seeds 1        # this alone; the rest stays as it is in the JSON

Every run is a process of its own with an empty cache: seconds are those of the whole command, with imports, conversion
and test. On two cores about 20 s a seed for digits, 4 minutes for MNIST and for
CIFAR-10's test batch (8,000/1,000/1,000).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "recipes.json"
SOURCES = ("digits", "mnist", "cifar-10-batches-py")


def one_run(source: str, seed: int) -> dict[str, Any]:
    """Fit in a process of its own; return accuracies, epochs, seconds and what ``run.json`` says of the machine."""
    data = source if source == "digits" else str(Path(os.environ["SAGITTA_DATA"]) / source)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "sagitta", "fit", data, "--seed", str(seed), "--out", str(run)],
            check=True,
            env=os.environ | {"SAGITTA_CACHE": str(Path(folder) / "cache")},
        )
        seconds = time.monotonic() - began
        record = json.loads((run / "run.json").read_text())
    result = {name: round(record["result"][name], 4) for name in ("val_acc", "test_acc", "test_loss")}
    return {
        "run": {"seed": seed, "epochs": record["epochs"], "seconds": round(seconds, 1), **result},
        "versions": record["versions"],
        "hardware": record["hardware"],
    }


def summary(source: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median and the spread of accuracy and time over seeds."""
    spread: dict[str, Any] = {"command": f"sagitta fit {source} --seed SEED", "runs": runs}
    for name in ("test_acc", "seconds"):
        values = [run[name] for run in runs]
        spread[name] = {"median": round(statistics.median(values), 4), "min": min(values), "max": max(values)}
    return spread


def main() -> None:
    """Run what is asked for; runs of other seeds and data stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    report = json.loads(options.out.read_text()) if options.out.is_file() else {"data": {}}
    for source in options.data:
        kept = {run["seed"]: run for run in report["data"].get(source, {}).get("runs", [])}
        for seed in options.seeds:
            record = one_run(source, seed)
            kept[seed] = record["run"]
            report |= {"versions": record["versions"], "hardware": record["hardware"]}
            report["data"][source] = summary(source, [kept[number] for number in sorted(kept)])
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["data"], indent=2))


if __name__ == "__main__":
    main()
