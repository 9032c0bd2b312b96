"""What counts as equal, and when int8 is worth it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sagitta.exporting import ExportError
from sagitta.exporting.judging import Answers, Photos, Proof, compared
from sagitta.models import Classifier

WANTED = np.array([[0.6, 0.4], [0.50003, 0.49997]], np.float32)


def compare(
    wanted: npt.NDArray[np.float32],
    found: npt.NDArray[np.float32],
    precision: str = "32",
    seconds: tuple[float, float] = (1.0, 1.0),
    labels: npt.NDArray[np.int64] | None = None,
) -> Proof:
    """Compare two classes; seconds are of one image, of the model and of float32."""
    classifier = Classifier("simple-cnn", num_classes=2)
    answers = Answers(found.astype(np.float32), np.ones(len(found), np.bool_), list(seconds), [1.0, 2.0])
    names = [chr(97 + number) for number in range(len(found))]
    return compared(
        classifier, wanted, answers, Photos("val", [Path(name) for name in names], names, labels), precision
    )


def test_what_counts_as_equal() -> None:
    near = WANTED + np.array([[5e-5, -5e-5], [-5e-5, 5e-5]], np.float32)  # the second decides otherwise, by a hair
    assert compare(WANTED, near).same == 1
    with pytest.raises(ExportError, match=r"b: a probability .* is 0\.001 off"):
        compare(WANTED, WANTED + np.array([[0], [1e-3]], np.float32))
    wide = np.array([[0.9, 0.1], [0.50008, 0.49992]], np.float32)
    moved = wide + np.array([[0, 0], [-9e-5, 9e-5]], np.float32)
    with pytest.raises(ExportError, match="b: the exported model decides otherwise"):
        compare(wide, moved)
    with pytest.raises(ExportError, match="not all finite"):
        compare(WANTED, WANTED * np.nan)


@pytest.mark.parametrize("precision", ["16", "bf16"])
def test_of_16_bits_probabilities_may_be_further_off_but_decisions_may_not(precision: str) -> None:
    near = WANTED + np.array([[9e-3, -9e-3], [9e-3, -9e-3]], np.float32)
    assert compare(WANTED, near, precision).same == 2
    with pytest.raises(ExportError, match=r"a: a probability .* is 0\.02 off, more than 0\.01"):
        compare(WANTED, WANTED + np.array([[0.02], [0]], np.float32), precision)
    wide = np.array([[0.503, 0.497]], np.float32)
    with pytest.raises(ExportError, match="a: the exported model decides otherwise"):
        compare(wide, wide[:, ::-1], precision)


def test_int8_may_answer_otherwise_but_loses_no_image_of_200_and_is_faster() -> None:
    wanted = np.tile(np.array([[0.9, 0.1]], np.float32), (200, 1))
    labels = np.zeros(200, np.int64)
    labels[0] = 1  # the checkpoint is wrong
    other = wanted.copy()
    other[[0, 1]] = other[[0, 1], ::-1]  # one more right, one more wrong
    proof = compare(wanted, other, "int8", (1.0, 1.4), labels)
    assert proof.same == 198 and proof.labelled == 200 and proof.accuracy == proof.before
    assert proof.accuracy is not None and proof.accuracy.value == 0.995 and 0.97 < proof.accuracy.low < 0.98
    assert proof.gains == (1.4, 2.0) and proof.plain == (1.4, 2.0)
    with pytest.raises(ExportError, match=r"not 1\.3 times as fast .* an image 1\.2e\+03 ms .* \(1\.20 times\)"):
        compare(wanted, other, "int8", (1.0, 1.2), labels)
    other[2] = other[2, ::-1]
    with pytest.raises(
        ExportError, match=r"int8 gets 99\.0% \(96\.4 to 99\.7\) of 200 labelled images right, the check"
    ):
        compare(wanted, other, "int8", (1.0, 1.4), labels)
    with pytest.raises(ExportError, match="these images have none of the model's classes"):
        compare(wanted, other, "int8", (1.0, 1.4), None)
