"""The card of a model: what a person has to know before they use it."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from sagitta.exporting.job import Job
from sagitta.exporting.metadata import data_of, record_of
from sagitta.reporting import gather

_MOST = 100  # classes that are listed


def model_card(job: Job) -> str:
    """Return the card of a model in Markdown, with the fields that the hub reads on top.

    What nobody knows, such as the licence, is said to be unknown.

    Args:
        job: of the export.
    """
    record = record_of(job.run, job.folder)
    several = job.classifier.multilabel
    head = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "transformers", "sagitta", *(["multi-label"] if several else [])],
        "license": "other",
        "license_name": "not-stated",
    }
    data = data_of(record)
    name = data["name"] or "images"
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {job.classifier.name.partition('.')[0]} for {name}",
        f"Classifies images into {len(job.classifier.class_names)} classes, "
        f"{job.metadata['task']}: {_classes(job.classifier.class_names)}.",
        "## How to use it",
        _usage(several),
        "## Data",
        "\n".join(_data(data)),
        "## How good it is",
        "\n".join(_scores(job)),
        "## Calibration",
        _calibration(record.get("calibration")),
        "## Limits",
        "\n".join(_limits(job)),
        "## Licence",
        "Not stated. Whoever publishes this writes theirs here and in `license` on top; those of the data and of the "
        "weights that training began with hold, too.",
    ]
    return "\n\n".join(parts) + "\n"


def _classes(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_MOST])
    return shown + (f" and {len(names) - _MOST} more, see `config.json`" if len(names) > _MOST else "")


def _usage(several: bool) -> str:
    function = ', function_to_apply="sigmoid"' if several else ""
    return (
        "```python\n"
        "from transformers import pipeline\n\n"
        'classify = pipeline("image-classification", model="FOLDER or user/name")\n'
        f'print(classify("photo.jpg"{function}))\n'
        "```\n\n"
        'With timm: `timm.create_model("local-dir:FOLDER", pretrained=True)`, or `hf-hub:user/name`, and the transform '
        "of `timm.data.create_transform(**timm.data.resolve_data_config(model=model))`."
    )


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    yield f"- name: {data['name'] or 'unknown'}"
    splits = data["images"] or {}
    yield f"- images: {', '.join(f'{count:,} {split}' for split, count in splits.items()) or 'unknown'}"
    yield f"- fingerprint (of all images and labels): {data['fingerprint'] or 'unknown'}"


def _scores(job: Job) -> Iterator[str]:
    judged = gather(job.folder).judged if job.folder is not None and job.run.is_dir() else []
    if not judged:
        yield "Nobody has tested it: no test is recorded in its run."
        return
    first = next((each for each in judged if each.source is None), judged[0])  # on the run's own data, if there is one
    yield f"{first.title}, {len(first):,} images; intervals of 95 %:\n"
    yield "| metric | value | interval |\n|---|---:|---|"
    for name, score in first.scores.items():
        if not math.isnan(score.value):
            yield f"| {name} | {score.value:.4f} | {score.low:.4f} to {score.high:.4f} |"


def _calibration(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "Nobody has looked whether the probabilities mean what they say."
    value = found.get("temperature")
    words = f"Temperature {value:.4g}, folded into the last layer" if isinstance(value, float | int) else ""
    reason = found.get("reason") or ""
    return f"{words}{': ' if words and reason else ''}{reason}." if words or reason else f"`{json.dumps(found)}`"


def _limits(job: Job) -> Iterator[str]:
    yield "- It knows these classes alone, and gives one of them for any image, whatever is in it."
    yield "- Figures hold for images like those it was tested on; others may be worse, and it does not say so."
    yield (
        "- Transparent images and those of 16 bits are read otherwise by timm and transformers than in training: put "
        "them over white, and scale them to 8 bits, before."
    )
    promises = json.loads(job.metadata["abstention"])
    if promises and promises["accuracy"]:
        share, level = list(promises["accuracy"].items())[-1]
        yield f"- Answers of a probability of at least {level:.4f} are right in {float(share):.1%} of cases or more."
    if job.classifier.multilabel:
        yield f"- Labels are given from their thresholds on: {json.loads(job.metadata['thresholds'])}."
