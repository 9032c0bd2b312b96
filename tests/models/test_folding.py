"""A temperature in a checkpoint: its logits divided, every name as before, and what stood there kept."""

from pathlib import Path

import torch

from sagitta.loading import Preprocessing
from sagitta.models import Classifier, can_fold, fold_temperature, load_classifier, unfolded
from sagitta.training.solving import write_checkpoint

HOW = Preprocessing((16, 16), 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


def kept(path: Path, *, multilabel: bool = False) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    classifier = Classifier(
        "resnet20", class_names=["a", "b", "c"], preprocessing=HOW.to_dict(), multilabel=multilabel
    ).eval()
    if multilabel:
        classifier.thresholds = [0.2, 0.5, 0.9]
    write_checkpoint(classifier, path)
    return dict(classifier.state_dict())


def opened(path: Path) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = load_classifier(path)(IMAGES)
    return logits


def test_logits_are_divided_and_can_be_again(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    weights = kept(path)
    before, plain = opened(path), path.read_bytes()
    classifier = load_classifier(path)
    assert classifier.temperature == 1 and can_fold(classifier)
    for temperature in (2.5, 0.3):  # the second takes the place of the first
        fold_temperature(path, classifier, temperature, None)
        again = load_classifier(path)
        assert torch.allclose(opened(path) * temperature, before, atol=1e-5)
        assert again.temperature == temperature and again.state_dict().keys() == weights.keys()
        checkpoint = torch.load(path, weights_only=True)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in unfolded(checkpoint).items())
    fold_temperature(path, classifier, 1.0, None)
    assert torch.equal(opened(path), before) and load_classifier(path).temperature == 1
    fold_temperature(path, classifier, 1.0, None)  # nothing is to be put back
    assert torch.load(path, weights_only=True).keys() == torch.load(_copy(tmp_path, plain), weights_only=True).keys()


def _copy(folder: Path, data: bytes) -> Path:
    (folder / "plain.ckpt").write_bytes(data)
    return folder / "plain.ckpt"


def test_thresholds_go_with_it_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    kept(path, multilabel=True)
    fold_temperature(path, load_classifier(path), 2.0, [0.3, 0.5, 0.8])
    assert load_classifier(path).thresholds == [0.3, 0.5, 0.8]
    fold_temperature(path, load_classifier(path), 1.0, None)
    assert load_classifier(path).thresholds == [0.2, 0.5, 0.9]


def test_a_network_that_goes_on_after_its_last_layer_is_left_alone() -> None:
    classifier = Classifier("resnet20", class_names=["a", "b"], preprocessing=HOW.to_dict())
    assert can_fold(classifier) and classifier.network is not None and classifier.network.training
    classifier.network = torch.nn.Sequential(classifier.network, torch.nn.Tanh())
    assert not can_fold(classifier)
