"""The end of a run: calibrated weights that `test`, `predict` and a resumed training agree on, and what it knows."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from sagitta import evaluate
from sagitta.cli import main
from sagitta.evaluation import read_familiar
from sagitta.models import load_classifier, unfolded
from sagitta.run import find_checkpoint, read_record


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The working directory, with a run of one epoch on the digits, of which 179 are val."""
    folder = tmp_path_factory.mktemp("trust")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGITTA_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        fit = ("--model", "simple-cnn", "--trainer.accelerator", "cpu", "--batch-size", "64", "--logger", "csv")
        assert main(["fit", "digits", *fit, "--epochs", "1", "--out", "run"]) == 0
        yield folder


def opened(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def networks(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith("network.")}


@pytest.mark.usefixtures("work")
def test_a_run_ends_calibrated_and_says_what_it_was_before() -> None:
    record = read_record(Path("run"))
    about, result = record["calibration"], record["result"]
    assert about["rows"] == 179 and about["fitted_on"] == "val" and about["temperature"] != 1
    assert about["after"]["loss"] < about["before"]["loss"]
    assert about["after"]["ece_low"] <= about["after"]["ece"] <= about["after"]["ece_high"]
    assert result["test_log_loss"] == pytest.approx(result["test_loss"], abs=1e-5)
    assert result["test_log_loss"] < result["test_log_loss_uncalibrated"]
    assert "test_ece_uncalibrated" in result
    rows = pq.read_table("run/validation.parquet")
    assert rows.column_names == ["path", "split", "label", "predicted", "probabilities"]
    again = evaluate("run", split="val")
    mine, others = (np.stack(table["probabilities"].to_numpy()) for table in (rows, again.predictions))
    assert rows["path"] == again.predictions["path"] and mine == pytest.approx(others, abs=1e-5)
    assert again.metrics["val_log_loss_uncalibrated"] == pytest.approx(about["before"]["loss"], abs=1e-5)


@pytest.mark.usefixtures("work")
def test_what_a_training_goes_on_from_stays_as_it_was() -> None:
    best, last = opened(find_checkpoint(Path("run"))), opened(Path("run/checkpoints/last.ckpt"))
    assert best["temperature"] == read_record(Path("run"))["calibration"]["temperature"]
    assert not {"temperature", "uncalibrated"} & set(last)
    trained, kept = networks(last["state_dict"]), networks(unfolded(best))
    assert trained.keys() == kept.keys() == networks(best["state_dict"]).keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in trained.items())
    assert not all(torch.equal(tensor, best["state_dict"][name]) for name, tensor in trained.items())


@pytest.mark.usefixtures("work")
def test_predictions_say_when_to_abstain_and_what_is_unfamiliar(capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 8, 8))
    digits = load_digits().images[:12] * 15.9
    for kind, images in {"digit": digits, "noise": noise}.items():
        Path(kind).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image.astype(np.uint8)).save(f"{kind}/{number:02d}.png")
    Path("noise/bad.png").write_bytes(b"no image")
    assert main(["predict", "run", "digit", "noise", "--accuracy", "0.8", "--coverage", "0.9", "--top-k", "1"]) == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert list(rows[0]) == ["path", "class", "probability", "abstain", "set", "unfamiliar", "error"]
    assert all(row["class"] in row["set"].split(";") for row in rows[:24])
    assert {rows[24][name] for name in ("abstain", "set", "unfamiliar", "class")} == {""} and rows[24]["error"]
    own, other = (np.mean([float(row["unfamiliar"]) for row in some]) for some in (rows[:12], rows[12:24]))
    assert own < 0.75 < other
    assert f"abstained from {sum(row['abstain'] == 'true' for row in rows)} of 24 images" in printed.err
    for precision, told in (("bf16-mixed", True), ("32-true", False)):
        assert main(["predict", "run", "digit", "--coverage", "0.9", "--precision", precision]) == 0
        said = "promised was found in 32-true: --precision bf16-mixed rounds otherwise" in capsys.readouterr().err
        assert said == told
    assert main(["predict", "run", "digit", "--accuracy", "0.999"]) == 2
    assert "takes 2995 images that the model has not learned from" in capsys.readouterr().err
    familiar = read_familiar(Path("run"), find_checkpoint(Path("run")).name)
    assert familiar is not None and familiar.bank.shape == (200, 128) and len(familiar.known) == 100


@pytest.mark.usefixtures("work")
def test_a_run_that_goes_on_is_calibrated_anew_and_once() -> None:
    before = opened(find_checkpoint(Path("run")))
    assert main(["fit", "--resume", "run", "--epochs", "2", "--keep", "2"]) == 0
    record = read_record(Path("run"))
    best, last = opened(find_checkpoint(Path("run"))), opened(Path("run/checkpoints/last.ckpt"))
    assert best["temperature"] == record["calibration"]["temperature"] and "temperature" not in last
    kept = networks(unfolded(best))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in networks(last["state_dict"]).items())
    assert not torch.equal(kept["network.11.weight"], unfolded(before)["network.11.weight"])
    again = evaluate("run", split="test")
    assert again.metrics["test_log_loss"] == pytest.approx(record["result"]["test_log_loss"], abs=1e-6)


@pytest.mark.usefixtures("work")
def test_killed_before_its_new_end_a_run_that_goes_on_is_not_finished(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its record would else tell of weights that are gone, and promise by them."""
    for name in ("whole", "cut"):
        shutil.copytree("run", name)
    more = str(read_record(Path("run"))["epochs"] + 1)
    assert main(["fit", "--resume", "whole", "--epochs", more]) == 0

    def killed(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sagitta.training.fitting.validate_kept", killed)
        assert main(["fit", "--resume", "cut", "--epochs", more]) == 130
    assert not {"best_checkpoint", "result", "calibration"} & set(read_record(Path("cut")))
    image = next(Path("cache").rglob("*.png"), None) or "digits"
    assert main(["predict", "cut", str(image), "--accuracy", "0.9", "-o", "no.csv"]) == 2
    assert "did not come to its end" in capsys.readouterr().err
    assert main(["predict", "cut", str(image), "-o", "some.csv"]) == 0
    assert "its best so far, and it is not calibrated" in capsys.readouterr().err
    assert main(["fit", "--resume", "cut"]) == 0
    assert "nothing is left to do" not in capsys.readouterr().out
    whole, cut = (read_record(Path(name)) for name in ("whole", "cut"))
    assert (
        cut["result"] == whole["result"] and cut["calibration"] == whole["calibration"] and cut["epochs"] == int(more)
    )


def test_a_probe_is_judged_out_of_fold(weights_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for kind in range(2):
        (weights_folder / "dots" / "ab"[kind]).mkdir(parents=True)
        for number in range(60):
            pixels = random.normal(110 + 25 * kind, 60, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(weights_folder / "dots" / "ab"[kind] / f"{number}.png")
    assert main(["probe", "dots", "--model", "resnet20", "--weights", "weights.pth", "--out", "run"]) == 0
    assert "calibration: logits" in capsys.readouterr().out
    about = read_record(Path("run"))["calibration"]
    rows = pq.read_table("run/validation.parquet")
    assert about["fitted_on"] == "out-of-fold" and about["rows"] == rows.num_rows == 108
    assert set(rows["split"].to_pylist()) == {"train", "val"}
    assert load_classifier(find_checkpoint(Path("run"))).temperature == about["temperature"]
    assert main(["predict", "run", "dots/a/1.png", "--coverage", "0.8"]) == 0
    assert '"unfamiliar"' in capsys.readouterr().out
    familiar = read_familiar(Path("run"), find_checkpoint(Path("run")).name)
    assert familiar is not None and (len(familiar.bank), len(familiar.known)) == (77, 12 + 19)  # 96 of train, 12 of val


def test_nothing_is_promised_by_a_val_that_lacks_classes(
    weights_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rows of one class would make the model surer of all, and promise of the others what nobody measured."""
    random = np.random.default_rng(0)
    for split, kinds, count in (("train", "abc", 40), ("val", "a", 60), ("test", "abc", 5)):
        for kind in kinds:
            (weights_folder / "some" / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = random.normal(60 + 60 * "abc".index(kind), 60, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(weights_folder / "some" / split / kind / f"{number}.png")
    assert main(["probe", "some", "--model", "resnet20", "--weights", "weights.pth", "--out", "lacking"]) == 0
    assert "val has no image of 2 classes (b, c), and that is no chance; 60 rows of val" in capsys.readouterr().out
    about = read_record(Path("lacking"))["calibration"]
    assert about["temperature"] == 1 and about["lacking"] == ["b", "c"]
    assert main(["predict", "lacking", "some/test", "--coverage", "0.9"]) == 2
    assert (
        "--coverage: the images by which lacking could promise it have no image of 2 classes" in capsys.readouterr().err
    )
