"""What a model has seen of the images that it is tested on.

``RUN/training_images.parquet`` holds a row an image: ``digest``, the first 64 bits of the hash of the image as a person
gave it, and of its stored bytes where they differ; and ``use``, ``trained`` or ``chose``; in its metadata, a checksum
of both. The digests of a million images take 8 MB, and one of a million others has a chance of 5e-8 to be among them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sagitta.dataset import Split, plural, read_table, write_table
from sagitta.errors import DatasetError
from sagitta.files import content_hash
from sagitta.ranks import by_first_process
from sagitta.run import run_of

SEEN_FILE = "training_images.parquet"

_FEW = 0.05  # of the images: fewer raise an accuracy by less than five points, were all of them learned by heart
_CHECKSUM = b"checksum"
_UNREADABLE = (DatasetError, pa.ArrowException, KeyError, ValueError)  # what a damaged file may end as

Digests = npt.NDArray[np.uint64]
Use = Literal["trained", "chose"]


@dataclass(frozen=True)
class Seen:
    """Digests of the images that a model knows.

    Attributes:
        trained: the weights were fitted to them.
        chose: the checkpoint, or the time to stop, was chosen by them.
    """

    trained: Digests
    chose: Digests

    def count(self, digests: Digests, use: Use) -> int:
        """Return how many images are among them.

        Args:
            digests: (N, k) of each image, from :func:`digests_of`.
            use: see the attributes.
        """
        return int(np.isin(digests, getattr(self, use)).any(axis=1).sum())

    @property
    def checksum(self) -> str:
        """Digest of both."""
        return content_hash(b"".join((self.trained.tobytes(), b"trained", self.chose.tobytes())))

    def __or__(self, other: "Seen") -> "Seen":
        return Seen(np.union1d(self.trained, other.trained), np.union1d(self.chose, other.chose))


def digests_of(split: Split, rows: npt.ArrayLike | None = None) -> Digests:
    """Return the digests (N, 2) of images: of their source, and of what is stored.

    Args:
        split: of any dataset; where its files hold no hashes, they are computed.
        rows: which; all by default.

    Raises:
        DatasetError: an image or a file cannot be read.
    """
    hashes = [split.source_hashes.to_pylist(), split.content_hashes.to_pylist()]
    digests = np.array([[int(text[:16], 16) for text in column] for column in hashes], np.uint64).T
    return digests if rows is None else digests[np.asarray(rows)]


def seen_of(splits: Mapping[str, Split], *, trained: Iterable[str], chose: Iterable[str]) -> Seen:
    """Return what a model has seen that was trained on some splits, and chosen by others; those that are not count.

    Raises:
        DatasetError: as :func:`digests_of` does.
    """

    def together(names: Iterable[str]) -> Digests:
        parts = [digests_of(splits[name]).ravel() for name in names if name in splits]
        return np.unique(np.concatenate([*parts, np.empty(0, np.uint64)]))

    return Seen(together(trained), together(chose))


@by_first_process
def keep_seen(run: Path, seen: Seen, *before: str | Path | None) -> None:
    """Write what a model has seen, and what the run had written before, into its directory, on the first rank only.

    Args:
        run: its directory.
        seen: in this training.
        before: what the weights began as: a run, or a checkpoint in one, has seen what it was trained on.
    """
    earlier = [read_seen(Path(path)) for path in (run, *before) if path is not None]
    whole = reduce(Seen.__or__, [each for each in earlier if each is not None], seen)
    uses = np.repeat(["trained", "chose"], [len(whole.trained), len(whole.chose)])
    table = pa.table(
        {"digest": np.concatenate([whole.trained, whole.chose]), "use": pa.array(uses).dictionary_encode()},
        metadata={_CHECKSUM: whole.checksum},
    )
    write_table(run / SEEN_FILE, table, use_dictionary=["use"])


def read_seen(path: Path) -> Seen | None:
    """Return what a run's model, or that of a checkpoint in a run, has seen; None where nobody noted it.

    Raises:
        DatasetError: what was noted is damaged.
    """
    run = run_of(path)
    if run is None or not (run / SEEN_FILE).is_file():
        return None
    damaged = DatasetError(
        f"{run / SEEN_FILE}: not as it was written. It says which images the model was trained on: without it no test "
        "can tell whether it meets them again. The model is not concerned; remove the file to go on without that "
        "check, or fit again"
    )
    try:
        table = read_table(run / SEEN_FILE)
        digests, uses = table["digest"].to_numpy(), np.array(table["use"].to_pylist())
        seen = Seen(digests[uses == "trained"], digests[uses == "chose"])
    except _UNREADABLE:
        raise damaged from None
    if (table.schema.metadata or {}).get(_CHECKSUM, seen.checksum.encode()) != seen.checksum.encode():
        raise damaged
    return seen


def digest_column(digests: Digests, seen: Seen | None) -> pa.Array:
    """Return digests (N,) as a column of predictions, null where the model was trained on the image.

    Args:
        digests: of the images that people gave.
        seen: what the model was trained on; None: on nothing that anybody noted.
    """
    return pa.array(digests, mask=None if seen is None else np.isin(digests, seen.trained))


def overlap_warnings(images: int, trained: int | None, chose: int | None) -> list[str]:
    """Return what has to be said of a test with images that the model has seen.

    Args:
        images: how many were tested.
        trained: how many of them it was trained on; None where it is not known.
        chose: how many chose its checkpoint, likewise; None also where that goes without saying.
    """
    found = []
    if trained:
        worth = "are a little too good" if trained < _FEW * images else "say little about new ones"
        told = f"{trained:,} of {plural(images, 'image')} {'was' if trained == 1 else 'were'} trained on"
        found.append(f"{told}: the figures {worth}")
    if chose:
        found.append(
            f"{chose:,} of {plural(images, 'image')} chose the checkpoint (val): the figures are somewhat too good"
        )
    return found
