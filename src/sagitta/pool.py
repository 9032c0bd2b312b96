"""Work spread over cores and processes, each holding one state; results in order, some ahead; a bar with the rate."""

import atexit
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, MutableMapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Self, TypeVar

from sagitta import terminal
from sagitta.errors import SagittaError
from sagitta.signals import held

S = TypeVar("S")  # the state
J = TypeVar("J")  # a job
R = TypeVar("R")  # its result

_SPIN = {"GOMP_SPINCOUNT": "50000"}  # of those in bench/busy.py the least that loses nothing on a quiet machine
_LAST = 5.0  # seconds that a worker stays when it is asked to end; whoever it works for is mostly asked, too
_BAR = 60  # cells of a progress bar with its numbers
_state: Any = None
_open: "weakref.WeakSet[Generator[Any, None, None]]" = weakref.WeakSet()


def usable_cores(groups: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self")) -> int:
    """Return the number of cores that this process may use: by its affinity, and by the quota of its control groups.

    A quota is rounded up; that of a container counts here, which the number of the machine's cores does not know.

    Args:
        groups: where the control groups are mounted, version 2 or 1.
        process: folder whose ``cgroup`` names those of this process.
    """
    count = getattr(os, "process_cpu_count", None)  # Python 3.13: also by -X cpu_count
    if count is not None:
        cores = count() or 1
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas(groups, process))]))


def _quotas(groups: Path, process: Path) -> Iterator[float]:
    """Yield how many cores each control group around a process grants, as far as there is a limit."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, files = groups, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            root = next((path for path in (groups / controllers, groups / "cpu") if path.is_dir()), groups)
            files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        inside = root / name.lstrip("/")
        for folder in [root, *(each for each in (inside, *inside.parents) if root in each.parents)]:
            try:
                quota, period = " ".join((folder / file).read_text() for file in files).split()
            except (OSError, ValueError):  # of a container, the path outside
                continue
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)


def spin_little(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep when they have nothing to do, where the user has not decided that.

    They would spin for the next piece of work, and take the cores from whoever has some. It counts for what loads torch
    afterwards, and for the processes that are started.
    """
    if not environment.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        environment.update(_SPIN)


class Pool(Generic[S]):
    """Calls functions of (state, job) in ``workers`` processes, or in this one where one worker is enough.

    A context manager. The processes end with it, and also when this process is killed.
    """

    def __init__(self, state: S, workers: int, *, apart: bool = False, script: bool = False) -> None:
        """Take the state, which is pickled once for each process, and the number of processes.

        Args:
            state: of each process.
            workers: number of processes.
            apart: have a process even where one worker is enough.
            script: the processes import the script that is run, since the state is defined there; it needs the
                ``__main__`` guard.
        """
        # A daemonic process, such as another library's worker, may not have children.
        self._serial = (workers == 1 and not apart) or multiprocessing.current_process().daemon
        self._script = script
        self._state = state
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None
        self._others: set[BaseProcess] = set()

    def __enter__(self) -> Self:
        if not self._serial:
            self._others = set(multiprocessing.active_children())
            context = multiprocessing.get_context("spawn")
            with held():  # else its semaphores would outlive it
                self._executor = ProcessPoolExecutor(self._workers, context, _start_worker, (self._state,))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._executor is None:
            return
        with held():  # a second one would leave the executor half ended, for ever
            if kind is not None and issubclass(kind, KeyboardInterrupt):  # nobody waits for what is under way
                for process in set(multiprocessing.active_children()) - self._others:
                    process.terminate()
            self._executor.shutdown(cancel_futures=True)

    def submit(self, function: Callable[[S, J], R], job: J) -> "Future[R]":
        """Return what will hold ``function(state, job)``; in this process it is called now."""
        if self._executor is not None:
            # Processes that are started inherit what is blocked: a signal would end them with a traceback each, or end
            # them so early that the executor takes itself for broken.
            with held(), nullcontext() if self._script else _hidden_main():
                return self._executor.submit(_call, function, job)
        future: Future[R] = Future()
        try:
            future.set_result(function(self._state, job))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, function: Callable[[S, J], R], jobs: Iterable[J]) -> Iterator[R]:
        """Yield ``function(state, job)`` of each job, in the jobs' order.

        Raises:
            SagittaError: a process died, most likely for lack of memory.
        """
        if self._executor is None:
            for job in jobs:
                yield function(self._state, job)
            return
        try:
            for future in [self.submit(function, job) for job in jobs]:  # which may fail, too
                yield future.result()
        except BrokenProcessPool:
            raise SagittaError(
                "a worker process died, most likely for lack of memory; run the same command again, with fewer workers"
            ) from None


def ahead(submit: Callable[[J], "Future[R]"], jobs: Iterable[J], depth: int, most: int = 0) -> Generator[R, None, None]:
    """Yield the results of jobs in their order, with ``depth`` of them under way beside the one that is waited for.

    One more is begun ahead whenever the workers had nothing to do and the consumer had to wait later: a longer queue
    would have bridged that. What is under way when the consumer ends, or a job fails, is cancelled.

    Args:
        submit: begins a job.
        jobs: taken one by one, as they are begun.
        depth: how many are begun ahead.
        most: up to which the depth grows.
    """
    pending: deque[Future[R]] = deque()
    idle = False
    begun = _begun(submit, jobs)
    try:
        for future in begun:
            pending.append(future)
            if len(pending) > depth:
                if idle and not pending[0].done() and depth < most:
                    depth, idle = depth + 1, False
                    continue
                yield pending.popleft().result()
                idle = idle or all(other.done() for other in pending)
        while pending:
            yield pending.popleft().result()
    finally:
        begun.close()
        for future in pending:
            future.cancel()


def _begun(submit: Callable[[J], "Future[R]"], jobs: Iterable[J]) -> Generator["Future[R]", None, None]:
    """Yield what will hold each result; where the jobs end with an error, it comes after what was begun."""
    try:
        for job in jobs:
            yield submit(job)
    except Exception as error:
        failed: Future[R] = Future()
        failed.set_exception(error)
        yield failed


def closed_at_exit(generator: Generator[R, None, None]) -> Generator[R, None, None]:
    """Return a generator that the end of the program closes, if nobody has done it before.

    Else the interpreter would close it when the modules that its threads and processes end with are gone already.
    """
    _open.add(generator)
    return generator


@atexit.register
def _close_all() -> None:
    for generator in list(_open):
        with suppress(ValueError):  # a thread that ends with the program is in the middle of it
            generator.close()


def _start_worker(state: object) -> None:
    global _state
    _state = state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends the pool
    signal.signal(signal.SIGTERM, _end_late)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_late(*_: object) -> None:
    """Leave the parent the time to finish what it has begun, where both were asked to end."""
    timer = threading.Timer(_LAST, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _call(function: Callable[[Any, J], R], job: J) -> R:
    return function(_state, job)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep spawned processes from running the user's script again, which may lack the ``__main__`` guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def follow(title: str, counts: Iterable[int], total: int, *, show: bool) -> None:
    """Exhaust ``counts``, the numbers of images finished; with :func:`progress`."""
    with progress(title, total, show=show) as advance:
        for count in counts:
            advance(count)


@contextmanager
def progress(title: str, total: int, *, show: bool) -> Iterator[Callable[[int], None]]:
    """Yield what is told the numbers of images finished; if ``show`` and on a terminal, it moves a progress bar.

    A title that leaves no room for the bar stands above it.
    """
    if not (show and total and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    if len(title) > (terminal.columns(sys.stderr) or _BAR) - _BAR:
        terminal.show(title, sys.stderr)
        title = ""
    start, done = time.monotonic(), 0
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{title:9}", total=total, rate="")

        def advance(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, completed=done, rate=f"{rate:,.0f} images/s")

        yield advance
