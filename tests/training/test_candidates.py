"""Words of the candidates that a fit with a time limit leaves out; the rest is tried in test_portfolio."""

from sagitta.training.candidates import _too_long


def test_what_is_not_tried_says_what_it_takes_and_may_take() -> None:
    words = _too_long(36.9, 21.7)
    assert words == "it takes about 36.9 s, more than the 7.2 s, a third of what is left, that it may"
    assert _too_long(36.9, -1.0) == "no time is left"
