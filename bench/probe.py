"""`sagitta probe` beside a plain Lightning loop over the same frozen network, from the JPEG folder to the test result.

    python bench/probe.py                                   # writes bench/results/probe.json; about 25 minutes
    python bench/probe.py --data butterflies --repeats 1    # one more run of these; remove the JSON to begin anew

Every measurement has a process of its own; its imports are not timed. Same photos, same splits, same weights:

- ``probe``: an empty cache; conversion, features, head and test by :func:`sagitta.training.probe`.
- ``lightning``: torchvision's ImageFolder with the evaluation transform, DataLoader with two workers, network in
  evaluation mode without gradients, Adam (1e-3) on the last linear layer, batch 32, ten epochs, then the test. No
  validation and no logging, so this is the least that such a loop does.
- ``pass``: one plain eager pass of the same loaders over all images; ``network``: the same without decoding.

One photo of a small test split is most of a percent. So both heads are also compared on 20 random divisions of all
photos (``divisions``, of the same sizes), each fitted on the same stored features: what ``lightning`` does, without it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measure import machine

RESULTS = Path(__file__).parent / "results" / "probe.json"
SHARES: dict[str, tuple[float | None, float | None]] = {"dogs-vs-cats": (None, None), "butterflies": (0.1, 0.2)}
MODEL, BATCH, EPOCHS, LR = "mobilenetv2_100", 32, 10, 1e-3
DIVISIONS = 20


def weights_file() -> Path:
    """Return the weights that everybody uses."""
    return Path(os.environ["SAGITTA_DATA"]) / "weights" / "mobilenetv2_100.imagenet1k.safetensors"


def image_data(name: str) -> Any:
    """Return the dataset, converted where it is not in the cache yet."""
    from sagitta import ConvertOptions, ImageData

    val, test = SHARES[name]
    data = ImageData(Path(os.environ["SAGITTA_DATA"]) / name, convert=ConvertOptions(val=val, test=test))
    data.prepare_data()
    data.setup()
    return data


def class_folders(name: str, root: Path) -> None:
    """Lay links out as ImageFolder wants them, with the splits of the converted dataset."""
    data, source = image_data(name), Path(os.environ["SAGITTA_DATA"]) / name
    for split_name, split in data.shards.splits.items():
        for row, label in enumerate(split.labels.tolist()):
            path = source / split.path(row)
            link = root / split_name / data.class_names[label] / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())


def run_probe(name: str) -> dict[str, float]:
    """Time everything from the folder to the test result."""
    from sagitta.training.probing import Candidate, probe

    began = time.perf_counter()
    (result,) = probe(image_data(name), [Candidate(MODEL, str(weights_file()))])
    seconds = time.perf_counter() - began
    assert result.test is not None
    rate = result.solved.computed / result.solved.feature_seconds
    return {"seconds": seconds, "test_acc": result.test.metrics["test_acc"], "features_images_s": rate}


def build_network(classes: int) -> Any:
    """Return the network as a user of timm would build it."""
    import timm
    from safetensors.torch import load_file

    network = timm.create_model(MODEL, num_classes=classes)
    tensors = {name: value for name, value in load_file(weights_file()).items() if not name.startswith("classifier")}
    network.load_state_dict(tensors, strict=False)
    return network.eval()


def loader(root: Path, split: str) -> Any:
    """Return the plain DataLoader of a split."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    transform = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return DataLoader(ImageFolder(root / split, transform), BATCH, shuffle=split == "train", num_workers=2)


def run_lightning(root: Path) -> dict[str, float]:
    """Time ten epochs on the head and the test."""
    import lightning.pytorch as pl
    import torch
    from torch.nn import functional as F

    class Frozen(pl.LightningModule):
        """A frozen network with a new last layer."""

        def __init__(self, classes: int) -> None:
            super().__init__()
            self.network = build_network(classes)
            self.network.requires_grad_(False)
            # torch's initialisation: with timm's, 25 times as wide, this loop reached only 85 to 88 % on dogs vs. cats.
            self.network.classifier = torch.nn.Linear(self.network.num_features, classes)
            self.right = self.total = 0

        def on_train_epoch_start(self) -> None:
            self.network.eval()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.right += int((self.network(batch[0]).argmax(dim=1) == batch[1]).sum())
            self.total += len(batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.network.classifier.parameters(), lr=LR)

    began = time.perf_counter()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=EPOCHS, enable_model_summary=False, **quiet)
    train = loader(root, "train")
    model = Frozen(len(train.dataset.classes))
    trainer.fit(model, train)
    trainer.test(model, loader(root, "test"), verbose=False)
    return {"seconds": time.perf_counter() - began, "test_acc": model.right / model.total}


def run_pass(root: Path) -> dict[str, float]:
    """Time one pass over all images, and the network's part by itself."""
    import torch

    network = build_network(2)
    batches = []
    with torch.no_grad():
        began = time.perf_counter()
        for split in ("train", "val", "test"):
            for images, _ in loader(root, split):
                network(images)
                batches.append(images)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        for images in batches:
            network(images)
    return {"seconds": seconds, "network_seconds": time.perf_counter() - began}


def run_divisions(name: str) -> dict[str, float]:
    """Compare the probe's head with ten epochs of Adam on random divisions into train, val and test."""
    import numpy as np
    import torch
    from sklearn.model_selection import StratifiedShuffleSplit
    from torch.nn import functional as F

    from sagitta.training import Candidate, fit_head, probe

    data = image_data(name)
    (result,) = probe(data, [Candidate(MODEL, str(weights_file()))])
    splits = [data.shards.splits[split] for split in ("train", "val", "test")]
    features = np.concatenate([result.solved.store.read(split.content_hashes) for split in splits])
    labels = np.concatenate([split.labels for split in splits]).astype(np.int64)
    train, val, test = map(len, splits)
    found: dict[str, list[float]] = {"probe_acc": [], "probe_log_loss": [], "adam_acc": [], "adam_log_loss": []}
    for seed in range(DIVISIONS):
        divide = StratifiedShuffleSplit(1, train_size=train + val, test_size=test, random_state=seed)
        fitted, judged = next(divide.split(features, labels))
        head = fit_head(features[fitted], labels[fitted], data.num_classes)
        layers = {
            "probe": (torch.from_numpy(head.weight), torch.from_numpy(head.bias)),
            "adam": adam_head(
                torch.from_numpy(features[fitted[:train]]), torch.from_numpy(labels[fitted[:train]]), seed
            ),
        }
        truth = torch.from_numpy(labels[judged])
        for kind, layer in layers.items():
            logits = F.linear(torch.from_numpy(features[judged]), *layer)
            found[f"{kind}_acc"].append(float((logits.argmax(dim=1) == truth).float().mean()))
            found[f"{kind}_log_loss"].append(float(F.cross_entropy(logits, truth)))
    return {key: round(statistics.mean(values), 5) for key, values in found.items()} | {"divisions": DIVISIONS}


def adam_head(features: Any, labels: Any, seed: int) -> tuple[Any, Any]:
    """Return weight and bias of a linear layer after the epochs of ``lightning``."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(seed)
    layer = torch.nn.Linear(features.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=LR)
    for _ in range(EPOCHS):
        order = torch.randperm(len(features))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            optimizer.zero_grad()
            loss: Any = F.cross_entropy(layer(features[rows]), labels[rows])
            loss.backward()
            optimizer.step()
    return layer.weight.detach(), layer.bias.detach()


def measure(what: str, name: str, root: Path) -> dict[str, float]:
    """Run one measurement in a process of its own, the probe with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"SAGITTA_CACHE": cache, "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, __file__, "--one", what, "--data", name, "--root", str(root)]
        found = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    print(name, what, result, flush=True)
    return result


def one(what: str, name: str, root: Path) -> None:
    """Import everything, then measure, in the process that :func:`measure` started."""
    import lightning.pytorch  # noqa: F401
    import timm  # noqa: F401
    import torchvision  # noqa: F401

    import sagitta.training.probing  # noqa: F401

    runs = {
        "probe": lambda: run_probe(name),
        "lightning": lambda: run_lightning(root),
        "pass": lambda: run_pass(root),
        "divisions": lambda: run_divisions(name),
    }
    print(json.dumps(runs[what]()))


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return medians with their spread, and the ratios of the medians."""
    found: dict[str, Any] = {
        what: {key: spread([run[key] for run in each]) for key in each[0]} for what, each in runs.items()
    }
    mine = found["probe"]["seconds"]["median"]
    return found | {
        "times_faster_than_lightning": round(found["lightning"]["seconds"]["median"] / mine, 2),
        "share_of_a_plain_pass": round(mine / found["pass"]["seconds"]["median"], 2),
        "share_of_the_network_alone": round(mine / found["pass"]["network_seconds"]["median"], 2),
        "runs": runs,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum, rounded."""
    return {
        "median": round(statistics.median(values), 5),
        "min": round(min(values), 5),
        "max": round(max(values), 5),
    }


def main() -> None:
    """Measure in turn, and add the runs to those in the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.data[0], options.root)
        return
    for name in options.data:
        with tempfile.TemporaryDirectory() as folder:
            class_folders(name, Path(folder))
            divisions = measure("divisions", name, Path(folder))
            for _ in range(options.repeats):
                run = {what: measure(what, name, Path(folder)) for what in ("probe", "pass", "lightning")}
                add(name, run, divisions)


def add(name: str, run: dict[str, dict[str, float]], divisions: dict[str, float]) -> None:
    """Add one run of a dataset to the JSON."""
    data = json.loads(RESULTS.read_text())["data"] if RESULTS.is_file() else {}
    runs = data.get(name, {}).get("runs", {})
    data[name] = summary({what: [*runs.get(what, []), result] for what, result in run.items()})
    data[name]["divisions"] = divisions
    packages = ("sagitta", "torch", "torchvision", "lightning", "timm", "scikit-learn")
    record = {
        "command": "python bench/probe.py",
        "machine": machine(),
        "versions": {package: version(package) for package in packages},
        "data": data,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
