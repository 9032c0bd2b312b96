"""Runs an exported model in a process that cannot import Sagitta: what it answers there, anybody gets.

    python apart.py KIND MODEL FILES OUT

Reads the image files that are named in FILES by the reader beside the model, or by timm's transform where timm loads
it. In OUT (.npz) stands what the model was given, ``pixels`` (N, H, W, C) uint8, or (N, C, H, W) float32 of timm's;
what it answered, ``probabilities`` (N, classes) float32; which images say something, ``counts`` (N,) bool, since timm
reads some in its own way; and the seconds that one image and 32 take, medians of several, as ``one`` and ``many``.
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


def _hub(path: str) -> Run:
    import timm
    import torch

    torch.set_num_threads(_cores())
    folder = Path(path).parent
    several = json.loads((folder / "config.json").read_text())["problem_type"] == "multi_label_classification"
    network: Any = timm.create_model(f"local-dir:{folder.absolute()}", pretrained=True).eval()

    def run(images: Any) -> Any:
        with torch.inference_mode():
            logits = network(torch.from_numpy(images))
            return (logits.sigmoid() if several else logits.softmax(1)).numpy()

    return run


KINDS = {"onnx": _onnx, "openvino": _openvino, "torch": _torch, "hub": _hub}


def _by_reader(folder: Path, paths: list[str]) -> tuple[Any, Any]:
    """Return pixels by the reader beside a model, and that all of them count."""
    sys.dont_write_bytecode = True  # beside the model, where it would be handed on
    spec = importlib.util.spec_from_file_location("reader", folder / "reader.py")
    assert spec is not None and spec.loader is not None
    reading = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reading)
    how = json.loads((folder / "preprocessing.json").read_text())
    return np.stack([reading.read(path, how) for path in paths]), np.ones(len(paths), np.bool_)


def _by_timm(folder: Path, paths: list[str]) -> tuple[Any, Any]:
    """Return normalised images as transformers' pipeline makes them, and which are not read in a way of its own."""
    from PIL import Image, ImageOps
    from timm.data import create_transform, resolve_data_config

    config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    resolve: Any = resolve_data_config
    transform: Any = create_transform(**resolve({}, pretrained_cfg=config), is_training=False)
    images = [Image.open(path) for path in paths]
    counts = [not image.has_transparency_data and image.mode[0] not in "IF" for image in images]
    found = [transform(ImageOps.exif_transpose(image).convert("RGB")).numpy() for image in images]
    return np.stack(found), np.array(counts)


def main(kind: str, model: str, files: str, out: str) -> None:
    """Read, run, and time."""
    paths = json.loads(Path(files).read_text())
    pixels, counts = (_by_timm if kind == "hub" else _by_reader)(Path(model).parent, paths)
    run = KINDS[kind](model)
    starts = range(0, len(pixels), _BATCH)
    answers = np.concatenate([run(pixels[start : start + _BATCH]) for start in starts])
    many = np.resize(pixels, (_BATCH, *pixels.shape[1:]))
    np.savez(
        out, pixels=pixels, counts=counts, probabilities=answers, one=_seconds(run, many[:1]), many=_seconds(run, many)
    )


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
