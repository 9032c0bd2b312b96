"""A small exported model, made without torch, and real processes that serve it."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE = 16
NAMES = ["blue", "green", "red"]
PREPROCESSING = {
    "decode": {"reduction": None},
    "resize": {"shorter_side": SIDE, "cover": None, "filter": "bilinear"},
    "crop": {"height": SIDE, "width": SIDE},
    "convert": "RGB",
}


def write_export(folder: Path, *, sharpness: float = 0.05, work: int = 0, **metadata: str) -> Path:
    """Write an export that says of an image which of three colours it has, the surer the sharper.

    Args:
        folder: of the export.
        sharpness: of the probabilities.
        work: products of large matrices that an answer costs beside.
        metadata: in place of the usual one.
    """
    weights = np.flipud(np.eye(3, dtype=np.float32)) * np.float32(sharpness)
    large = np.eye(768, dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    last = "logits"
    if work:
        nodes += [helper.make_node("Reshape", ["floats", "flat"], ["w0"])]
        nodes += [helper.make_node("MatMul", [f"w{number}", "large"], [f"w{number + 1}"]) for number in range(work)]
        nodes += [helper.make_node("ReduceMean", [f"w{work}"], ["beside"], axes=[1], keepdims=1)]
        nodes += [
            helper.make_node("Mul", ["beside", "zero"], ["nothing"]),
            helper.make_node("Add", ["logits", "nothing"], ["all"]),
        ]
        last = "all"
    nodes += [helper.make_node("Softmax", [last], ["probabilities"], axis=1)]
    kept = {"weights": weights, "large": large, "flat": np.array([-1, 768]), "zero": np.zeros(1, np.float32)}
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in kept.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    told = {"class_names": json.dumps(NAMES), "task": "one label an image", "thresholds": "null"}
    told |= {"preprocessing": json.dumps(PREPROCESSING), "network": "colours", "sagitta": "0.1.0"}
    helper.set_model_props(model, told | metadata)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "new")
    (folder / "new").replace(folder / "model.onnx")
    return folder


def picture(colour: str | tuple[int, int, int], form: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    """Return an image of one colour."""
    buffer = BytesIO()
    Image.new("RGB", size, colour).save(buffer, form)
    return buffer.getvalue()


@dataclass
class Served:
    """A server's process, its port, and the file of what it logs."""

    process: "subprocess.Popen[str]"
    port: int
    log: Path

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "image/jpeg", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON or bytes, and headers of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, ({"Content-Type": kind} if body is not None else {}) | headers)
            response = connection.getresponse()
            content = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()
        told = json.loads(content) if found.get("content-type") == "application/json" else content
        return response.status, told, found

    def predict(self, body: bytes, kind: str = "image/jpeg", query: str = "", **headers: str) -> tuple[int, Any]:
        """Return status and JSON of a prediction."""
        return self.ask("POST", f"/v1/predict{query}", body, kind, **headers)[:2]

    def lines(self) -> list[dict[str, Any]]:
        """Return what the server logged; every line is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def memory(self) -> int:
        """Return bytes that the process holds."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def end(self, seconds: float = 30) -> int:
        """Ask for the end, and return the exit code."""
        self.process.terminate()
        return self.process.wait(seconds)


@contextmanager
def serving(
    folder: Path, *arguments: object, prefix: tuple[str, ...] = ("-m", "sagitta"), python: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Served]:  # fmt: skip
    """Serve in a process, which has ended afterwards.

    Args:
        folder: its working directory.
        arguments: behind ``serve``.
        prefix: what the interpreter runs.
        python: the interpreter, by default this one.
        environment: of the process.
    """
    log = folder / f"log-{time.monotonic_ns()}.jsonl"
    command = [str(python or sys.executable), *prefix, "serve", *map(str, arguments), "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env={**environment, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("serving "), log.read_text()
            yield Served(process, int(line.rpartition(":")[2]), log)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
