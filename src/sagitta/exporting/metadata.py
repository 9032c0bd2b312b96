"""What travels with an exported model: names, thresholds, what its input is, what it can promise, where it comes from.

``abstention`` holds what predict's ``--accuracy`` and ``--coverage`` find, for usual shares that can be promised::

    {"accuracy": {"0.99": 0.83}, "coverage": {"0.9": 0.12}}     share -> probability from which on it holds
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from sagitta.errors import ConfigError
from sagitta.evaluation import open_model, open_trust
from sagitta.exporting.graph import specification
from sagitta.exporting.names import ONE_LABEL, SEVERAL_LABELS
from sagitta.models import Classifier
from sagitta.run import read_record

OF_THE_KEPT = ("best_checkpoint", "result", "calibration")
"""What a record says of its run's kept checkpoint."""
_STRUCTURED = ("class_names", "thresholds", "calibration", "abstention", "preprocessing", "dataset", "result")
_ACCURACIES = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
_COVERAGES = (0.8, 0.9, 0.95, 0.98, 0.99)


def metadata_of(run: Path, folder: Path | None, classifier: Classifier) -> dict[str, str]:
    """Return what travels inside a model: text, or JSON where it is no text.

    Args:
        run: run directory or checkpoint file.
        folder: of the run, where there is one.
        classifier: of it.
    """
    record = record_of(run, folder)
    how = classifier.preprocessing
    assert how is not None
    found: dict[str, Any] = {
        "class_names": classifier.class_names,
        "task": SEVERAL_LABELS if classifier.multilabel else ONE_LABEL,
        "thresholds": classifier.thresholds if classifier.multilabel else None,
        "calibration": record.get("calibration"),
        "abstention": promises_of(run),
        "preprocessing": specification(how),
        "network": classifier.name,
        "dataset": data_of(record),
        "result": record.get("result"),
        "sagitta": version("sagitta"),
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def structured(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return metadata for a file of JSON, where it need not be text.

    Args:
        metadata: of :func:`metadata_of`, and more text.
    """
    return {name: json.loads(text) if name in _STRUCTURED else text for name, text in metadata.items()}


def record_of(run: Path, folder: Path | None) -> dict[str, Any]:
    """Return the record of a run; without its results where another checkpoint of it is meant than the kept one.

    Args:
        run: run directory or checkpoint file.
        folder: of the run, where there is one.
    """
    record = {} if folder is None else read_record(folder)
    if run.is_dir() or Path(record.get("best_checkpoint", "")).name == run.name:
        return record
    return {name: value for name, value in record.items() if name not in OF_THE_KEPT}


def data_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of the data that a run was trained on: no place on somebody's disk.

    Args:
        record: of the run.
    """
    data = record.get("dataset", {})
    source = data.get("preparation", {}).get("source")
    return {
        "name": None if source is None else PurePath(source).name,
        "fingerprint": data.get("fingerprint"),
        "images": data.get("splits"),
    }


def promises_of(run: Path) -> dict[str, dict[str, float]] | None:
    """Return from which probability on answers are right, and sets hold the class, in which share of images.

    What cannot be promised is not there; None where nothing can.

    Args:
        run: run directory or checkpoint file.
    """
    model = open_model(run)
    found: dict[str, dict[str, float]] = {"accuracy": {}, "coverage": {}}
    for what, shares in (("accuracy", _ACCURACIES), ("coverage", _COVERAGES)):
        for share in shares:
            asked: dict[str, Any] = {what: share}
            try:
                trust = open_trust(run, model, **asked)
            except ConfigError:  # too few images, or too many mistakes, for this one
                continue
            level = trust.level if trust.abstention is None else trust.abstention.threshold
            assert level is not None
            found[what][f"{share:g}"] = level
    return found if any(found.values()) else None
