"""Eight processes want the same conversion and the same features: one works, the others wait; two are killed in it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Each process is a fork, so that torch is imported once. Whoever is the first to be about to rename the finished
# dataset, or to store features, is killed.
CROWD = """
import hashlib, json, os, signal, sys
import torch
from sagitta.loading import ImageData
from sagitta.models import Classifier
from sagitta.models.networks import build_network
from sagitta.training.solving import solve

source, count = sys.argv[1], int(sys.argv[2])
torch.manual_seed(0)
torch.save(build_network("resnet20", 5, 3, (32, 32)).state_dict(), "weights.pth")
renamed = []

def hook(event, arguments):
    if event != "os.rename":
        return
    target = str(arguments[1])
    folder = os.path.dirname(target)
    for name, there in (("dataset", folder.endswith("/datasets")), ("features", "/features/resnet20-" in folder)):
        if there:
            try:
                os.close(os.open(f"killed-{name}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                renamed.append(name)
            else:
                os.kill(os.getpid(), signal.SIGKILL)

def work(number):
    sys.addaudithook(hook)
    data = ImageData(source, batch_size=8, image_size=32, threads=1)
    data.prepare_data()
    data.setup("fit")
    classifier = Classifier("resnet20", weights="weights.pth")
    classifier.prepare(data)
    solved = solve(classifier, data, data.preprocessing, fitted=("train",), others=("val",))
    weight = hashlib.sha256(solved.layer.weight.detach().numpy().tobytes()).hexdigest()
    rows = sum(len(data.shards.splits[name]) for name in ("train", "val"))
    with open(f"{number}.json", "w") as file:
        json.dump([renamed, solved.computed, rows, weight], file)

children = {}
for number in range(count):
    if not (child := os.fork()):
        try:
            work(number)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children[child] = number
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(signal, "SIGKILL"), reason="POSIX only")
def test_one_works_the_others_wait_and_a_killed_one_blocks_nobody(photo_folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SAGITTA_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", CROWD, str(photo_folder), "8"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    codes = json.loads(done.stdout)
    assert sorted(codes) == [-signal.SIGKILL] * 2 + [0] * 6, done.stderr[-2000:]
    told = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(told) == 6 and len({weight for *_, weight in told}) == 1
    assert [name for renamed, *_ in told for name in renamed].count(
        "dataset"
    ) <= 1  # or whoever did is killed at its features
    assert sum(computed for _, computed, _, _ in told) == told[0][2] > 30  # each image once
    assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 1
    assert not list((tmp_path / "cache" / "features").rglob("*.lock"))
