"""Several classifiers that read images alike as one: the weighted mean of their probabilities."""

from collections.abc import Sequence

from torch import Tensor, nn

from sagitta.models.classifier import Classifier
from sagitta.models.task import Task


class Mean(nn.Module):
    """Logits whose probabilities are the weighted mean of those of several networks.

    Args:
        networks: of the same input, (B, C, H, W).
        weights: of each, above 0, with the sum 1.
        orders: the outputs of each that mean the classes 0, 1, 2 and so on.
        task: one label an image, or several.

    Attributes:
        networks: as given, and so the next two.
        weights: see there.
        orders: see there.
    """

    def __init__(
        self, networks: Sequence[nn.Module], weights: Sequence[float], orders: Sequence[Sequence[int]], task: Task
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.weights, self.orders, self._task = list(weights), [list(order) for order in orders], task

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        logits = [network(images)[:, order] for network, order in zip(self.networks, self.orders, strict=True)]
        return self._task.mean_logits(logits, self.weights)


def averaged(classifiers: Sequence[Classifier], weights: Sequence[float], thresholds: list[float] | None) -> Classifier:
    """Return the first of some classifiers with the networks of them all: it gives the mean of their probabilities.

    Args:
        classifiers: trained, of the same preprocessing and classes, whose order may differ.
        weights: of each, at least 0; those of 0 take no time.
        thresholds: (classes,) from which each of several labels is given, in the first one's order.
    """
    kept = [(each, weight) for each, weight in zip(classifiers, weights, strict=True) if weight > 0]
    first, names = classifiers[0], classifiers[0].class_names
    networks = [each.network for each, _ in kept if each.network is not None]
    orders = [[each.class_names.index(name) for name in names] for each, _ in kept]
    total = sum(weight for _, weight in kept)
    first.network = Mean(networks, [weight / total for _, weight in kept], orders, first.task)
    first.thresholds, first.temperature = thresholds, 1.0  # each has its own
    return first
