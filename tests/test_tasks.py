import torch

from sagitta.tasks import mean_logits, probabilities_of

GENERATOR = torch.Generator().manual_seed(0)


def test_mean_logits_have_the_mean_of_the_probabilities() -> None:
    first, second = torch.randn(2, 5, 4, generator=GENERATOR) * 5
    for multilabel in (False, True):
        mean = (probabilities_of(first, multilabel=multilabel) + probabilities_of(second, multilabel=multilabel)) / 2
        logits = mean_logits(first, second, multilabel=multilabel)
        torch.testing.assert_close(probabilities_of(logits, multilabel=multilabel), mean)


def test_mean_logits_stay_finite_where_probabilities_do_not_fit_float32() -> None:
    certain = torch.tensor([[200.0, -200.0]])
    for multilabel in (False, True):
        assert mean_logits(certain, certain, multilabel=multilabel).isfinite().all()
    torch.testing.assert_close(mean_logits(certain, certain, multilabel=True), certain)
