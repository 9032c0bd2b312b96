"""Runs -> a report on disk: asked for by a person, or left behind by what made a run, at little cost."""

from collections.abc import Sequence
from pathlib import Path

from sagitta.clock import Clock
from sagitta.evaluation import quiet
from sagitta.files import write_atomic
from sagitta.ranks import is_first_process
from sagitta.reporting.asking import check_report
from sagitta.reporting.gathering import gather
from sagitta.reporting.page import render
from sagitta.reporting.single import Single
from sagitta.reporting.versus import Versus
from sagitta.run import REPORT_FILE, RUN_FILE, TEST_LOG
from sagitta.terminal import show

_LEAST_SECONDS, _SHARE = 10.0, 0.1
"""What a report may take that nobody asked for: so many seconds, or that share of the run where it is more."""


def write_report(
    runs: Sequence[Path], out: Path | None = None, images: bool = True, *, clock: Clock | None = None, umap: bool = True
) -> Path:
    """Write one HTML file about a run, or about several side by side; returns where it is.

    Args:
        runs: their directories.
        out: the file; by default ``report.html`` in the directory of one run, and ``comparison.html`` beside the first
            of several. A file that is no report is never replaced.
        images: show pictures of the data.
        clock: until when it may be worked on; what there is no time for is left out, with a line.
        umap: draw the map by UMAP where that is installed.

    Raises:
        ConfigError: there is no such run, one is given twice, or ``out`` is another's file.
        OSError: it cannot be written.
    """
    clock = clock or Clock()
    target = check_report(runs, out)
    gathered = [gather(run) for run in runs]
    with quiet():
        if len(runs) == 1:
            page = render("run.html", Single(gathered[0], images=images, clock=clock, umap=umap).values())
        else:
            page = render("versus.html", Versus(gathered, target, images=images, clock=clock).values())
    write_atomic(target, page)
    return target


def _is_fresh(run: Path) -> bool:
    """Return whether a run's report is newer than its record and its tests."""
    if not (run / REPORT_FILE).is_file():
        return False
    told = [path for path in (run / RUN_FILE, run / TEST_LOG) if path.is_file()]
    return all(path.stat().st_mtime_ns < (run / REPORT_FILE).stat().st_mtime_ns for path in told)


def leave_report(run: Path, seconds: float, limit: float | None = None, spent: float = 0.0) -> Path | None:
    """Write the report of a run that has just been made or tested; what fails is one line, and hinders nobody.

    One that is there already, and as new as what it tells of, stays: a run that is resumed may have been finished.

    Args:
        run: its directory.
        seconds: that the run, or the test, has taken: a tenth of it may be added, or ten seconds where that is more.
        limit: at most so many seconds, whatever it took.
        spent: seconds of these that went into other things of the same purpose, which come out of the same tenth, see
            :func:`sagitta.clock.extra`.

    Returns:
        The file; None where there is none, and on every process but the first.
    """
    if not is_first_process():
        return None
    if _is_fresh(run):
        return run / REPORT_FILE
    allowed = max(_LEAST_SECONDS, _SHARE * (seconds - spent)) - spent
    clock = Clock(allowed if limit is None else min(allowed, limit))
    try:
        return write_report([run], clock=clock, umap=False)
    except KeyboardInterrupt:
        show(f"the report was interrupted; everything else is there: sagitta report {run} writes it")
    except Exception as error:  # whatever it is, the run is done
        reason = " ".join(str(error).split()) or type(error).__name__
        (run / REPORT_FILE).unlink(missing_ok=True)  # one that was there does not know of the last test
        show(f"note: no report was written ({reason}); everything else is there, and sagitta report {run} tries again")
    return None
