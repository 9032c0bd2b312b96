"""Which runs may become one, as far as their directories say: no network is opened."""

from collections.abc import Sequence
from pathlib import Path

from sagitta.errors import ConfigError
from sagitta.files import file_hash
from sagitta.run import check_free, find_checkpoint, members_of


def check_several(runs: Sequence[Path], out: Path | None) -> list[list[tuple[Path, float]]]:
    """Refuse runs that cannot become one, as far as their directories say; returns each one's :func:`leaves_of`.

    Args:
        runs: directories.
        out: where the new one is to be.

    Raises:
        ConfigError: there are too few, one is no run or is given twice, or ``out`` is taken or lies in one of them.
    """
    check_free(out)
    if len(runs) < 2:
        raise ConfigError("an ensemble needs at least two runs: sagitta ensemble RUN RUN --out NEW")
    for run in runs:
        if run.is_file():
            raise ConfigError(f"{run}: a checkpoint; give its run directory, which says what it was trained on")
        if out is not None and out.resolve().is_relative_to(run.resolve()):
            raise ConfigError(f"{out}: lies in {run}, one of the runs; name another --out")
    leaves = [leaves_of(run) for run in runs]
    _check_apart(leaves)
    return leaves


def leaves_of(run: Path) -> list[tuple[Path, float]]:
    """Return the runs that a run consists of, with their weights: its members, or itself."""
    members = members_of(run)
    if members is None:
        return [(run, 1.0)]
    return [(run / member["run"], float(member["weight"])) for member in members]


def _check_apart(leaves: Sequence[Sequence[tuple[Path, float]]]) -> None:
    """Refuse a checkpoint that is there twice."""
    known: dict[str, Path] = {}
    for place, _ in (leaf for group in leaves for leaf in group):
        checksum = file_hash(find_checkpoint(place))
        if (other := known.setdefault(checksum, place)) is not place:
            same = "is given twice" if other == place else f"and {other} hold the same checkpoint"
            raise ConfigError(f"{place} {same}; give each run once, and none beside a run that has it as a member")
