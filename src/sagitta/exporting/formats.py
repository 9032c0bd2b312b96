"""The formats that a model is written in."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch

from sagitta.errors import ConfigError
from sagitta.exporting import hub
from sagitta.exporting.asking import check_name
from sagitta.exporting.graph import Graph, an_input
from sagitta.exporting.handing import write_run
from sagitta.exporting.job import Job
from sagitta.exporting.names import INPUT, ONNX_FILE, OPENVINO_FILE, OUTPUT, TORCH_FILE
from sagitta.exporting.precision import BFLOAT16, FLOAT16, FLOAT32, INT8, PRECISIONS
from sagitta.exporting.quantising import quantised_onnx, quantised_openvino
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
        without: precisions that it is not written in, and why.
        int8_needs: modules that int8 takes beside; the extra of Sagitta with them is ``int8``.
    """

    file: str
    beside: tuple[str, ...]
    needs: tuple[str, ...]
    extra: str
    runtime: str
    write: Callable[[Job], None]
    reader: bool = True
    without: Mapping[str, str] = MappingProxyType({})
    int8_needs: tuple[str, ...] = ()

    @property
    def precisions(self) -> list[str]:
        """What it is written in."""
        return [name for name in PRECISIONS if name not in self.without]


_TYPES = {FLOAT32: torch.float32, FLOAT16: torch.float16, BFLOAT16: torch.bfloat16}


def _graph(job: Job, precision: str) -> tuple[Graph, torch.Tensor]:
    """Return a job's graph, and an example (2, H, W, C) uint8 of its input."""
    how = job.classifier.preprocessing
    assert how is not None
    return Graph(job.classifier, _TYPES[precision]), an_input(how, 2)


def _write_onnx(job: Job) -> None:
    import onnx

    between = job.between or job.out
    if job.precision == FLOAT16:
        found = _traced(job, job.out / ONNX_FILE, FLOAT16)
    else:
        found = plain_model("onnx", job)
        if job.precision == INT8:
            assert job.training is not None
            with _quietly():
                quantised_onnx(found, between, job.out / ONNX_FILE, job.training)
            found = job.out / ONNX_FILE
    model = onnx.load(found)
    onnx.helper.set_model_props(model, dict(job.metadata))
    onnx.save(model, job.out / ONNX_FILE)


def plain_model(kind: str, job: Job) -> Path:
    """Return a model in float32, without what travels with it, which is written once for all precisions.

    Args:
        kind: ``onnx`` or ``openvino``.
        job: whose model it is.
    """
    between = job.between or job.out
    path = between / f"plain{Path(FORMATS[kind].file).suffix}"
    if not path.exists():
        if kind == "onnx":
            _traced(job, path, FLOAT32)
        else:
            import openvino

            openvino.save_model(openvino.convert_model(plain_model("onnx", job)), path, compress_to_fp16=False)
    return path


def _traced(job: Job, path: Path, precision: str) -> Path:
    """Write a job's graph as ONNX; returns its path."""
    graph, example = _graph(job, precision)
    with _quietly():
        plain = _program(graph, example).run_decompositions({torch.ops.aten.adaptive_max_pool2d.default: _maxima})
        program = torch.onnx.export(
            plain, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, dynamo=True, verbose=False
        )
    assert program is not None
    for value in (*program.model.graph.inputs, *program.model.graph.outputs):
        assert value.shape is not None
        value.shape[0] = "batch"
    program.save(path, external_data=False)
    return path


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

    model = openvino.Core().read_model(plain_model("openvino", job))
    if job.precision == INT8:
        assert job.training is not None
        with _quietly():
            model = quantised_openvino(model, job.training)
    for name, text in job.metadata.items():
        model.set_rt_info(text, ["sagitta", name])
    openvino.save_model(model, job.out / OPENVINO_FILE, compress_to_fp16=job.precision == FLOAT16)


def _write_torch(job: Job) -> None:
    with _quietly():
        torch.export.save(_program(*_graph(job, job.precision)), job.out / TORCH_FILE, extra_files=dict(job.metadata))


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
_AS_SMALL = "it has 16 bits as float16: --precision 16"
_ELSEWHERE = "--to onnx and --to openvino have it"
FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        ONNX_FILE, (), (*_ONNX, "onnxruntime"), "export", f"ONNX Runtime 1.14 (opset {OPSET})", _write_onnx,
        without={BFLOAT16: f"no processor runs that by ONNX Runtime; {_AS_SMALL}"},
    ),
    "openvino": Format(
        OPENVINO_FILE, ("model.bin",), (*_ONNX, "openvino"), "export", "OpenVINO 2024.0", _write_openvino,
        without={BFLOAT16: _AS_SMALL}, int8_needs=("nncf",),
    ),
    "torch": Format(
        TORCH_FILE, (), (), "", f"PyTorch {torch.__version__.partition('+')[0]}", _write_torch,
        without={INT8: _ELSEWHERE},
    ),
    "safetensors": Format(
        HANDED_ON, (RUN_FILE,), (), "", f"Sagitta {version('sagitta')}", write_run, reader=False,
        without={BFLOAT16: _AS_SMALL, INT8: _ELSEWHERE},
    ),
    "hub": Format(
        hub.MODEL, (hub.CONFIG, hub.CARD), (), "", "timm 1.0.26 and transformers 4.49", hub.write_hub, reader=False,
        without={BFLOAT16: _AS_SMALL, INT8: _ELSEWHERE},
    ),
}  # fmt: skip


def check_format(name: str, precision: str = FLOAT32) -> Format:
    """Return a format, whose libraries are there.

    Raises:
        ConfigError: there is no such format, it is not written in the precision, or a library is missing.
    """
    from importlib.util import find_spec

    check_name(name)
    form = FORMATS[name]
    if precision in form.without:
        raise ConfigError(f"--to {name} --precision {precision}: not offered, {form.without[precision]}")
    for needs, extra in ((form.needs, form.extra), (form.int8_needs if precision == INT8 else (), "int8")):
        if missing := [module for module in needs if find_spec(module) is None]:
            raise ConfigError(f"--to {name} needs {' and '.join(missing)}: pip install 'sagitta[{extra}]'")
    return form
