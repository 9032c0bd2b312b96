import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagitta.errors import ConfigError
from sagitta.loading.draws import permute, uniform
from sagitta.loading.plan import Balanced, Plan

settings.register_profile("plan", deadline=None, max_examples=60)  # deadline: a busy machine is not a bug
settings.load_profile("plan")

sizes = st.integers(1, 700)
worlds = st.integers(1, 8)


def test_training_layout() -> None:
    plan = Plan(rows=10, global_batch=4, shuffle=False)
    layout = [[plan.batch_rows(0, batch, rank, 2).tolist() for rank in range(2)] for batch in range(plan.batches(2))]
    assert layout == [
        # rank 0, rank 1
        [[0, 1], [2, 3]],  # batch 0
        [[4, 5], [6, 7]],  # batch 1; rows 8 and 9 are the tail, dropped
    ]


def test_training_layout_with_uneven_ranks() -> None:
    plan = Plan(rows=16, global_batch=8, shuffle=False)
    layout = [[plan.batch_rows(0, batch, rank, 3).tolist() for rank in range(3)] for batch in range(plan.batches(3))]
    assert layout == [
        # rank 0, rank 1, rank 2
        [[0, 1, 2], [3, 4, 5], [6, 7]],  # batch 0
        [[8, 9, 10], [11, 12, 13], [14, 15]],  # batch 1
    ]


def test_evaluation_layout_spreads_the_tail() -> None:
    plan = Plan(rows=10, global_batch=4, shuffle=False, drop_last=False)
    layout = [[plan.batch_rows(0, batch, rank, 2).tolist() for rank in range(2)] for batch in range(plan.batches(2))]
    assert layout == [
        # rank 0, rank 1
        [[0, 1], [2, 3]],  # batch 0
        [[4, 5], [6]],  # batch 1
        [[7, 8], [9]],  # batch 2
    ]


def test_evaluation_layout_of_one_image_a_rank() -> None:
    plan = Plan(rows=7, global_batch=3, shuffle=False, drop_last=False)
    layout = [[plan.batch_rows(0, batch, rank, 3).tolist() for rank in range(3)] for batch in range(plan.batches(3))]
    assert layout == [
        # rank 0, rank 1, rank 2
        [[0, 1], [2], [3]],  # batch 0
        [[4], [5], [6]],  # batch 1
    ]


def test_block_shuffle_layout() -> None:
    plan = Plan(rows=10, global_batch=10, seed=1, block=4)
    assert [row // 4 for row in plan.batch_rows(0, 0)] == [2, 2, 1, 1, 1, 1, 0, 0, 0, 0]
    assert plan.batch_rows(0, 0).tolist() == [8, 9, 5, 7, 4, 6, 0, 1, 2, 3]


@pytest.mark.parametrize("drop_last", [True, False])
def test_a_set_smaller_than_a_batch_is_one_batch(drop_last: bool) -> None:
    plan = Plan(rows=3, global_batch=64, drop_last=drop_last)
    assert plan.batches() == 1
    assert sorted(plan.batch_rows(0, 0)) == [0, 1, 2]


@pytest.mark.parametrize("drop_last", [True, False])
def test_an_empty_set_has_no_batches(drop_last: bool) -> None:
    assert Plan(rows=0, global_batch=4, drop_last=drop_last).batches(2) == 0


@given(
    rows=sizes,
    batch=st.integers(1, 80),
    world=worlds,
    epoch=st.integers(0, 5),
    seed=st.integers(-5, 2**40),
    block=st.none() | sizes,
)
def test_training_covers_each_row_at_most_once(
    rows: int, batch: int, world: int, epoch: int, seed: int, block: int | None
) -> None:
    plan = Plan(rows, batch * world, seed, block=block)
    seen = np.concatenate(
        [plan.batch_rows(epoch, b, r, world) for b in range(plan.batches(world)) for r in range(world)]
    )
    assert seen.dtype == np.int64
    assert len(np.unique(seen)) == len(seen)
    assert 0 <= seen.min() <= seen.max() < rows
    assert rows - len(seen) < batch * world
    assert len(seen) == rows or len(seen) % (batch * world) == 0


@given(rows=sizes, batch=st.integers(1, 80), world=worlds, shuffle=st.booleans())
def test_evaluation_covers_every_row_once_without_empty_slices(
    rows: int, batch: int, world: int, shuffle: bool
) -> None:
    plan = Plan(rows, batch * world, shuffle=shuffle, drop_last=False)
    slices = [[plan.batch_rows(0, b, r, world) for r in range(world)] for b in range(plan.batches(world))]
    assert sorted(np.concatenate([part for ranks in slices for part in ranks])) == list(range(rows))
    lengths = [len(rank) for ranks in slices for rank in ranks]
    assert rows < world or min(lengths) >= 1
    assert max(lengths) <= max(batch, 2)
    if batch >= 2:
        assert plan.batches(world) == math.ceil(rows / (batch * world)) or rows < world


@given(
    rows=sizes,
    batch=st.integers(8, 80),
    epoch=st.integers(0, 3),
    drop_last=st.booleans(),
    block=st.none() | sizes,
)
def test_the_world_size_changes_nothing_but_who_gets_what(
    rows: int, batch: int, epoch: int, drop_last: bool, block: int | None
) -> None:
    plan = Plan(rows, batch, seed=3, drop_last=drop_last, block=block)
    for number in range(plan.batches()):
        whole = plan.batch_rows(epoch, number)
        for world in (2, 3, 4):
            assert plan.batches(world) == plan.batches()
            assert np.array_equal(
                whole, np.concatenate([plan.batch_rows(epoch, number, r, world) for r in range(world)])
            )


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation_and_inverts(size: int, key: int) -> None:
    positions = np.arange(size)
    keys = np.array([key], np.uint64)
    image = permute(positions, size, keys)
    assert np.array_equal(np.sort(image), positions)
    assert np.array_equal(permute(image, size, keys, inverse=True), positions)


def test_permute_needs_no_memory_for_a_huge_set() -> None:
    image = permute(np.arange(1000) * 10**14, 10**17 + 3, np.array([5], np.uint64))
    assert len(np.unique(image)) == 1000
    assert 0 <= image.min() <= image.max() < 10**17 + 3
    assert np.array_equal(permute(image, 10**17 + 3, np.array([5], np.uint64), inverse=True), np.arange(1000) * 10**14)


@pytest.mark.parametrize("rows", [2, 3, 4, 5])
def test_every_order_of_a_tiny_set_is_equally_likely(rows: int) -> None:
    keys = uniform(0, 0, np.arange(24_000), 0, 1)[:, 0].view(np.uint64)
    orders = np.stack([permute(np.full(len(keys), position), rows, keys) for position in range(rows)], axis=1)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == math.factorial(rows)
    assert chi_square_excess(counts) < 4


@pytest.mark.parametrize("rows", [9, 100, 1000, 1003])
def test_where_a_row_goes_and_what_follows_it_is_uniform(rows: int) -> None:
    keys = uniform(1, 0, np.arange(40_000), 0, 1)[:, 0].view(np.uint64)
    first, second = (permute(np.full(len(keys), position), rows, keys) for position in (0, 1))
    assert chi_square_excess(np.bincount(first, minlength=rows)) < 4
    assert chi_square_excess(np.bincount((second - first) % rows, minlength=rows)[1:]) < 4


def test_epochs_and_seeds_have_unrelated_orders() -> None:
    orders = [Plan(5000, 5000, seed).batch_rows(epoch, 0) for seed in (0, 1) for epoch in (0, 1)]
    for index, one in enumerate(orders):
        assert abs(np.corrcoef(one, np.arange(5000))[0, 1]) < 0.05
        for other in orders[:index]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
            assert (one == other).sum() < 12  # of two random orders: 1 on average


def test_the_tail_that_training_drops_differs_each_epoch() -> None:
    plan = Plan(rows=10, global_batch=8)
    dropped = {frozenset(range(10)) - frozenset(plan.batch_rows(epoch, 0).tolist()) for epoch in range(200)}
    assert len(dropped) > 35  # of 45 pairs


@given(rows=st.integers(1, 300), block=st.integers(1, 320), epoch=st.integers(0, 50))
def test_block_shuffle_keeps_blocks_together(rows: int, block: int, epoch: int) -> None:
    order = Plan(rows, rows, seed=9, block=block).batch_rows(epoch, 0)
    assert sorted(order) == list(range(rows))
    changes = np.count_nonzero(np.diff(order // block))
    assert changes == math.ceil(rows / block) - 1


def test_golden_values() -> None:
    assert uniform(0, 0, np.array([0, 1]), 0, 2).tolist() == [
        [0.8124106380003295, 0.48912775193309554],
        [0.9931490891416284, 0.19751282746149712],
    ]
    assert Plan(10, 10).batch_rows(0, 0).tolist() == [6, 8, 4, 7, 3, 5, 9, 0, 2, 1]


def test_uniform_depends_on_each_argument_and_on_nothing_else() -> None:
    rows = np.arange(1000)
    base = uniform(1, 2, rows, 3, 4)
    assert base.shape == (1000, 4)
    assert np.array_equal(base[::-1], uniform(1, 2, rows[::-1], 3, 4))
    assert np.array_equal(base[:, :2], uniform(1, 2, rows, 3, 2))
    others = [
        uniform(9, 2, rows, 3, 4),
        uniform(1, 9, rows, 3, 4),
        uniform(1, 2, rows + 1000, 3, 4),
        uniform(1, 2, rows, 9, 4),
    ]
    others += [
        uniform(2, 1, rows, 3, 4),
        uniform(1, 3, rows, 2, 4),
        np.roll(base, 1, axis=1),
        np.roll(base, 1, axis=0),
    ]
    for other in others:
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.07


def test_uniform_is_uniform() -> None:
    numbers = uniform(7, 0, np.arange(20_000), 1, 5)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        assert chi_square_excess(np.bincount((column * 100).astype(int), minlength=100)) < 4
    pairs = (numbers[:, 0] * 10).astype(int) * 10 + (numbers[:, 1] * 10).astype(int)
    assert chi_square_excess(np.bincount(pairs, minlength=100)) < 4


@pytest.mark.parametrize(("rows", "batch", "block"), [(-1, 2, None), (4, 0, None), (4, 2, 0)])
def test_numbers_out_of_range_are_refused(rows: int, batch: int, block: int | None) -> None:
    with pytest.raises(ConfigError, match="must be at least"):
        Plan(rows, batch, block=block)


def test_a_batch_or_rank_that_does_not_exist_is_refused() -> None:
    with pytest.raises(IndexError, match="batch 2 of 2"):
        Plan(4, 2).batch_rows(0, 2)
    with pytest.raises(IndexError, match="rank 2 of 2"):
        Plan(4, 2).batch_rows(0, 0, 2, 2)
    with pytest.raises(ConfigError, match="below the 3 processes"):
        Plan(4, 2).batch_rows(0, 0, 0, 3)


def chi_square_excess(counts: np.ndarray) -> float:
    """Return how many standard deviations the chi-square statistic of equal counts lies above its mean."""
    expected = counts.sum() / len(counts)
    freedom = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


def test_balanced_layout() -> None:
    balanced = Balanced(np.array([1, 0, 0, 0, 0, 0, 0, 1]), seed=0)  # six rows of class 0, two of class 1
    epochs = [balanced.keys(np.arange(8), epoch).tolist() for epoch in range(3)]
    assert [[key % 8 for key in keys] for keys in epochs] == [
        # even places: class 0; odd places: class 1
        [5, 0, 2, 7, 4, 7, 6, 0],
        [3, 0, 1, 7, 1, 7, 3, 0],
        [4, 7, 6, 0, 2, 7, 5, 0],
    ]
    assert [[key // 8 for key in keys] for keys in epochs] == [
        [0, 0, 0, 0, 0, 1, 0, 1],
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 1, 0, 1],
    ]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 5), st.integers(0, 9))
def test_balanced_classes_have_equal_shares_and_no_row_comes_twice_before_all_came_once(
    labels: list[int], seed: int, first: int
) -> None:
    label, places = np.array(labels), np.arange(len(labels))
    balanced, classes = Balanced(label, seed), np.unique(label)
    for epoch in range(first, first + 2):
        keys = balanced.keys(places, epoch)
        shares = [(label[keys % len(label)] == each).sum() for each in classes]
        assert sum(shares) == len(label) and max(shares) - min(shares) <= 1
        assert len(np.unique(keys)) == len(keys)
    rows = np.concatenate([balanced.keys(places, epoch) % len(label) for epoch in range(6)])
    for each in classes:
        shown = np.bincount(rows, minlength=len(label))[label == each]
        assert shown.max() - shown.min() <= 1


def test_balanced_keys_are_a_function_of_place_and_epoch() -> None:
    balanced = Balanced(np.arange(90) % 7, seed=3)
    whole = balanced.keys(np.arange(90), 4)
    assert (balanced.keys(np.array([80, 3, 41]), 4) == whole[[80, 3, 41]]).all()
    assert (Balanced(np.arange(90) % 7, seed=4).keys(np.arange(90), 4) != whole).mean() > 0.8


def test_balanced_refuses_several_labels_a_row() -> None:
    with pytest.raises(ConfigError, match="one label a row"):
        Balanced(np.zeros((4, 3)), seed=0)
