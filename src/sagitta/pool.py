"""Work spread over processes, each holding one state, with results in order; and a progress bar that tells the rate."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Generic, Self, TypeVar

from sagitta.errors import SagittaError

S = TypeVar("S")  # the state
J = TypeVar("J")  # a job
R = TypeVar("R")  # its result

_state: Any = None


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(Generic[S]):
    """Calls functions of (state, job) in ``workers`` processes, or in this one where one worker is enough.

    A context manager. The processes end with it, and also when this process is killed.
    """

    def __init__(self, state: S, workers: int) -> None:
        """Take the state, which is pickled once for each process, and the number of processes."""
        # A daemonic process, such as another library's worker, may not have children.
        self._serial = workers == 1 or multiprocessing.current_process().daemon
        self._state = state
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if not self._serial:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self._workers, context, _start_worker, (self._state,))
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(self, function: Callable[[S, J], R], jobs: Iterable[J]) -> Iterator[R]:
        """Yield ``function(state, job)`` of each job, in the jobs' order.

        Raises:
            SagittaError: a process died, most likely for lack of memory.
        """
        if self._executor is None:
            for job in jobs:
                yield function(self._state, job)
            return
        with _hidden_main():
            futures = [self._executor.submit(_call, function, job) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        except BrokenProcessPool:
            raise SagittaError(
                "a worker process died, most likely for lack of memory; run the same command again, with fewer workers"
            ) from None


def _start_worker(state: object) -> None:
    global _state
    _state = state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()


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
    """Exhaust ``counts``, the numbers of images finished; if ``show`` and on a terminal, with a progress bar."""
    if not (show and sys.stderr.isatty()):
        for _ in counts:
            pass
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    start = time.monotonic()
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{title:9}", total=total, rate="")
        done = 0
        for count in counts:
            done += count
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, completed=done, rate=f"{rate:,.0f} images/s")
