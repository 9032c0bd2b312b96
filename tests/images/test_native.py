"""No call of the core reads or writes beside an array: shapes and types are checked before."""

from typing import Any

import numpy as np
import pytest

from sagitta.images import JOB, native
from sagitta.loading.pixels import CUT

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native core is not built")


def affine(channels: int) -> native.Affine:
    return np.ones(channels, np.float32), np.zeros(channels, np.float32)


def images(*shape: int) -> Any:
    return np.zeros(shape, np.uint8)


def floats(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("pixels", "out", "channels"),
    [
        (images(2, 3, 4, 5), floats(2, 3, 4, 5), 1),  # as a grey dataset has them, its images made RGB
        (images(2, 1, 4, 5), floats(2, 1, 4, 5), 3),
        (images(2, 3, 4, 5), floats(2, 3, 4, 4), 3),
        (images(2, 3, 4, 5), floats(1, 3, 4, 5), 3),
        (images(2, 3, 4, 5), images(2, 3, 4, 5), 3),
        (images(2, 3, 5, 8)[..., ::2], floats(2, 3, 5, 4), 3),
        (floats(2, 3, 4, 5), floats(2, 3, 4, 5), 3),
    ],
)
def test_normalize_checks(pixels: Any, out: Any, channels: int) -> None:
    core = native.library()
    assert core is not None
    with pytest.raises(ValueError, match=r"the core needs|channels need"):
        native.normalize(core, pixels, out, affine(channels))


@pytest.mark.parametrize(
    "change", [{"row": 2}, {"row": -1}, {"top": 3}, {"top": -1}, {"left": 4}, {"channels": 1}, {"out": (1, 3, 9, 2)}]
)
def test_cut_out_checks(change: dict[str, Any]) -> None:
    core = native.library()
    assert core is not None
    cuts = np.zeros(1, CUT)
    for name in set(change) & set(CUT.names or ()):
        cuts[name] = change[name]
    out = floats(*change.get("out", (1, 3, 2, 2)))
    with pytest.raises(ValueError, match=r"the core needs|channels need|does not lie inside"):
        native.cut_out(core, images(2, 3, 4, 5), cuts, out, affine(change.get("channels", 3)))


def test_decode_batch_checks() -> None:
    core = native.library()
    assert core is not None
    how = {"bicubic": False, "fast": False, "threads": 1}
    for jobs, out in ((np.zeros(1, JOB), images(2, 4, 4, 3)), (np.zeros(2, JOB), images(2, 4, 4, 2))):
        with pytest.raises(ValueError, match=r"images need|the core needs"):
            native.decode_batch(core, [b"", b""], jobs, out, **how)  # type: ignore[arg-type]
