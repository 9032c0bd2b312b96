"""Runs an exported model in a process that cannot import Sagitta: what it answers there, anybody gets.

    python apart.py KIND MODEL FILES OUT CORES [OTHER]

Reads the image files that are named in FILES by the reader beside the model, or by timm's transform where timm loads
it. In OUT (.npz) stands what the model was given, ``pixels`` (N, H, W, C) uint8, or (N, C, H, W) float32 of timm's;
what it answered, ``probabilities`` (N, classes) float32; which images say something, ``counts`` (N,) bool, since timm
reads some in its own way; and the seconds that one image and 32 take on CORES, medians of several, as ``one`` and
``many``: of the model, and of OTHER, where it is given, which takes turns with it.
"""

import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_BATCH = 32
_FEWEST, _MOST, _SECONDS = 7, 51, 2.0  # times that a model is run, and for how long at most

Run = Callable[[Any], Any]


def _onnx(path: str, cores: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as it is served; else two would fight
    options.log_severity_level = 3  # of errors, which are raised as well
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _openvino(path: str, cores: int) -> Run:
    import openvino

    model = openvino.compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: model({"images": images})["probabilities"]


def _torch(path: str, cores: int) -> Run:
    import torch

    torch.set_num_threads(cores)
    module = torch.export.load(path).module()

    def run(images: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run


def _hub(path: str, cores: int) -> Run:
    import timm
    import torch

    torch.set_num_threads(cores)
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


def main(kind: str, model: str, files: str, out: str, cores: str, *others: str) -> None:
    """Read, run, and time."""
    paths = json.loads(Path(files).read_text())
    pixels, counts = (_by_timm if kind == "hub" else _by_reader)(Path(model).parent, paths)
    runs = [KINDS[kind](each, int(cores)) for each in (model, *others)]
    starts = range(0, len(pixels), _BATCH)
    answers = np.concatenate([runs[0](pixels[start : start + _BATCH]) for start in starts])
    many = np.resize(pixels, (_BATCH, *pixels.shape[1:]))
    one, some = seconds(runs, many[:1]), seconds(runs, many)
    np.savez(out, pixels=pixels, counts=counts, probabilities=answers, one=one, many=some)


def seconds(runs: list[Run], images: Any) -> list[float]:
    """Return the median time of each of some models for the same images; they take turns."""
    for run in runs:
        run(images)
    found: list[list[float]] = [[] for _ in runs]
    ends = time.perf_counter() + _SECONDS * len(runs)
    while len(found[0]) < _FEWEST or (len(found[0]) < _MOST and time.perf_counter() < ends):
        for run, times in zip(runs, found, strict=True):
            began = time.perf_counter()
            run(images)
            times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in found]


if __name__ == "__main__":
    sys.modules["sagitta"] = None  # type: ignore[assignment]  # an import of it fails here
    main(*sys.argv[1:])
