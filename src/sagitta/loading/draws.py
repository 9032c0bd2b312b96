"""Random numbers and permutations that depend on their arguments alone.

Random numbers are *counters put through a hash*, never a generator with a state: SplitMix64's output function
(Steele, Lea, Flood 2014) over (seed, epoch, operation, row, index). A shuffle is a *keyed bijection* of ``[0,
rows)``, computed for the positions asked for and nothing else: a Feistel network (Luby, Rackoff 1988) over
two digits of about ``sqrt(rows)`` values each, with cycle-walking (Black, Rogaway 2002) for the few points
outside. So a plan needs no memory, and any batch of any epoch costs the same.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class Stream(IntEnum):
    """What random numbers are for; no two uses share a stream. The numbers are part of every recorded result."""

    CROP = 0
    SHIFT = 1
    FLIP = 2
    ERASE = 3
    CUTOUT = 4
    VERTICAL = 5
    AUTO = 8  # automatic augmentation
    TRANSFORM = 16  # the user's own
    STEP = 32  # a training step's, of rank 0; those of the other ranks follow


class Key(IntEnum):
    """What a key is for, likewise: whole orders, and the numbers of :func:`uniform`."""

    ROWS = 1
    BLOCKS = 2
    INSIDE = 3
    DRAW = 4
    CLASS = 5


_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = 8
_TINY = 256
_TINY_ROUNDS = 24  # digits of a few values mix slowly: with 8 rounds the orders of five rows are measurably uneven


def uniform(seed: int, epoch: int, rows: Ints, operation: int, count: int) -> npt.NDArray[np.float64]:
    """Return the random numbers of some rows, each a pure function of (seed, epoch, row, operation, index).

    Args:
        seed: of the run.
        epoch: number of the epoch.
        rows: (N,) row numbers.
        operation: a :class:`Stream`; different ones get independent numbers.
        count: how many numbers a row.

    Returns:
        (N, count) float64 in [0, 1), multiples of 2**-53.
    """
    start = mix_bits(mix_bits(np.asarray(rows).astype(np.uint64)) ^ key_of(seed, epoch, Key.DRAW, operation))
    counters = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    bits = mix_bits(start[:, None] + counters)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(positions: Ints, size: int, key: Words, *, inverse: bool = False) -> Ints:
    """Return where a keyed permutation of ``[0, size)`` sends some positions.

    Args:
        positions: (N,) int64 in ``[0, size)``.
        size: of the domain, below 2**62.
        key: () or (1,), or (N,) uint64: a permutation for each position.
        inverse: go back.

    Returns:
        (N,) int64 in ``[0, size)``.
    """
    key = np.broadcast_to(key, positions.shape)
    out = _feistel(positions, size, key, inverse)
    while (outside := np.flatnonzero(out >= size)).size:  # ends: walking a cycle from a point inside comes back inside
        out[outside] = _feistel(out[outside], size, key[outside], inverse)
    return out


def _feistel(positions: Ints, size: int, key: Words, inverse: bool) -> Ints:
    """Permute a near-square that holds ``size``: each round adds a hash of one digit to the other."""
    # Even: with two odd moduli every round, and so every shuffle, would be an even permutation.
    high = 2 * int(np.ceil(np.sqrt(size) / 2))
    low = -(-size // high)
    rounds = range(_TINY_ROUNDS if size < _TINY else _ROUNDS)
    moduli = (np.uint64(high), np.uint64(low))
    digits = list(np.divmod(positions.astype(np.uint64), np.uint64(low)))
    for number in reversed(rounds) if inverse else rounds:
        changed = number % 2
        modulus = moduli[changed]
        salt = np.uint64((number + 1) * _GOLDEN & _MASK)
        # A 32-bit hash times the modulus, shifted back: a number below the modulus without a division.
        step = ((mix_bits((key + salt) ^ digits[1 - changed]) >> np.uint64(32)) * modulus) >> np.uint64(32)
        digits[changed] = (digits[changed] + (modulus - step if inverse else step)) % modulus
    out: Ints = (digits[0] * moduli[1] + digits[1]).astype(np.int64)
    return out


def key_of(*words: int) -> Words:
    """Return a (1,) uint64 hash of some integers, negative ones included."""
    key = np.zeros(1, np.uint64)
    for word in words:
        key = mix_bits((key + np.uint64(_GOLDEN)) ^ np.uint64(word & _MASK))
    return key


def mix_bits(words: Words) -> Words:
    """Return SplitMix64's output function of some words: a bijection that mixes every bit with every bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
