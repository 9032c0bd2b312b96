"""The part of a confusion matrix that is drawn of many classes: counted by hand, and by scikit-learn."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import confusion_matrix

from sagitta.models import task_of
from sagitta.reporting.gathering import Judged
from sagitta.reporting.matrix import MOST_CLASSES, Matrix, cells_of, matrix_of, values_of
from sagitta.reporting.plots import confusion_plot
from sagitta.reporting.results import figures_of


def judged(labels: npt.NDArray[np.int64], decided: npt.NDArray[np.int64], classes: int) -> Judged:
    """Return predictions that were decided so, each surer than the next."""
    chances = np.zeros((len(labels), classes), np.float32)
    chances[np.arange(len(labels)), decided] = np.linspace(1, 0.5, len(labels))
    names = [f"class {label}" for label in range(classes)]
    paths = [f"{row}.png" for row in range(len(labels))]
    return Judged("test", "Test", None, None, None, paths, labels, chances, decided, {}, [], task_of(False), names)


def drawn(own: Judged) -> Matrix:
    matrix = matrix_of(own)
    assert matrix is not None
    return matrix


def confused(classes: int, each: int = 20) -> Judged:
    """Return predictions in which class k < 30 is taken for class - 1 - k, min(k, 15) + 1 times of ``each``."""
    labels = np.repeat(np.arange(classes), each)
    decided = labels.copy()
    for label in range(30):
        decided[each * label : each * label + min(label, 15) + 1] = classes - 1 - label
    return judged(labels, decided, classes)


@pytest.mark.parametrize("classes", [120, 1000])
def test_a_part_holds_the_classes_of_the_worst_pairs_with_shares_of_all_images(classes: int) -> None:
    own = confused(classes)
    matrix = drawn(own)
    # Pairs 15 … 29 are the worst, 16 images each; of the others, 14 down to 10 are the next: 20 pairs, 40 classes.
    left = list(range(10, 30))
    assert matrix.classes == [*left, *(classes - 1 - label for label in reversed(left))]
    theirs = confusion_matrix(own.labels, own.decided, labels=range(classes))
    assert (matrix.counts == theirs[np.ix_(matrix.classes, matrix.classes)]).all()
    assert (matrix.there == theirs.sum(axis=1)[matrix.classes]).all()
    assert matrix.shares[5, 34] == 16 / 20 and matrix.shares[0, 39] == 11 / 20  # 15, and 10
    assert matrix.wrong == (theirs.sum() - np.trace(theirs)) == 360  # 1 + … + 15, and 15 times 16
    title = f"Part of the confusion matrix: 40 of {classes:,} classes, 305 of 360 mistakes (84.7%)"
    assert matrix.title == title and values_of(matrix)["title"] == title


def test_what_is_right_is_muted_in_a_part_and_its_worst_mistake_the_darkest() -> None:
    matrix = drawn(confused(120))
    assert np.diag(matrix.strengths).max() == 0 and matrix.strengths.max() == matrix.strengths[5, 34] == 1
    values = values_of(matrix)
    cells = [cell for row in values["cells"] for cell in row if cell is not None]
    assert {cell["look"] for cell in cells} == {"muted", "miss"} and values["darkest"] == "80%"
    assert values["cells"][0][39] == {
        "key": "10-109", "count": 11, "strength": 0.6875, "look": "miss",
        "words": "11 of 20 class 10 taken for class 109",
    }  # fmt: skip
    few = confused(60)
    few = judged(few.labels % MOST_CLASSES, few.decided % MOST_CLASSES, MOST_CLASSES)
    assert (drawn(few).strengths == drawn(few).shares).all() and drawn(few).title == "Confusion matrix"


def test_a_pair_for_which_there_is_no_room_is_passed_over_and_the_last_place_is_filled() -> None:
    pairs = [(0, 1, 50), (0, 2, 49), *((label, label + 20, 48 - label) for label in range(3, 21)), (4, 99, 1)]
    labels = np.concatenate([np.full(count, true) for true, _, count in pairs])
    decided = np.concatenate([np.full(count, taken) for _, taken, count in pairs])
    matrix = drawn(judged(labels, decided, 120))
    assert len(matrix.classes) == MOST_CLASSES and 99 in matrix.classes
    assert matrix.counts.sum() == len(labels)
    again = np.random.default_rng(0).permutation(len(labels))
    assert drawn(judged(labels[again], decided[again], 120)).classes == matrix.classes


def test_every_cell_that_can_be_chosen_has_images_the_surest_first() -> None:
    random = np.random.default_rng(0)
    own = judged(random.integers(80, size=60_000), random.integers(80, size=60_000), 80)
    matrix = drawn(own)
    cells = cells_of(own, matrix)
    shown = {cell["key"] for row in values_of(matrix)["cells"] for cell in row if cell is not None}
    assert shown <= set(cells) and sum(map(len, cells.values())) == 3000
    for key, rows in list(cells.items())[:50]:
        true, given = map(int, key.split("-"))
        there = np.flatnonzero((own.labels == true) & (own.decided == given))
        assert rows == there[: len(rows)].tolist()


def test_many_classes_without_a_mistake_have_no_matrix() -> None:
    labels = np.arange(120)
    assert matrix_of(judged(labels, labels, 120)) is None
    assert [figure.name for figure in figures_of(judged(labels, labels, 120))] == ["reliability", "coverage"]
    assert drawn(judged(np.arange(5), np.arange(5), 5)).whole


def test_a_figure_of_a_part_says_so_and_shows_mistakes_alone() -> None:
    figure = confusion_plot(drawn(confused(1000)))
    assert "40 of 1,000 classes, 305 of 360 mistakes (84.7%)" in figure.body and figure.title == figure.text
    assert figure.body.count('class="cell off"') == 20 and 'fill-opacity="0.65"' in figure.body
    assert (
        figure.body.count('class="cell"') == 40 * 39 and ">16</text>" in figure.body and ">20</text>" not in figure.body
    )
    assert figure.body.count('class="count"') == 20
    few = confusion_plot(drawn(judged(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)))
    assert few.body.count('class="cell"') == 6 and few.text == "Confusion matrix of 2 classes: 2 of 3 right"
