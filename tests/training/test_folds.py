"""`fit --folds`: figures out of fold are those of the members, an interrupted run goes on, the mean is tested."""

import json
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss

import sagitta
from sagitta.cli import main
from sagitta.evaluation.overlap import read_seen
from sagitta.models.networks import build_network
from sagitta.training.trust import MEAN_IS_CAREFUL
from tests.evaluation.test_result import shapes

NAMES = ("dark", "light", "middle")


def squares(folder: Path, each: int = 14) -> Path:
    """Three classes of noisy 8x8 images, and a fourth of one image."""
    rng = np.random.default_rng(0)
    for name, level in zip((*NAMES, "rare"), (60, 190, 120, 250), strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(1 if name == "rare" else each):
            pixels = np.clip(rng.normal(level, 40, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")
    return folder


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def probabilities(table: pa.Table) -> np.ndarray:
    return np.stack(table["probabilities"].to_pylist())


class Interruption(pl.Callback):
    """Ctrl-C in the second epoch of the second member, once."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Interrupt."""
        if trainer.current_epoch and Path(trainer.default_root_dir).name == "2" and Path("interrupt").exists():
            Path("interrupt").unlink()
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with squares and a run of three folds over them, begun and interrupted in its second member."""
    work = tmp_path_factory.mktemp("folds")
    squares(work / "squares")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setenv("SAGITTA_CACHE", str(work / "cache"))
        Path("interrupt").touch()
        options = ["--folds", "3", "--epochs", "2", "--batch-size", "8", "--lr", "0.01", "--out", "run"]
        assert main(["fit", "squares", *options, "--trainer.callbacks+", f"{__name__}.Interruption"]) == 130
    return work


@pytest.fixture(scope="module")
def run(work: Path) -> Path:
    """The same, resumed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setenv("SAGITTA_CACHE", str(work / "cache"))
        before = (work / "run/members/1/run.json").stat().st_mtime_ns
        assert main(["test", "run"]) == 2  # not all members are there
        assert main(["fit", "--resume", "run"]) == 0
        assert (work / "run/members/1/run.json").stat().st_mtime_ns == before
    return work / "run"


@pytest.fixture(autouse=True)
def inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("SAGITTA_CACHE", str(work / "cache"))


def test_an_interrupted_run_goes_on_with_the_member_that_was_interrupted(run: Path) -> None:
    assert [record(run / "members" / fold)["epochs"] for fold in "123"] == [2, 2, 2]
    logs = [sorted(path.name for path in (run / "members" / fold / "lightning_logs").iterdir()) for fold in "123"]
    assert logs == [["version_0"], ["version_0", "version_1"], ["version_0"]]
    settings = sagitta.Run(run).settings
    assert settings.data["folds"] == 3 and settings.data["fold"] is None and settings.model["name"] != "auto"


def test_figures_out_of_fold_are_those_of_the_members_on_their_own_val(run: Path) -> None:
    whole, about = pq.read_table(run / "out_of_fold/predictions.parquet"), record(run)["out_of_fold"]
    assert whole.column_names == ["path", "fold", "label", "predicted", "probabilities", "digest"]
    assert len(set(whole["path"].to_pylist())) == whole.num_rows == about["images"]
    for fold, member in enumerate(about["members"], 1):
        own = whole.filter(pa.array(np.array(whole["fold"]) == fold))
        accuracy = accuracy_score(own["label"].to_pylist(), own["predicted"].to_pylist())
        assert member["images"] == own.num_rows and member["scores"]["acc"][0] == pytest.approx(accuracy)
        result = record(run / "members" / str(fold))["result"]
        assert result["val_acc"] == pytest.approx(accuracy, abs=1e-6)
        assert result["val_loss"] == pytest.approx(member["scores"]["log_loss"][0], abs=1e-5)
    result = record(run)["result"]
    assert result["out_of_fold_acc"] == accuracy_score(whole["label"].to_pylist(), whole["predicted"].to_pylist())
    assert not [name for name in result if name.startswith("val_")]


def test_the_test_is_of_the_mean_of_the_members(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [
        pq.read_table(next((run / "members" / fold / "tests").iterdir()) / "predictions.parquet") for fold in "123"
    ]
    mean = np.mean([probabilities(member) for member in members], axis=0)
    labels, names = members[0]["label"].to_pylist(), list(sagitta.Run(run).class_names)
    result = record(run)["result"]
    assert result["test_acc"] == pytest.approx(accuracy_score(labels, np.array(names)[mean.argmax(axis=1)]))
    wanted = log_loss(labels, mean / mean.sum(axis=1, keepdims=True), labels=names)
    assert result["test_loss"] == pytest.approx(wanted, abs=1e-5)
    assert main(["test", "run"]) == 0
    assert f"test_acc       {result['test_acc']:.4f}" in capsys.readouterr().out
    assert sagitta.evaluate("run", split="test").metrics["test_acc"] == pytest.approx(result["test_acc"])


def test_predictions_are_means_and_the_classifier_gives_the_same(run: Path) -> None:
    paths = [f"squares/{name}/0{number}.png" for name in NAMES for number in range(3)]
    how: dict[str, Any] = {"top_k": 4, "batch_size": 4, "flip": False}
    table = sagitta.verbs.predict_table(run, paths, **how)
    members = [sagitta.verbs.predict_table(run / "members" / fold, paths, **how) for fold in "123"]

    def by_name(table: pa.Table) -> list[dict[str, float]]:
        columns = [("class", "probability"), *((f"class_{rank}", f"probability_{rank}") for rank in (2, 3, 4))]
        return [{row[name]: row[value] for name, value in columns} for row in table.to_pylist()]

    every = [by_name(member) for member in members]
    for row, found in enumerate(by_name(table)):
        assert found == pytest.approx({name: np.mean([each[row][name] for each in every]) for name in found}, abs=1e-6)
    assert sagitta.Run(run).classifier().class_names == list(sagitta.Run(run).class_names)


def test_what_the_members_were_trained_on_is_known_of_the_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen, whole = read_seen(run), pq.read_table(run / "out_of_fold/predictions.parquet")
    assert seen is not None and set(seen.trained.tolist()) == set(whole["digest"].to_pylist())
    assert main(["validate", "run"]) == 0
    assert "were trained on" in capsys.readouterr().out
    assert main(["test", "run/members/1", "--split", "val"]) == 0  # its own fold, which it was not trained on
    assert "were trained on" not in capsys.readouterr().out


def test_what_is_printed_is_named_out_of_fold(run: Path) -> None:
    text = sagitta.Run(run).text()
    assert "out_of_fold_acc" in text and "all, out of fold" in text and "members/3" in text and "val_" not in text
    assert "1 class is in one fold only (rare): out of fold nothing knew of it" in text


@pytest.mark.parametrize("refit", [False, True])
def test_a_solved_head_is_not_fitted_to_the_fold_that_judges_it(refit: bool) -> None:
    torch.save({"state_dict": build_network("resnet20", 5, 3, (32, 32)).state_dict()}, "weights.pth")
    options: dict[str, Any] = {"model": "resnet20", "weights": "weights.pth", "epochs": 1, "image_size": 16}
    out = f"headfirst-{refit}"
    sagitta.fit("squares", folds=2, out=out, settings={"refit": refit}, **options)
    judged = pq.read_table(f"{out}/out_of_fold/predictions.parquet")
    assert judged["digest"].null_count == 0
    folds, digests = judged["fold"].to_numpy(), judged["digest"].to_numpy()
    for fold in (1, 2):
        member = Path(out) / "members" / str(fold)
        seen = read_seen(member)
        assert seen is not None and set(seen.trained) == set(digests[folds != fold])
        whole, own = record(Path(out))["dataset"], record(member)["dataset"]
        assert (whole["transforms"], whole["normalisation"]) == (own["transforms"], own["normalisation"])


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "squares", "--weights", "run"], "name one: run/members/1"),
        (["fit", "--resume", "run", "--folds", "4"], "run: began with --folds 3, not 4"),
        (["fit", "--resume", "run", "--val", "0.3"], "run/members/1: was trained before images, labels or the options"),
        (["fit", "squares", "--folds", "1"], "folds 1: must be at least 2"),
        (["fit", "squares", "--folds", "99", "--out", "new"], "take at most"),
        (["fit", "squares", "--folds", "3", "--model", "nonsense", "--out", "new"], "no model 'nonsense'"),
        # Where a worker of pytest-xdist runs this, several devices are refused by themselves already.
        (["fit", "squares", "--folds", "3", "--devices", "2", "--out", "new"], " device"),
    ],
)
def test_what_does_not_fit_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line and not Path("new").exists()


def test_what_folds_promise_is_said_to_be_of_single_members(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run), "squares/dark", "--coverage", "0.8", "-o", "sets.csv"]) == 0
    assert "found out of fold, by single members; the mean of 3 is right more often" in capsys.readouterr().err
    assert MEAN_IS_CAREFUL in record(run)["calibration"]["reason"]


def test_several_labels_have_thresholds_from_all_folds(work: Path) -> None:
    shapes(work / "shapes", 60)
    run = sagitta.fit("shapes", folds=2, epochs=1, test=0.0, out="several")
    whole, told = pq.read_table(work / "several/out_of_fold/predictions.parquet"), run.record
    assert whole.num_rows == 60 and set(told["thresholds"]) == set(run.class_names)
    assert {"out_of_fold_map", "out_of_fold_f1"} <= set(told["result"]) and run.test is None
    assert run.classifier().thresholds == [told["thresholds"][name] for name in run.class_names]
    predicted = [
        [name for name, share in zip(run.class_names, row, strict=True) if share >= told["thresholds"][name]]
        for row in whole["probabilities"].to_pylist()
    ]
    assert predicted == whole["predicted"].to_pylist()
    shutil.rmtree(work / "shapes")
