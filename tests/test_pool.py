import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sagitta.errors import SagittaError
from sagitta.pool import Pool, ahead, spin_little, usable_cores


def scaled(state: int, job: int) -> tuple[int, int]:
    return os.getpid(), state * job


def died(_state: int, _job: int) -> None:
    os._exit(3)


def refused(_state: int, job: int) -> None:
    raise OSError(28, f"job {job}")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_from_so_many_processes(workers: int) -> None:
    with Pool(10, workers) as pool:
        found = list(pool.map(scaled, range(20)))
        assert [value for _, value in found] == list(range(0, 200, 10))
        assert ({process for process, _ in found} == {os.getpid()}) == (workers == 1)
        with pytest.raises(OSError, match="job 0") as caught:
            list(pool.map(refused, range(3)))
    assert caught.value.errno == 28


def test_a_worker_that_dies_is_an_error_that_says_what_to_do() -> None:
    with Pool(0, 2) as pool, pytest.raises(SagittaError, match="a worker process died"):
        list(pool.map(died, range(3)))


def test_one_worker_is_a_process_where_that_is_asked_for() -> None:
    with Pool(3, 1, apart=True) as pool:
        process, value = pool.submit(scaled, 5).result()
        assert process != os.getpid() and value == 15
        assert pool.submit(refused, 1).exception() is not None
    with Pool(3, 1) as here:
        assert here.submit(scaled, 5).result() == (os.getpid(), 15)
        assert here.submit(refused, 1).exception() is not None


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_so_many_jobs_are_begun_ahead_and_results_are_in_order(depth: int) -> None:
    begun: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(10):
            begun.append(number)
            yield number

    with ThreadPoolExecutor(4) as threads:
        for expected, value in enumerate(ahead(lambda job: threads.submit(abs, job), jobs(), depth)):
            assert value == expected
            assert len(begun) == min(expected + 1 + depth, 10)


def test_more_are_begun_ahead_where_workers_were_idle_and_the_consumer_waits_later() -> None:
    release, begun = threading.Event(), []

    def work(job: int) -> int:
        begun.append(job)
        if job >= 4:
            release.wait(10)
        return job

    with ThreadPoolExecutor(1) as threads:
        results = ahead(lambda job: threads.submit(work, job), range(20), 1, 3)
        for expected in range(3):  # quick: the worker is idle while this consumer rests
            assert next(results) == expected
            while len(begun) < expected + 2:
                time.sleep(0.001)
            time.sleep(0.01)
        threading.Timer(0.2, release.set).start()
        assert list(results) == list(range(3, 20))


def test_an_error_comes_after_the_results_before_it_and_ends_what_is_under_way() -> None:
    def jobs() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("job 3")

    with ThreadPoolExecutor(1) as threads:
        results = ahead(lambda job: threads.submit(abs, job), jobs(), 5)
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(OSError, match="job 3"):
            next(results)


def test_what_is_not_begun_when_the_consumer_ends_is_cancelled() -> None:
    done: list[int] = []

    def work(job: int) -> int:
        time.sleep(0.05)
        done.append(job)
        return job

    with ThreadPoolExecutor(1) as threads:
        results = ahead(lambda job: threads.submit(work, job), range(100), 20)
        next(results)
        results.close()
    assert len(done) <= 3


_UNGUARDED = """
import os, sys
from sagitta.pool import Pool
print("script")
with Pool("xy", 2) as pool:
    print(sum(pool.map(str.count, ["x"] * 5)))
"""


def test_a_script_without_the_main_guard_is_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_UNGUARDED)
    result = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ("script\n5\n", 0), result.stderr


_ENDLESS = """
import sys
sys.path.append("FOLDER")
import test_pool
from sagitta.pool import Pool
if __name__ == "__main__":
    with Pool(0, 2) as pool:
        print(*sorted({pid for pid, _ in pool.map(test_pool.scaled, range(200))}), flush=True)
        list(pool.map(test_pool.sleep, [600, 600]))
"""


def sleep(_state: int, seconds: int) -> None:
    time.sleep(seconds)


def test_the_processes_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import test_pool{_ENDLESS}"
    )
    with subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert workers
        assert all(alive(worker) for worker in workers)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Return whether the process runs; one that has ended and is not waited for does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_progress_is_on_standard_error_of_a_terminal_with_its_rate() -> None:
    code = "from sagitta.pool import follow; follow('writing', iter([3, 4]), 7, show=True)"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("", "")
    reading, terminal = os.openpty()
    shown = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=terminal, check=True)
    told = os.read(reading, 10_000).decode()
    os.close(reading)
    os.close(terminal)
    assert shown.stdout == b""
    assert "7/7" in told
    assert "images/s" in told


@pytest.mark.parametrize(
    ("groups", "own", "granted"),
    [
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"cpu.max": "100000 100000\n"}, "0::/\n", 1),
        ({"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 1),  # the outer group counts, too
        ({"other/cpu.max": "50000 100000\n"}, "0::/\n", None),
        ({"cpu.max": "50000 100000\n"}, "0::/outside/of/the/container\n", 1),
        ({"cpu,cpuacct/d/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/d/cpu.cfs_period_us": "100000\n"},
         "5:memory:/d\n4:cpu,cpuacct:/d\n", 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", None),
    ],
)  # fmt: skip
def test_cores_are_those_that_affinity_and_control_groups_grant(
    tmp_path: Path, groups: dict[str, str], own: str, granted: int | None
) -> None:
    for name, text in groups.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "process").mkdir()
    (tmp_path / "process" / "cgroup").write_text(own)
    assert usable_cores(tmp_path, tmp_path / "process") == (granted or usable_cores(tmp_path, tmp_path / "none"))


def test_a_quota_is_rounded_up_and_affinity_counts(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert usable_cores(tmp_path, tmp_path) == min(2, usable_cores(tmp_path, tmp_path / "none"))
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from sagitta.pool import usable_cores"
    done = subprocess.run([sys.executable, "-c", f"{code}; print(usable_cores())"], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


def test_idle_threads_spin_little_unless_the_user_has_decided() -> None:
    nothing: dict[str, str] = {}
    spin_little(nothing)
    spin_little(decided := {"OMP_WAIT_POLICY": "active"})
    assert nothing and decided == {"OMP_WAIT_POLICY": "active"}
