"""Time that is given, and time that is spent."""

import math
import time

import pytest

from sagitta.clock import Clock, extra, extra_counted


def test_a_clock_ends_when_it_was_given_to() -> None:
    clock = Clock(60.0, time.monotonic() - 50.0)
    assert clock.ends == clock.began + 60.0 and 9.0 < clock.left <= 10.0
    assert Clock(1.0, time.monotonic() - 5.0).left < 0 and Clock().left == math.inf


def test_what_is_spent_extra_is_counted_where_somebody_counts() -> None:
    with extra():  # nobody does
        pass
    with extra_counted() as spent:
        with extra():
            time.sleep(0.02)
        after = spent.seconds
        with extra_counted() as within, extra():  # a member's run, say, has its own
            pass
        with pytest.raises(TypeError), extra():
            time.sleep(None)  # type: ignore[arg-type]
    assert after >= 0.02 and spent.seconds > after
    assert within.seconds < 0.02
