"""Metrics by torchmetrics: exact over many devices, since their states are summed before they are divided."""

from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score


def classification_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Return micro accuracy (``acc``, the share of images that are right) and macro F1 (``f1``, the mean over classes).

    Both take logits (B, num_classes) and labels int64 (B,).

    Args:
        num_classes: at least 2.
        prefix: put before every name, such as ``val_``.
    """
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(num_classes, average="micro"),
            "f1": MulticlassF1Score(num_classes, average="macro"),
        },
        prefix=prefix,
        # Groups share one state between metrics, but are found by comparing states in the first update, which is
        # not the same on every rank; the two states here are tiny.
        compute_groups=False,
    )
