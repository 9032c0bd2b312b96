"""The head first: what a fit begins with, what it ends with, and val that first weights know."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sagitta import ImageData
from sagitta.cli import main
from sagitta.models import load_classifier
from sagitta.run import find_checkpoint
from sagitta.training import headfirst as module


@pytest.fixture
def work(weights_folder: Path) -> None:
    """Weights of a network, and three classes of noisy stripes, split by folders."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 16, "val": 8, "test": 8}.items():
        for kind in range(3):
            folder = weights_folder / "stripes" / split / "abc"[kind]
            folder.mkdir(parents=True)
            for number in range(count):
                wave = np.sin(np.arange(32) * (0.4 + 0.2 * kind) + rng.uniform(0, 6)) * 40 + 128
                pixels = (wave[None, :, None] + rng.normal(0, 40, (32, 32, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{split}{number}.png")


FIT = ("--model", "resnet20", "--batch-size", "8")


def fit(*arguments: str) -> None:
    assert main(["fit", "stripes", *FIT, *arguments]) == 0


def record(run: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(run, "run.json").read_text())
    return found


@pytest.mark.usefixtures("work")
def test_a_fit_that_gains_nothing_ends_as_the_probe(capsys: pytest.CaptureFixture[str]) -> None:
    fit("--weights", "weights.pth", "--epochs", "1", "--lr", "1e-9", "--out", "run")
    printed = capsys.readouterr().out
    assert "head:  " in printed and "fine-tuning gained nothing over the head; the head is kept" in printed
    assert record("run")["mixture"] == 0
    kept = load_classifier(find_checkpoint(Path("run")))
    assert main(["probe", "stripes", "--model", "resnet20", "--weights", "weights.pth", "--out", "probe"]) == 0
    probed = load_classifier(find_checkpoint(Path("probe")))
    assert all(torch.equal(a, b) for a, b in zip(kept.state_dict().values(), probed.state_dict().values(), strict=True))
    tests = [pq.read_table(next(Path(run, "tests").iterdir()) / "predictions.parquet") for run in ("run", "probe")]
    assert tests[0]["predicted"].to_pylist() == tests[1]["predicted"].to_pylist()
    fitted, probed_result = (record(run)["result"] for run in ("run", "probe"))
    assert fitted["val_loss"] == pytest.approx(probed_result["val_loss"], rel=1e-4)  # type: ignore[index]


@pytest.mark.usefixtures("work")
def test_a_given_val_stays_unseen_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    once = ("--weights", "weights.pth", "--epochs", "1", "--lr", "1e-9")
    fit(*once, "--out", "run")
    assert main(["test", "run", "--split", "val"]) == 0
    assert "24 of 24 images were trained on" not in "".join(capsys.readouterr())
    fit(*once, "--refit", "--out", "refitted")
    assert "the head is fitted to train and val now" in capsys.readouterr().out
    assert main(["test", "refitted", "--split", "val"]) == 0
    assert "24 of 24 images were trained on" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("work")
def test_a_head_that_knows_val_is_solved_anew_and_other_weights_are_warned_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    probe = ["probe", "stripes", "--model", "resnet20", "--weights", "weights.pth", "--refit", "--out", "probe"]
    assert main(probe) == 0
    fit("--weights", "probe", "--epochs", "1", "--lr", "1e-9", "--out", "run")
    assert "that of probe was fitted to 24 images of val; another is solved without them" in capsys.readouterr().out
    assert main(["test", "run", "--split", "val"]) == 0
    assert "24 of 24 images were trained on" not in "".join(capsys.readouterr())

    Path("stripes/val").rename("stripes/later")
    Path("stripes/train").rename("stripes/val")
    Path("stripes/later").rename("stripes/train")  # what was trained on is val now
    fit("--weights", "run", "--epochs", "1", "--lr", "0.01", "--out", "second")
    second = "".join(capsys.readouterr())
    assert record("run")["mixture"] == 0
    assert "was fitted to 48 images of val; another is solved without them" in second
    fit("--weights", "weights.pth", "--epochs", "1", "--tune", "full", "--lr", "0.02", "--out", "tuned")
    changed = json.loads(Path("tuned/run.json").read_text())
    Path("tuned/run.json").write_text(json.dumps(changed | {"mixture": 1.0}))
    Path("stripes/val").rename("stripes/later")
    Path("stripes/train").rename("stripes/val")
    Path("stripes/later").rename("stripes/train")
    capsys.readouterr()
    fit("--weights", "tuned", "--epochs", "1", "--out", "third")
    assert "warning: the first weights were trained on 24 images of val" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("work")
def test_a_resumed_fit_still_knows_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    """A head that was kept and refitted does not take the place of the one that has not seen val."""
    fit("--weights", "weights.pth", "--epochs", "1", "--lr", "1e-9", "--refit", "--out", "run")
    first = json.loads(Path("run/run.json").read_text())
    assert "refitted" in first["best_checkpoint"]
    Path("weights.pth").unlink()
    capsys.readouterr()
    assert main(["fit", "--resume", "run", "--epochs", "2"]) == 0
    assert "fine-tuning gained nothing over the head" in capsys.readouterr().out
    again = json.loads(Path("run/run.json").read_text())
    assert again["epochs"] == 2 and again["result"]["val_loss"] == first["result"]["val_loss"]


@pytest.mark.usefixtures("work")
def test_a_head_that_knows_val_is_mixed_with_the_best_epoch() -> None:
    fit("--weights", "weights.pth", "--epochs", "1", "--lr", "1e-9", "--out", "run")
    assert (
        main(["probe", "stripes", "--model", "resnet20", "--weights", "weights.pth", "--refit", "--out", "probe"]) == 0
    )
    head, best = module.find_head(Path("run")), next(Path("run", "checkpoints").glob("*epoch*.ckpt"))
    assert head is not None
    with_val = load_classifier(find_checkpoint(Path("probe"))).state_dict()
    tuned = torch.load(best, weights_only=True)
    for name in tuned["state_dict"]:
        tuned["state_dict"][name] += 1
    torch.save(tuned, best)
    data = ImageData("stripes", preprocessing=load_classifier(head).preprocessing)
    data.prepare_data()
    data.setup()
    module._refit(head, best, 0.25, Path("after.ckpt"), data)
    for name, value in load_classifier(Path("after.ckpt")).state_dict().items():
        if value.is_floating_point():
            expected = 0.75 * with_val[name] + 0.25 * tuned["state_dict"][name]
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("work")
def test_figures_of_val_are_of_the_head_that_has_not_seen_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a test split nothing is left to judge a head that was fitted to val."""
    shutil.rmtree("stripes/test")
    fit("--weights", "weights.pth", "--epochs", "0", "--refit", "--out", "run")
    printed = capsys.readouterr().out
    assert "nothing is left to judge it by" in printed and not Path("run", "tests").exists()
    result = record("run")["result"]
    said = re.search(r"val_acc ([0-9.]+), val_loss ([0-9.]+)", printed)
    assert said is not None and isinstance(result, dict)
    assert result["val_loss"] == pytest.approx(float(said[2]), abs=1e-4)
    assert result["val_acc"] == pytest.approx(float(said[1]), abs=1e-4)


@pytest.mark.usefixtures("work")
def test_a_balanced_loss_balances_the_head() -> None:
    for file in sorted(Path("stripes/train/a").iterdir())[4:]:
        file.unlink()
    heads = []
    for number, more in enumerate(([], ["--class-weights", "balanced"])):
        fit("--weights", "weights.pth", "--epochs", "0", *more, "--out", f"run{number}")
        heads.append(load_classifier(find_checkpoint(Path(f"run{number}"))).state_dict())
    change = {name: heads[1][name] - value for name, value in heads[0].items() if not heads[1][name].equal(value)}
    (bias,) = change.values()  # and nothing else
    torch.testing.assert_close(bias, torch.tensor([36 / 3 / 4, 36 / 3 / 16, 36 / 3 / 16]).log(), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("work")
def test_a_body_that_knows_val_is_warned_of_below_any_number_of_heads(capsys: pytest.CaptureFixture[str]) -> None:
    fit("--weights", "weights.pth", "--epochs", "1", "--lr", "0.02", "--out", "tuned")
    changed = json.loads(Path("tuned/run.json").read_text())
    Path("tuned/run.json").write_text(json.dumps(changed | {"mixture": 1.0}))
    for split in ("train", "val"):
        for kind in "abc":
            Path("stripes", split, kind).rename(Path("stripes", split, f"new {kind}"))
    shutil.rmtree("stripes/test")
    Path("stripes/val").rename("stripes/later")
    Path("stripes/train").rename("stripes/val")
    Path("stripes/later").rename("stripes/train")  # what was trained on is val now, under other names
    for weights, out in (("tuned", "first"), ("first", "second")):
        capsys.readouterr()
        fit("--weights", weights, "--epochs", "1", "--lr", "1e-9", "--out", out)
        printed = "".join(capsys.readouterr())
        assert "warning: the first weights were trained on 48 images of val" in printed
        assert "another is solved" not in printed
