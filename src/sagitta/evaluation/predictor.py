"""Images of any number -> rows of classes and probabilities, with the model's own preprocessing, as a stream.

Images are decoded ahead of the network, once for each way in which the members of a run want them; a chunk of them
becomes rows of the table as soon as the network is done with it. What the rows say is
:class:`sagitta.evaluation.answers.Answers`'s matter.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from sagitta.errors import ConfigError
from sagitta.evaluation.answers import Answers, Further, id_of
from sagitta.evaluation.asked import Asked
from sagitta.evaluation.calibration import VALIDATION_FILE
from sagitta.evaluation.computing import Member, first_head, head_of, inputs_of
from sagitta.evaluation.inputs import Inputs
from sagitta.evaluation.members import open_model, unfinished
from sagitta.evaluation.novelty import FAMILIAR_FILE
from sagitta.evaluation.precision import judged_in
from sagitta.evaluation.trust import open_trust
from sagitta.loading import Decoded, DecodedAhead, Preprocessing
from sagitta.models import (
    COMPARED,
    ROUNDING,
    Floats,
    can_translate,
    engine_name,
    inference_batch,
    limit_threads,
    reuse_memory,
    translation_pays,
)
from sagitta.run import checkpoints_of, has_ended, read_record, run_of

_CHUNK, _CHUNK_BYTES = 64, 2**26  # images and pixels that are decoded at a time where batches are smaller


@dataclass(frozen=True)
class Predicted:
    """What is known of a chunk of images.

    Attributes:
        table: one row an image.
        numbers: of the images.
        classes: numbers of the predicted classes of each image that could be read, by its number; none of what is
            abstained from, or looks like none of the classes.
        errors: why the others have none, by their number.
        reduced: what decoding lost, and of how many.
        striking: how many images there are, look like none of the classes, and were abstained from.
    """

    table: pa.RecordBatch
    numbers: range
    classes: dict[int, list[int]]
    errors: dict[int, str]
    reduced: Counter[str]
    striking: Counter[str]


class Predictor:
    """A run, ready to predict.

    Args:
        run: run directory or checkpoint file.
        asked: of it.
        further: what gives columns beside the usual ones.

    Attributes:
        model: what the run predicts with.
        members: its parts, on the device.
        device: where it computes.
        batch_size: images that the network sees at a time.
        engine: name and version of what computes the networks, see :meth:`hasten`.

    Raises:
        ConfigError: there is no such run, device, precision or column, or a number is below 1.
    """

    def __init__(self, run: Path, asked: Asked, further: Sequence[Further] = ()) -> None:
        asked.check()
        self._run, self._asked = run, asked
        self.model = open_model(run, flip=asked.flip)
        if any(part.classifier.preprocessing is None for part in self.model.parts):
            raise ConfigError(f"{run}: its checkpoint has no preprocessing; it was trained without ImageData")
        first, names = self.model.first, self.model.class_names
        promised: dict[str, Any] = {"accuracy": asked.accuracy, "coverage": asked.coverage, "flip": asked.flip}
        self._trust = open_trust(run, self.model, **promised)
        self._answers = Answers(
            first.task,
            names,
            first.thresholds,
            asked.top_k,
            asked.every,
            asked.embed,
            asked.template,
            (*further, self._trust),
        )
        limit_threads()
        reuse_memory()
        self.members = [Member(part, names, asked.device, asked.precision) for part in self.model.parts]
        shown = replace(self._answers, further=tuple(further)).needs_features
        networks = [member.network for member in self.members]
        self._head = head_of(run, networks) if shown else first_head(networks, self._trust)
        self.device = self.members[0].device
        self.batch_size = inference_batch(self.device) if asked.batch_size is None else asked.batch_size
        self.engine = f"PyTorch {torch.__version__}"

    def hasten(self, inputs: Inputs) -> str | None:
        """Let OpenVINO compute the networks where it is installed, there is much to do, and it says the same.

        It decides by images from all parts of the inputs, of which a class may be another one only where the two most
        probable ones are as good as equal.

        Returns:
            What a person wants to know; None where there is nothing to say.
        """
        hows = [member.preprocessing for member in self.members]
        if self.members[0].precision != "32-true" or not all(
            translation_pays(len(inputs), how, self.device) for how in hows
        ):
            return None
        if not can_translate():
            return "pip install 'sagitta[fast]' brings OpenVINO, by which processors predict 1.1 to 3 times as fast"
        some = range(0, len(inputs), -(-len(inputs) // _CHUNK))
        decoded = DecodedAhead(inputs, hows, self.chunk).decode(some)
        if (count := len(decoded.readable)) < COMPARED:
            return f"PyTorch computes the network: only {count} of {len(some)} images to compare by can be read"
        if not all(member.translate(pixels) for member, pixels in zip(self.members, decoded.pixels, strict=True)):
            for member in self.members:
                member.take_back()
            return "PyTorch computes the network: OpenVINO does not know it, or answers otherwise"
        self.engine = engine_name()
        agreed = f"{len(decoded.readable)} images agree within {ROUNDING:.0e}"
        return f"{self.engine} computes the network, faster than PyTorch; probabilities of {agreed}"

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the table."""
        features = None if self._head is None else np.empty((0, self._head.in_features), np.float32)
        table = self._answers.table([], {}, np.empty((0, len(self.model.class_names)), np.float32), features)
        names = table.schema.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"--columns {self._asked.columns}: {twice} is given twice")
        return table.schema

    def key(self, inputs: Inputs) -> dict[str, Any]:
        """Return what a table depends on, by words for people."""
        files, folder = list(checkpoints_of(self._run)), run_of(self._run)
        if folder is not None:  # what is promised and unfamiliar depends on these
            files += [each for name in (VALIDATION_FILE, FAMILIAR_FILE) if (each := folder / name).is_file()]
        states: list[Any] = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        states.append([member.share for member in self.members])
        precisions = [member.precision for member in self.members]
        how = asdict(self._asked) | {"batch_size": self.batch_size, "device": self.device.type, "precision": precisions}
        how["engine"] = self.engine
        found = {"run": states, "options": how, "images": [len(inputs), inputs.digest()]}
        return dict(json.loads(json.dumps(found)))

    def notes(self, inputs: Inputs, striking: Mapping[str, int]) -> list[str]:
        """Return what a person has to know of the rows, one sentence each.

        Args:
            inputs: that were predicted.
            striking: sum of all chunks.
        """
        told, template = self._trust.lines(striking) + self._rounded_otherwise(), self._answers.template or ()
        if self._run.is_dir() and (record := read_record(self._run)) and not has_ended(record):
            told.insert(0, unfinished(self.model))
        if all(what != "id" for _, what in template):
            return told
        twice = sum(count for count in Counter(map(id_of, inputs.names())).values() if count > 1)
        return [f"{twice:,} images share their id with another one; take path or file to tell them apart"] * bool(
            twice
        ) + told

    def _rounded_otherwise(self) -> list[str]:
        """Say that what is promised was found with more digits than a person asks for."""
        asked = self._asked
        cpu = self.device.type == "cpu"
        usual = {judged_in(part.precision, cpu=cpu) for part in self.model.parts}
        if (asked.accuracy is None and asked.coverage is None) or asked.precision is None or {asked.precision} == usual:
            return []
        return [
            f"what is promised was found in {' and '.join(sorted(usual))}: --precision {asked.precision} rounds "
            "otherwise, and near a threshold it decides otherwise"
        ]

    def predict(self, inputs: Inputs, start: int = 0) -> Iterator[Predicted]:
        """Yield what is known of the images from number ``start`` on, chunk by chunk."""
        hows = list(dict.fromkeys(member.preprocessing for member in self.members))
        ahead = DecodedAhead(inputs, hows, self.chunk, start, pinned=self.device.type == "cuda")
        before: tuple[Decoded, _Found] | None = None
        for decoded in ahead:
            now = decoded, _Found(*self._computed(decoded, hows))
            if before is not None:  # the device has something to do while what it found is written
                yield self._told(inputs, *before)
            before = now
        if before is not None:
            yield self._told(inputs, *before)

    @property
    def chunk(self) -> int:
        """How many images are decoded at a time: whole batches, so that where one begins depends on nothing."""
        hows = [member.preprocessing for member in self.members]
        pixels = max(how.size[0] * how.size[1] * how.channels for how in hows) * self.batch_size
        return self.batch_size * max(1, min(_CHUNK // self.batch_size, _CHUNK_BYTES // pixels))

    def _computed(self, decoded: Decoded, hows: Sequence[Preprocessing]) -> tuple[Tensor, Tensor | None]:
        """Return probabilities (R, classes) and, where they are needed, features (R, D), on the device."""
        mean = torch.zeros((len(decoded.readable), len(self.model.class_names)), device=self.device)
        features: list[Tensor] = []
        with inputs_of(self._head) as seen:
            for member in self.members:
                pixels = decoded.pixels[hows.index(member.preprocessing)]
                for first in range(0, len(pixels), self.batch_size):
                    batch = pixels[first : first + self.batch_size]
                    mean[first : first + len(batch)] += member.share * member.probabilities(batch)
                    features += [torch.stack(seen).mean(dim=0)] if seen else []
                    seen.clear()
        if self._head is None:
            return mean, None
        return mean, torch.cat([torch.empty((0, self._head.in_features), device=self.device), *features])

    def _told(self, inputs: Inputs, decoded: Decoded, found: "_Found") -> Predicted:
        """Return the rows of a chunk."""
        probabilities, features = found.arrays()
        errors, readable = dict(decoded.errors), decoded.readable
        finite: npt.NDArray[np.bool_] = np.isfinite(probabilities.sum(axis=1))
        if not finite.all():
            reason = "the model's outputs are not finite numbers; its training diverged, or its precision is too low"
            errors |= {readable[place]: reason for place in np.flatnonzero(~finite).tolist()}
            readable = [readable[place] for place in np.flatnonzero(finite).tolist()]
            probabilities, features = probabilities[finite], None if features is None else features[finite]
        names = [inputs.name(number) for number in decoded.numbers]
        first, before = decoded.numbers.start, Counter(self._trust.counts)
        table = self._answers.table(
            names, {number - first: why for number, why in errors.items()}, probabilities, features
        )
        task, thresholds = self.model.task, self.model.first.thresholds
        decided = task.decide(probabilities, thresholds)
        given = [
            [] if unanswered else [int(row)] if decided.ndim == 1 else np.flatnonzero(row).tolist()
            for row, unanswered in zip(decided, self._trust.unanswered, strict=True)
        ]
        return Predicted(
            table.cast(self.schema),
            decoded.numbers,
            dict(zip(readable, given, strict=True)),
            errors,
            decoded.reduced,
            Counter(self._trust.counts) - before,
        )


class _Found:
    """What a network found, on its way from the device; whoever asks for it waits for no more than that.

    Args:
        probabilities: (R, classes).
        features: (R, D), if any.
    """

    def __init__(self, probabilities: Tensor, features: Tensor | None) -> None:
        self._tensors = [each.to("cpu", non_blocking=True) for each in (probabilities, features) if each is not None]
        self._there: Any = torch.cuda.Event() if probabilities.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self._there is not None:
            self._there.record()
        elif probabilities.device.type != "cpu":
            torch.accelerator.synchronize()

    def arrays(self) -> tuple[Floats, Floats | None]:
        """Return both."""
        if self._there is not None:
            self._there.synchronize()
        probabilities, *features = (each.numpy() for each in self._tensors)
        return probabilities, features[0] if features else None
