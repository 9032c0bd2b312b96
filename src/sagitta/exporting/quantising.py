"""Weights and activations of 8 bits, by scales that training images give (static quantisation).

Of ONNX convolutions and matrix products alone: ONNX Runtime adds such values more slowly than floats. Weights have 7
of the 8 bits, since processors without VNNI would saturate by more, and answer otherwise than this one did.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sagitta.exporting.names import INPUT

MOST = 128
"""Training images that scales are found on, or all where there are fewer."""
_AT_ONCE = 8
_COMPUTE = ["Conv", "Gemm", "MatMul"]
_PASS_ON = ["AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu"]  # where their inputs are quantised

Pixels = npt.NDArray[np.uint8]


def quantised_onnx(plain: Path, between: Path, out: Path, pixels: Pixels) -> None:
    """Write an ONNX model in int8, as float weights between quantising and dequantising nodes become.

    Args:
        plain: the model in float32.
        between: folder for what is needed on the way.
        out: file to write.
        pixels: (N, H, W, C) to find scales on.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._starts = iter(range(0, len(pixels), _AT_ONCE))

        def get_next(self) -> dict[str, Pixels] | None:
            start = next(self._starts, None)
            return None if start is None else {INPUT: pixels[start : start + _AT_ONCE]}

    prepared = between / "prepared.onnx"
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)  # folds normalisation into convolutions
    quantize_static(
        str(prepared), str(out), Reader(), QuantFormat.QDQ, op_types_to_quantize=[*_COMPUTE, *_PASS_ON],
        per_channel=True, reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def quantised_openvino(model: Any, pixels: Pixels) -> Any:
    """Return an OpenVINO model in int8.

    Args:
        model: in float32.
        pixels: (N, H, W, C) to find scales on.
    """
    with _silent_nncf({"NNCF_CI": "1"}):
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

        nncf.set_log_level(logging.ERROR)
        return nncf.quantize(
            model,
            nncf.Dataset([pixels[number : number + 1] for number in range(len(pixels))]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pixels),
            fast_bias_correction=False,  # the fast way loses one image in 200 more
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )


@contextmanager
def _silent_nncf(environment: Mapping[str, str]) -> Iterator[None]:
    """Import and run NNCF without telemetry, which it leaves out in a CI, and without torch's word on CUDA."""
    before = {name: os.environ.get(name) for name in environment}
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    os.environ.update(environment)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
