"""Runs an exported model in a process that cannot import Sagitta: what it answers there, anybody gets.

    python apart.py KIND MODEL PREPROCESSING READER FILES OUT

Reads the image files that are named in FILES by the reader beside the model. In OUT (.npz) stands what the model was
given, ``pixels`` (N, H, W, C) uint8; what it answered, ``probabilities`` (N, classes) float32; and the seconds that one
image and 32 take, medians of several, as ``one`` and ``many``.
"""

import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_BATCH, _TIMES = 32, 5
_CORES = 2  # of which latency is told

Run = Callable[[Any], Any]


def _onnx(path: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _cores()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _openvino(path: str) -> Run:
    import openvino

    model = openvino.compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": _cores(), "INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: model({"images": images})["probabilities"]


def _torch(path: str) -> Run:
    import torch

    torch.set_num_threads(_cores())
    module = torch.export.load(path).module()

    def run(images: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run


def _cores() -> int:
    return min(_CORES, os.cpu_count() or 1)


KINDS = {"onnx": _onnx, "openvino": _openvino, "torch": _torch}


def main(kind: str, model: str, preprocessing: str, reader: str, files: str, out: str) -> None:
    """Read, run, and time."""
    spec = importlib.util.spec_from_file_location("reader", reader)
    assert spec is not None and spec.loader is not None
    reading = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reading)
    how = json.loads(Path(preprocessing).read_text())
    pixels = np.stack([reading.read(path, how) for path in json.loads(Path(files).read_text())])
    run = KINDS[kind](model)
    starts = range(0, len(pixels), _BATCH)
    answers = np.concatenate([run(pixels[start : start + _BATCH]) for start in starts])
    many = np.resize(pixels, (_BATCH, *pixels.shape[1:]))
    np.savez(out, pixels=pixels, probabilities=answers, one=_seconds(run, many[:1]), many=_seconds(run, many))


def _seconds(run: Run, images: Any) -> float:
    run(images)
    found = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        run(images)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


if __name__ == "__main__":
    sys.modules["sagitta"] = None  # type: ignore[assignment]  # an import of it fails here
    main(*sys.argv[1:])
