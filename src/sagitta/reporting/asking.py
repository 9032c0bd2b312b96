"""What is asked of a report, judged without torch: runs that are there, and a place for the page."""

from collections.abc import Sequence
from pathlib import Path

from sagitta.errors import ConfigError
from sagitta.files import check_place
from sagitta.reporting.page import GENERATOR
from sagitta.run import REPORT_FILE, run_of

COMPARISON_FILE = "comparison.html"
_HEAD = 2000  # characters in which a page says who wrote it


def check_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Refuse a report that cannot be; returns where the page is to be.

    Args:
        runs: their directories.
        out: the file; by default ``report.html`` in the directory of one run, and ``comparison.html`` beside the first
            of several.

    Raises:
        ConfigError: there is no such run, one is given twice, or ``out`` is another's file.
        OSError: it cannot be written.
    """
    if not runs:
        raise ConfigError("a report needs a run: sagitta report RUN")
    if len({run.resolve() for run in runs}) < len(runs):
        raise ConfigError("a run is named twice; compare it with another")
    for run in runs:
        check_run(run)
    default = runs[0] / REPORT_FILE if len(runs) == 1 else runs[0].absolute().parent / COMPARISON_FILE
    target = default if out is None else out
    _check_target(target)
    return target


def check_run(run: Path) -> None:
    """Refuse what is no run directory.

    Raises:
        ConfigError: it is none.
    """
    if run.is_file() or run_of(run) is None:
        hint = "name its run directory" if run.is_file() else "a run directory holds run.json"
        raise ConfigError(f"{run}: no such run; {hint}")


def _check_target(target: Path) -> None:
    """Refuse a place where somebody else's file is, or nothing can be written.

    Raises:
        ConfigError: the name is not that of a page, or the file is no report.
        OSError: nothing can be written there.
    """
    if target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{target}: the name must end in .html")
    check_place(target)
    if target.is_file():
        with target.open(encoding="utf-8", errors="replace") as file:
            if GENERATOR not in file.read(_HEAD):
                raise ConfigError(f"{target}: exists already, and is no report of Sagitta; name another --out")
