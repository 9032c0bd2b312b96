"""`sagitta benchmark`: one run as each format and precision on this machine, side by side; nothing of it is kept."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sagitta.errors import SagittaError
from sagitta.evaluation import Asked, Predictor, quiet
from sagitta.exporting import apart
from sagitta.exporting.export import made
from sagitta.exporting.formats import FORMATS
from sagitta.exporting.judging import Answers, Pixels, Proof, judged, told_share
from sagitta.exporting.proof import pixels_of
from sagitta.exporting.subject import Subject, opened_subject
from sagitta.models import Floats
from sagitta.pool import usable_cores
from sagitta.run import checkpoints_of
from sagitta.terminal import show, table

_HEADS = ("format", "MB", "same", "accuracy", "differs", "ms, 1", "ms, 32", "images/s")
_MANY = 32


@dataclass(frozen=True)
class Measured:
    """A format in a precision, on this machine.

    Attributes:
        format: its name; ``checkpoint`` is the run as ``predict`` computes it.
        precision: its short name; that of the prediction for the checkpoint.
        bytes: size of the model's files; None where it is not to be had.
        proof: what was found of its answers and its speed; None where it is not to be had.
        refused: why it is not to be had.
    """

    format: str
    precision: str
    bytes: int | None = None
    proof: Proof | None = None
    refused: str | None = None

    @property
    def agreement(self) -> float | None:
        """Share of the images that are decided as the checkpoint decides."""
        return None if self.proof is None else self.proof.same / self.proof.images

    @property
    def images_per_second(self) -> float | None:
        """One by one or 32 at a time, whichever is more; without reading the files."""
        return None if self.proof is None else max(1 / self.proof.one, _MANY / self.proof.many)


@dataclass(frozen=True)
class Benchmark:
    """What a run costs, and how well it answers, as each format.

    Attributes:
        rows: the checkpoint first.
        cores: on which everything but a checkpoint on another device was timed.
        device: of the checkpoint.
    """

    rows: tuple[Measured, ...]
    cores: int
    device: str

    def text(self) -> str:
        """Return a table, and what its figures are of."""
        lines = table(_HEADS, [_cells(row) for row in self.rows if row.proof is not None])
        lines += [f"{row.format} {row.precision}: {row.refused}" for row in self.rows if row.proof is None]
        proof = self.rows[0].proof
        assert proof is not None
        lines.append(
            f"same and differs: decisions, and the largest difference of a probability, against the checkpoint on "
            f"{proof.images} images ({proof.split}, and odd copies of one)"
        )
        if proof.accuracy is not None:
            lines.append(
                f"accuracy: of {proof.labelled} labelled images; the checkpoint's is {told_share(proof.accuracy)} "
                "with its 95 % interval"
            )
        where = "" if self.device == "cpu" else f"; the checkpoint on {self.device}"
        cores = f"{self.cores} {'core' if self.cores == 1 else 'cores'}"
        lines.append(f"ms: medians for an image and for 32, without reading files, on {cores}{where}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


def benchmark(run: Path, *, data: str | None = None) -> Benchmark:
    """Export a run as every format and precision into a folder that is gone afterwards, and measure each.

    Args:
        run: run directory or checkpoint file.
        data: images to compare on, other than the run's own.

    Raises:
        SagittaError: there is no such run, or no images to compare on. What one format lacks is told in its row.
    """
    whole = [(to, precision) for to, form in FORMATS.items() for precision in form.precisions]
    with quiet(), opened_subject(run, data, Path(tempfile.gettempdir())) as subject:
        show(f"1 of {len(whole) + 1}: checkpoint", sys.stderr)
        first, device = _checkpoint(subject)
        rows = [first]
        for number, (to, precision) in enumerate(whole, start=2):
            show(f"{number} of {len(whole) + 1}: {to} {precision}", sys.stderr)
            try:
                found = made(subject, to, precision)
            except SagittaError as error:
                rows.append(Measured(to, precision, refused=" ".join(str(error).split())))
            else:
                rows.append(Measured(to, precision, found.bytes, found.proof))
    return Benchmark(tuple(rows), usable_cores(), device)


def _checkpoint(subject: Subject) -> tuple[Measured, str]:
    """Return the run as ``predict`` computes it, and the device."""
    predictor = Predictor(subject.run, Asked())

    def answers(pixels: Pixels) -> Floats:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        parts = [
            sum(member.share * member.probabilities(batch) for member in predictor.members)
            for batch in torch.split(images, predictor.batch_size)
        ]
        found: Floats = torch.cat([part.cpu() for part in parts if isinstance(part, torch.Tensor)]).numpy()
        return found

    how = subject.classifier.preprocessing
    assert how is not None
    pixels = pixels_of(how, subject.photos.files, subject.photos.called)
    one, many = (apart.seconds([answers], np.resize(pixels, (count, *pixels.shape[1:]))) for count in (1, _MANY))
    found = Answers(answers(pixels), np.ones(len(pixels), np.bool_), one, many)
    proof = judged(subject.classifier, found.probabilities, found, subject.photos)
    size = sum(path.stat().st_size for path in checkpoints_of(subject.run))
    return Measured("checkpoint", str(predictor.members[0].precision), size, proof), predictor.device.type


def _cells(row: Measured) -> list[str]:
    """Return the cells of what was measured."""
    proof = row.proof
    assert proof is not None and row.bytes is not None and row.agreement is not None
    return [
        f"{row.format} {row.precision}",
        f"{row.bytes / 1e6:.1f}",
        f"{row.agreement:.1%}",
        "-" if proof.accuracy is None else f"{proof.accuracy.value:.1%}",
        f"{proof.difference:.0e}",
        f"{1e3 * proof.one:.3g}",
        f"{1e3 * proof.many:.4g}",
        f"{row.images_per_second:,.0f}",
    ]
