"""Two real processes: the same batches as one, exact evaluation, one run directory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_cli import sagitta
from tests.conftest import Command

# Ranks are forked, so that torch is imported once for all world sizes.
WORKER = """
import json, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import torch.distributed as dist
from sagitta import Loader

dataset, folder = sys.argv[1:]

def batches(rank, world):
    dist.init_process_group("gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world)
    found = {}
    for split in ("train", "val"):
        loader = Loader(dataset, split, batch_size=12 // world, normalize=False)
        found[split] = [[int(images.sum()), labels.tolist()] for images, labels in loader]
    dist.destroy_process_group()
    return found

worlds = []
for world in (1, 2, 3):
    with ProcessPoolExecutor(world, get_context("fork")) as pool:
        worlds.append(list(pool.map(batches, range(world), [world] * world)))
print(json.dumps(worlds))
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("ddp")
    assert sagitta("convert", "digits", "dataset", cwd=work).returncode == 0
    return work / "dataset"


def test_global_batches_do_not_depend_on_the_world_size(dataset: Path, tmp_path: Path) -> None:
    """Every batch has the same pixels (their sum) and labels, whether one, two or three ranks share it."""
    command = [sys.executable, "-c", WORKER, str(dataset), str(tmp_path)]
    worlds = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=240).stdout)
    assert [len(ranks) for ranks in worlds] == [1, 2, 3]
    for split, images in (("train", 1428), ("val", 179)):
        merged = []
        for ranks in worlds:
            parts = list(zip(*(rank[split] for rank in ranks), strict=True))
            merged.append(
                [(sum(pixels for pixels, _ in part), [label for _, each in part for label in each]) for part in parts]
            )
        assert merged[0] == merged[1] == merged[2]
        assert sum(len(labels) for _, labels in merged[0]) == images


def test_fit_on_two_devices_makes_one_run_and_evaluates_exactly(dataset: Path, sagitta_process: Command) -> None:
    work = dataset.parent
    arguments = ("--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp", "--epochs", 2)
    few = ("--trainer.limit_train_batches", 4)
    output = sagitta_process("fit", dataset, *arguments, *few, cwd=work)
    assert [path.name for path in (work / "runs").iterdir()] == ["dataset-1"]
    assert output.count("Run summary") == 1
    result = json.loads((work / "runs" / "dataset-1" / "run.json").read_text())["result"]
    alone = sagitta("test", "runs/dataset-1", "--devices", 1, cwd=work).stdout
    for name in ("test_acc", "test_f1", "test_loss"):
        assert f"{name:<14} {result[name]:.4f}" in alone
