"""How many bits an exported model computes with, or is kept in, in the words of ``fit --precision``; and int8."""

from typing import Any

from sagitta.errors import ConfigError
from sagitta.models import ROUNDING

FLOAT32, FLOAT16, BFLOAT16, INT8 = "32", "16", "bf16", "int8"
PRECISIONS = (FLOAT32, FLOAT16, BFLOAT16, INT8)
CLOSE = {FLOAT32: ROUNDING, FLOAT16: 1e-2, BFLOAT16: 1e-2}
"""How far a probability may be off."""
LOST = 0.003
"""Share of the images that int8 may get wrong more than the checkpoint does."""
FASTER = 1.3
"""How many times as fast as float32 int8 must be, for one image and for 32."""


def precision_named(given: Any) -> str:
    """Return a precision by its short name; ``16-true`` is 16, as everywhere.

    Raises:
        ConfigError: there is no such precision, or it is one of a training alone.
    """
    name = str(given).removesuffix("-true")
    if name in PRECISIONS:
        return name
    if (alone := name.removesuffix("-mixed")) in PRECISIONS and alone != name:
        raise ConfigError(f"--precision {given}: mixed is a training's way, a file has one precision; give {alone}")
    raise ConfigError(f"--precision {given}: no such precision of an export; there are {', '.join(PRECISIONS)}")


def gate_of(precision: str) -> str:
    """Return what an export of a precision must pass to be written, in words."""
    if precision == INT8:
        return (
            f"at most {LOST:.1%} of the labelled images lost against the checkpoint, and at least {FASTER:g} times as "
            "fast as float32"
        )
    return (
        f"every decision the checkpoint's, unless its two best differ by less than {ROUNDING:g}; probabilities within "
        f"{CLOSE[precision]:g}"
    )
