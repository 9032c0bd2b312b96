"""Time that is given, and time that is spent: the clock of ``--time``, and what making a result believable costs."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

BEGAN: ContextVar[float | None] = ContextVar("began", default=None)
"""When a person had typed a command, by :func:`time.monotonic`, before anything was loaded; None where nobody did."""


@dataclass(frozen=True)
class Clock:
    """A time that is given.

    Attributes:
        seconds: how long it is; without an end by default.
        began: by :func:`time.monotonic`; now by default.
    """

    seconds: float = math.inf
    began: float = field(default_factory=time.monotonic)

    @property
    def ends(self) -> float:
        """When it is over, likewise."""
        return self.began + self.seconds

    @property
    def left(self) -> float:
        """Seconds that are left; below 0 where it is over."""
        return self.ends - time.monotonic()


@dataclass
class Extra:
    """What a command spends on making its result believable, beside the result itself.

    Attributes:
        seconds: of the parts that have ended.
    """

    seconds: float = 0.0


_EXTRA: ContextVar[Extra | None] = ContextVar("extra", default=None)


@contextmanager
def extra_counted() -> Iterator[Extra]:
    """Count what is spent meanwhile within :func:`extra`."""
    spent = Extra()
    token = _EXTRA.set(spent)
    try:
        yield spent
    finally:
        _EXTRA.reset(token)


@contextmanager
def extra() -> Iterator[None]:
    """Count this block as spent on making a result believable, where somebody counts; blocks do not nest."""
    spent, began = _EXTRA.get(), time.monotonic()
    try:
        yield
    finally:
        if spent is not None:
            spent.seconds += time.monotonic() - began
