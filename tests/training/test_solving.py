"""Which vectors a head is solved on: the last features, or those of every stage, and that what follows knows it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sagitta import Classifier, ImageData
from sagitta.cli import main
from sagitta.conversion.options import ConvertOptions
from sagitta.models.checkpoint import load_classifier
from sagitta.models.networks import build_network
from sagitta.models.stages import stage_widths
from sagitta.run import find_checkpoint
from sagitta.training.solving import Solved, features_for, fit_either, solve


def make_stripes(folder: Path, each: int) -> Path:
    """Write three classes of noisy stripes."""
    rng = np.random.default_rng(0)
    for kind in range(3):
        for number in range(each):
            wave = np.sin(np.arange(32) * (0.4 + 0.2 * kind) + rng.uniform(0, 6)) * 40 + 128
            pixels = (wave[None, :, None] + rng.normal(0, 20, (32, 32, 3))).clip(0, 255).astype(np.uint8)
            path = folder / "abc"[kind] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with weights that end in features that know nothing, and others that know it all."""
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = build_network("test_resnet", 7, 3, (32, 32))
    torch.save(network.state_dict(), "knowing.pth")
    for name in ("layer4.0.bn2", "layer4.0.downsample.2"):
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.BatchNorm2d)
        nn.init.zeros_(layer.weight)
        nn.init.normal_(layer.bias)
    torch.save(network.state_dict(), "ignorant.pth")
    return tmp_path


def solved(data: ImageData, weights: str, stages: bool | None = None) -> tuple[Classifier, Solved]:
    classifier = Classifier("test_resnet", weights=weights, stages=stages)
    classifier.prepare(data)
    classifier.eval()
    return classifier, solve(classifier, data, data.preprocessing, fitted=("train",), others=("val",))


def images(folder: Path) -> ImageData:
    data = ImageData(str(folder), convert=ConvertOptions(val=0.25), image_size=32)
    data.prepare_data()
    data.setup("fit")
    return data


def accuracy(found: Solved, data: ImageData) -> float:
    return float((found.logits(data, "val").argmax(axis=1) == data.shards.splits["val"].labels).mean())


def test_stages_are_seen_where_the_last_features_know_less(work: Path) -> None:
    data = images(make_stripes(work / "stripes", 24))
    classifier, found = solved(data, "ignorant.pth")
    assert classifier.network is not None and stage_widths(classifier.network)
    assert classifier.hparams["stages"] is True and found.head.method.endswith(", on every stage")
    plain, alone = solved(data, "ignorant.pth", stages=False)
    assert plain.network is not None and not stage_widths(plain.network)
    assert accuracy(found, data) > 0.8 > 0.5 > accuracy(alone, data)


@pytest.mark.parametrize("stages", [None, True])
def test_what_the_network_says_is_what_was_solved(work: Path, stages: bool | None) -> None:
    """Twice, by another way: pixels through the network, and vectors through the solved layer."""
    data = images(make_stripes(work / "stripes", 12))
    classifier, found = solved(data, "ignorant.pth", stages)
    data.adopt(tuple(data.class_names), classifier.preprocessing)
    rows = [(image, label) for batch in data.val_dataloader() for image, label in zip(*batch, strict=True)]
    with torch.inference_mode():
        logits = classifier(data.preprocessing.normalize(torch.stack([image for image, _ in rows])))
    np.testing.assert_allclose(logits.numpy(), found.logits(data, "val"), atol=2e-3)


def test_the_last_features_stay_where_stages_are_not_surely_better(work: Path) -> None:
    """Stages of noise: each image's first convolution sees nothing but its own pixels' noise, the classes are alike."""
    rng = np.random.default_rng(0)
    for name in "abc":
        for number in range(24):
            path = work / "noise" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    data = images(work / "noise")
    classifier, found = solved(data, "knowing.pth")
    assert found.store.folder.name.startswith("test_resnet+stages-")  # they were looked at
    assert classifier.hparams["stages"] is False and "stage" not in found.head.method


def test_stages_without_finite_numbers_are_not_seen_and_such_features_are_refused(work: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    for wrong in (np.nan, np.inf):
        vectors = rng.normal(size=(40, 12)).astype(np.float32)
        vectors[7, 2] = wrong
        head = fit_either(vectors, labels, (4, 2), 4)
        assert head.weight.shape == (4, 6) and np.isfinite(head.weight).all()
    weights = torch.load("knowing.pth")
    weights["conv1.0.weight"][0, 0, 0, 0] = torch.nan
    torch.save(weights, "broken.pth")
    make_stripes(work / "stripes", 12)
    probe = ["probe", "stripes", "--model", "test_resnet", "--weights", "broken.pth", "--image-size", "32"]
    assert main(probe) == 2


def test_stages_count_where_the_last_features_are_always_the_same() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    vectors = np.zeros((60, 9), np.float32)
    vectors[:, :3] = np.eye(3)[labels] + rng.normal(size=(60, 3)) / 10
    vectors[:, 3:5] = 0.5  # a stage that is always the same
    head = fit_either(vectors.copy(), labels, (3, 2), 3)
    assert head.weight.shape == (3, 9) and np.isfinite(head.weight).all() and not head.weight[:, 3:5].any()
    assert ((vectors @ head.weight.T + head.bias).argmax(axis=1) == labels).all()


def test_a_run_of_before_there_were_stages_keeps_its_head(work: Path) -> None:
    """Its checkpoints do not say what the head sees; what is refitted at the end of a resumed fit is the same."""
    make_stripes(work / "stripes", 24)
    fit = [
        "fit",
        "stripes",
        "--model",
        "test_resnet",
        "--weights",
        "ignorant.pth",
        "--image-size",
        "32",
        "--lr",
        "1e-9",
    ]
    assert main([*fit, "--epochs", "1", "--batch-size", "8", "--model.stages", "false", "--out", "run"]) == 0
    for path in Path("run/checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["hyper_parameters"]["stages"]
        torch.save(checkpoint, path)
    config = Path("run/config.yaml")
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "stages" not in line))
    assert "refitted" in json.loads(Path("run/run.json").read_text())["best_checkpoint"]
    assert main(["fit", "--resume", "run", "--epochs", "2"]) == 0
    kept = load_classifier(find_checkpoint(Path("run")))
    assert kept.network is not None and not stage_widths(kept.network) and kept.hparams["stages"] is False


def test_weights_of_another_network_are_said_to_be_so(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_stripes(work / "stripes", 12)
    fit = ["fit", "stripes", "--image-size", "32", "--epochs", "0", "--model.stages", "true"]
    assert main([*fit, "--model", "test_resnet", "--weights", "ignorant.pth", "--out", "run"]) == 0
    assert main(["fit", "stripes", "--model", "resnet20", "--weights", "run", "--epochs", "1"]) == 2
    assert "these weights are of another network" in capsys.readouterr().err


def test_few_rows_a_class_are_not_looked_at(work: Path) -> None:
    data = images(make_stripes(work / "stripes", 4))  # three of them to learn from
    classifier, found = solved(data, "ignorant.pth")
    assert classifier.hparams["stages"] is False
    assert found.store.folder.name.startswith("test_resnet-")
    _, store = features_for(
        Classifier("test_resnet", weights="ignorant.pth", num_classes=3), data, data.preprocessing, ("train",)
    )
    assert store.folder.name.startswith("test_resnet-")


def test_a_fit_is_trained_tested_and_resumed_with_its_stages(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_stripes(work / "stripes", 24)
    fit = ["fit", "stripes", "--model", "test_resnet", "--weights", "ignorant.pth", "--image-size", "32"]
    assert main([*fit, "--val", "0.25", "--epochs", "1", "--batch-size", "8", "--out", "run"]) == 0
    assert "on every stage, solved on frozen features" in capsys.readouterr().out
    kept = load_classifier(find_checkpoint(Path("run")))
    assert kept.network is not None and stage_widths(kept.network)
    assert main(["fit", "--resume", "run", "--epochs", "2"]) == 0
    assert json.loads(Path("run/run.json").read_text())["epochs"] == 2
    result = json.loads(Path("run/run.json").read_text())["result"]
    assert main(["test", "run"]) == 0
    row = Path("run/test_logs.csv").read_text().splitlines()
    header, last = row[0].split(","), row[-1].split(",")
    assert float(last[header.index("test_acc")]) == pytest.approx(result["test_acc"])


def test_stages_can_be_declined(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_stripes(work / "stripes", 12)
    fit = [
        "fit",
        "stripes",
        "--model",
        "test_resnet",
        "--weights",
        "ignorant.pth",
        "--image-size",
        "32",
        "--epochs",
        "0",
    ]
    assert main([*fit, "--model.stages", "false", "--out", "run"]) == 0
    kept = load_classifier(find_checkpoint(Path("run")))
    assert kept.network is not None and not stage_widths(kept.network) and kept.hparams["stages"] is False
    assert main(["fit", "stripes", "--model", "resnet20", "--model.stages", "true", "--epochs", "1"]) == 2
    assert "its head can see the last features only; leave --model.stages out" in capsys.readouterr().err
