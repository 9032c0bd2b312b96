"""Which rows, in which order: pure functions of (rows, seed, epoch, batch, rank, world), with numpy only.

A global batch of 8 rows over 3 ranks; ``np.array_split`` decides who gets more, the first ranks::

    position in the epoch   0 1 2 3 4 5 6 7 | 8 9 ...
    global batch            0 0 0 0 0 0 0 0 | 1 1 ...
    rank                    0 0 0 1 1 1 2 2 | 0 0 ...
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sagitta.errors import ConfigError
from sagitta.loading.draws import Ints, Key, key_of, mix_bits, permute


@dataclass(frozen=True)
class Plan:
    """The order of one split's rows, and how global batches and ranks share them.

    *Training* (``drop_last``): global batch ``b`` holds positions ``[bG, (b+1)G)`` of the epoch's order. The
    ``rows % G`` rows at the end are dropped, other ones each epoch. Fewer rows than ``G`` make one batch of
    all of them, so a set that is not empty never gives an epoch without batches.

    *Evaluation* (not ``drop_last``): every row exactly once over all ranks. With ``B`` batches, batch ``b``
    gets ``rows // B`` rows, the first ``rows % B`` one more. A rank's slice is not empty as long as ``rows //
    B >= world``, that is ``B <= rows // world``; no batch exceeds ``G`` as long as ``B >= ceil(rows / G)``.
    Both hold for ``B = ceil(rows / G)`` when ``G >= 2 * world``: with ``B >= 2``, ``rows > (B-1) G`` gives
    ``rows / B > G / 2``. Otherwise (one image a rank) ``B = rows // world``, and some slices hold two rows:
    better than an empty one, whose mean loss is not a number. Only with fewer rows than ranks are there empty
    slices.

    Attributes:
        rows: number of rows.
        global_batch: rows a batch over all ranks, G.
        seed: of the shuffle.
        shuffle: permute the rows, in another order each epoch.
        drop_last: training's batches, or evaluation's.
        block: shuffle blocks of that many adjacent rows, and the rows within each block, rather than all
            rows: for data of which a distant row costs a request. Take a block of many global batches; a
            batch draws on one or two.

    Raises:
        ConfigError: a number is out of range.
    """

    rows: int
    global_batch: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    block: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("rows", self.rows, 0),
            ("global batch size", self.global_batch, 1),
            ("block", self.block, 1),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{name} {value}: must be at least {least}")

    def batches(self, world: int = 1) -> int:
        """Return the number of global batches of an epoch; ``world`` matters only to evaluation one by one."""
        if self.drop_last:
            return max(self.rows // self.global_batch, min(self.rows, 1))
        return min(-(-self.rows // self.global_batch), max(self.rows // world, min(self.rows, 1)))

    def batch_rows(self, epoch: int, batch: int, rank: int = 0, world: int = 1) -> Ints:
        """Return the rows of one rank's slice of a global batch, in order.

        Args:
            epoch: number of the epoch, from 0.
            batch: number of the global batch, below ``batches(world)``.
            rank: of this process, below ``world``.
            world: number of processes.

        Returns:
            (n,) int64 row numbers; n differs by at most one between ranks.

        Raises:
            IndexError: no such batch or rank.
            ConfigError: training with fewer images a global batch than ranks.
        """
        batches = self.batches(world)
        if not (0 <= batch < batches and 0 <= rank < world):
            raise IndexError(f"batch {batch} of {batches}, rank {rank} of {world}")
        if self.drop_last and self.global_batch < world:
            raise ConfigError(
                f"global batch size {self.global_batch} is below the {world} processes; each needs an image"
            )
        if self.drop_last:
            start = batch * self.global_batch
            size = min(self.global_batch, self.rows)
        else:
            start, size = _share(self.rows, batches, batch)
        offset, own = _share(size, world, rank)
        positions = np.arange(start + offset, start + offset + own, dtype=np.int64)
        return self._order(epoch, positions) if self.shuffle else positions

    def _order(self, epoch: int, positions: Ints) -> Ints:
        if self.block is not None and self.block < self.rows:
            return self._block_order(epoch, positions, self.block)
        return permute(positions, self.rows, key_of(self.seed, epoch, Key.ROWS))

    def _block_order(self, epoch: int, positions: Ints, block: int) -> Ints:
        """Permute the blocks, then the rows inside each; the last block may be short, wherever it comes."""
        blocks = -(-self.rows // block)
        short = self.rows - (blocks - 1) * block
        key = key_of(self.seed, epoch, Key.BLOCKS)
        short_at = block * int(permute(np.array([blocks - 1]), blocks, key, inverse=True)[0])
        # As if the short block were full: positions after it move up by what it lacks.
        aligned = np.where(positions < short_at + short, positions, positions + block - short)
        numbers = permute(aligned // block, blocks, key)
        inside = aligned % block
        for size, mine in ((block, numbers < blocks - 1), (short, numbers == blocks - 1)):
            inside[mine] = permute(
                inside[mine], size, mix_bits(numbers[mine].astype(np.uint64)) ^ key_of(self.seed, epoch, Key.INSIDE)
            )
        out: Ints = numbers * block + inside
        return out


class Balanced:
    """Which rows stand for the rows of a plan so that every class is shown equally often.

    Of an epoch's N places, place ``p`` belongs to class ``p % C`` of the C classes that have rows: their shares differ
    by one place at most, and are as mixed as the plan's order. A class fills its places, epoch after epoch, from one
    endless sequence: a keyed permutation of its rows, then another one, and so on. So, the places of a dropped tail
    aside, each row of a class is shown once before any is shown again: rows of small classes several times an epoch,
    those of large ones in some epochs only.

    A place is answered with a *key*, ``copy * N + row``: ``copy`` counts the permutations that the class has begun in
    this epoch. Random crops and the like depend on the key, so that two copies of a row differ.

    Args:
        labels: (N,) class of each row.
        seed: of the permutations.

    Raises:
        ConfigError: the rows have several labels each.
    """

    def __init__(self, labels: npt.NDArray[Any], seed: int) -> None:
        if labels.ndim != 1:
            raise ConfigError("balanced sampling needs one label a row; these rows have several")
        self._rows = np.argsort(labels, kind="stable").astype(np.int64)  # class by class
        counts = np.bincount(labels)
        starts = np.cumsum(counts) - counts
        self._counts, self._starts = counts[counts > 0].astype(np.int64), starts[counts > 0].astype(np.int64)
        self._seed = seed

    def keys(self, places: Ints, epoch: int) -> Ints:
        """Return the key (n,) of each place (n,) of an epoch, the row being ``key % N``."""
        total, classes = len(self._rows), len(self._counts)
        keys = np.empty_like(places)
        for number in np.unique(places % classes).tolist():
            mine = places % classes == number
            count, share = int(self._counts[number]), -((number - total) // classes)
            cycle, position = np.divmod(epoch * share + places[mine] // classes, count)
            key = mix_bits(cycle.astype(np.uint64)) ^ key_of(self._seed, number, Key.CLASS)
            row = self._rows[self._starts[number] + permute(position, count, key)]
            keys[mine] = (cycle - epoch * share // count) * total + row
        return keys


def _share(total: int, parts: int, part: int) -> tuple[int, int]:
    """Return start and size of one of ``parts`` adjacent shares of ``total``; the first may have one more."""
    size, larger = divmod(total, parts)
    return part * size + min(part, larger), size + (part < larger)
