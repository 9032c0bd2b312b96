"""Locks between processes and threads, also where the holder removes what it held."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sagitta.files import check_place, lock, new_file, remedy, write_atomic


def test_the_holder_may_remove_file_and_folder(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "folder" / "lock", [0], [0]

    def work() -> None:
        for _ in range(30):
            with lock(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1
                path.unlink()
                with suppress(OSError):  # somebody waits in it
                    path.parent.rmdir()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] and not path.exists()


def test_nothing_is_left_but_what_another_one_holds(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    with pytest.raises(ValueError, match="any"), lock(path):
        raise ValueError("any")
    with lock(path, wait=False):
        path.unlink()
        other = lock(path, wait=False)
        other.__enter__()
    assert path.exists()
    other.__exit__(None, None, None)
    assert not path.exists() and path.parent.exists()


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    code = "import sys, time, pathlib; from sagitta.files import lock\nwith lock(pathlib.Path(sys.argv[1])):"
    code += "\n    print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        os.kill(holder.pid, signal.SIGKILL)
    with lock(tmp_path / "lock"):
        pass


@pytest.fixture
def no_locks(tmp_path: Path) -> dict[str, str]:
    """An environment in which the system refuses locks, as some network file systems do."""
    (tmp_path / "flock.c").write_text(
        "#include <errno.h>\nint flock(int file, int how) { errno = ENOSYS; return -1; }\n"
    )
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler, or another loader")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "flock.so", "flock.c"], cwd=tmp_path, check=True)
    cache = {"SAGITTA_CACHE": str(tmp_path / "cache")}
    return {**os.environ, **cache, "LD_PRELOAD": str(tmp_path / "flock.so")}


def test_a_disk_without_locks_is_named(tmp_path: Path, no_locks: dict[str, str]) -> None:
    command = [sys.executable, "-m", "sagitta", "convert", "digits", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=no_locks, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("sagitta: out: this disk has no locks between processes")
    assert not (tmp_path / ".out.partial").exists()
    code = "import pathlib, sagitta.files as f\nwith f.lock(pathlib.Path('lock'), needed=False): print('held')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=no_locks, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("held\n", "")


_RECORDS = """
from pathlib import Path
import pyarrow as pa
from sagitta.evaluation import record_test
from sagitta.evaluation.result import Evaluation
for _ in range(2):
    record_test(Path("run"), "digits", "a.ckpt", Evaluation({}, {}, [], pa.table({"path": ["a.png"]})))
"""


def test_a_disk_without_locks_keeps_tests_all_the_same(tmp_path: Path, no_locks: dict[str, str]) -> None:
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", _RECORDS]
    done = subprocess.run(command, cwd=tmp_path, env=no_locks, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "run/tests").iterdir()) == ["001-digits", "002-digits"]


_WRITES = """
import pathlib, sys
from sagitta.files import new_file
with new_file(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_a_writer_whose_new_file_is_removed_before_it_is_locked_begins_again(tmp_path: Path) -> None:
    """Another one may take it for a dead writer's meanwhile."""
    target = tmp_path / "file"
    with new_file(target) as temporary:
        pass  # tells its name
    begun, ended = threading.Event(), threading.Event()

    def write() -> None:
        with new_file(target) as again:
            again.write_text("whole")
            begun.set()
            ended.wait(10)

    with temporary.open("wb") as removing:
        fcntl.flock(removing, fcntl.LOCK_EX)
        thread = threading.Thread(target=write)
        thread.start()
        begun.wait(0.5)  # a writer that does not wait for the lock has begun
        temporary.unlink()
    ended.set()
    thread.join()
    assert target.read_text() == "whole" and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_goes_when_the_file_is_written_again_and_that_of_a_living_one_stays(
    tmp_path: Path,
) -> None:
    target, command = tmp_path / "file", [sys.executable, "-c", _WRITES]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen([*command, str(target)], **pipes) as killed,
        subprocess.Popen([*command, str(target)], **pipes) as living,
        subprocess.Popen([*command, str(tmp_path / "other")], **pipes) as another,
    ):
        for process in (killed, living, another):
            assert process.stdout and process.stdout.readline() == b"written\n"
        killed.kill()
        killed.wait()
        another.kill()
        another.wait()
        write_atomic(target, "whole")
        left = [path.name.split(".")[2] for path in tmp_path.glob(".*.tmp")]
        assert sorted(left) == sorted([str(living.pid), str(another.pid)])
        assert living.stdin
        living.stdin.close()
        assert living.wait() == 0
    assert target.read_text() == "half"  # the last one wins, whole
    write_atomic(tmp_path / "other", "whole")
    assert not list(tmp_path.glob(".*.tmp"))


def test_who_does_not_want_to_wait_is_told(tmp_path: Path) -> None:
    with lock(tmp_path / "lock"), pytest.raises(BlockingIOError), lock(tmp_path / "lock", wait=False):
        pass
    with lock(tmp_path / "lock", wait=False):
        pass


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(FileExistsError), lock(tmp_path / "folder" / "lock"):
        pass


def test_a_lock_where_nothing_can_be_made_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file or directory"), lock(Path("/proc/nothing/here")):
        pass


@pytest.mark.parametrize("data", [b"x" * 100_000, "x" * 100_000])
def test_a_file_that_cannot_be_written_is_named_by_its_own_name(tmp_path: Path, data: bytes | str) -> None:
    """A limit on the size of files stands for a full disk; what was there before stays."""
    target = tmp_path / "report.csv"
    write_atomic(target, "before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_atomic(target, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(target) and caught.value.errno == errno.EFBIG
    assert remedy(caught.value).startswith(f"{target}: larger than a file may be here; ")
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]


def test_a_copy_that_has_no_room_is_named_and_not_what_is_copied(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            shutil.copyfile(tmp_path / "there", tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert remedy(caught.value).startswith(f"{tmp_path / 'copy'}: larger than a file may be here; ")


def test_a_long_name_leaves_room_for_the_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / ("folder" * 20) / ("x" * 250)
    write_atomic(target, "whole")
    assert target.read_text() == "whole" and len(list(target.parent.iterdir())) == 1


def test_a_place_is_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    check_place(tmp_path / "file")
    check_place(tmp_path / "new.csv")
    for name, words in (
        ("none/x.csv", "make it first: mkdir -p"),
        ("file/x.csv", "a file is where a folder is needed"),
        ("", "a folder, where a file is needed"),
    ):
        with pytest.raises((FileNotFoundError, NotADirectoryError, IsADirectoryError)) as caught:
            check_place(tmp_path / name)
        assert remedy(caught.value).startswith(f"{tmp_path / name}: ") and words in remedy(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
