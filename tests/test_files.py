"""Locks between processes and threads, also where the holder removes what it held."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from sagitta.files import lock


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


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    code = "import sys, time, pathlib; from sagitta.files import lock\nwith lock(pathlib.Path(sys.argv[1])):"
    code += "\n    print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        os.kill(holder.pid, signal.SIGKILL)
    with lock(tmp_path / "lock"):
        pass


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(FileExistsError), lock(tmp_path / "folder" / "lock"):
        pass


def test_a_lock_where_nothing_can_be_made_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file or directory"), lock(Path("/proc/nothing/here")):
        pass
