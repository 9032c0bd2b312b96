"""Short fine-tunings: only of heads that are about equally good; what `val` prefers of them goes on."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sagitta.cli import main
from sagitta.clock import Clock
from sagitta.models.networks import build_network
from sagitta.settings import settings_of
from sagitta.training.candidates import Judged, make, solve_heads
from sagitta.training.halving import tune_shortly


def clock(seconds: float) -> Clock:
    return Clock(seconds, time.monotonic())


@pytest.fixture
def solved(weights_folder: Path, photo_folder: Path) -> Callable[[str], tuple[list[Judged], Judged]]:
    """Solves a head of one network, and of the same network with other weights."""
    torch.save(torch.load(weights_folder / "weights.pth", weights_only=True), weights_folder / "equal.pth")
    dead = build_network("resnet20", 10, 3, (32, 32)).state_dict()  # its features are the same of every image
    dead = {name: torch.zeros_like(each) if each.ndim > 1 else each for name, each in dead.items()}
    torch.save({"state_dict": dead}, weights_folder / "dead.pth")
    options = {"model": "resnet20", "weights": "weights.pth", "batch_size": 8, "image_size": 32}
    settings = settings_of(photo_folder, options)

    def solved(other: str) -> tuple[list[Judged], Judged]:
        heads, best = solve_heads(make(settings), [settings.changed({"model.weights": other})], clock(600))
        assert best is not None and len(heads) == 2
        return heads, best

    return solved


def test_equal_heads_are_tuned_alike(
    solved: Callable[[str], tuple[list[Judged], Judged]], capsys: pytest.CaptureFixture[str]
) -> None:
    heads, best = solved("equal.pth")
    first, second = tune_shortly(heads, best, clock(600))
    printed = capsys.readouterr().out
    assert first.epochs == second.epochs > 0 and first.head is best is not second.head
    assert first.val_loss == pytest.approx(second.val_loss, rel=1e-5)  # seeded as a run is
    assert first.val_loss <= best.val_loss + 1e-4  # the head is among what is compared
    assert printed.count(" are about equally good; ") == 1 and printed.count(" goes on: val_loss ") == 1

    assert tune_shortly(heads, best, clock(0.2)) == []
    assert "too much to find out which learns more, so the better head goes on" in capsys.readouterr().out
    assert tune_shortly(heads[:1], heads[0], clock(600)) == []


def test_a_head_that_is_surely_worse_is_not_tuned(solved: Callable[[str], tuple[list[Judged], Judged]]) -> None:
    heads, best = solved("dead.pth")
    assert best is heads[0] and tune_shortly(heads, best, clock(600)) == []


@pytest.mark.usefixtures("solved")
def test_what_is_tried_stands_in_the_run(photo_folder: Path) -> None:
    two = ["--model", "resnet20,resnet20", "--weights", "weights.pth,equal.pth", "--batch-size", "8", "--patience", "1"]
    assert main(["fit", str(photo_folder), *two, "--image-size", "32", "--time", "10m", "--out", "run"]) == 0
    tried: list[dict[str, Any]] = json.loads(Path("run/run.json").read_text())["tried"]
    kinds = [each["what"].partition(" of ")[0] for each in tried]
    assert kinds == ["head", "head", "short fine-tuning", "short fine-tuning", "fine-tuning"]
    assert sum(each["kept"] for each in tried) == 1 and not any(each["kept"] for each in tried[2:4])
