"""Several runs side by side: figures, paired tests, disagreements, settings; rows of one alone are left out."""

import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sagitta.clock import Clock
from sagitta.reporting.gathering import gather
from sagitta.reporting.page import render
from sagitta.reporting.versus import Versus, differences, names_of
from tests.reporting import runs


def page(*paths: Path) -> tuple[dict[str, Any], str]:
    versus = Versus([gather(path) for path in paths], Path("comparison.html"), images=True, clock=Clock())
    values = versus.values()
    return values, render("versus.html", values)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.dataset(tmp_path_factory.mktemp("versus"), ("a", "b", "c"), each=300, side=8)


def test_a_better_run_is_called_so_and_one_that_is_alike_is_not(data: Path, tmp_path: Path) -> None:
    weak, strong = (
        runs.run_of(tmp_path / name, data, seed=seed, skill=seed) for seed, name in ((1, "weak"), (4, "strong"))
    )
    runs.log(strong)
    values, html = page(weak, strong)
    (paired,) = values["paired"]
    assert paired["verdict"] == "strong is more accurate" and paired["accuracy"].startswith("+")
    assert values["common"] == 90 and 0 < len(values["tiles"]) <= 48
    assert all(len({each["right"] for each in tile["given"]}) == 2 for tile in values["tiles"])
    assert all(tile["picture"] is not None for tile in values["tiles"])
    assert [figure.name for figure in values["overview"]] == ["compare_acc", "compare_log_loss"]
    assert [figure.name for figure in values["curves"]] == ["curve_val_loss", "curve_val_acc"]
    again = runs.run_of(tmp_path / "again", data, seed=5, skill=4)
    values, html = page(weak, strong, again)
    assert [each["verdict"] for each in values["paired"]][2] == "these images do not tell them apart"
    assert "Bonferroni" in html


def test_other_rows_are_refused_in_one_line(data: Path, tmp_path: Path) -> None:
    one, two = runs.run_of(tmp_path / "one", data), runs.run_of(tmp_path / "two", data, split="val")
    values, html = page(one, two)
    assert not values["paired"] and not values["tiles"] and "different rows (90, 90; none in common)" in html


def test_rows_of_one_run_alone_are_left_out_and_said(data: Path, tmp_path: Path) -> None:
    one, two = (runs.run_of(tmp_path / name, data, seed=seed, skill=0.5) for seed, name in ((1, "one"), (2, "two")))
    file = two / "tests" / "001-dataset" / "predictions.parquet"
    pq.write_table(pq.read_table(file).slice(20), file)
    values, html = page(one, two)
    assert values["common"] == 70 and values["left"] == [("one", 20)]
    assert {figure.title.partition(", ")[2] for figure in values["overview"]} == {
        "with 95 % intervals, each run on its own images"
    }
    assert "The runs were not tested on the same images: one was tested on 20 others." in html
    assert "comparison is of the 70 that all were tested on" in html and "20 of <bdi>one</bdi>" in html
    (paired,) = values["paired"]
    assert sum(int(paired[name]) for name in ("both", "only_first", "only_second", "neither")) == 70
    whole, _ = page(one, runs.run_of(tmp_path / "three", data, seed=3))
    assert whole["common"] == 90 and not whole["left"] and not whole["notices"]
    assert {figure.title.partition(", ")[2] for figure in whole["overview"]} == {"with 95 % intervals"}


def test_what_has_to_be_known_of_one_runs_figures_is_said_beside_the_others(data: Path, tmp_path: Path) -> None:
    one, two = (runs.run_of(tmp_path / name, data, seed=seed) for seed, name in ((1, "one"), (2, "two")))
    with (two / "test_logs.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    with (two / "test_logs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, line)
        writer.writeheader()
        writer.writerow(line | {"trained_on": "60"})
    values, html = page(one, two)
    assert [str(notice) for notice in values["notices"]] == [
        "two: 60 of 90 images were trained on: the figures say little about new ones"
    ]
    assert values["notices"][0] in html


def test_a_run_without_predictions_is_shown_and_pairs_nothing(data: Path, tmp_path: Path) -> None:
    one, two = runs.run_of(tmp_path / "one", data), runs.run_of(tmp_path / "two", data)
    (two / "test_logs.csv").unlink()
    values, html = page(one, two)
    assert "Not all of the runs have predictions" in html and values["notices"][0].startswith("two: ")


def test_settings_that_differ_and_names_of_runs() -> None:
    assert differences(
        [{"seed": 0, "model": {"name": "a", "lr": 1}}, {"seed": 0, "model": {"name": "b", "lr": 1}}]
    ) == [("model.name", ["a", "b"])]
    assert names_of([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert names_of([Path("/x/a"), Path("/y/a")]) == ["/x/a", "/y/a"]
