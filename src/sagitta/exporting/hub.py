"""A folder as the Hugging Face hub has them: ``timm.create_model("local-dir:…")`` and transformers' pipeline load it.

::

    config.json          network, classes and preprocessing, in timm's terms, and what transformers looks for
    model.safetensors    the network's weights by timm's names; the temperature is in the last layer
    README.md            the model card

Whoever loads it gives softmax or sigmoid of logits, so probabilities are calibrated as Sagitta's are. Reading images is
theirs, too: upright by EXIF, RGB, resized by Pillow, which gives Sagitta's pixels but for what is transparent or has 16
bits.
"""

import json
from typing import Any

from safetensors.torch import save_file
from timm import is_model

from sagitta.errors import ConfigError
from sagitta.exporting.card import model_card
from sagitta.exporting.job import Job, check_one_network
from sagitta.exporting.precision import FLOAT16
from sagitta.loading import Preprocessing
from sagitta.models import halved, stage_widths

MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def write_hub(job: Job) -> None:
    """Write a run's network as timm and transformers load it.

    Raises:
        ConfigError: it is none of timm's, or its input is not what timm prepares.
    """
    check_one_network(job, "hub")
    how, network = job.classifier.preprocessing, job.classifier.network
    assert how is not None and network is not None
    _check(job, how)
    state = network.state_dict()
    if job.precision == FLOAT16:
        state = halved(state)
    tensors = {name: value.detach().contiguous().clone() for name, value in state.items()}
    save_file(tensors, job.out / MODEL, {"format": "pt"})
    told = json.dumps(_config(job, how, network), indent=2, ensure_ascii=False)
    (job.out / CONFIG).write_text(told + "\n", encoding="utf-8")
    (job.out / CARD).write_text(model_card(job), encoding="utf-8")


def _check(job: Job, how: Preprocessing) -> None:
    name, instead = job.classifier.name, "--to onnx and --to safetensors take it"
    if not is_model(name):
        raise ConfigError(f"--to hub: {name} is no network of timm's, which is what loads the folder; {instead}")
    if stage_widths(job.classifier.network):  # type: ignore[arg-type]
        raise ConfigError(
            f"--to hub: the head sees several stages of the network, which timm does not build; {instead}, or fit anew "
            "with --model.stages false"
        )
    if how.channels != 3:
        raise ConfigError(f"--to hub: the network takes grey images, which timm's loaders give in colour; {instead}")
    if how.reduction is not None:
        raise ConfigError(f"--to hub: images of more than 8 bits or bands are nothing that timm reads; {instead}")


def _config(job: Job, how: Preprocessing, network: Any) -> dict[str, Any]:
    """Return ``config.json``: timm reads the first fields, transformers the last ones, too."""
    known = network.pretrained_cfg or {}
    size = [how.channels, *how.size]
    fixed = bool(known.get("fixed_input_size", False))
    names = job.classifier.class_names
    prepared = {
        "num_classes": len(names),
        "input_size": size,
        "fixed_input_size": fixed,
        "interpolation": how.interpolation,
        "crop_pct": how.crop_pct,
        "crop_mode": "center",
        "mean": list(how.mean),
        "std": list(how.std),
        "first_conv": known.get("first_conv"),
        "classifier": known.get("classifier"),
        "custom_load": False,
    }
    return {
        "architecture": job.classifier.name.partition(".")[0],
        "num_classes": len(names),
        "num_features": network.num_features,
        "label_names": names,
        "model_args": {"img_size": list(how.size)} if fixed else {},
        "pretrained_cfg": prepared,
        "model_type": "timm_wrapper",
        "architectures": ["TimmWrapperForImageClassification"],
        "problem_type": "multi_label_classification" if job.classifier.multilabel else "single_label_classification",
        "thresholds": job.classifier.thresholds if job.classifier.multilabel else None,
    }
