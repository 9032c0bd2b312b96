"""Averaging checkpoints: the mean of weights, BatchNorm's statistics anew, and never a worse run than before."""

import json
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from sagitta.data import ImageData
from sagitta.model import Classifier, load_classifier
from sagitta.run import write_record
from sagitta.schema import ConfigError
from sagitta.soup import SOUP, mean_weights, soup


class NormedNet(nn.Module):
    """A network with BatchNorm, whose statistics an average of weights makes wrong."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(16 * 36, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(images))  # type: ignore[no-any-return]


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> ImageData:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    data = ImageData("digits", batch_size=32)
    data.prepare_data()
    data.setup("fit")
    return data


def checkpoints(run: Path, data: ImageData, signs: Sequence[int]) -> None:
    """Train for three epochs; each checkpoint has the same noise on these weights, added or subtracted."""
    pl.seed_everything(0, verbose=False)
    names, preprocessing = data.class_names, data.preprocessing.to_dict()
    model = Classifier(f"{__name__}.NormedNet", class_names=names, preprocessing=preprocessing)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    trained = [parameter.detach().clone() for parameter in model.parameters()]
    noise = [torch.randn_like(parameter) * parameter.abs().mean() * 2 for parameter in trained]
    for number, sign in enumerate(signs):
        with torch.no_grad():
            for parameter, mean, change in zip(model.parameters(), trained, noise, strict=True):
                parameter.copy_(mean + sign * change)
        trainer.save_checkpoint(run / "checkpoints" / f"image-classifier-epoch={number}.ckpt")
    write_record(run, best_checkpoint="checkpoints/image-classifier-epoch=0.ckpt")


def test_an_average_that_is_better_becomes_the_best_checkpoint(tmp_path: Path, data: ImageData) -> None:
    checkpoints(tmp_path, data, (1, -1))
    kept, score = soup(tmp_path, data)
    assert len(kept) == 2 and score > kept[0].score >= kept[1].score
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["best_checkpoint"] == SOUP and record["soup"] == [one.name for one in kept]
    cooked = load_classifier(tmp_path / SOUP)
    mean = mean_weights([one.weights for one in kept])
    assert torch.equal(cooked.state_dict()["network.head.weight"], mean["network.head.weight"])
    assert not torch.equal(cooked.state_dict()["network.layers.1.running_mean"], mean["network.layers.1.running_mean"])
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    assert trainer.validate(cooked, data, verbose=False)[0]["val_acc"] == pytest.approx(score)


def test_an_average_that_is_worse_changes_nothing(tmp_path: Path, data: ImageData) -> None:
    checkpoints(tmp_path, data, (0, 4))
    kept, score = soup(tmp_path, data)
    assert [one.name for one in kept] == ["image-classifier-epoch=0.ckpt"] and score == kept[0].score
    assert not (tmp_path / SOUP).exists()
    assert json.loads((tmp_path / "run.json").read_text())["best_checkpoint"].endswith("epoch=0.ckpt")


def test_one_checkpoint_is_no_soup(tmp_path: Path, data: ImageData) -> None:
    checkpoints(tmp_path, data, (1,))
    with pytest.raises(ConfigError, match="1 checkpoint in it; an average needs at least two"):
        soup(tmp_path, data)


def test_the_mean_of_weights_keeps_counters() -> None:
    states = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([3.0, 2.0]), "n": torch.tensor(9)},
    ]
    mean = mean_weights(states)
    assert mean["w"].tolist() == [2.0, 2.0] and mean["n"] == 3
