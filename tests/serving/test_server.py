"""A server's life: it begins fast and without torch, models are replaced, and its end answers what was taken."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sagitta.errors import ConfigError
from sagitta.serving import Wanted, open_engine, serve
from sagitta.serving.models import named_paths
from tests.serving.servers import picture, serving, write_export

RED = picture("red")
BLOCKED = (
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "torchmetrics",
    "pyarrow",
    "sklearn",
    "scipy",
    "jsonargparse",
    "yaml",
)


def test_an_export_is_served_where_nothing_of_torch_is_installed(tmp_path: Path) -> None:
    write_export(tmp_path / "colours" / "export")
    (tmp_path / "bare.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
        "from sagitta.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    with serving(tmp_path, "colours/export", prefix=("bare.py",)) as served:
        status, told = served.predict(RED)
        assert status == 200 and told["predictions"][0]["class"] == "red"
        assert served.end() == 0
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    command = [sys.executable, "bare.py", "serve", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "torch, which is not installed here" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_end_answers_what_was_taken(tmp_path: Path, number: signal.Signals) -> None:
    write_export(tmp_path / "slow", work=60)
    with serving(tmp_path, "slow", "--batch-size", 1) as served, ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(served.predict, RED) for _ in range(12)]
        while served.ask("GET", "/metrics")[1].count(b"sagitta_queued_images") == 0:
            time.sleep(0.01)
        time.sleep(0.3)  # all are taken
        os.kill(served.process.pid, number)
        assert [answer.result()[0] for answer in answers] == [200] * 12
        assert served.process.wait(20) == 0
        assert served.lines()[-1]["event"] == "ended"


def test_a_model_is_replaced_without_a_lost_request(tmp_path: Path) -> None:
    write_export(tmp_path / "colours", sharpness=0.05)
    with serving(tmp_path, "colours") as served:
        stop = threading.Event()

        def ask() -> list[tuple[int, float]]:
            found = []
            while not stop.is_set():
                status, told = served.predict(RED)
                found.append((status, told["predictions"][0]["probability"] if status == 200 else -1))
            return found

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(ask) for _ in range(4)]
            time.sleep(0.3)
            write_export(tmp_path / "colours", sharpness=0.002)
            deadline = time.monotonic() + 20
            while not any(line["event"] == "model replaced" for line in served.lines()):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(0.3)
            stop.set()
            found = [each for answers in running for each in answers.result()]
        assert {status for status, _ in found} == {200}
        assert max(share for _, share in found) > 0.99 and min(share for _, share in found) < 0.6
        assert served.predict(RED)[1]["predictions"][0]["probability"] < 0.6

        (tmp_path / "colours" / "model.onnx").write_bytes(b"no model")
        while not any(line["event"] == "model not replaced" for line in served.lines()):
            assert time.monotonic() < deadline + 20
            time.sleep(0.1)
        assert served.predict(RED)[0] == 200


def test_what_cannot_be_served_is_refused_in_one_line(tmp_path: Path) -> None:
    good = write_export(tmp_path / "good")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.onnx").write_bytes(b"no model")
    write_export(tmp_path / "nameless", class_names="[]", task="one label an image")
    (tmp_path / "token").write_text("short")
    refused = {
        "no such run": [tmp_path / "nothing"],
        "cannot be opened by onnxruntime": [tmp_path / "broken"],
        "does not answer a trial image": [tmp_path / "nameless"],
        "a model named good is there already": [good, good],
        "there is no model": [],
    }
    for words, models in refused.items():
        with pytest.raises(ConfigError, match=words):
            serve([str(model) for model in models], port=0)
    with pytest.raises(ConfigError, match="at least 16 letters"):
        serve([str(good)], port=0, token_file=tmp_path / "token")
    with pytest.raises(ConfigError, match=r"--accuracy 0\.9: nothing of it is in"):
        open_engine(good, Wanted(accuracy=0.9))
    with serving(tmp_path, "good") as served, pytest.raises(ConfigError, match="in use"):
        serve([str(good)], port=served.port)


def test_models_are_named_after_their_runs() -> None:
    named = named_paths(["runs/cats-1", "runs/dogs-2/export", "birds=runs/x/export", "a/b/model.onnx"])
    assert {name: str(path) for name, path in named.items()} == {
        "cats-1": "runs/cats-1",
        "dogs-2": "runs/dogs-2/export",
        "birds": "runs/x/export",
        "b": "a/b/model.onnx",
    }
