"""What the classifier's arguments may be, known without torch."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from sagitta.errors import ConfigError

ROUNDING = 1e-4
"""How far two engines of 32 bits may be apart in a probability; nearer to another decision, either one is right."""

Schedule = Literal["one-cycle", "cosine", "constant"]
Tune = Literal["head", "full", "gradual"]


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Refuse arguments of the classifier that are out of range, before anything is built."""
    if settings["lr"] is not None and not 0 < settings["lr"] < math.inf:
        raise ConfigError(f"learning rate {settings['lr']}: must be a number above 0")
    for name in ("warmup", "layer_decay", "label_smoothing"):
        if settings[name] is not None and not 0 <= settings[name] <= 1:
            raise ConfigError(f"{name} {settings[name]}: must be from 0 to 1")
    for name in ("mixup", "cutmix"):
        if not 0 <= settings[name] < math.inf:
            raise ConfigError(f"{name} {settings[name]}: must be 0 or more")
    if settings["pretrained"] and settings["weights"] is not None:
        raise ConfigError("pretrained and weights: give one of the two")
