"""Two real processes: the same batches as one, exact evaluation, one run directory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command

WORKER = """
import json, sys, torch
import torch.distributed as dist
from sagitta import Loader

dist.init_process_group("gloo", init_method=sys.argv[2], rank=int(sys.argv[3]), world_size=int(sys.argv[4]))
loader = Loader(sys.argv[1], sys.argv[5], batch_size=12 // int(sys.argv[4]), normalize=False)
batches = [[int(images.sum()), *labels.tolist()] for images, labels in loader]
everything = [None] * int(sys.argv[4])
dist.all_gather_object(everything, batches)
if dist.get_rank() == 0:
    print(json.dumps(everything))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, sagitta_process: Command) -> Path:
    work = tmp_path_factory.mktemp("ddp")
    sagitta_process("convert", "digits", "dataset", cwd=work)
    return work / "dataset"


def batches_of(dataset: Path, world: int, split: str, rendezvous: Path) -> list[list[list[int]]]:
    arguments = [str(dataset), f"file://{rendezvous}"]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments, str(rank), str(world), split], stdout=subprocess.PIPE
        )
        for rank in range(world)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    everything: list[list[list[int]]] = json.loads(outputs[0].splitlines()[-1])
    return everything


@pytest.mark.parametrize("split", ["train", "val"])
def test_global_batches_do_not_depend_on_the_world_size(dataset: Path, tmp_path: Path, split: str) -> None:
    """Every batch has the same pixels (their sum) and labels, whether one, two or three ranks share it."""
    merged = []
    for world in (1, 2, 3):
        ranks = batches_of(dataset, world, split, tmp_path / f"rendezvous-{world}")
        assert len({len(batches) for batches in ranks}) == 1
        merged.append(
            [
                (sum(part[0] for part in parts), [label for part in parts for label in part[1:]])
                for parts in zip(*ranks, strict=True)
            ]
        )
    assert merged[0] == merged[1] == merged[2]


def test_fit_on_two_devices_makes_one_run_and_evaluates_exactly(dataset: Path, sagitta_process: Command) -> None:
    work = dataset.parent
    arguments = ("--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp", "--epochs", 2)
    output = sagitta_process("fit", dataset, *arguments, cwd=work)
    assert [path.name for path in (work / "runs").iterdir()] == ["dataset-1"]
    assert output.count("Run summary") == 1
    result = json.loads((work / "runs" / "dataset-1" / "run.json").read_text())["result"]
    alone = sagitta_process("test", "runs/dataset-1", "--devices", 1, cwd=work)
    for name in ("test_acc", "test_f1", "test_loss"):
        assert f"{name:<14} {result[name]:.4f}" in alone
