"""A dry pass says in one line what would fail in training, and leaves no trace."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.loading.preprocessing import Preprocessing
from sagitta.models.classifier import Classifier
from sagitta.models.trial import dry_run


class Flat(nn.Module):
    """BatchNorm over vectors, as in many heads: one image has no statistics."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.norm(images.mean(dim=(2, 3)))))
        return logits


class Pair(Flat):
    """Gives a tuple."""

    def forward(self, images: Tensor) -> Any:
        return super().forward(images), images


class Map(Flat):
    """Forgets to pool."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def prepared(name: str, size: tuple[int, int], **arguments: Any) -> Classifier:
    how = Preprocessing(size, 1.0, "bilinear", (0.5,) * 3, (0.25,) * 3).to_dict()
    classifier = Classifier(name if name[0].islower() else f"{__name__}.{name}", preprocessing=how, **arguments)
    classifier.prepare(SimpleNamespace(class_names=("a", "b", "c"), rows=100))
    return classifier


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("simple-cnn", (8, 8)),
        ("test_vit", (96, 96)),
        ("test_vit", (64, 96)),
        ("vit_tiny_patch16_224", (96, 96)),
        ("swin_tiny_patch4_window7_224", (64, 64)),
        ("googlenet", (64, 64)),
        ("vit_b_32", (64, 64)),
        ("Flat", (8, 8)),
    ],
)
def test_what_works_is_silent(name: str, size: tuple[int, int]) -> None:
    dry_run(prepared(name, size), 64)


@pytest.mark.parametrize(
    ("name", "size", "batch", "words"),
    [
        ("inception_v3", (32, 32), 8, r"'inception_v3' fails on 2 images of 3x32x32: .*works on 299x299: give --image"),
        ("Flat", (8, 8), 1, r"Flat' fails on an image of 3x8x8: .*batch size of at least 2, or freeze_bn"),
        ("Pair", (8, 8), 4, r"it gives tuple where a tensor of logits is needed; give another model"),
        ("Map", (8, 8), 4, r"it gives \(2, 3, 8, 8\) where logits \(2, 3\) are needed"),
    ],
)
def test_what_fails_says_what_to_do(name: str, size: tuple[int, int], batch: int, words: str) -> None:
    classifier = prepared(name, size)
    with pytest.raises(ConfigError, match=words) as error:
        dry_run(classifier, batch)
    assert "\n" not in str(error.value)


def test_one_image_a_batch_works_where_statistics_are_held() -> None:
    dry_run(prepared("Flat", (8, 8), freeze_bn=True), 1)
    dry_run(prepared("Flat", (8, 8), tune="head"), 1)
    with pytest.raises(ConfigError, match="freeze_bn"):  # in its last epochs everything is trained
        dry_run(prepared("Flat", (8, 8), tune="gradual"), 1)


def test_a_size_that_a_network_cannot_be_made_for_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"'maxvit_t' cannot be made for images of 96x96 .* such as its own 224"):
        prepared("maxvit_t", (96, 96))


@pytest.mark.parametrize("tune", ["full", "head", "gradual"])
def test_no_trace_is_left(tune: Any) -> None:
    classifier = prepared("Flat", (8, 8), tune=tune)
    assert classifier.network is not None
    modes = [module.training for module in classifier.modules()]
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    random, hparams = torch.get_rng_state(), dict(classifier.hparams)
    dry_run(classifier, 16)
    assert torch.equal(random, torch.get_rng_state()) and hparams == dict(classifier.hparams)
    assert modes == [module.training for module in classifier.modules()]
    assert all(torch.equal(value, classifier.state_dict()[name]) for name, value in state.items())
    assert all(each.grad is None and each.requires_grad for each in classifier.parameters())


def test_nothing_is_tried_where_the_input_is_not_known() -> None:
    dry_run(Classifier("simple-cnn", num_classes=2), 8)
