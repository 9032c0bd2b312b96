"""Full fine-tuning of pretrained weights on few photos, by the command that a user would type, for several seeds.

    python bench/finetune.py             # writes bench/results/finetune.json
    python bench/finetune.py --seeds 1   # this seed alone; the others stay as they are in the JSON

Butterflies, ten species, split 70/10/20 with the default split seed; mobilenetv2_100 with the ImageNet weights from
`$SAGITTA_DATA/weights`; every setting by the recipe, at most 15 epochs. About two minutes a seed on two cores.
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

RESULTS = Path(__file__).parent / "results" / "finetune.json"
FLAGS = "--model mobilenetv2_100 --val 0.1 --test 0.2 --logger csv"


def one_run(data: Path, seed: int, folder: Path, extra: list[str]) -> dict[str, Any]:
    """Fit in a process of its own; return accuracies, epochs, seconds and what ``run.json`` says of the machine."""
    weights = data / "weights" / "mobilenetv2_100.imagenet1k.safetensors"
    run = folder / f"seed-{seed}"
    command = ["-m", "sagitta", "fit", str(data / "butterflies"), *FLAGS.split(), "--weights", str(weights)]
    began = time.monotonic()
    subprocess.run(
        [sys.executable, *command, "--seed", str(seed), "--out", str(run), *extra],
        check=True,
        env=os.environ | {"SAGITTA_CACHE": str(folder / "cache")},
    )
    seconds = time.monotonic() - began
    record = json.loads((run / "run.json").read_text())
    result = {name: round(record["result"][name], 4) for name in ("val_acc", "test_acc", "test_loss")}
    return {
        "run": {"seed": seed, "epochs": record["epochs"], "seconds": round(seconds, 1), **result},
        "versions": record["versions"],
        "hardware": record["hardware"],
    }


def main() -> None:
    """Run every seed, print and write the median and the spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options, extra = parser.parse_known_args()
    data = Path(os.environ["SAGITTA_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        records = [one_run(data, seed, Path(folder), extra) for seed in options.seeds]
    before = json.loads(options.out.read_text())["runs"] if options.out.is_file() else []
    by_seed = {run["seed"]: run for run in [*before, *(record["run"] for record in records)]}
    runs = [by_seed[seed] for seed in sorted(by_seed)]
    accuracies = [run["test_acc"] for run in runs]
    summary = {
        "command": " ".join(["sagitta fit butterflies --weights FILE", FLAGS, *extra]),
        "versions": records[-1]["versions"],
        "hardware": records[-1]["hardware"],
        "runs": runs,
        "median_test_acc": statistics.median(accuracies),
        "spread_test_acc": [min(accuracies), max(accuracies)],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
