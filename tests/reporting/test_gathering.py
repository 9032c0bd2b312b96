"""What is read of a run directory, and what is said where something is not there or damaged."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sagitta.errors import ConfigError
from sagitta.reporting.gathering import gather
from tests.reporting import runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.dataset(tmp_path_factory.mktemp("gathering"), ("a", "b", "c"))


def test_a_tested_run_gives_its_rows_with_the_intervals_of_its_log(data: Path, tmp_path: Path) -> None:
    runs.log(run := runs.run_of(tmp_path / "run", data))
    runs.find(run, data)
    found = gather(run)
    (judged,) = found.judged
    assert judged.title == "Test" and judged.source is None and judged.split == "test" and len(judged) == 3
    own = judged.probabilities[range(3), judged.labels]
    assert judged.losses == pytest.approx(-np.log(own)) and judged.right.tolist() == (own == judged.certainty).tolist()
    assert judged.scores["acc"].value == pytest.approx(judged.right.mean())
    assert judged.scores["log_loss"].value == pytest.approx(judged.losses.mean(), rel=1e-5)
    assert [each.name for each in judged.classes] == ["a", "b", "c"]
    assert found.finished and found.kind == "fit" and found.settings["model"]["name"] == "resnet20"
    assert found.history.num_rows == 3 and [row["images_per_second"] for row in found.pace] == [100, 101, 102]
    assert found.findings is not None and found.findings.num_rows == 3 and not found.missing


def test_of_several_tests_the_last_is_shown_and_the_first_beside_it(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data)
    other = runs.run_of(tmp_path / "other", runs.dataset(tmp_path / "more", ("a", "b", "c"), each=20), split="train")
    (run / "tests" / "002-x").mkdir()
    (other / "tests" / "001-dataset" / "predictions.parquet").rename(run / "tests" / "002-x" / "predictions.parquet")
    line = (other / "test_logs.csv").read_text().splitlines()[1].replace("tests/001-dataset", "tests/002-x")
    (run / "test_logs.csv").write_text((run / "test_logs.csv").read_text() + line + "\n")
    last, first = gather(run).judged
    assert last.source == str(tmp_path / "more" / "dataset") and last.title == "Test on dataset" and len(last) > 3
    assert first.source is None and first.key == "first"


def test_images_that_were_trained_on_are_counted_as_the_test_said(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data)
    with (run / "test_logs.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    for images, trained, told in (
        ("3", "3", ["3 of 3 images were trained on: the figures say little about new ones"]),
        ("64", "1", ["1 of 64 images was trained on: the figures are a little too good"]),
        ("3", "", []),
    ):
        with (run / "test_logs.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, line)
            writer.writeheader()
            writer.writerow(line | {"images": images, "trained_on": trained})
        assert gather(run).judged[0].notes == told


def test_rows_out_of_fold_stand_beside_the_test(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data)
    (run / "out_of_fold").mkdir()
    table = run / "tests" / "001-dataset" / "predictions.parquet"
    (run / "out_of_fold" / "predictions.parquet").write_bytes(table.read_bytes())
    assert [each.title for each in gather(run).judged] == ["Test", "Out of fold"]
    (run / "out_of_fold" / "predictions.parquet").write_bytes(b"damaged")
    found = gather(run)
    assert [each.title for each in found.judged] == ["Test"] and "cannot be read" in found.missing["unseen"]


def test_calibration_says_of_which_rows_validation_is(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data, calibration={"temperature": 1.5, "fitted_on": "out-of-fold"})
    table = pq.read_table(run / "tests" / "001-dataset" / "predictions.parquet")
    pq.write_table(table, run / "validation.parquet")
    assert gather(run).judged[1].title == "Out of fold"
    runs.change(run, calibration={"temperature": 1.5, "fitted_on": "val"})
    assert gather(run).judged[1].split == "val"


def test_predictions_of_other_classes_are_not_shown(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data)
    runs.change(run, dataset={"class_names": ["a", "b"]})
    assert not gather(run).judged and "not of the classes" in gather(run).missing["test"]


def test_an_interrupted_run_and_one_without_tests_say_why_there_is_nothing(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data)
    (run / "test_logs.csv").unlink()
    assert "there is no test set" in gather(run).missing["test"]
    runs.change(run, result=None, best_checkpoint=None)
    assert "not come to its end" in gather(run).missing["test"] and not gather(run).finished


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such run; a run directory holds run\.json"):
        gather(tmp_path)
    (file := tmp_path / "x.ckpt").touch()
    with pytest.raises(ConfigError, match="name its run directory"):
        gather(file)


def test_several_labels_are_decided_as_they_were(tmp_path: Path) -> None:
    data = runs.dataset(tmp_path / "data", ("a", "b", "c"), each=20, several=True)
    (judged,) = gather(runs.run_of(tmp_path / "run", data)).judged
    assert judged.task.multilabel and judged.decided.shape == judged.labels.shape == (len(judged), 3)
    assert (judged.decided == (judged.probabilities >= 0.5)).all()
    assert judged.scores["map"].value > 0 and judged.right.tolist() == (judged.decided == judged.labels).all(1).tolist()
    assert judged.losses.shape == judged.certainty.shape == (len(judged),)
