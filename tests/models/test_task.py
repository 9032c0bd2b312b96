"""What logits mean, of one label an image or several; MixUp and CutMix: shares as literals, repeatable by key."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from sagitta.models.ranges import ROUNDING
from sagitta.models.task import MULTI_LABEL, SINGLE_LABEL, Task, mix, task_of

GENERATOR = torch.Generator().manual_seed(0)


def test_mean_logits_have_the_mean_of_the_probabilities() -> None:
    logits = list(torch.randn(3, 5, 4, generator=GENERATOR) * 5)
    for task in (SINGLE_LABEL, MULTI_LABEL):
        first, second, third = map(task.probabilities, logits)
        found = task.probabilities(task.mean_logits(logits, [0.5, 0.3, 0.2]))
        torch.testing.assert_close(found, 0.5 * first + 0.3 * second + 0.2 * third)


def test_mean_logits_of_half_precision_lose_nothing_more() -> None:
    logits = torch.randn(5, 4, generator=GENERATOR).bfloat16()
    for task in (SINGLE_LABEL, MULTI_LABEL):
        torch.testing.assert_close(task.probabilities(task.mean_logits([logits], [1.0])), task.probabilities(logits))


def test_mean_logits_stay_finite_where_probabilities_do_not_fit_float32() -> None:
    certain = torch.tensor([[200.0, -200.0]])
    for task in (SINGLE_LABEL, MULTI_LABEL):
        assert task.mean_logits([certain, certain], [0.5, 0.5]).isfinite().all()
    torch.testing.assert_close(MULTI_LABEL.mean_logits([certain, certain], [0.5, 0.5]), certain)


def test_a_task_is_known_by_what_the_data_says() -> None:
    assert [task_of(several).words for several in (None, False, True)] == ["one label", "one label", "several labels"]


def test_a_copy_is_the_same_task() -> None:
    assert copy.deepcopy(MULTI_LABEL) == MULTI_LABEL != SINGLE_LABEL == pickle.loads(pickle.dumps(SINGLE_LABEL))


def test_decisions_have_names_and_certainty() -> None:
    probabilities, names, thresholds = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32), list("abc"), [0.5] * 3
    one = SINGLE_LABEL.decide(probabilities, thresholds)
    assert SINGLE_LABEL.names_of(one, names).to_pylist() == ["a", "c"]
    assert SINGLE_LABEL.certainty(probabilities, thresholds) == pytest.approx([0.7, 0.6])
    several = MULTI_LABEL.decide(probabilities, [0.1, 0.25, 0.9])
    assert MULTI_LABEL.names_of(several, names).to_pylist() == [["a"], ["a", "b"]]
    assert MULTI_LABEL.certainty(probabilities, [0.1, 0.25, 0.9]) == pytest.approx([0.7, 0.1])
    assert MULTI_LABEL.names_of(np.zeros((1, 3)), names).to_pylist() == [[]]


def test_two_engines_agree_where_they_decide_alike_or_either_may_be_right() -> None:
    wanted = np.array([[0.7, 0.3], [0.50002, 0.49998], [0.6, 0.4]])
    found = np.array([[0.6, 0.4], [0.49999, 0.50001], [0.4, 0.6]])
    assert ROUNDING > 0.50002 - 0.49998
    assert SINGLE_LABEL.agree(wanted, found, []).tolist() == [True, True, False]
    assert MULTI_LABEL.agree(wanted, found, [0.5, 0.5]).tolist() == [True, True, False]
    # a label at its threshold excuses no other one
    assert MULTI_LABEL.agree(wanted, found, [0.65, 0.30001]).tolist() == [False, True, True]
    assert MULTI_LABEL.agree(wanted, found, [0.60001, 0.5]).tolist() == [False, True, False]


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_values_are_those_of_the_scores(task: Task) -> None:
    probabilities = task.probabilities(torch.randn(60, 12, generator=GENERATOR))
    labels = torch.rand(60, 12, generator=GENERATOR) > 0.7 if task.multilabel else torch.arange(60) % 12
    scores, _ = task.scores(probabilities.numpy(), labels.numpy(), list("abcdefghijkl"), [0.4] * 12)
    values = task.values(probabilities, labels, [0.4] * 12)
    assert values == {name: scores[name].value for name in values} and len(values) == 3


LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def images(count: int = 7) -> Tensor:
    """Image number i is all i + 1."""
    return torch.ones(count, 3, 8, 10) * torch.arange(1, count + 1).view(-1, 1, 1, 1)


def test_mixup_adds_neighbours_in_the_share_of_their_labels() -> None:
    mixed, targets = mix(images(), LABELS, 3, mixup=1.0, cutmix=0.0, key=(0, 0, 0))
    share = float(targets[0, 0])
    assert 0 < share < 1 and targets.dtype == torch.float32
    torch.testing.assert_close(targets[:2], torch.tensor([[share, 1 - share, 0], [1 - share, share, 0]]))
    torch.testing.assert_close(mixed[0], torch.full((3, 8, 10), share * 1 + (1 - share) * 2))
    torch.testing.assert_close(mixed[3], torch.full((3, 8, 10), share * 4 + (1 - share) * 3))
    assert (mixed[6] == 7).all() and targets[6].tolist() == [1, 0, 0]  # alone


@pytest.mark.parametrize("batch", range(20))
def test_cutmix_puts_a_box_of_the_neighbour_in_the_share_of_its_label(batch: int) -> None:
    mixed, targets = mix(images(), LABELS, 3, mixup=0.0, cutmix=1.0, key=(0, 0, batch))
    other = mixed[0, 0] == 2
    assert set(mixed[0].flatten().tolist()) <= {1.0, 2.0}
    assert float(targets[0, 1]) == pytest.approx(float(other.float().mean()), abs=1e-6)
    assert int(other.sum()) == int(other.any(dim=1).sum() * other.any(dim=0).sum())  # a box
    assert ((mixed[1, 0] == 1) == other).all()


def test_a_batch_is_mixed_by_its_key() -> None:
    first, second, other = (mix(images(), LABELS, 3, mixup=0.2, cutmix=1.0, key=(1, 2, n))[0] for n in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("batch", range(4))
def test_ranks_mix_as_one_process(batch: int) -> None:
    settings = {"mixup": 0.2, "cutmix": 1.0}
    whole = mix(images(6), LABELS[:6], 3, key=(1, 0, batch), **settings)
    parts = [
        mix(images(6)[half], LABELS[:6][half], 3, key=(1, 0, batch), **settings) for half in (slice(4), slice(4, 6))
    ]
    for one, several in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(one, torch.cat(several))


def test_several_labels_a_row_are_mixed_too() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    _, targets = mix(images(2), labels, 3, mixup=1.0, cutmix=0.0, key=(0,))
    assert targets[:, 1].tolist() == [1, 1] and targets[:, 2].tolist() == [0, 0]
    assert float(targets[:, 0].sum()) == pytest.approx(1)


def test_off_means_off() -> None:
    mixed, targets = mix(images(), LABELS, 3, mixup=0.0, cutmix=0.0, key=(0,))
    assert torch.equal(mixed, images()) and targets.argmax(dim=1).tolist() == LABELS.tolist()
