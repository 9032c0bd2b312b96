"""Probabilities, abstention, sets and unfamiliar images: what is promised of them, measured on rows never asked before.

    python bench/calibration.py                       # all parts; writes bench/results/calibration.json; half an hour
    python bench/calibration.py temperature novelty   # some of them; the others stay as they are in the JSON

- ``temperature``: log loss and calibration error of test before and after, three seeds: a ResNet from scratch on
  CIFAR-10's test batch (8,000/1,000/1,000), and mobilenetv2_100 with the ImageNet weights of `$SAGITTA_DATA/weights`,
  fine-tuned on dogs-vs-cats, and probed on butterflies; ``heads``: the solved head of dogs-vs-cats, which has its
  temperature from rows out of fold already, without it. ``few``: the temperature of few rows of such a test, judged on
  its other rows, 50 divisions; ``vector``: one factor and one bias a class in the place of one temperature.
- ``coverage``: share of images whose class is in the set of ``--coverage 0.9``, and classes in it, over 20 divisions of
  rows that no model has learned from, half to find the level and half to judge it.
- ``accuracy``: of 200 such divisions, how often the answers of ``--accuracy`` were right less often than asked for.
  Halves of few hundred rows have chance of their own, and what one has the other lacks: that is more than one in 20.
- ``novelty``: AUROC of the column ``unfamiliar``, beside one less the probability. Of these pairs only those of
  cat-breeds were not looked at before the score was chosen, see LOG.md.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from measure import machine

Floats = npt.NDArray[Any]
RESULTS = Path(__file__).parent / "results" / "calibration.json"
DATA = Path(os.environ.get("SAGITTA_DATA", ""))
WEIGHTS = str(DATA / "weights" / "mobilenetv2_100.imagenet1k.safetensors")
LITE = str(DATA / "weights" / "tf_efficientnet_lite0.imagenet1k.safetensors")
TUNED = ("--model", "mobilenetv2_100", "--weights", WEIGHTS)
RUNS: dict[str, tuple[str, ...]] = {
    "cifar-10-batches-py": ("fit", "cifar-10-batches-py", "--epochs", "4"),
    "dogs-vs-cats": ("fit", "dogs-vs-cats", "--epochs", "2", *TUNED),
    "butterflies": ("probe", "butterflies", *TUNED),
    "cat-breeds": ("probe", "cat-breeds", "--model", "tf_efficientnet_lite0", "--weights", LITE),
    "dogs-probed": ("probe", "dogs-vs-cats", "--embed", *TUNED),
    "mnist": ("fit", "digits-of-mnist", "--epochs", "8"),
}
SEEDED = {"cifar-10-batches-py": (0, 1, 2), "dogs-vs-cats": (0, 1, 2), "butterflies": (0,)}
LETTERS = "ABCDEFGHJKLMNPQRTUVWXYZabdefghkmnprtwxy"  # but for those that are digits to anybody


def sagitta(*arguments: object, work: Path) -> None:
    """Run a command in a process of its own."""
    environment = os.environ | {"SAGITTA_CACHE": str(work / "cache")}
    command = [sys.executable, "-m", "sagitta", *map(str, arguments)]
    subprocess.run(command, cwd=work, env=environment, check=True, stdout=subprocess.DEVNULL)


def run_of(name: str, seed: int, work: Path) -> Path:
    """Return a run, made if need be."""
    run = work / f"{name}-{seed}"
    if not run.exists():
        verb, data, *options = RUNS[name]
        source = work / data if (work / data).exists() else DATA / data
        seeded = ("--seed", seed) if verb == "fit" else ()
        sagitta(verb, source, *options, *seeded, "--out", run, work=work)
    return run


def temperature(work: Path) -> dict[str, Any]:
    """Measure log loss and calibration error before and after."""
    found: dict[str, Any] = {}
    for name, seeds in SEEDED.items():
        rows = []
        for seed in seeds:
            record = json.loads((run_of(name, seed, work) / "run.json").read_text())
            result, about = record["result"], record["calibration"]
            row = {"seed": seed, "temperature": about["temperature"], "rows": about["rows"], "on": about["fitted_on"]}
            for score in ("log_loss", "ece"):
                after = result[f"test_{score}"]
                row |= {f"{score}_before": result.get(f"test_{score}_uncalibrated", after), score: after}
            rows.append(row)
        middle = {
            key: statistics.median(row[key] for row in rows) for key in rows[0] if "log_loss" in key or "ece" in key
        }
        found[name] = {"medians": middle, "runs": rows}
    return found


def heads(work: Path) -> dict[str, Any]:
    """Measure the log loss of test of solved heads, whose temperature is found out of fold, and of such without one."""
    from sagitta.training import head as module

    table = pq.read_table(next(run_of("dogs-probed", 0, work).glob("features-*.parquet")))
    vectors, split = np.stack(table["vector"].to_numpy(zero_copy_only=False)), np.array(table["split"].to_pylist())
    labels = np.unique(table["label"].to_pylist(), return_inverse=True)[1]
    known, real, rows = split != "test", module._temper, []
    for seed in (0, 1, 2):
        row: dict[str, Any] = {"seed": seed}
        for name, temper in (("without", lambda z, y, _spread: (1.0, real(z, y, 0.0)[1])), ("with", real)):
            module._temper = temper
            head = module.fit_head(vectors[known].copy(), labels[known], 2, seed=seed)
            logits = vectors[~known] @ head.weight.T + head.bias
            row[name] = float(losses(logits, labels[~known]).mean())
        rows.append(row)
    module._temper = real
    return {
        "medians": {name: statistics.median(row[name] for row in rows) for name in ("without", "with")},
        "runs": rows,
    }


def unseen_rows(run: Path) -> tuple[Floats, Floats]:
    """Return probabilities as they were trained, and labels, of validation and test rows of a run."""
    files = [run / "validation.parquet", *sorted((run / "tests").glob("*/predictions.parquet"))[:1]]
    tables = [pq.read_table(file) for file in files]
    names = json.loads((run / "run.json").read_text())["dataset"]["class_names"]
    probabilities = np.concatenate([np.stack(table["probabilities"].to_numpy()) for table in tables]).astype(float)
    labels = np.array([names.index(label) for table in tables for label in table["label"].to_pylist()])
    return probabilities, labels


def divisions(rows: int, count: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield halves."""
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(rows)
        yield order[: rows // 2], order[rows // 2 :]


def losses(logits: Floats, labels: Floats) -> Floats:
    """Return log losses (N,)."""
    found: Floats = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return found


def vector_scaled(logits: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Return factors and biases (classes,) of the lowest log loss, drawn to those that change nothing."""
    classes = logits.shape[1]

    def cost(point: Floats) -> float:
        factors, biases = np.exp(point[:classes]), point[classes:]
        return float(losses(logits * factors + biases, labels).sum() + (point**2).sum() * 2)

    found = minimize(cost, np.zeros(2 * classes), method="L-BFGS-B", options={"maxiter": 30}).x
    return np.exp(found[:classes]), found[classes:]


def few(work: Path) -> dict[str, Any]:
    """Measure what temperatures of few rows do to others, and vector scaling beside them."""
    from sagitta.evaluation import find_temperature
    from sagitta.models import SINGLE_LABEL

    found: dict[str, Any] = {}
    for name in ("cifar-10-batches-py", "dogs-vs-cats", "cat-breeds"):
        run = run_of(name, 0, work)
        value = json.loads((run / "run.json").read_text())["calibration"]["temperature"]
        probabilities, labels = unseen_rows(run)
        logits = np.log(np.maximum(probabilities, 1e-38)) * value
        logits -= logsumexp(logits, axis=1, keepdims=True)
        for rows in (50, 100, 200, 400):
            if rows > len(labels) / 2:
                continue
            gains = {"temperature": [], "vector": []}  # type: dict[str, list[float]]
            for seed in range(50 if rows < 400 else 10):
                order = np.random.default_rng(seed).permutation(len(labels))
                own, other = order[:rows], order[rows:]
                before = losses(logits[other], labels[other]).mean()
                found_one = find_temperature(SINGLE_LABEL, np.exp(logits[own]).astype(np.float32), labels[own]).value
                gains["temperature"].append(float(before - losses(logits[other] / found_one, labels[other]).mean()))
                if seed < 10:
                    factors, biases = vector_scaled(logits[own], labels[own])
                    changed = logits[other] * factors + biases
                    gains["vector"].append(float(before - losses(changed, labels[other]).mean()))
            found.setdefault(name, {})[rows] = {
                kind: {"mean": np.mean(each), "worst": np.min(each), "harmed": np.mean(np.array(each) < -1e-4)}
                for kind, each in gains.items()
            }
    return found


def coverage(work: Path) -> dict[str, Any]:
    """Measure the coverage of sets over 20 divisions."""
    from sagitta.evaluation import set_level, sets_of

    found: dict[str, Any] = {}
    for name in ("cifar-10-batches-py", "cat-breeds"):
        probabilities, labels = unseen_rows(run_of(name, 0, work))
        held, sizes = [], []
        for own, other in divisions(len(labels), 20):
            level = set_level(probabilities[own, labels[own]], 0.9)
            sets = sets_of(probabilities[other], level)
            held.append(float(sets[np.arange(len(other)), labels[other]].mean()))
            sizes.append(float(sets.sum(axis=1).mean()))
        accuracy = float((probabilities.argmax(axis=1) == labels).mean())
        spread = {"mean": np.mean(held), "least": min(held), "most": max(held), "classes": np.mean(sizes)}
        found[name] = {"rows": len(labels), "accuracy": accuracy, **spread}
    return found


def accuracy(work: Path) -> dict[str, Any]:
    """Measure how often abstention breaks its promise."""
    from sagitta.errors import ConfigError
    from sagitta.evaluation import abstain_below

    found: dict[str, Any] = {}
    for name, wanted in (("cifar-10-batches-py", 0.9), ("cifar-10-batches-py", 0.95), ("cat-breeds", 0.9)):
        probabilities, labels = unseen_rows(run_of(name, 0, work))
        sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        broken, shares, refused = 0, [], 0
        for own, other in divisions(len(labels), 200):
            try:
                threshold = abstain_below(sure[own], right[own], wanted).threshold
            except ConfigError:
                refused += 1
                continue
            answered = sure[other] >= threshold
            shares.append(float(answered.mean()))
            broken += bool(right[other][answered].mean() < wanted)
        answers = float(np.mean(shares)) if shares else None
        found[f"{name} {wanted}"] = {"divisions": 200, "refused": refused, "broken": broken, "answered": answers}
    return found


def write_others(work: Path) -> None:
    """Write digits of MNIST to learn from, noise, letters in Pillow's own type, and photos of neither cat nor dog."""
    if (work / "letters").exists():
        return
    random = np.random.default_rng(0)
    for split, kind, count in (("train", "train", 4000), ("val", "train", 1000), ("test", "t10k", 1000)):
        files = [DATA / "mnist" / f"{kind}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
        raw = [gzip.decompress(file.read_bytes()) for file in files]
        images = np.frombuffer(raw[0], np.uint8, offset=16).reshape(-1, 28, 28)
        labels = np.frombuffer(raw[1], np.uint8, offset=8)
        first = 4000 if split == "val" else 0
        for row in range(first, first + count):
            save(images[row], work / "digits-of-mnist" / split / str(labels[row]) / f"{row}.png")
    for number in range(300):
        save(random.integers(0, 256, (28, 28)).astype(np.uint8), work / "noise" / f"{number}.png")
        image, font = Image.new("L", (28, 28)), ImageFont.load_default(int(random.integers(18, 26)))
        ImageDraw.Draw(image).text((14, 14), LETTERS[number % len(LETTERS)], fill=255, font=font, anchor="mm")
        save(np.asarray(image.rotate(float(random.uniform(-15, 15)))), work / "letters" / f"{number}.png")


def save(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    """Write a grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


PAIRS: dict[str, tuple[Path | str, dict[str, Path | str]]] = {
    "dogs-vs-cats": (DATA / "dogs-vs-cats" / "test", {"butterflies": DATA / "butterflies", "birds": DATA / "birds"}),
    "mnist": ("digits-of-mnist/test", {"noise": "noise", "letters": "letters"}),
    "cat-breeds": (DATA / "cat-breeds", {"butterflies": DATA / "butterflies", "birds": DATA / "birds"}),
}
MOST = 200  # images of each kind


def novelty(work: Path) -> dict[str, Any]:
    """Measure how well known images are told from others, by the column and by other scores."""
    write_others(work)
    found: dict[str, Any] = {}
    for name, (known, others) in PAIRS.items():
        run = run_of(name, 0, work)
        columns: dict[str, dict[str, Any]] = {}
        for kind, folder in {"known": known, **others}.items():
            files = sorted(path for path in (work / folder).rglob("*") if path.suffix in (".jpg", ".png", ".jpeg"))
            listed = [str(files[row]) for row in np.random.default_rng(0).permutation(len(files))[:MOST]]
            sagitta("predict", run, *listed, "-o", work / "found.csv", work=work)
            table = pyarrow.csv.read_csv(work / "found.csv")
            columns[kind] = {
                "unfamiliar": table["unfamiliar"].to_numpy(),
                "probability": 1 - table["probability"].to_numpy(),
            }
        for kind in others:
            truth = np.repeat([0, 1], [len(columns[each]["unfamiliar"]) for each in ("known", kind)])
            scores = {
                score: round(float(roc_auc_score(truth, np.r_[columns["known"][score], columns[kind][score]])), 4)
                for score in ("unfamiliar", "probability")
            }
            flagged = {each: float((columns[each]["unfamiliar"] >= 0.99).mean()) for each in ("known", kind)}
            found[f"{name} against {kind}"] = {"auroc": scores, "flagged": flagged}
            print(name, kind, found[f"{name} against {kind}"], flush=True)
    return found


PARTS = {each.__name__: each for each in (temperature, heads, few, coverage, accuracy, novelty)}


def main() -> None:
    """Measure the parts that are asked for, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--work", type=Path, help="folder for runs, which are made once (a temporary one)")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = (a.work or Path(folder)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        for part in a.parts or PARTS:
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            results |= {part: PARTS[part](work), "machine": machine()}
            RESULTS.write_text(json.dumps(rounded(results), indent=1) + "\n")
            print(part, json.dumps(results[part], default=float), flush=True)


def rounded(value: Any) -> Any:
    """Return numbers with five digits."""
    if isinstance(value, dict):
        return {str(key): rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float | np.floating) else value


if __name__ == "__main__":
    main()
