"""Whether an exported model is as good as its checkpoint, by what both answer: decisions, probabilities, and speed.

Of 32 and 16 bits every decision must be the checkpoint's, and every probability near to its own; int8 moves both, so
what counts is how many of the labelled images it gets right, and that it is faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sagitta.errors import SagittaError
from sagitta.exporting.precision import CLOSE, FASTER, INT8, LOST
from sagitta.models import Classifier, Estimate, Floats, task_of, wilson_interval
from sagitta.pool import usable_cores

Pixels = npt.NDArray[np.uint8]


class Photos(NamedTuple):
    """Image files to compare on.

    Attributes:
        split: that they are of.
        files: of them.
        called: what to call each.
        labels: of the first ones, those that are no odd copies, as the model numbers its classes: (L,), or
            (L, classes); None where the data has others.
    """

    split: str
    files: list[Path]
    called: list[str]
    labels: npt.NDArray[Any] | None


class Answers(NamedTuple):
    """What an exported model says.

    Attributes:
        probabilities: (N, classes) float32.
        counts: (N,) which images it is given as Sagitta is.
        one: seconds for a single image; behind it, where there is one, those of a model that it was timed against.
        many: likewise for 32.
        pixels: (N, H, W, C) uint8 that it was given; None where they are not bytes.
    """

    probabilities: Floats
    counts: npt.NDArray[np.bool_]
    one: list[float]
    many: list[float]
    pixels: Pixels | None = None


class ExportError(SagittaError):
    """What was exported does not answer as the checkpoint does; nothing of it is kept."""


@dataclass(frozen=True)
class Proof:
    """What was compared, and how fast the exported model is.

    Attributes:
        images: how many.
        split: that they are of.
        same: how many have the same decision.
        difference: the largest, of a probability.
        one: seconds for a single image.
        many: seconds for 32.
        cores: on which.
        labelled: of the images, those whose labels are known, which are no odd copies.
        accuracy: share of these that the exported model gets right, all labels of each; None where there are none.
        before: likewise of the checkpoint.
        plain: seconds of float32 in the same format, in turns with the model, for one and for 32; None where it was
            not timed.
    """

    images: int
    split: str
    same: int
    difference: float
    one: float
    many: float
    cores: int
    labelled: int = 0
    accuracy: Estimate | None = None
    before: Estimate | None = None
    plain: tuple[float, float] | None = None

    @property
    def gains(self) -> tuple[float, float] | None:
        """How many times as fast as float32 it is, for one image and for 32."""
        return None if self.plain is None else (self.plain[0] / self.one, self.plain[1] / self.many)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        found: dict[str, Any] = {
            "images": self.images,
            "split": self.split,
            "same_decision": self.same,
            "largest_difference": self.difference,
            "milliseconds_batch_1": round(1e3 * self.one, 3),
            "milliseconds_batch_32": round(1e3 * self.many, 3),
            "cores": self.cores,
            "labelled_images": self.labelled,
        }
        for name, estimate in (("accuracy", self.accuracy), ("accuracy_of_checkpoint", self.before)):
            found[name] = None if estimate is None else [estimate.value, estimate.low, estimate.high]
        if self.plain is not None:
            found["float32_milliseconds_batch_1"], found["float32_milliseconds_batch_32"] = (
                round(1e3 * seconds, 3) for seconds in self.plain
            )
        return found


def compared(classifier: Classifier, wanted: Floats, found: Answers, photos: Photos, precision: str) -> Proof:
    """Return the proof that answers are equal, as far as a precision allows.

    Args:
        classifier: the checkpoint's.
        wanted: (N, classes) probabilities of it.
        found: of the exported model.
        photos: they are of.
        precision: of the exported model.

    Raises:
        ExportError: they are not; it names the image.
    """
    answers = found.probabilities
    if wanted.shape != answers.shape or not np.isfinite(answers).all():
        raise ExportError(f"the exported model answers {answers.shape} numbers, not all finite ones of {wanted.shape}")
    proof = judged(classifier, wanted, found, photos)
    if precision == INT8:
        _check_int8(proof)
    else:
        wrong = found.counts & ~classifier.task.agree(wanted, answers, classifier.thresholds)
        _check_answers(_differences(wanted, found), wrong, photos.called, CLOSE[precision])
    return proof


def judged(classifier: Classifier, wanted: Floats, found: Answers, photos: Photos) -> Proof:
    """Return what is found of answers, whatever it is.

    Args:
        classifier: the checkpoint's.
        wanted: (N, classes) probabilities of it.
        found: of the model that is judged.
        photos: they are of.
    """
    labels, counts = photos.labels, found.counts
    known = np.empty(0, np.int64) if labels is None else np.flatnonzero(counts[: len(labels)])
    return Proof(
        int(counts.sum()),
        photos.split,
        int((_same(classifier, wanted, found.probabilities) & counts).sum()),
        float(_differences(wanted, found).max()),
        found.one[0],
        found.many[0],
        usable_cores(),
        len(known),
        _accuracy(classifier, found.probabilities, labels, known),
        _accuracy(classifier, wanted, labels, known),
        (found.one[1], found.many[1]) if found.one[1:] else None,
    )


def _decisions(classifier: Classifier, probabilities: Floats) -> npt.NDArray[Any]:
    return task_of(classifier.multilabel).decide(probabilities, classifier.thresholds)


def _equal(decided: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which rows are equal, (N,), of decisions or labels (N,), or (N, classes)."""
    equal: npt.NDArray[np.bool_] = (decided == others).reshape(len(decided), -1).all(axis=1)
    return equal


def _same(classifier: Classifier, wanted: Floats, found: Floats) -> npt.NDArray[np.bool_]:
    return _equal(_decisions(classifier, wanted), _decisions(classifier, found))


def _differences(wanted: Floats, found: Answers) -> Floats:
    """Return the largest difference of a probability of each image (N,), 0 of those that do not count."""
    return np.where(found.counts, np.abs(wanted - found.probabilities).max(axis=1), 0)


def _accuracy(
    classifier: Classifier, probabilities: Floats, labels: npt.NDArray[Any] | None, rows: npt.NDArray[np.int64]
) -> Estimate | None:
    """Return the share of rows that are right, all labels of each; None where there are none."""
    if labels is None or not len(rows):
        return None
    right = int(_equal(_decisions(classifier, probabilities[rows]), labels[rows]).sum())
    return Estimate(right / len(rows), *wilson_interval(right, len(rows)))


def _check_answers(difference: Floats, wrong: npt.NDArray[np.bool_], called: Sequence[str], close: float) -> None:
    """Refuse other decisions (N,), and probabilities that are too far off (N,)."""
    worst = int(difference.argmax())
    if difference[worst] > close:
        raise ExportError(
            f"{called[worst]}: a probability of the exported model is {difference[worst]:.2g} off, more than {close:g}"
        )
    if wrong.any():
        raise ExportError(f"{called[int(wrong.argmax())]}: the exported model decides otherwise")


def _check_int8(proof: Proof) -> None:
    """Refuse int8 that gets more images wrong, or is not worth it."""
    now, before = proof.accuracy, proof.before
    if now is None or before is None:
        raise ExportError(
            "int8 is judged by labels, and these images have none of the model's classes; name other --data"
        )
    if before.value - now.value > LOST + 1e-9:
        raise ExportError(
            f"int8 gets {told_share(now)} of {proof.labelled} labelled images right, the checkpoint "
            f"{told_share(before)}: more than {LOST:.1%} are lost; --precision 16 keeps them"
        )
    if proof.plain is not None and proof.gains is not None and min(proof.gains) < FASTER:
        raise ExportError(f"int8 is not {FASTER:g} times as fast as float32 here: {told_gains(proof)}")


def told_share(share: Estimate) -> str:
    """Return a share with its interval, for people."""
    return f"{share.value:.1%} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def told_gains(proof: Proof) -> str:
    """Return how much faster a model is than in float32, for people."""
    assert proof.plain is not None and proof.gains is not None
    parts = [
        f"{what} {1e3 * before:.3g} ms before, {1e3 * now:.3g} ms now ({gain:.2f} times)"
        for what, before, now, gain in zip(
            ("an image", "32"), proof.plain, (proof.one, proof.many), proof.gains, strict=True
        )
    ]
    return f"{', '.join(parts)}, on {proof.cores} {'core' if proof.cores == 1 else 'cores'}"
