"""The formats that a graph is written in."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import torch

from sagitta.errors import ConfigError
from sagitta.exporting.graph import INPUT, OUTPUT, Graph

OPSET = 18
"""Of ONNX: what ONNX Runtime reads from 1.14 on."""


class Format(NamedTuple):
    """How a graph is written.

    Attributes:
        file: its name in the export's folder.
        beside: names of further files that belong to it.
        needs: modules that writing and proving it take, all in the extra ``export``.
        runtime: the least version that reads it, in words.
        write: takes the graph, an example (2, H, W, C) uint8, metadata of strings, and the path.
    """

    file: str
    beside: tuple[str, ...]
    needs: tuple[str, ...]
    runtime: str
    write: Callable[[Graph, torch.Tensor, Mapping[str, str], Path], None]


def _write_onnx(graph: Graph, example: torch.Tensor, metadata: Mapping[str, str], path: Path) -> None:
    with _quietly():
        plain = _program(graph, example).run_decompositions({torch.ops.aten.adaptive_max_pool2d.default: _maxima})
        program = torch.onnx.export(
            plain, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, dynamo=True, verbose=False
        )
    assert program is not None
    for value in (*program.model.graph.inputs, *program.model.graph.outputs):
        assert value.shape is not None
        value.shape[0] = "batch"
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


def _maxima(images: torch.Tensor, size: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest of each window (B, C, *size), and nothing of where it was: ONNX has no such pooling."""
    for axis, count in zip((-2, -1), size, strict=True):
        length = images.shape[axis]
        spans = [(number * length // count, -(-(number + 1) * length // count)) for number in range(count)]
        images = torch.stack([images.narrow(axis, a, b - a).amax(axis) for a, b in spans], axis)
    return images, torch.zeros_like(images, dtype=torch.int64)


def _program(graph: Graph, example: torch.Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(graph, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})


def _write_openvino(graph: Graph, example: torch.Tensor, metadata: Mapping[str, str], path: Path) -> None:
    import openvino

    between = path.with_suffix(".onnx")
    _write_onnx(graph, example, metadata, between)
    model = openvino.convert_model(between)
    for name, text in metadata.items():
        model.set_rt_info(text, ["sagitta", name])
    openvino.save_model(model, path, compress_to_fp16=False)
    between.unlink()


def _write_torch(graph: Graph, example: torch.Tensor, metadata: Mapping[str, str], path: Path) -> None:
    with _quietly():
        torch.export.save(_program(graph, example), path, extra_files=dict(metadata))


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


FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        "model.onnx", (), ("onnx", "onnxscript", "onnxruntime"), f"ONNX Runtime 1.14 (opset {OPSET})", _write_onnx
    ),
    "openvino": Format(
        "model.xml", ("model.bin",), ("onnx", "onnxscript", "openvino"), "OpenVINO 2024.0", _write_openvino
    ),
    "torch": Format("model.pt2", (), (), f"PyTorch {torch.__version__.partition('+')[0]}", _write_torch),
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
        raise ConfigError(f"--to {name} needs {' and '.join(missing)}: pip install 'sagitta[export]'")
    return FORMATS[name]
