import numpy as np
import pytest

from sagitta.training.head import fit_head


def clouds(classes: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around one centre a class, far from zero and of unequal scale."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    centres = rng.normal(size=(classes, 20)) * 2
    points = (centres[labels] + rng.normal(size=(rows, 20))) * np.geomspace(0.01, 100, 20) + 50
    points[:, 3] = 7.0  # a feature that says nothing
    return points.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("rows", "train", "folds"), [(200, 180, 5), (2400, 1300, 0)])
def test_head_works_on_features_as_they_are(classes: int, rows: int, train: int, folds: int) -> None:
    features, labels = clouds(classes, rows)
    head = fit_head(features.copy(), labels, train)
    assert head.folds == folds
    assert head.weight.shape == (classes, 20) and head.weight.dtype == head.bias.dtype == np.float32
    right = ((features @ head.weight.T + head.bias).argmax(axis=1) == labels).mean()
    assert right > 0.97
    assert head.val.low < head.val.value and abs(head.val.value - right) < 0.03


def test_validation_does_not_see_what_it_judges() -> None:
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(200, 400)).astype(np.float32), rng.integers(0, 2, 200)
    head = fit_head(noise, labels, 160)
    assert head.val.low < 0.5 < head.val.high  # the head itself knows all of them by heart


def test_few_images_of_a_class_make_fewer_folds() -> None:
    features, labels = clouds(2, 60)
    labels[:] = 0
    labels[:3] = 1
    assert fit_head(features, labels, 50).folds == 3
