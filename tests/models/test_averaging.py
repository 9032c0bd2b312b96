"""The mean of classifiers has the mean of their probabilities, matched by the names of the classes."""

import torch

from sagitta.loading import Preprocessing
from sagitta.models.averaging import averaged
from sagitta.models.classifier import Classifier

HOW = Preprocessing((8, 8), 1.0, "bilinear", (0.5,), (0.5,)).to_dict()


def made(seed: int, names: str, *, multilabel: bool = False) -> Classifier:
    torch.manual_seed(seed)
    return Classifier("simple-cnn", class_names=list(names), preprocessing=HOW, multilabel=multilabel).eval()


def test_probabilities_are_averaged_by_name() -> None:
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for multilabel in (False, True):
        members = [made(seed, names, multilabel=multilabel) for seed, names in enumerate(("abc", "cab", "abc"))]
        first, second, _ = (member.predict_step(images, 0) for member in members)
        flipped = [member.predict_step(images.flip(-1), 0) for member in members[:2]]
        thresholds = [0.2, 0.5, 0.7] if multilabel else None
        whole = averaged(members, [0.3, 0.1, 0.0], thresholds)
        torch.testing.assert_close(whole.predict_step(images, 0), 0.75 * first + 0.25 * second[:, [1, 2, 0]])
        assert whole.class_names == ["a", "b", "c"] and whole.thresholds == (thresholds or [0.5] * 3)
        whole.flip = True
        mirrored = 0.75 * flipped[0] + 0.25 * flipped[1][:, [1, 2, 0]]
        expected = (0.75 * first + 0.25 * second[:, [1, 2, 0]] + mirrored) / 2
        torch.testing.assert_close(whole.predict_step(images, 0), expected)
