"""The tests of a run, which it keeps: each a folder and a line of its log, both or none, whenever a program is killed.

::

    tests/.001-NAME.partial/  what a test found out is written      killed here: the next test removes it
    test_logs.csv             gets its line, and from now on it counts
    tests/001-NAME/           the folder gets its name              killed before that: the next test gives it
"""

import csv
import io
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from sagitta.evaluation.result import PREDICTIONS_FILE, Evaluation
from sagitta.files import lock, write_atomic
from sagitta.ranks import by_first_process
from sagitta.run import TEST_LOG, TESTS, name_of

_LOCK = ".lock"
_PARTIAL = ".partial"


@by_first_process
def record_test(run: Path, source: str, model: str, evaluation: Evaluation, *, flip: bool = False) -> Evaluation:
    """Add a test to the run directory, beside those before; returns it with its folder. None but on the first rank.

    Args:
        run: its directory.
        source: the data, as it was named.
        model: what was tested: the name of a checkpoint, or ``members``.
        evaluation: what was found out.
        flip: mirror images took part (``tta``).

    Raises:
        OSError: it cannot be written; then nothing is left of it.
    """
    tests = run / TESTS
    with ExitStack() as together:
        together.enter_context(lock(tests / _LOCK, needed=False))
        together.callback(_finish, run)
        _finish(run)
        folder = tests / _free_name(run, source)
        partial = folder.with_name(f".{folder.name}{_PARTIAL}")
        partial.mkdir(parents=True)  # where the disk has no locks, nobody has made its folder
        evaluation.write(partial)
        how = {"dataset": source, "checkpoint": model, "tta": "flip" if flip else ""}
        about = {} if evaluation.tested is None else evaluation.tested.log()
        where = {"predictions": (folder / PREDICTIONS_FILE).relative_to(run).as_posix()}
        append_test_log(run, how | about | where | evaluation.log())
    return replace(evaluation, folder=folder)


def read_test_log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of ``test_logs.csv``, none where there is no such file."""
    path = run / TEST_LOG
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@by_first_process
def append_test_log(run: Path, line: Mapping[str, Any]) -> None:
    """Add one line to ``test_logs.csv``; what is there stays, and a new column is empty before.

    Args:
        run: its directory, or any folder.
        line: values by column: ``dataset``, ``checkpoint`` and every metric, by full name.
    """
    rows = [*read_test_log(run), line]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(run / TEST_LOG, text.getvalue())


def _free_name(run: Path, source: str) -> str:
    """Return how the next test's folder is called, ``NUMBER-NAME``: the number is that of its line."""
    number = len(read_test_log(run)) + 1
    while any((run / TESTS).glob(f"{number:03d}-*")):
        number += 1
    return f"{number:03d}-{name_of(source)}"


def _finish(run: Path) -> None:
    """Give the folders of tests that count their names, and remove those of tests that do not."""
    counted = {Path(row.get("predictions") or "").parent.name for row in read_test_log(run)}
    for partial in (run / TESTS).glob(f".*{_PARTIAL}"):
        name = partial.name.removeprefix(".").removesuffix(_PARTIAL)
        if name in counted:
            partial.rename(partial.with_name(name))
        else:
            shutil.rmtree(partial)
