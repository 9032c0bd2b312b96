"""What is sent to the hub, by a loopback server that speaks create, preupload and commit."""

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from datasets import Features, load_dataset

from sagitta import ShardSet
from sagitta.errors import ConfigError
from sagitta.exporting import export, push

TOKEN = "hf_secretsecretsecret"
GOLDEN = Path(__file__).parent.parent / "golden"


class Hub(BaseHTTPRequestHandler):
    """Keeps what is committed in the folder of its server, and who asked."""

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        if server.refuses:
            self._answer({"error": "You are not allowed"}, 403)
        elif self.path == "/api/repos/create":
            server.made.append(json.loads(body))
            asked = json.loads(body)
            kind = "datasets/" if asked.get("type") == "dataset" else ""
            name = f"{asked['organization']}/{asked['name']}"
            self._answer({"url": f"http://127.0.0.1:{server.server_port}/{kind}{name}"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [each["path"] for each in json.loads(body)["files"]]
            self._answer({"files": [{"path": each, "uploadMode": "regular", "shouldIgnore": False} for each in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    target = server.folder / line["value"]["path"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(base64.b64decode(line["value"]["content"]))
            where = f"http://127.0.0.1:{server.server_port}/somebody/images/commit/0"
            self._answer({"commitUrl": where, "commitOid": "0" * 40, "success": True})
        else:
            self._answer({"error": "no such thing"}, 404)

    def _answer(self, told: Any, code: int = 200) -> None:
        body = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.made, server.refuses, server.folder = [], [], False, tmp_path / "repository"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_run_is_sent_as_timm_loads_it(hub: Any) -> None:
    pushed = push(Path("timms"), "somebody/birds")
    assert hub.made[0]["name"] == "birds" and hub.made[0]["organization"] == "somebody"
    assert hub.made[0].get("private") or hub.made[0].get("visibility") == "private"
    assert {path.name for path in hub.folder.iterdir()} == {"README.md", "config.json", "model.safetensors", "hub.json"}
    assert pushed.kind == "model" and pushed.files == 4 and "birds" in str(pushed)
    assert timm.create_model(f"local-dir:{hub.folder.absolute()}", pretrained=True).num_classes == 3
    assert all(who == f"Bearer {TOKEN}" for _, who in hub.asked)
    kept = b"".join(path.read_bytes() for path in hub.folder.iterdir())
    assert TOKEN.encode() not in kept and str(Path.cwd()).encode() not in kept and TOKEN not in str(pushed)


@pytest.mark.parametrize("name", ["dataset", "multilabel"])
@pytest.mark.filterwarnings("default")  # theirs
def test_a_dataset_is_sent_with_its_features(hub: Any, name: str, tmp_path: Path) -> None:
    own = Path(shutil.copytree(GOLDEN / name, tmp_path / "own"))  # opening a dataset leaves an index in it
    push(own, "somebody/images", public=True)
    assert (
        hub.made[0]["type"] == "dataset"
        and not hub.made[0].get("private")
        and hub.made[0].get("visibility") != "private"
    )
    mine, theirs = ShardSet.open(own), ShardSet.open(hub.folder)
    assert theirs.info.fingerprint == mine.info.fingerprint and theirs.info.class_names == mine.info.class_names
    card = yaml.safe_load((hub.folder / "README.md").read_text().split("---")[1])
    features = Features._from_yaml_list(card["dataset_info"]["features"])
    found = load_dataset(str(hub.folder), cache_dir=str(tmp_path / "cache"))
    assert set(found) == {"train", "validation", "test"} and found["train"].features == features
    assert found["train"].num_rows == mine.info.splits["train"].rows


def test_who_is_not_allowed_reads_why_and_no_token(hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.refuses = True
    with pytest.raises(ConfigError, match="somebody/images: the hub refuses") as refused:
        push(GOLDEN / "dataset", "somebody/images")
    assert TOKEN not in str(refused.value) and "\n" not in str(refused.value)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="nobody is logged in to the hub"):
        push(GOLDEN / "dataset", "somebody/images")
    with pytest.raises(ConfigError, match="name the repository as user/name"):
        push(GOLDEN / "dataset", "images")
    assert not hub.folder.exists()


def test_the_command_says_where_it_is(hub: Any, tmp_path: Path) -> None:
    export(Path("timms"), "hub", tmp_path / "out")
    place = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "sagitta", "push", str(tmp_path / "out"), "somebody/birds"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **place}, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 files" in done.stdout and TOKEN not in done.stdout + done.stderr
