"""Where an evaluation looks: the shorter side to a length, then the centre; pure arithmetic."""

import numpy as np
import numpy.typing as npt

from sagitta.images.decoding import JOB

_LONGEST = 2**30  # pixels of a resized side, of which only the crop is made

Ints = npt.NDArray[np.int64]


def centre_jobs(
    sizes: Ints, orientations: Ints, target: tuple[int, int], scale: tuple[int, int]
) -> npt.NDArray[np.void]:
    """Return one decode job (B,) an image: resized to cover ``scale``, of which the centre is taken.

    Roundings are torchvision's (``Resize`` truncates the longer side, ``CenterCrop`` rounds half to even), so that a
    model evaluates the same here as in timm's pipeline.

    Args:
        sizes: (B, 2) height and width of the upright images.
        orientations: (B,) EXIF orientations that decoding has to apply.
        target: height and width of the crop.
        scale: of a square crop, twice the length of the shorter side; of others, height and width to cover.
    """
    wanted = np.array(target)
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    shorter = max(scale)
    resized = np.where(sizes == short[:, None], shorter, (shorter * long // short)[:, None])
    if target[0] != target[1]:
        factor = np.max(np.array(scale) / sizes, axis=1, keepdims=True)
        resized = np.maximum(np.rint(sizes * factor).astype(np.int64), wanted)
    resized = np.minimum(resized, _LONGEST)
    jobs = np.zeros(len(sizes), JOB)
    jobs["box"][:, 2:] = sizes[:, ::-1]
    jobs["resized"] = resized
    jobs["window"] = np.rint((resized - wanted) / 2)
    jobs["orientation"] = orientations
    return jobs
