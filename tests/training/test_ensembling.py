"""`sagitta ensemble`: probabilities are averaged by the weights that are said; the run that is made stands alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import sagitta
from sagitta.cli import main
from sagitta.evaluation.overlap import read_seen
from tests.evaluation.test_result import shapes
from tests.training.test_folds import probabilities, squares


def record(run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(run) / "run.json").read_text())
    return found


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks that read images differently, one of folds, and one of other classes, all over the same squares."""
    work = tmp_path_factory.mktemp("ensemble")
    squares(work / "squares", 60)
    (work / "squares" / "rare").rename(work / "rare")
    shutil.copytree(work / "squares", work / "renamed")
    (work / "renamed" / "dark").rename(work / "renamed" / "black")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setenv("SAGITTA_CACHE", str(work / "cache"))
        common: dict[str, Any] = {"batch_size": 8, "epochs": 2, "lr": 0.01, "val": 0.2}
        sagitta.fit("squares", out="a", model="simple-cnn", **common)
        sagitta.fit("squares", out="b", image_size=12, model="simple-cnn", seed=1, **common)
        sagitta.fit("squares", out="folds", folds=2, **common)
        sagitta.fit("renamed", out="other", **common)
    return work


@pytest.fixture(autouse=True)
def inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("SAGITTA_CACHE", str(work / "cache"))


def predictions(run: str) -> Any:
    return pq.read_table(sorted((Path(run) / "tests").iterdir())[0] / "predictions.parquet")


def test_members_that_read_images_differently_are_averaged_by_their_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ensemble", "a", "b", "--out", "ab"]) == 0
    told, printed = record("ab"), capsys.readouterr().out
    weights = told["ensemble"]["weights"]
    assert [member["weight"] for member in told["members"]] == weights and abs(sum(weights) - 1) < 1e-9
    assert told["ensemble"]["rows"] == record("a")["dataset"]["splits"]["val"] and "36 rows that none" in printed
    mean = sum(weight * probabilities(predictions(run)) for weight, run in zip(weights, "ab", strict=True))
    np.testing.assert_allclose(probabilities(predictions("ab")), mean, atol=1e-6)
    assert [member["from"] for member in told["members"]] == [str(Path(run).absolute()) for run in "ab"]
    assert told["ensemble"]["scores"][0]["acc"][0] == pytest.approx(record("a")["result"]["val_acc"])
    assert told["calibration"]["fitted_on"] == "val"
    seen, parts = read_seen(Path("ab")), [read_seen(Path(run)) for run in "ab"]
    assert seen is not None and set(seen.trained) == {digest for part in parts if part for digest in part.trained}


def test_out_of_fold_predictions_find_weights_and_their_members_become_members() -> None:
    run = sagitta.ensemble(["folds", "a"], out="flat")
    told = run.record
    assert [Path(member["from"]).parts[-2:] for member in told["members"]][:2] == [("members", "1"), ("members", "2")]
    first, second = told["ensemble"]["weights"]
    assert [member["weight"] for member in told["members"]] == pytest.approx([first / 2, first / 2, second])
    assert told["ensemble"]["rows"] == record("a")["dataset"]["splits"]["val"]
    assert told["calibration"]["fitted_on"] == "out-of-fold" and told["calibration"]["rows"] == 36
    out_of_fold = pq.read_table("folds/out_of_fold/predictions.parquet")
    val = set(out_of_fold["path"].to_pylist()) - set(predictions("a")["path"].to_pylist())
    assert len(val) == out_of_fold.num_rows and run.test is not None


def test_a_probe_gives_the_rows_of_its_folds_that_its_weights_were_not_trained_on() -> None:
    probe = sagitta.probe("squares", "simple-cnn", weights="a", val=0.2, out="probe")
    noted = pq.read_table("probe/out_of_fold/predictions.parquet")["digest"]
    splits = record("a")["dataset"]["splits"]
    assert (len(noted), noted.null_count) == (splits["train"] + splits["val"], splits["train"])
    assert sagitta.ensemble([probe, "b"], out="probe-b").record["ensemble"]["rows"] == splits["val"]


def test_an_ensemble_stands_alone() -> None:
    sagitta.ensemble(["a", "b"], out="alone")
    wanted = sagitta.verbs.predict_table("alone", "squares/dark", top_k=3, batch_size=None, flip=False)
    for run in "ab":
        Path(run).rename(f"{run}-away")
    try:
        found = sagitta.verbs.predict_table("alone", "squares/dark", top_k=3, batch_size=None, flip=False)
        assert found.equals(wanted)
        assert main(["test", "alone"]) == main(["test", "alone/members/2"]) == 0
    finally:
        for run in "ab":
            Path(f"{run}-away").rename(run)


def test_a_member_that_has_changed_promises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    sagitta.ensemble(["a", "b"], out="promised")
    command = ["predict", "promised", "squares/dark", "--coverage", "0.8", "-o", "sets.csv"]
    assert main(command) == 0 and "single members" not in capsys.readouterr().err
    (checkpoint,) = Path("promised/members/2/checkpoints").iterdir()
    changed = torch.load(checkpoint, weights_only=True)
    for name, tensor in changed["state_dict"].items():
        changed["state_dict"][name] = tensor * 2
    torch.save(changed, checkpoint)
    assert main(command) == 2
    told = capsys.readouterr().err
    assert f"{checkpoint} has changed since it was found out what promised can promise" in told, told
    assert main(command[:3]) == 0  # what promises nothing is what the members say now


def test_several_labels_have_thresholds_from_unseen_rows(work: Path) -> None:
    shapes(work / "shapes", 100)
    how: dict[str, Any] = {"epochs": 1, "val": 0.4, "test": 0.2}
    first, second = (sagitta.fit("shapes", image_size=size, out=f"shapes-{size}", **how) for size in (20, 24))
    run = sagitta.ensemble([first, second], out="shapes-both")
    told, names = run.record, run.class_names
    assert told["ensemble"]["rows"] == first.record["dataset"]["splits"]["val"] and set(told["thresholds"]) == set(
        names
    )
    weights = told["ensemble"]["weights"]
    pairs = zip(weights, ("shapes-20", "shapes-24"), strict=True)
    mean = sum(weight * probabilities(predictions(each)) for weight, each in pairs)
    found = predictions("shapes-both")
    np.testing.assert_allclose(probabilities(found), mean, atol=1e-6)
    decided = mean >= np.array([told["thresholds"][name] for name in names])
    assert found["predicted"].to_pylist() == [[names[label] for label in np.flatnonzero(row)] for row in decided]
    table = sagitta.verbs.predict_table(run, "shapes", top_k=1, batch_size=None, flip=False)
    assert table.column_names == ["path", "classes", "probabilities", "unfamiliar", "error"]
    assert table["error"].null_count == 100 and table["unfamiliar"].null_count == 0  # of the first member
    with pytest.raises(sagitta.ConfigError, match="gives one label an image, but shapes-20 several labels"):
        sagitta.ensemble(["shapes-20", "a"], out="new")
    with pytest.raises(sagitta.ConfigError, match="read images in 2 different ways"):
        run.classifier()


def test_where_nothing_is_unseen_weights_are_equal_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("a", "unknown")
    checkpoint = next(Path("unknown/checkpoints").glob("image-*.ckpt"))
    checkpoint.write_bytes(checkpoint.read_bytes() + b" ")
    (Path("unknown") / "training_images.parquet").unlink()
    assert main(["ensemble", "unknown", "b", "--out", "equal"]) == 0
    assert "equal weights: no unseen rows can be had: unknown did not note" in capsys.readouterr().out
    assert record("equal")["ensemble"]["weights"] == [0.5, 0.5] and read_seen(Path("equal")) is None


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (["a"], "at least two runs"),
        (["a", "a"], "given twice"),
        (["folds", "folds/members/2"], "the same checkpoint|given twice"),
        (["a", "other"], "different classes: 2 are in one of them only, such as 'black' in other"),
        (["a", "nothing"], "nothing: no such run"),
    ],
)
def test_what_does_not_fit_is_one_line(capsys: pytest.CaptureFixture[str], runs: list[str], words: str) -> None:
    assert main(["ensemble", *runs, "--out", "new"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert any(each in line for each in words.split("|")) and not Path("new").exists()


def test_a_run_in_one_of_its_own_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ensemble", "a", "b", "--out", "a/inside"]) == 2
    assert "lies in a, one of the runs" in capsys.readouterr().err
