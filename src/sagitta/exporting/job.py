"""What is to be exported, for whoever writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sagitta.errors import ConfigError
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
    """

    run: Path
    folder: Path | None
    classifier: Classifier
    metadata: Mapping[str, str]
    out: Path


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
