"""Sums while fitting, all predictions otherwise; both mean the same."""

import pytest
import torch
from torch.nn import functional as F

from sagitta.models.measures import Measures
from sagitta.models.task import MULTI_LABEL, SINGLE_LABEL

GENERATOR = torch.Generator().manual_seed(0)


def test_kept_predictions_and_sums_give_the_same_values() -> None:
    measures, logits, labels = (
        Measures(SINGLE_LABEL, 12),
        torch.randn(40, 12, generator=GENERATOR),
        torch.arange(40) % 11,
    )
    for start in (0, 30):  # batches of different sizes
        part, of = logits[start : start + 30], labels[start : start + 30]
        summed = measures.update("val", F.cross_entropy(part, of), part, of, fitting=True)
        kept = measures.update("test", F.cross_entropy(part, of), part, of, fitting=False)
    assert list(kept) == ["test_loss"] and set(summed) == {"val_loss", "val_acc", "val_f1", "val_top5"}
    found = measures.gather()
    assert found is not None and measures.gather() is None
    assert torch.equal(found[1], labels) and torch.equal(found[0], logits.softmax(dim=1))
    values = SINGLE_LABEL.values(*found, [])
    assert {f"val_{name}": value for name, value in values.items()} == pytest.approx(
        {name: float(metric.compute()) for name, metric in summed.items() if name != "val_loss"}, abs=1e-6
    )
    assert float(summed["val_loss"].compute()) == pytest.approx(float(F.cross_entropy(logits, labels)))


def test_several_labels_are_kept_in_validation_and_summed_in_training() -> None:
    measures, logits = Measures(MULTI_LABEL, 3), torch.randn(4, 3, generator=GENERATOR)
    labels = torch.tensor([[1.0, 0.4, 0.6]] * 4)
    assert "train_f1" in measures.update("train", torch.tensor(1.0), logits, labels, fitting=True)
    assert measures.gather() is None
    assert list(measures.update("val", torch.tensor(1.0), logits, labels, fitting=True)) == ["val_loss"]
    found = measures.gather()
    assert found is not None and found[1].tolist() == [[1, 0, 1]] * 4
