"""What 0.1.0 computed: ``python tests/golden/record.py`` writes it to ``values.json``; ``test_golden.py`` compares.

Only public names of the top-level package and the command line are used here, so that modules may move freely. Record
anew only where a change of pixels, order or training is meant, and say so in the changelog.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import runpy
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagitta import Augmentation, ImageData, Loader, Plan, Preprocessing, ShardSet, load_classifier

HERE = Path(__file__).parent
RUN = HERE / "run"
VALUES = HERE / "values.json"
DATASETS = ("dataset", "thumbnails", "multilabel")
NAMES = ("wren", "egret", "heron", "kestrel")  # another order than the datasets', and one class more
EPOCHS = (0, 1)
HANDED_ON = "handed-on"
"""What ``sagitta export --to safetensors`` wrote."""

_BATCH = 5  # 24 and 30 training rows: a tail to drop, and none


def command(*arguments: object, cwd: Path) -> str:
    """Do what ``python -m sagitta ARGUMENTS`` does in ``cwd``, in this process, and return what it printed.

    In this process, since importing torch anew for each command would take most of the time.

    Raises:
        RuntimeError: the command failed.
    """
    out, err, argv, variables = io.StringIO(), io.StringIO(), sys.argv, dict(os.environ)
    try:
        sys.argv = ["sagitta", *map(str, arguments)]
        os.environ["SAGITTA_CACHE"] = str(cwd / "cache")
        # For everybody else warnings are no errors, as they are under our pytest: Lightning warns that a resumed run is
        # in another folder now.
        with contextlib.chdir(cwd), redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_module("sagitta", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(err.getvalue()) from None
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(variables)
    return out.getvalue()


def copy_data(work: Path) -> None:
    """Copy what is stored to ``work``: opening a dataset writes a sidecar beside it, and a test a line into its run."""
    for name in (*DATASETS, "run", HANDED_ON):
        shutil.copytree(HERE / name, work / name, ignore=shutil.ignore_patterns(".sagitta-index"))


def digest(batches: Iterable[tuple[Tensor, Tensor]]) -> str:
    """Return a digest of all images and labels, in order, with their types and shapes."""
    found = hashlib.sha256()
    for batch in batches:
        for tensor in batch:
            found.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def noise(image: Tensor) -> Tensor:
    """Move a uint8 image and add noise, by torch's random numbers; integers, so the same on every processor."""
    shift = int(torch.randint(0, image.shape[-1], (1,)))
    return image.roll(shift, -1) // 2 + torch.randint(0, 64, image.shape, dtype=torch.uint8)


def of_size(side: int, data: Path, **changes: Any) -> Preprocessing:
    """Return the dataset's preprocessing for another image size, and with further changes."""
    found = Preprocessing.of_dataset(ShardSet.open(data).info, side)
    return Preprocessing.from_dict(found.to_dict() | changes)


def modes(work: Path) -> dict[str, dict[str, Any]]:
    """Return the arguments of :class:`Loader` for everything that changes what a batch holds."""
    data, small, tagged = (work / name for name in DATASETS)
    plain = Augmentation(min_scale=1.0, max_ratio=1.0, shift=0.0, flip=0.0)
    at32: dict[str, Any] = {"data": data, "preprocessing": of_size(32, data)}
    found: dict[str, dict[str, Any]] = {
        "photos 224": {"data": data},
        "photos 224 uint8": {"data": data, "normalize": False},
        "photos 224 fast": {"data": data, "preprocessing": of_size(224, data, profile="fast"), "normalize": False},
        "photos 32": at32,
        "photos 32 uint8": at32 | {"normalize": False},
        "photos 32 fast": {"data": data, "preprocessing": of_size(32, data, profile="fast")},
        "photos 48x40 bicubic": {
            "data": data,
            "preprocessing": of_size(48, data, size=[48, 40], interpolation="bicubic"),
        },
        "photos train rows as evaluation": at32 | {"train": False},
        "photos another seed": at32 | {"seed": 7},
        "photos class names": at32 | {"class_names": NAMES},
        "photos transform": at32 | {"transform": noise},
        "photos transform uint8": at32 | {"transform": noise, "normalize": False},
        "photos balanced": at32 | {"balanced": True},
        "photos one batch": at32 | {"batch_size": 100},
        "thumbnails": {"data": small},
        "thumbnails uint8": {"data": small, "normalize": False},
        "thumbnails fast": {"data": small, "preprocessing": of_size(16, small, profile="fast")},
        "thumbnails balanced": {"data": small, "balanced": True},
        "thumbnails transform": {"data": small, "transform": noise},
        "thumbnails class names": {"data": small, "class_names": NAMES},
        "thumbnails 32": {"data": small, "preprocessing": of_size(32, small)},
        "thumbnails 224, not cached": {"data": small, "preprocessing": of_size(224, small), "normalize": False},
        "multilabel 224 uint8": {"data": tagged, "normalize": False},
        "multilabel class names": {
            "data": tagged,
            "preprocessing": of_size(32, tagged),
            "class_names": ("water", "nest", "other", "feather"),
        },
    }
    augmentations = {
        "none": plain,
        "min scale 0.05": Augmentation(min_scale=0.05),
        "min scale 1": Augmentation(min_scale=1.0),
        "max ratio 3": Augmentation(max_ratio=3.0),
        "shift 0.4": Augmentation(shift=0.4),
        "flip never": Augmentation(flip=0.0),
        "flip 0.3": Augmentation(flip=0.3),
        "flip always": Augmentation(flip=1.0),
        "trivial": Augmentation(auto="trivial"),
        "rand": Augmentation(auto="rand"),
        "auto none": Augmentation(auto="none"),
        "erase": Augmentation(erase=0.6),
        "cutout": Augmentation(cutout=0.4),
        "all": Augmentation(0.2, 2.0, 0.2, flip=0.5, auto="trivial", erase=0.5, cutout=0.3),
    }
    for name, augmentation in augmentations.items():
        found[f"photos, {name}"] = at32 | {"augmentation": augmentation}
        found[f"thumbnails, {name}"] = {"data": small, "augmentation": augmentation}
    return found


def batches(work: Path, threads: int) -> dict[str, str]:
    """Return a digest for every mode, split and epoch; the number of threads must not matter."""
    found = {}
    for name, arguments in modes(work).items():
        shared = {"batch_size": _BATCH, "threads": threads} | arguments
        loader = Loader(split="train", **shared)
        for epoch in EPOCHS:
            loader.set_epoch(epoch)
            found[f"{name}: train, epoch {epoch}"] = digest(loader)
        if "," not in name:  # augmentation changes nothing there
            found[f"{name}: val"] = digest(Loader(split="val", **shared))
    for name in DATASETS:
        found[f"{name} resumed"] = digest(_resumed(work / name, threads))
        found[f"{name} ImageData"] = digest(_of_module(work / name, threads))
        loader = Loader(work / name, "test", _BATCH, threads=threads)
        found[f"{name} test"] = digest(loader)
        rows = loader.evaluated_rows(1, 2, 1)
        found[f"{name} rows {rows.tolist()}"] = digest([loader.take(rows)])
    return found


def _resumed(data: Path, threads: int) -> list[tuple[Tensor, Tensor]]:
    """Return what is left of epoch 1 after two batches, through a state written as JSON, and then epoch 2."""
    loader = Loader(data, batch_size=4, threads=threads)
    loader.set_epoch(1)
    begun = iter(loader)
    next(begun), next(begun)
    state = json.loads(json.dumps(loader.state_dict()))
    begun.close()  # type: ignore[attr-defined]
    resumed = Loader(data, batch_size=4, threads=threads)
    resumed.load_state_dict(state)
    return [*resumed, *resumed]


def _of_module(data: Path, threads: int) -> list[tuple[Tensor, Tensor]]:
    balanced = data.name != "multilabel"  # which asks for one label a row
    module = ImageData(data, 6, image_size=32, threads=threads, seed=11, balanced=balanced)
    module.prepare_data()
    module.setup("fit")
    loaders = (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    return [*(batch for loader in loaders for batch in loader), module.sample("train", 4)]


def states(work: Path) -> dict[str, Any]:
    """Return a loader's state in mid-epoch, which old checkpoints hold, and a DataModule's."""
    loader = Loader(work / "dataset", batch_size=4, threads=0)
    next(iter(loader))
    module = ImageData(work / "dataset", seed=3)
    module.setup()
    return {"loader": loader.state_dict(), "module": module.state_dict()}


def plans() -> dict[str, str]:
    """Return a digest of all rows of two epochs, rank by rank, for plans of many shapes."""
    found = {}
    for rows, size, world, seed, block in (
        (1, 1, 1, 0, None),
        (5, 8, 2, 0, None),
        (97, 8, 1, 0, None),
        (97, 8, 3, 1, None),
        (1000, 64, 4, 2, 100),
        (1000, 7, 2, 0, 16),
        (4099, 256, 8, 12345678901, 1024),
        (70001, 4096, 2, 0, None),
    ):
        for training in (True, False):
            plan = Plan(rows, size, seed=seed, shuffle=training, drop_last=training, block=block)
            name = f"{rows} rows by {size}, world {world}, seed {seed}, block {block}, training {training}"
            hashed = hashlib.sha256()
            for epoch in EPOCHS:
                for batch in range(plan.batches(world)):
                    for rank in range(world):
                        order = plan.batch_rows(epoch, batch, rank, world)
                        hashed.update(f"{len(order)} ".encode() + order.astype("<i8").tobytes())
            found[name] = hashed.hexdigest()
    return found


def fingerprints(work: Path) -> dict[str, Any]:
    """Return the fingerprints of the stored datasets, and of new conversions of the same images."""
    found = {name: _told(work / name) for name in DATASETS}
    extract(work / "dataset", work / "photos")
    command("convert", "photos", "converted", cwd=work)
    found["dataset converted again"] = _told(work / "converted")
    for split in ("val", "test"):  # one folder of all: now the split is made, by content
        shutil.copytree(work / "photos" / split, work / "photos" / "train", dirs_exist_ok=True)
        shutil.rmtree(work / "photos" / split)
    shutil.move(work / "photos" / "train", work / "all")
    options = ("--val", 0.25, "--test", 0.25, "--seed", 4, "--restart-markers", "--shard-size", 20000)
    command("convert", "all", "split", *options, cwd=work)
    found["dataset split again, with restart markers"] = _told(work / "split")
    return found


def _told(data: Path) -> dict[str, Any]:
    """Return what a dataset says about itself in the fields that 0.1.0 had, but for the provenance."""
    info = json.loads(ShardSet.open(data).info.to_json())
    for name in ("provenance", "checksum", "quarantine_checksum", "warnings", "reduced", "reduction"):
        del info[name]
    for split in info["splits"].values():
        del split["checksums"], split["footers"]
    return dict(info) | {"format_version": 1}


def extract(data: Path, target: Path) -> None:
    """Write a dataset's images as files again, byte by byte, in SPLIT/CLASS/SPLIT-NAME.

    Nothing is encoded, which another libjpeg might do otherwise.
    """
    with ShardSet.open(data) as shards:
        for name, split in shards.splits.items():
            for row, label in enumerate(split.labels.tolist()):
                path = Path(split.path(row))
                folder = target / name / shards.info.class_names[label]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{name}-{path.name}").write_bytes(split.image(row))


def logits(work: Path) -> list[list[float]]:
    """Return what the stored run's network says about the test images."""
    classifier = load_classifier(work / "run" / "checkpoints" / "last.ckpt")
    loader = Loader(
        work / "thumbnails",
        "test",
        10,
        preprocessing=classifier.preprocessing,
        class_names=classifier.class_names,
    )
    with torch.inference_mode():
        return [[round(value, 7) for value in row] for row in classifier(next(iter(loader))[0]).tolist()]


def stored_run(work: Path) -> dict[str, Any]:
    """Return what the commands that open a run make of the stored one, each of them of a copy of its own."""
    found: dict[str, Any] = {}

    def here(name: str, *arguments: object) -> tuple[Path, str]:
        copy_data(work / name)
        return work / name, command(*arguments, cwd=work / name)

    folder, _ = here("test", "test", "run")
    found["test"] = _rows((folder / "run" / "test_logs.csv").read_text())
    here("validate", "validate", "run")
    extract(work / "thumbnails", work / "files")
    _, printed = here("predict", "predict", "run", work / "files" / "test")
    found["predict"] = [{**row, "path": Path(row["path"]).name} for row in _rows(printed)]
    folder, _ = here("config", "fit", "--config", "run/config.yaml", "--out", "again")
    found["fit --config"] = _result(folder / "again")
    folder, _ = here("resume", "fit", "--resume", "run", "--epochs", 3)
    found["fit --resume"] = _result(folder / "run") | {"logs": _logged_epochs(folder / "run")}
    options = ("--epochs", 1, "--batch-size", 10, "--lr", 0.001, "--trainer.accelerator", "cpu", "--out", "tuned")
    folder, printed = here("weights", "fit", "thumbnails", "--weights", "run", *options)
    found["fit --weights"] = _result(folder / "tuned") | {"line": printed.splitlines()[2]}
    return found


def handed_on(work: Path) -> list[dict[str, Any]]:
    """Return what is predicted of the test images by the stored export: class and every probability."""
    copy_data(work / "other")
    extract(work / "thumbnails", work / "pictures")
    printed = command("predict", HANDED_ON, work / "pictures" / "test", "--all", cwd=work / "other")
    return [{**row, "path": Path(row["path"]).name} for row in _rows(printed)]


def _rows(text: str) -> list[dict[str, Any]]:
    """Return the lines of a CSV, numbers as numbers."""
    return [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _result(run: Path) -> dict[str, Any]:
    record = json.loads((run / "run.json").read_text())
    measured = {name: value for name, value in record["result"].items() if name.startswith(("val_", "test_"))}
    return {"epochs": record["epochs"], "seed": record["seed"], "dataset": record["dataset"]["fingerprint"]} | measured


def _logged_epochs(run: Path) -> list[list[float | str]]:
    """Return the epochs of the validations in each of the logs, so ``[[0, 1], [2]]`` for a run that was resumed."""
    logs = sorted((run / "lightning_logs").glob("version_*/metrics.csv"))
    return [[row["epoch"] for row in _rows(log.read_text()) if row["val_loss"] != ""] for log in logs]


def digits(work: Path, *, seed: int = 0) -> dict[str, Any]:
    """Train two epochs on the digits; return metrics, and mean and norm of each weight of the best checkpoint.

    The network is named because 0.1.0's recipe took it; those for images as small have taken another one since.
    """
    run = work / f"digits-{seed}"
    machine = ("--trainer.accelerator", "cpu", "--trainer.precision", "32-true")
    command("fit", "digits", "--model", "simple-cnn", "--epochs", 2, "--seed", seed, "--out", run, *machine, cwd=work)
    record = json.loads((run / "run.json").read_text())
    checkpoint = torch.load(run / record["best_checkpoint"], map_location="cpu", weights_only=True)
    # 0.1.0 did not calibrate: what is compared is from before.
    weights = checkpoint["state_dict"] | checkpoint.get("uncalibrated", {}).get("state_dict", {})
    result = record["result"]
    before = {name: result.get(f"{name}_uncalibrated", value) for name, value in result.items()}
    before["test_loss"] = before["test_log_loss"]
    return {
        "fingerprint": record["dataset"]["fingerprint"],
        "epochs": record["epochs"],
        "metrics": {name: value for name, value in before.items() if name.startswith(("val_", "test_"))},
        "weights": _summary(weights),
    }


def _summary(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    return {
        name: {"shape": list(value.shape), "mean": float(value.mean()), "norm": float(value.norm())}
        for name, value in weights.items()
        if name.startswith("network.")
    }


def record() -> dict[str, Any]:
    """Compute all values, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        copy_data(work)
        return {
            "batches": batches(work, threads=0),
            "states": states(work),
            "plans": plans(),
            "fingerprints": fingerprints(work),
            "logits": logits(work),
            "stored run": stored_run(work),
            "handed on": handed_on(work),
            "digits": digits(work),
        }


if __name__ == "__main__":
    VALUES.write_text(json.dumps(record(), indent=1) + "\n")
