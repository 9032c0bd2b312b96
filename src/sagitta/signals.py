"""What ends a command before its time: Ctrl-C, and the signals of a scheduler or of a terminal that is closed."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end.

    Attributes:
        number: of the signal; that of Ctrl-C where nobody says.
    """

    def __init__(self, message: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number

    @property
    def code(self) -> int:
        """What the process exits with, as a shell reports a signal."""
        return 128 + self.number

    @property
    def what(self) -> str:
        """What happened, as a person calls it."""
        return "interrupted" if self.number == signal.SIGINT else f"ended by {signal.Signals(self.number).name}"


class Ended(SystemExit):
    """The end of a process that is not the first of its run: without a word, since that one says why."""


def interruption_of(error: BaseException) -> Interrupted:
    """Return what ended a piece of work that Python or Lightning reports in its own words.

    Lightning makes of each ``KeyboardInterrupt`` an exit of the program, and so do we of that.
    """
    found = error.__context__ if isinstance(error, SystemExit) else error
    return found if isinstance(found, Interrupted) else Interrupted(str(found) if found is error else "")


def asking() -> list[signal.Signals]:
    """Return the signals that ask for the end; one that is ignored, as under ``nohup``, stays so.

    SLURM sends SIGUSR1 ahead of a job's end where a script says so (``#SBATCH --signal=USR1@90``).
    """
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    signals += [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
    return [each for each in signals if signal.getsignal(each) not in (signal.SIG_IGN, None)]


@contextmanager
def held() -> Iterator[None]:
    """Let a signal that asks for the end come afterwards; what must not end half done is done meanwhile.

    Blocking alone would not do: another thread may take the signal, and Python calls the handler in the main one. But
    it is what processes inherit that are started meanwhile: they are born deaf to it.
    """
    came: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in asking()} if main else {}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, asking())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        for asked in came[:1]:
            signal.raise_signal(asked)


@contextmanager
def raised() -> Iterator[None]:
    """Raise :class:`Interrupted` meanwhile where a signal asks for the end, wherever the work stands."""
    listener = Listener()
    listener.asked = signal.SIGINT  # as if it had been asked before
    listener.begin()
    try:
        yield
    finally:
        listener.end()


class Listener:
    """Notes a signal that asks for the end, for work that ends at a point of its own; the second one raises.

    In another than the main thread, which signals do not reach, it hears nothing.

    Attributes:
        asked: number of the first signal; 0 before.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[signal.Signals, Handler | int | None] = {}

    def begin(self) -> None:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in asking():
                self._before[number] = signal.signal(number, self._hear)

    def end(self) -> None:
        """Leave the signals to those who listened before; once."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.asked:
            raise Interrupted(number=number)
        self.asked = number
