"""What is to be exported, for whoever writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sagitta.errors import ConfigError
from sagitta.exporting.precision import FLOAT32
from sagitta.models import Classifier, Mean


@dataclass(frozen=True)
class Job:
    """What is to be written.

    Attributes:
        run: run directory or checkpoint file.
        folder: of the run, where there is one.
        classifier: of it, on the CPU.
        metadata: that travels with it, texts.
        out: an empty folder.
        between: folder for what several formats and precisions of a model have in common; by default ``out``.
        precision: of what is written.
        training: images (N, H, W, C) uint8 that int8 is calibrated on.
    """

    run: Path
    folder: Path | None
    classifier: Classifier
    metadata: Mapping[str, str]
    out: Path
    between: Path | None = None
    precision: str = FLOAT32
    training: npt.NDArray[np.uint8] | None = None


def check_one_network(job: Job, to: str) -> None:
    """Refuse members: such files hold one network.

    Raises:
        ConfigError: there are several.
    """
    if isinstance(job.classifier.network, Mean):
        raise ConfigError(
            f"{job.run}: several networks, and --to {to} holds one; export a member of it, or --to onnx, openvino or "
            "torch, where their mean is one graph"
        )
