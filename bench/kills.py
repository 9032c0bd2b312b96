"""Kill a training at random moments, resume it until it ends, and compare it with one that was left alone.

    python bench/kills.py                            # 60 kills over all modes; results/kills.json
    python bench/kills.py --kills 4 --modes ema all  # some kills of each of these modes, printed
    python bench/kills.py --signal TERM              # ended by a signal that the training hears, as a scheduler does

What has to be equal, bit by bit: the last checkpoint (weights, optimizer, schedule, averages, early stopping, list of
the best, position), the weights of the best epoch, every value of the metric history, and the result. Each run is a
forked process on one thread, killed with SIGKILL after a random time, in its first training and in every resume. Of
"two devices" it is the command, and what is killed is one of its two processes, or both.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process cannot use its parent's threads

import numpy as np
import torch
from PIL import Image

import sagitta
from sagitta.models import Classifier
from sagitta.run import history_table, read_record
from sagitta.signals import Interrupted
from sagitta.training.checkpoints import Checkpoints

RESULTS = Path(__file__).parent / "results" / "kills.json"

PHOTOS = {"model": "resnet20", "image_size": 32, "trainer.max_epochs": 3, "data.batch_size": 8}
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ema": {"ema": 0.9},
    "mixup, cutmix": {"model.mixup": 0.2, "model.cutmix": 1.0},
    "balanced": {"data.balanced": True},
    "trivial augment": {"data.augmentation.auto": "trivial"},
    "accumulation": {"trainer.accumulate_grad_batches": 2},
    "one-cycle": {"model.schedule": "one-cycle"},
    "cosine": {"model.schedule": "cosine"},
    "early stopping": {"patience": 1, "model.lr": 0.05, "trainer.max_epochs": 8},
    "validation inside": {"trainer.val_check_interval": 0.5, "keep": 2},
    "validation inside, early stopping": {
        "trainer.val_check_interval": 0.5,
        "patience": 2,
        "model.lr": 0.05,
        "trainer.max_epochs": 6,
    },
    "gradual": {"tune": "gradual", "weights": True},
    "head": {"tune": "head", "weights": True, "ema": 0},
    "head first": {"weights": True, "new head": True},
    "several labels": {"several labels": True},
    "class weights": {"class_weights": "balanced"},
    "all": {
        "ema": 0.9,
        "model.mixup": 0.2,
        "model.cutmix": 1.0,
        "data.balanced": True,
        "data.augmentation.auto": "trivial",
        "trainer.accumulate_grad_batches": 2,
        "model.schedule": "one-cycle",
        "patience": 3,
        "keep": 2,
        "trainer.val_check_interval": 0.5,
        "trainer.gradient_clip_val": 1.0,
    },
    "long validation": {"val": 0.5, "slow": True},
    "long validation inside, averages": {
        "val": 0.4,
        "slow": True,
        "ema": 0.9,
        "keep": 2,
        "trainer.val_check_interval": 0.5,
        "trainer.accumulate_grad_batches": 2,
        "trainer.log_every_n_steps": 1,
    },
    "several labels, early stopping": {
        "several labels": True,
        "patience": 1,
        "model.lr": 0.05,
        "trainer.max_epochs": 8,
        "slow": True,
    },
    "two devices": {"devices": 2, "data.batch_size": 4, "val": 0.3, "ema": 0.9, "trainer.max_epochs": 12},
}
EVERY = (None, 0.0)
"""Seconds from one checkpoint inside an epoch to the next: as they are, or one a step."""
SLOW = 0.1
"""Seconds that a batch of a slow validation or test takes, where most kills fall then."""
TWO = {"trainer.accelerator": "cpu", "trainer.strategy": "ddp", "data.threads": 1}


def make_images(folder: Path, *, several: bool) -> Path:
    """Write 90 small images of three classes, as folders or as a table of several labels an image."""
    rng = np.random.default_rng(0)
    rows = ["path,labels"]
    for number in range(90):
        label = number % 3
        pixels = rng.integers(0, 120, (40, 40, 3), np.uint8)
        pixels[..., label] += 100
        path = folder / (f"{'abc'[label]}/{number}.png" if not several else f"images/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        rows.append(f"images/{number}.png,{'abc'[label]}{' d' if number % 2 else ''}")
    if several:
        (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(work: Path, mode: Mapping[str, Any], out: Path, every: float | None, *, resume: bool) -> None:
    """Fit, or go on with a run, in this process."""
    settings = dict(PHOTOS) | dict(mode)
    several, weights, new, slow = (
        settings.pop(name, False) for name in ("several labels", "weights", "new head", "slow")
    )
    for stage in ("training", "validation", "test"):
        note(work / "stage", stage, SLOW if slow and stage != "training" else 0.0)
    source = work / ("several" if several else "folders")
    if every is not None:
        Checkpoints.SECONDS = every
    with (
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        if resume:
            sagitta.fit(resume=out)
            return
        short: dict[str, Any] = {name: settings.pop(name) for name in list(settings) if "." not in name}
        if weights:
            short["weights"] = work / ("other.pth" if new else "own.pth")
        if several:
            short["label_separator"] = " "
        sagitta.fit(source, **short, seed=1, settings=settings | {"data.threads": 1}, out=out)


def note(path: Path, stage: str, seconds: float) -> None:
    """Have this process write into a file what it does, and take its time."""
    step = getattr(Classifier, f"{stage}_step")

    def noted(*arguments: Any) -> Any:
        path.write_text(stage)
        time.sleep(seconds)
        return step(*arguments)

    setattr(Classifier, f"{stage}_step", noted)


def start(work: Path, mode: Mapping[str, Any], out: Path, every: float | None, *, resume: bool) -> int:
    """Return the number of a process that runs: forked, or for several devices the command."""
    (work / "stage").write_text("beginning")
    if "devices" in mode:
        options = {name: value for name, value in (PHOTOS | dict(mode) | TWO).items() if not resume}
        words = [f"--{name.replace('_', '-') if '.' not in name else name}={value}" for name, value in options.items()]
        what = [f"--resume={out}"] if resume else [str(work / "folders"), "--seed=1", f"--out={out}", *words]
        command = [sys.executable, "-W", "ignore", "-m", "sagitta", "fit", *what]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=work).pid
    if child := os.fork():
        return child
    status = 1
    try:
        torch.set_num_threads(1)
        run(work, mode, out, every, resume=resume)
        status = 0
    except Interrupted as error:
        status = error.code
    except BaseException as error:  # whatever it is, it belongs to this run
        print(f"{type(error).__name__}: {error}", file=sys.__stderr__, flush=True)
        if not isinstance(error, sagitta.SagittaError):
            import traceback

            traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def send(child: int, number: int, rng: random.Random) -> None:
    """Send a signal to a process, or to one that it has started, or to both."""
    started = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == child:
                started.append(int(path.parent.name))
    for each in rng.choice([[child], started, [child, *started]]) if started else [child]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)


def ended(child: int) -> int:
    """Return how a process ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested state by its name."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from flat(each, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from flat(each, f"{name}/{number}")
    else:
        yield name, value


def differences(whole: Path, other: Path) -> list[str]:
    """Return the names of what differs between two finished runs."""
    found = []

    def compare(what: str, a: Any, b: Any) -> None:
        mine, its = dict(flat(a)), dict(flat(b))
        for name in sorted(mine.keys() | its.keys()):
            x, y = mine.get(name), its.get(name)
            same = torch.equal(x, y) if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) else x == y
            if not (same or (x != x and y != y)):
                found.append(f"{what}{name}")

    def load(path: Path) -> Any:
        return torch.load(path, map_location="cpu", weights_only=True)

    compare("last", *(load(each / "checkpoints" / "last.ckpt") for each in (whole, other)))
    names = [sorted(path.name for path in (each / "checkpoints").iterdir()) for each in (whole, other)]
    compare("files", *names)
    for name in set(names[0]) & set(names[1]):
        compare(name, *(load(each / "checkpoints" / name)["state_dict"] for each in (whole, other)))
    compare("history", *(history_table(each).to_pydict() for each in (whole, other)))
    compare(
        "result", *({name: read_record(each).get(name) for name in ("result", "epochs")} for each in (whole, other))
    )
    return found


def trial(
    work: Path, name: str, every: float | None, kills: int, seconds: float, rng: random.Random, number: int
) -> dict[str, Any]:
    """Kill a run so many times, let it end, and compare."""
    out = work / "killed"
    shutil.rmtree(out, ignore_errors=True)
    where: list[str] = []  # it was killed
    begun, status = False, None
    alone = "devices" not in MODES[name]
    for _attempt in range(10 * kills):
        child = start(work, MODES[name], out, every, resume=begun)
        if sent := len(where) < kills:
            time.sleep(rng.uniform(0.0, seconds))
            stage = (work / "stage").read_text() or "training"
            send(child, number, rng)
        status = ended(child)
        killed = status in (-number, 128 + number) or (sent and status == 2 and not alone)
        where += [stage] * killed
        begun = (out / "config.yaml").is_file()
        if not begun:
            shutil.rmtree(out, ignore_errors=True)  # a run without its settings is begun by its command again
        if status == 0 and len(where) >= kills:
            break
        if status == 0:  # it ended before it could be killed: once more from the start
            shutil.rmtree(out)
            begun = False
        elif not killed:
            return {"kills": len(where), "wrong": [f"ended with {status}"]}
    found = {"kills": len(where), "wrong": differences(work / "whole", out)}
    return found | ({"in": {stage: where.count(stage) for stage in sorted(set(where))}} if alone else {})


def main() -> None:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2, help="of each mode and kind of checkpoint")
    parser.add_argument("--modes", nargs="+", choices=[*MODES], default=[*MODES])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        work = Path(folder)
        os.environ["SAGITTA_CACHE"] = str(work / "cache")
        make_images(work / "folders", several=False)
        make_images(work / "several", several=True)
        from sagitta.models.networks import build_network

        torch.manual_seed(0)
        for name, classes in (("own", 3), ("other", 7)):
            torch.save(
                {"state_dict": build_network("resnet20", classes, 3, (32, 32)).state_dict()}, work / f"{name}.pth"
            )
        for name in options.modes:
            for every in EVERY if "devices" not in MODES[name] else EVERY[:1]:
                shutil.rmtree(work / "whole", ignore_errors=True)
                began = time.monotonic()
                if (status := ended(start(work, MODES[name], work / "whole", every, resume=False))) != 0:
                    raise SystemExit(f"{name}: ended with {status} without being killed")
                seconds = time.monotonic() - began
                kind = name if every is None else f"{name}, a checkpoint a step"
                number = signal.Signals[f"SIG{options.signal}"]
                report[kind] = found = trial(work, name, every, options.kills, seconds, rng, number)
                print(f"{kind}: {found['kills']} kills {found.get('in', '')}, {found['wrong'] or 'equal'}", flush=True)
    wrong = sum(bool(each["wrong"]) for each in report.values())
    print(f"{sum(each['kills'] for each in report.values())} kills, {wrong} of {len(report)} trials not equal")
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
