"""The log of a run's tests: a line and a folder each, whenever the program is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from sagitta.evaluation.result import Evaluation
from sagitta.evaluation.testlog import read_test_log, record_test


def evaluation(**metrics: float) -> Evaluation:
    return Evaluation(metrics, {}, [], pa.table({"path": ["a.png"]}))


def test_the_log_grows_by_a_line(tmp_path: Path) -> None:
    record_test(tmp_path, "digits", "a.ckpt", evaluation(test_acc=0.5))
    record_test(tmp_path, "others", "a.ckpt", evaluation(test_acc=0.25, test_f1=0.2), flip=True)
    assert (tmp_path / "test_logs.csv").read_text() == (
        "dataset,checkpoint,tta,predictions,test_acc,test_f1\n"
        "digits,a.ckpt,,tests/001-digits/predictions.parquet,0.5,\n"
        "others,a.ckpt,flip,tests/002-others/predictions.parquet,0.25,0.2\n"
    )


def test_each_test_has_a_folder_with_the_number_of_its_line(tmp_path: Path) -> None:
    record_test(tmp_path, "../other photos", "a.ckpt", evaluation())
    (tmp_path / "tests" / "002-mine").mkdir()  # somebody's own
    kept = record_test(tmp_path, "digits", "a.ckpt", evaluation())
    folder = tmp_path / "tests" / "003-digits"
    assert kept is not None and kept.folder == folder
    assert sorted(path.name for path in folder.iterdir()) == ["per_class.csv", "predictions.parquet"]
    assert [row["predictions"].split("/")[1] for row in read_test_log(tmp_path)] == ["001-other-photos", "003-digits"]


def test_of_one_that_cannot_be_written_nothing_is_left(tmp_path: Path) -> None:
    record_test(tmp_path, "digits", "a.ckpt", evaluation())
    (tmp_path / "test_logs.csv").rename(tmp_path / "kept.csv")
    (tmp_path / "test_logs.csv").mkdir()
    with pytest.raises(OSError, match=r"test_logs\.csv"):
        record_test(tmp_path, "digits", "a.ckpt", evaluation())
    assert [path.name for path in (tmp_path / "tests").iterdir()] == ["001-digits"]


# Each trial is a fork, so that everything is imported once.
KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow as pa
from sagitta.evaluation.result import Evaluation
from sagitta.evaluation.testlog import read_test_log, record_test

CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}

def killed_at(number, run):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    seen = 0
    def count(event, arguments):
        nonlocal seen
        if event in CHANGES and str(run) in str(arguments[0]) and (seen := seen + 1) == number:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    test(run)
    os._exit(0)

def test(run):
    record_test(run, "digits", "a.ckpt", Evaluation({"test_acc": 0.5}, {}, [], pa.table({"path": ["a.png"]})))

number, kept = 1, set()
while killed_at(number, run := Path(sys.argv[1], str(number))):
    before = len(read_test_log(run))
    kept.add(before)
    test(run)
    whole = sorted(path.parent.name for path in (run / "tests").glob("*/per_class.csv"))
    listed = sorted(row["predictions"].split("/")[1] for row in read_test_log(run))
    left = sorted(path.name for path in (run / "tests").iterdir())
    assert whole == listed == left and len(listed) == before + 1, (number, whole, listed, left)
    number += 1
assert kept == {0, 1} and len(read_test_log(run)) == 1
print(number - 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_killed_before_any_change_on_the_disk_it_is_whole_or_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 10
