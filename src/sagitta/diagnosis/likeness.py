"""How alike two images are, whatever was done to one of them: resized, recompressed, brightened, cropped a little.

Two steps, since N images make N * N / 2 pairs:

1. *Candidates.* The lowest 8x8 frequencies of a discrete cosine transform, as the perceptual hash pHash takes them
   (Zauner 2010), but as numbers in place of signs: each divided by its deviation in the dataset, so that all count
   alike. Pairs of high cosine are found by products of matrices, 10^10 pairs in less than a minute.
2. *Registration.* One of the two is shifted and stretched along each axis onto the other (Lucas and Kanade 1981, from
   coarse to fine), with its brightness and contrast. What counts is how the details then agree: the correlation of what
   is left when a blurred copy is taken away, where both have pixels. Photos of the same kind agree in what is coarse;
   only copies agree in details.

A picture of few details says little: of small images only those count that agree almost wholly.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from sagitta.diagnosis.looks import SIDE, Bytes, Floats
from sagitta.diagnosis.symmetries import turned_each, turned_spectra

Ints = npt.NDArray[np.int64]

NEAR, NEAR_SMALL = 0.87, 0.99
"""Correlation of details from which a pair counts as near duplicates, and likewise where one is a small image."""
SMALL, SMALLEST = 64, 16
"""Pixels of the shorter side below which an image is small, and too small for any such comparison."""
_FREQUENCIES = 8
_PRIOR = 30  # images that the usual spectrum of photos counts like
_LEAST, _LEAST_SMALL = 0.55, 0.9  # cosine, of photos and of small images
_MANY = 10  # candidates an image, above which the cosine asked for rises
_TILE = 4096
_PAIRS = 128  # registered at a time
_COARSE, _FINE = ((16, 5), (32, 4)), ((SIDE, 3),)  # pixels a side, and steps
_HOPELESS = 0.85  # correlation after the coarse steps
_STEP, _MOST = 0.08, 0.2  # of a side: how far a step and all of them may move or stretch


def signatures(thumbnails: Bytes, places: Ints, *, square: bool = False) -> Floats:
    """Return (N, 63) float32 of length one, whose products are cosines; zeros for images without any structure.

    Args:
        thumbnails: (M, SIDE, SIDE) uint8.
        places: (N,) of those that are asked for.
        square: weigh frequencies across as those down, so that a turned image has a turned signature.
    """
    found = np.empty((len(places), _FREQUENCIES**2 - 1), np.float32)
    for start in range(0, len(places), _TILE):
        some = thumbnails[places[start : start + _TILE]].astype(np.float32)
        coarse = some.reshape(len(some), 32, SIDE // 32, 32, SIDE // 32).mean(axis=(2, 4))
        lowest = dctn(coarse, axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES]
        found[start : start + len(some)] = lowest.reshape(len(some), -1)[:, 1:]
    down, across = np.indices((_FREQUENCIES, _FREQUENCIES))
    usual = 1 / (down**2 + across**2).ravel()[1:]  # the power of photos falls with the square of the frequency
    power = (found**2).mean(axis=0) if len(found) else usual
    if square:
        table = np.append(0, power).reshape(_FREQUENCIES, _FREQUENCIES)
        power = ((table + table.T) / 2).ravel()[1:]
    usual = usual * power.sum() / usual.sum()
    found /= np.sqrt((len(found) * power + _PRIOR * usual) / (len(found) + _PRIOR) + 1e-6)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(lengths > 1e-2, found / np.maximum(lengths, 1e-6), 0).astype(np.float32)


def turned_signatures(signatures: Floats, symmetry: int) -> Floats:
    """Return the signatures (N, 63), made ``square``, of the images under a symmetry."""
    spectra = np.pad(signatures, ((0, 0), (1, 0))).reshape(len(signatures), _FREQUENCIES, _FREQUENCIES)
    found: Floats = turned_spectra(spectra, symmetry).reshape(len(signatures), _FREQUENCIES**2)[:, 1:]
    return found


class Candidates(NamedTuple):
    """Pairs (P, 2) of high cosine, the most alike first; the symmetry (P,) of the second; whether there are more."""

    pairs: Ints
    symmetries: Ints
    more: bool


def candidates(signatures: Floats, most: int, *, small: bool, symmetries: Sequence[int] = (0,)) -> Candidates:
    """Return pairs of high cosine.

    Args:
        signatures: (N, 63), see there.
        most: pairs.
        small: most of the images are small, so that only those that agree almost wholly count.
        symmetries: under which the second of a pair is compared.
    """
    least = max(_least(signatures, symmetries), _LEAST_SMALL if small else _LEAST)
    pairs, kinds, cosines = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for second in range(0, len(signatures), _TILE):
        for symmetry in symmetries:
            others = turned_signatures(signatures[second : second + _TILE], symmetry).T
            for first in range(0, second + 1, _TILE):
                products = signatures[first : first + _TILE] @ others
                above = np.flatnonzero(products > least)  # ten times as fast as along two axes
                rows, columns = np.divmod(above, products.shape[1])
                if first == second:
                    rows, columns = rows[rows < columns], columns[rows < columns]
                pairs.append(np.stack([rows + first, columns + second], axis=1))
                kinds.append(np.full(len(rows), symmetry))
                cosines.append(products[rows, columns])
    found = np.concatenate(pairs)
    order = np.argsort(-np.concatenate(cosines), kind="stable")[:most]
    return Candidates(found[order], np.concatenate(kinds)[order], len(found) > most)


def _least(signatures: Floats, symmetries: Sequence[int]) -> float:
    """Return the cosine above which there are not too many pairs, by those of rows spread evenly."""
    known = 2000 // len(symmetries)
    some = signatures[np.unique(np.linspace(0, len(signatures) - 1, min(len(signatures), known)).astype(np.int64))]
    above = np.triu_indices(len(some), 1)
    products = np.concatenate([(some @ turned_signatures(some, each).T)[above] for each in symmetries])
    wanted = 1 - 2 * _MANY / len(symmetries) / max(len(signatures), 2 * _MANY + 1)
    return float(np.quantile(products, wanted)) if len(products) > 1000 else 0.0


def likenesses(thumbnails: Bytes, found: Candidates) -> Iterator[Floats]:
    """Yield how the details of pairs agree, -1..1, some at a time."""
    for start in range(0, len(found.pairs), _PAIRS):
        one, other = found.pairs[start : start + _PAIRS].T
        yield likeness(thumbnails[one], turned_each(thumbnails[other], found.symmetries[start : start + _PAIRS]))


def likeness(one: Bytes, other: Bytes) -> Floats:
    """Return how the details of two images agree, -1..1, of (P, SIDE, SIDE) each."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    found = _agreement(a, b, np.zeros((len(a), 4), np.float32), details=True)
    moves = _registered(a, b, np.zeros((len(a), 4), np.float32), _COARSE)
    hopeful = np.flatnonzero(_agreement(a, b, moves, details=False) > _HOPELESS)
    if hopeful.size:
        a, b = a[hopeful], b[hopeful]
        moves = _registered(a, b, moves[hopeful], _FINE)
        found[hopeful] = np.maximum(found[hopeful], _agreement(a, b, moves, details=True))
    return found


def _registered(a: Floats, b: Floats, moves: Floats, levels: tuple[tuple[int, int], ...]) -> Floats:
    """Return the moves (P, 4) after some steps: stretch across and down, shift across and down, in sides.

    A point ``x`` of ``a``, counted from the centre, lies at ``(1 + stretch) * x + shift`` of ``b``.
    """
    for side, steps in levels:
        one, two = (gaussian_filter(_pooled(each, side), (0, 0.8, 0.8)) for each in (a, b))
        u = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
        x, y = u[None, None, :], u[None, :, None]
        for _ in range(steps):
            moved, inside = _moved(two, moves)
            down, across = np.gradient(moved, axis=(1, 2))
            across = across * side / (1 + moves[:, 0, None, None])
            down = down * side / (1 + moves[:, 1, None, None])
            # Of a ~ contrast * (moved + derivatives . change) + brightness, all six unknowns at once.
            slopes = np.stack([across * x, down * y, across, down, moved, np.ones_like(moved)], axis=3)
            slopes = (slopes * inside[..., None]).reshape(len(a), -1, 6)
            wanted = (one * inside).reshape(len(a), -1, 1)
            turned = slopes.transpose(0, 2, 1)
            normal = (turned @ slopes).astype(np.float64) + 1e-3 * np.eye(6)
            found = np.linalg.solve(normal, (turned @ wanted).astype(np.float64))[..., 0]
            contrast = np.where(np.abs(found[:, 4]) < 0.1, 0.1, found[:, 4])
            change = np.clip(found[:, :4] / contrast[:, None], -_STEP, _STEP)
            moves = np.clip(moves + change, -_MOST, _MOST).astype(np.float32)
    return moves


def _pooled(images: Floats, side: int) -> Floats:
    step = SIDE // side
    pooled: Floats = images.reshape(len(images), side, step, side, step).mean(axis=(2, 4))
    return pooled


def _moved(images: Floats, moves: Floats) -> tuple[Floats, Floats]:
    """Return each image under its moves, bilinear, and 1 where its pixels come from inside of it, else 0."""
    side = images.shape[1]
    u = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    xs, ys = ((1 + moves[:, axis, None]) * u + moves[:, 2 + axis, None] for axis in (0, 1))
    inside = ((np.abs(ys) < 0.5)[:, :, None] & (np.abs(xs) < 0.5)[:, None, :]).astype(np.float32)
    weights = [_weights((each + 0.5) * side - 0.5, side) for each in (ys, xs)]  # both axes apart, as two products
    return (weights[0] @ images @ weights[1].transpose(0, 2, 1)).astype(np.float32), inside.astype(np.float32)


def _weights(places: Floats, side: int) -> Floats:
    """Return the matrices (P, side, side) that take values at places (P, side) of an axis, between its pixels."""
    places = np.clip(places, 0, side - 1.001)
    weights: Floats = np.maximum(0, 1 - np.abs(places[:, :, None] - np.arange(side, dtype=np.float32)))
    return weights


def _agreement(a: Floats, b: Floats, moves: Floats, *, details: bool) -> Floats:
    """Return the correlation of ``a`` with the moved ``b`` where both have pixels, of details or of the whole."""
    moved, inside = _moved(b, moves)
    if details:
        a, moved = _details(a), _details(moved)
    one, two = (_centred(each, inside) for each in (a, moved))
    norms = np.sqrt((one**2).sum(axis=(1, 2)) * (two**2).sum(axis=(1, 2)))
    found: Floats = ((one * two).sum(axis=(1, 2)) / np.maximum(norms, 1e-3)).astype(np.float32)
    return found


def _details(images: Floats) -> Floats:
    soft = gaussian_filter(images, (0, 0.7, 0.7))
    found: Floats = soft - gaussian_filter(soft, (0, 2.0, 2.0))
    return found


def _centred(images: Floats, inside: Floats) -> Floats:
    mean = (images * inside).sum(axis=(1, 2), keepdims=True) / np.maximum(inside.sum(axis=(1, 2), keepdims=True), 1)
    found: Floats = (images - mean) * inside
    return found
