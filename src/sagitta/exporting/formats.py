"""The formats that a model is written in."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from io import StringIO
from typing import NamedTuple

import torch

from sagitta.errors import ConfigError
from sagitta.exporting import hub
from sagitta.exporting.graph import Graph, an_input
from sagitta.exporting.handing import write_run
from sagitta.exporting.job import Job
from sagitta.exporting.names import INPUT, ONNX_FILE, OPENVINO_FILE, OUTPUT, TORCH_FILE
from sagitta.run import HANDED_ON, RUN_FILE

OPSET = 18
"""Of ONNX: what ONNX Runtime reads from 1.14 on."""


class Format(NamedTuple):
    """How a model is written.

    Attributes:
        file: its name in the export's folder.
        beside: names of further files that belong to it, those that are always there.
        needs: modules that writing and proving it take.
        extra: of Sagitta, that brings these.
        runtime: the least version that reads it, in words.
        write: writes all files of a job.
        reader: whether ``reader.py`` makes its input, whose pixels are compared, too.
    """

    file: str
    beside: tuple[str, ...]
    needs: tuple[str, ...]
    extra: str
    runtime: str
    write: Callable[[Job], None]
    reader: bool = True


def _graph(job: Job) -> tuple[Graph, torch.Tensor]:
    """Return a job's graph, and an example (2, H, W, C) uint8 of its input."""
    how = job.classifier.preprocessing
    assert how is not None
    return Graph(job.classifier), an_input(how, 2)


def _write_onnx(job: Job) -> None:
    graph, example = _graph(job)
    with _quietly():
        plain = _program(graph, example).run_decompositions({torch.ops.aten.adaptive_max_pool2d.default: _maxima})
        program = torch.onnx.export(
            plain, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, dynamo=True, verbose=False
        )
    assert program is not None
    for value in (*program.model.graph.inputs, *program.model.graph.outputs):
        assert value.shape is not None
        value.shape[0] = "batch"
    program.model.metadata_props.update(job.metadata)
    program.save(job.out / ONNX_FILE, external_data=False)


def _maxima(images: torch.Tensor, size: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest of each window (B, C, *size), and nothing of where it was: ONNX has no such pooling."""
    for axis, count in zip((-2, -1), size, strict=True):
        length = images.shape[axis]
        spans = [(number * length // count, -(-(number + 1) * length // count)) for number in range(count)]
        images = torch.stack([images.narrow(axis, a, b - a).amax(axis) for a, b in spans], axis)
    return images, torch.zeros_like(images, dtype=torch.int64)


def _program(graph: Graph, example: torch.Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(graph, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})


def _write_openvino(job: Job) -> None:
    import openvino

    _write_onnx(job)
    between = job.out / ONNX_FILE
    model = openvino.convert_model(between)
    for name, text in job.metadata.items():
        model.set_rt_info(text, ["sagitta", name])
    openvino.save_model(model, job.out / OPENVINO_FILE, compress_to_fp16=False)
    between.unlink()


def _write_torch(job: Job) -> None:
    with _quietly():
        torch.export.save(_program(*_graph(job)), job.out / TORCH_FILE, extra_files=dict(job.metadata))


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep back what exporters say of their steps."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


_ONNX = ("onnx", "onnxscript")
FORMATS: Mapping[str, Format] = {
    "onnx": Format(ONNX_FILE, (), (*_ONNX, "onnxruntime"), "export", f"ONNX Runtime 1.14 (opset {OPSET})", _write_onnx),
    "openvino": Format(
        OPENVINO_FILE, ("model.bin",), (*_ONNX, "openvino"), "export", "OpenVINO 2024.0", _write_openvino
    ),
    "torch": Format(TORCH_FILE, (), (), "", f"PyTorch {torch.__version__.partition('+')[0]}", _write_torch),
    "safetensors": Format(HANDED_ON, (RUN_FILE,), (), "", f"Sagitta {version('sagitta')}", write_run, reader=False),
    "hub": Format(
        hub.MODEL, (hub.CONFIG, hub.CARD), (), "", "timm 1.0.20 and transformers 4.49", hub.write_hub, reader=False
    ),
}


def check_format(name: str) -> Format:
    """Return a format, whose libraries are there.

    Raises:
        ConfigError: there is no such format, or a library is missing.
    """
    from importlib.util import find_spec

    if name not in FORMATS:
        raise ConfigError(f"--to {name}: no such format; there are {', '.join(FORMATS)}")
    if missing := [module for module in FORMATS[name].needs if find_spec(module) is None]:
        extra = FORMATS[name].extra
        raise ConfigError(f"--to {name} needs {' and '.join(missing)}: pip install 'sagitta[{extra}]'")
    return FORMATS[name]
