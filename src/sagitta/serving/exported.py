"""Exports run by ONNX Runtime or OpenVINO: nothing of torch, all that is needed stands in the model's metadata.

``abstention`` there is what a promise needs, as far as it was exported::

    {"accuracy": {"0.99": 0.83}, "coverage": {"0.9": 0.12}}     share asked for -> probability from which on
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sagitta.errors import ConfigError
from sagitta.exporting import INPUT, OUTPUT, SEVERAL_LABELS
from sagitta.pool import usable_cores
from sagitta.serving.engine import Crop, Floats, Found, Named, Wanted

_NOT_FINITE = "the model's outputs are not finite numbers; its training diverged"
_TOLD = ("network", "precision", "sagitta")  # of the metadata; where its data lay is nobody's business

Run = Callable[[Any], Any]


class Exported:
    """An exported model; see :class:`sagitta.serving.engine.Engine`.

    Raises:
        ConfigError: the file is no export of ours, or what is asked for was not exported.
    """

    def __init__(self, model: Path, wanted: Wanted) -> None:
        onnx = model.suffix == ".onnx"
        self.kind = "onnxruntime" if onnx else "openvino"
        try:
            self._run, metadata = (_open_onnx if onnx else _open_openvino)(model)
        except Exception as error:  # runtimes raise types of their own, which need not be importable
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ConfigError(f"{model}: cannot be opened by {self.kind}: {reason}") from None
        if missing := [name for name in ("class_names", "task", "preprocessing") if name not in metadata]:
            raise ConfigError(f"{model}: no export of Sagitta's, its metadata lacks {', '.join(missing)}")
        self.names: Sequence[str] = json.loads(metadata["class_names"])
        several = metadata["task"] == SEVERAL_LABELS
        self.thresholds: Sequence[float] | None = json.loads(metadata["thresholds"]) if several else None
        self._crop = Crop.of(json.loads(metadata["preprocessing"]), wanted.pixels)
        self._batch = wanted.batch
        promises = json.loads(metadata.get("abstention", "null"))
        self._threshold = _promised(model, promises, "accuracy", wanted.accuracy)
        self._level = _promised(model, promises, "coverage", wanted.coverage)
        self.about: Mapping[str, Any] = {
            **{name: metadata.get(name) for name in _TOLD},
            "result": json.loads(metadata.get("result", "null")),
            "calibration": json.loads(metadata.get("calibration", "null")),
            "input": [*self._crop.size, self._crop.channels],
            "deep": self._crop.reduction is not None,
            "abstention": "there" if promises else "not there",
            "unfamiliar": "not there: an export has no features of its training images; serve the run for it",
            "heat_maps": False,
        }

    def answer(self, images: Sequence[Named]) -> Found:
        """Return what the model says of images."""
        pixels, errors = self._crop(images)
        starts = range(0, len(pixels), self._batch)
        parts = [np.asarray(self._run(pixels[start : start + self._batch]), np.float32) for start in starts]
        found = np.concatenate([np.empty((0, len(self.names)), np.float32), *parts])
        finite = np.isfinite(found.sum(axis=1))
        if not finite.all():
            places = [place for place in range(len(images)) if place not in errors]
            errors |= {places[row]: _NOT_FINITE for row in np.flatnonzero(~finite).tolist()}
            found = found[finite]
        return Found(found, errors, self._further(found))

    def heat(self, image: Named, label: int | None) -> bytes:
        """Refuse: gradients take torch."""
        raise ConfigError("an export has no heat maps; serve the run for them")

    def _further(self, found: Floats) -> dict[str, Sequence[Any]]:
        told: dict[str, Sequence[Any]] = {}
        if self._threshold is not None:
            told["abstain"] = (found.max(axis=1) < self._threshold).tolist()
        if self._level is not None:
            order = np.argsort(-found, axis=1, kind="stable")
            told["set"] = [
                [self.names[label] for place, label in enumerate(best) if place == 0 or own[label] >= self._level]
                for own, best in zip(found, order.tolist(), strict=True)
            ]
        return told


def _promised(model: Path, promises: Any, what: str, asked: float | None) -> float | None:
    """Return the probability from which on something holds that is asked for."""
    if asked is None:
        return None
    known = (promises or {}).get(what, {})
    for share, level in known.items():
        if float(share) == asked:
            return float(level)
    there = f"{', '.join(known)} is" if known else "nothing of it is"
    raise ConfigError(f"--{what} {asked:g}: {there} in {model}; serve its run, or export it anew")


def _open_onnx(model: Path) -> tuple[Run, Mapping[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    # Threads that spin while they wait take the cores that decode, and those of others: 15 % fewer images a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # of errors, which are raised as well
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    return lambda images: session.run([OUTPUT], {INPUT: images})[0], metadata


def _open_openvino(model: Path) -> tuple[Run, Mapping[str, str]]:
    import openvino

    core = openvino.Core()
    read = core.read_model(model)
    found = read.get_rt_info(["sagitta"]).astype(dict) if read.has_rt_info(["sagitta"]) else {}
    how = {"INFERENCE_NUM_THREADS": usable_cores(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(read, "CPU", how)
    metadata = {name: _text(value) for name, value in found.items()}
    return lambda images: compiled({INPUT: images})[OUTPUT].copy(), metadata


def _text(value: Any) -> str:
    return str(value.value if hasattr(value, "value") else value)
