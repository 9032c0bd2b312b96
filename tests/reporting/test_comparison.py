"""Paired tests against values from the literature's formulas, and rows that are not the same."""

from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from sagitta.reporting.comparison import compare, difference, disagreements, matched, mcnemar
from sagitta.reporting.gathering import Judged, gather
from sagitta.reporting.pictures import open_shelf
from tests.reporting import runs


def test_mcnemar_is_the_exact_binomial_test() -> None:
    both = 2 * sum(comb(12, k) for k in range(3)) / 2**12  # 2 against 10, by hand
    assert mcnemar(2, 10) == pytest.approx(both) == pytest.approx(mcnemar(10, 2))
    assert mcnemar(0, 0) == 1.0


def test_each_two_models_are_paired() -> None:
    right = [np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool), np.array([1, 1, 1, 0], bool)]
    pairs = compare(right, [np.array([0.1, 0.2, 1.0, 2.0])] * 3)
    assert [(each.first, each.second) for each in pairs] == [(0, 1), (0, 2), (1, 2)]
    first = pairs[0]
    assert (first.both, first.only_first, first.only_second, first.neither) == (1, 1, 1, 1)
    assert first.accuracy.value == 0 and first.loss.value == 0 == first.loss.low == first.loss.high
    assert pairs[1].accuracy.value == 0.25


def test_the_interval_of_a_difference_holds_what_theory_says() -> None:
    paired = np.random.default_rng(1).normal(0.3, 1.0, 400)
    found, half = difference(paired), 1.96 * paired.std() / 20
    assert found.low == pytest.approx(paired.mean() - half, abs=0.02)
    assert found.high == pytest.approx(paired.mean() + half, abs=0.02)
    few = difference(np.repeat([1.0, 0.0, -1.0], [30, 60, 10]))
    assert few.value == pytest.approx(0.2) and few.low == pytest.approx(0.08, abs=0.02)


def test_the_interval_of_a_difference_is_that_of_resampled_pairs() -> None:
    """Rows are drawn with both results: apart, the interval of two models that mostly agree would be much wider."""
    random = np.random.default_rng(2)
    right = random.random((2, 300)) < 0.7
    right[1, :270] = right[0, :270]
    losses = random.gamma(1.0, size=300), random.gamma(1.2, size=300)
    (pair,) = compare(list(right), list(losses))
    draws = random.integers(300, size=(40_000, 300))
    for found, paired in ((pair.accuracy, right[1] * 1.0 - right[0]), (pair.loss, losses[1] - losses[0])):
        low, high = np.percentile(paired[draws].mean(axis=1), (2.5, 97.5))
        assert found.value == pytest.approx(paired.mean())
        assert [found.low, found.high] == pytest.approx([low, high], abs=0.06 * (high - low))
    assert pair.p == pytest.approx(binomtest(pair.only_first, pair.only_first + pair.only_second).pvalue)
    alone = right[1][draws].mean(axis=1) - right[0][draws[::-1]].mean(axis=1)
    assert np.ptp(np.percentile(alone, (2.5, 97.5))) > 2 * (pair.accuracy.high - pair.accuracy.low)


def test_where_models_disagree_the_surest_come_first() -> None:
    right = [np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)]
    sure = [np.array([0.9, 0.5, 0.6, 0.9]), np.array([0.9, 0.6, 0.99, 0.9])]
    assert disagreements(right, sure, 9).tolist() == [2, 1]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[Judged]:
    work = tmp_path_factory.mktemp("comparison")
    data = runs.dataset(work / "data", ("a", "b"), each=30)
    return [gather(runs.run_of(work / name, data, seed=seed)).judged[0] for seed, name in enumerate("xy")]


def test_rows_are_matched_by_their_paths_in_any_order(judged: list[Judged]) -> None:
    first, second = judged
    turned = Judged(**{**vars(second), "paths": second.paths[::-1], "labels": second.labels[::-1]})
    found, why = matched([first, turned], [None, None])
    assert found is not None and not why and found.left == [0, 0]
    assert [first.paths[i] for i in found.orders[0]] == [turned.paths[i] for i in found.orders[1]]


def rows_of(judged: Judged, rows: list[int], **fields: Any) -> Judged:
    """Return some rows of predictions."""
    own = {name: getattr(judged, name)[rows] for name in ("labels", "probabilities", "decided")}
    return Judged(**{**vars(judged), **own, "paths": [judged.paths[row] for row in rows], **fields})


def test_rows_that_not_all_models_have_are_left_out_and_counted(judged: list[Judged]) -> None:
    first, second = judged
    every = list(range(len(first)))
    found, _ = matched([rows_of(first, every[1:]), rows_of(second, every[:-1]), first], [None] * 3)
    assert found is not None and found.left == [1, 1, 2]
    assert [[each.paths[row] for row in order] for each, order in zip([first], found.orders[2:], strict=True)] == [
        sorted(first.paths[1:-1])
    ]
    apart = [rows_of(first, every, split="test"), rows_of(second, every, split="val")]
    assert matched(apart, [None, None])[0] is None  # paths alone may be those of other images


def test_of_an_image_that_is_there_twice_as_many_rows_are_matched_as_all_have(judged: list[Judged]) -> None:
    first, second = judged
    twice = rows_of(first, [0, 1, 0, 0, 2])
    found, _ = matched([twice, rows_of(second, [2, 0, 0])], [None, None])
    assert found is not None and found.left == [2, 0] and sorted(found.orders[1].tolist()) == [0, 1, 2]
    assert [twice.paths[row] for row in found.orders[0]] == [second.paths[[2, 0, 0][row]] for row in found.orders[1]]


def test_other_rows_other_labels_and_other_data_are_refused_in_one_line(judged: list[Judged]) -> None:
    first, second = judged
    changed: dict[str, dict[str, Any]] = {
        "different rows": {"paths": [f"new {path}" for path in second.paths]},
        "different labels": {"labels": 1 - second.labels},
        "not all of it can be opened": {"fingerprint": "another"},
        "different classes": {"names": ["a", "c"]},
    }
    for words, fields in changed.items():
        orders, why = matched([first, Judged(**{**vars(second), **fields})], [None, None])
        assert orders is None and words in why and "\n" not in why


def test_data_of_another_fingerprint_is_matched_by_its_images(tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", runs.dataset(tmp_path / "again", ("a", "b")))
    own = gather(run).judged[0]
    shelf, _ = open_shelf(run, (run / "config.yaml").read_text(), None)
    other = Judged(**{**vars(own), "fingerprint": "another"})
    assert matched([own, other], [shelf, shelf])[0] is not None
