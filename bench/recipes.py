"""The default recipes, by the command that a user would type, for several seeds; and what `--tta flip` adds to them.

    python bench/recipes.py                               # writes bench/results/recipes.json; about 40 minutes
    python bench/recipes.py --data mnist --seeds 1        # this alone; the rest stays as it is in the JSON

Every run is a process of its own with an empty cache: seconds are those of the whole command, with imports, conversion
and test. Thumbnails from scratch: digits, MNIST and CIFAR-10's test batch (8,000/1,000/1,000). All weights of a
pretrained network trained on few photos: butterflies, ten species, split 70/10/20, mobilenetv2_100 with the ImageNet
weights of `$SAGITTA_DATA/weights`. For the last two, `sagitta test --tta flip` follows on the same run.
"""

import argparse
import csv
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
FLAGS: dict[str, list[str]] = {
    "digits": [],
    "mnist": [],
    "cifar-10-batches-py": [],
    "butterflies": ["--val", "0.1", "--test", "0.2", "--model", "mobilenetv2_100", "--weights", "WEIGHTS"],
}
COLOUR = ("cifar-10-batches-py", "butterflies")


def one_run(source: str, seed: int) -> dict[str, Any]:
    """Fit in a process of its own; return accuracies, epochs, seconds and what ``run.json`` says of the machine."""
    shared = Path(os.environ["SAGITTA_DATA"])
    weights = str(shared / "weights" / "mobilenetv2_100.imagenet1k.safetensors")
    flags = [weights if flag == "WEIGHTS" else flag for flag in FLAGS[source]]
    data = source if source == "digits" else str(shared / source)
    with tempfile.TemporaryDirectory() as folder:
        run, cache = Path(folder) / "run", Path(folder) / "cache"
        began = time.monotonic()
        sagitta(cache, "fit", data, *flags, "--seed", str(seed), "--out", str(run))
        seconds = time.monotonic() - began
        record = json.loads((run / "run.json").read_text())
        result = {name: round(record["result"][name], 4) for name in ("val_acc", "test_acc", "test_loss")}
        if source in COLOUR:
            result |= test_time_augmentation(run, cache)
    return {
        "run": {"seed": seed, "epochs": record["epochs"], "seconds": round(seconds, 1), **result},
        "versions": record["versions"],
        "hardware": record["hardware"],
    }


def test_time_augmentation(run: Path, cache: Path) -> dict[str, float]:
    """Return test accuracy and loss with mirror images too."""
    sagitta(cache, "test", str(run), "--tta", "flip")
    with (run / "test_logs.csv").open(newline="") as file:
        _plain, flipped = csv.DictReader(file)
    return {f"tta_{kind}": round(float(flipped[f"test_{kind}"]), 4) for kind in ("acc", "loss")}


def sagitta(cache: Path, *arguments: str) -> None:
    """Run a command of Sagitta in a process of its own."""
    command = [sys.executable, "-m", "sagitta", *arguments]
    subprocess.run(command, check=True, env=os.environ | {"SAGITTA_CACHE": str(cache)})


def summary(source: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median and the spread over seeds of seconds, accuracies and losses."""
    found: dict[str, Any] = {"command": " ".join(["sagitta fit", source, *FLAGS[source], "--seed SEED"]), "runs": runs}
    for name in runs[0].keys() - {"seed", "epochs"}:
        values = [run[name] for run in runs]
        found[name] = {"median": round(statistics.median(values), 4), "min": min(values), "max": max(values)}
    return found


def main() -> None:
    """Run what is asked for; runs of other seeds and data stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=FLAGS, default=list(FLAGS))
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
