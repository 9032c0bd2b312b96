"""Runs and checkpoints served by torch: what `sagitta predict` says, by the same code, and heat maps."""

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sagitta.errors import ConfigError, ImageError
from sagitta.evaluation import Asked, Inputs, Predictor, heat_maps, heated
from sagitta.exporting import specification
from sagitta.run import read_record, run_of
from sagitta.serving.engine import Crop, Floats, Found, Named, Wanted, checked_header

_LARGEST = 224  # pixels a side of a heat map


class Trained:
    """A run's best checkpoint, a checkpoint, or the members of a run; see :class:`sagitta.serving.engine.Engine`.

    Raises:
        ConfigError: as :class:`sagitta.evaluation.Predictor` does.
    """

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self._tap, self._lock, self._pixels = _Tap(), threading.Lock(), wanted.pixels
        asked = Asked(top_k=1, device=wanted.device, accuracy=wanted.accuracy, coverage=wanted.coverage)
        self._predictor = Predictor(path, asked, (self._tap,))
        model = self._predictor.model
        first = model.first
        how = first.preprocessing
        assert how is not None
        self.kind = f"torch on {self._predictor.device.type}"
        self.names: Sequence[str] = model.class_names
        self.thresholds: Sequence[float] | None = first.thresholds if model.task.multilabel else None
        self._crop = Crop.of(specification(how), wanted.pixels)
        folder = run_of(path)
        record = {} if folder is None else read_record(folder)
        further = [name for name in self._predictor.schema.names if name in ("abstain", "set", "unfamiliar")]
        self._further = further
        self.about: Mapping[str, Any] = {
            "network": first.name,
            "sagitta": record.get("versions", {}).get("sagitta"),
            "result": record.get("result"),
            "calibration": record.get("calibration"),
            "input": [*how.size, how.channels],
            "deep": self._crop.reduction is not None,
            "abstention": "there" if "abstain" in further or "set" in further else "not asked for",
            "unfamiliar": "there" if "unfamiliar" in further else "not there",
            "heat_maps": len(model.parts) == 1,
        }

    def answer(self, images: Sequence[Named]) -> Found:
        """Return what `sagitta predict` says of images."""
        errors: dict[int, str] = {}
        places: list[int] = []
        for place, image in enumerate(images):
            try:
                checked_header(image.data, self._pixels)
                places.append(place)
            except ImageError as error:
                errors[place] = str(error)
        further: dict[str, list[Any]] = {name: [] for name in self._further}
        with self._lock:
            self._tap.seen.clear()
            part = _InMemory(tuple(images[place] for place in places))
            for chunk in self._predictor.predict(Inputs((part,))) if places else ():
                errors |= {places[number]: reason for number, reason in chunk.errors.items()}
                readable = [number not in chunk.errors for number in chunk.numbers]
                for name, values in further.items():
                    column = chunk.table.column(name).to_pylist()
                    values += [value for value, kept in zip(column, readable, strict=True) if kept]
            found = np.concatenate([np.empty((0, len(self.names)), np.float32), *self._tap.seen])
        return Found(found, errors, further)

    def heat(self, image: Named, label: int | None) -> bytes:
        """Return a PNG of an image's crop, in grey under its heat map."""
        classifier = self._predictor.model.first
        if len(self._predictor.model.parts) > 1:
            raise ConfigError("its members read images in different ways, so there is no single heat map")
        pixels, errors = self._crop([image])
        if errors:
            raise ImageError(errors[0])
        how = classifier.preprocessing
        assert how is not None
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        with self._lock:
            if label is None:
                label = int(self._predictor.members[0].probabilities(images)[0].argmax())
            (heat,) = heat_maps(classifier, how.normalize(images), [label])
        shown = Image.fromarray(pixels[0].squeeze(2) if pixels.shape[3] == 1 else pixels[0])
        buffer = io.BytesIO()
        made = heated(shown, heat)
        if max(made.size) < _LARGEST:
            factor = _LARGEST // max(made.size)
            made = made.resize((made.width * factor, made.height * factor), Image.Resampling.NEAREST)
        made.save(buffer, "PNG")
        return buffer.getvalue()


class _Tap:
    """Takes note of the probabilities of each batch, and adds no column."""

    needs_features = False

    def __init__(self) -> None:
        self.seen: list[Floats] = []

    def __call__(self, probabilities: Floats, features: Floats | None) -> Mapping[str, Any]:
        self.seen.append(probabilities)
        return {}


@dataclass(frozen=True)
class _InMemory:
    """Images that a client sent, as a part of what is predicted."""

    images: Sequence[Named]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, number: int) -> bytes:
        return self.images[number].data

    def is_reduced(self, number: int) -> bool:
        return False

    def name(self, number: int) -> str:
        return self.images[number].name

    def file(self, number: int) -> Path | None:
        return None

    def identity(self) -> Iterator[list[Any]]:
        return iter(())
