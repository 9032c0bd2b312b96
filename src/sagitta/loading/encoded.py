"""Encoded images by number: what they have in common, and files as the plainest of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sagitta.errors import ImageError
from sagitta.images import MAX_BYTES

Bytes = bytes | memoryview


class Encoded(Protocol):
    """Encoded images, by number; may be used by many threads."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> Bytes:
        """Return one.

        Raises:
            ImageError: there is something else, or too much of it.
            DatasetError: likewise, of a dataset.
            OSError: it cannot be read.
        """
        ...

    def is_reduced(self, number: int) -> bool:
        """Return whether its deep samples and bands are 8-bit pixels already, as in a converted dataset."""
        ...


@dataclass(frozen=True)
class EncodedFiles:
    """Image files, by their paths."""

    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, number: int) -> bytes:
        """Return a file's bytes; raises as :class:`Encoded` says."""
        path = Path(self.paths[number])
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ImageError(f"{size:,} bytes, more than {MAX_BYTES:,}")
        return path.read_bytes()

    def is_reduced(self, number: int) -> bool:
        """Return False."""
        return False
