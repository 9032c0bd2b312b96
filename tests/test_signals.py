"""Signals that ask for the end: raised at once, or noted first; what is ignored stays so."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from sagitta.signals import Interrupted, Listener, asking, held, interruption_of, raised


@pytest.fixture(autouse=True)
def same_handlers() -> Iterator[None]:
    """Every test leaves the signals to those who listened before; tests under nohup hear them, too."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    before = [signal.getsignal(number) for number in numbers]
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    assert after == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_with_its_number(number: int) -> None:
    with pytest.raises(Interrupted) as caught, raised():
        signal.raise_signal(number)
    assert caught.value.number == number and caught.value.code == 128 + number
    assert caught.value.what == {2: "interrupted", 15: "ended by SIGTERM", 1: "ended by SIGHUP"}[number]


def test_the_first_signal_is_noted_and_the_second_raises() -> None:
    listener = Listener()
    listener.begin()
    try:
        signal.raise_signal(signal.SIGTERM)
        assert listener.asked == signal.SIGTERM
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    finally:
        listener.end()


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup, and in the background of a shell without job control."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raised():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_slurm_announces_the_end_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert signal.SIGUSR1 not in asking()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert signal.SIGUSR1 in asking()
    with pytest.raises(Interrupted), raised():
        signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize(
    ("error", "number"), [(Interrupted("why", signal.SIGTERM), signal.SIGTERM), (KeyboardInterrupt(), signal.SIGINT)]
)
def test_what_lightning_makes_of_it_is_undone(error: KeyboardInterrupt, number: int) -> None:
    def exit_as_lightning_does() -> None:
        try:
            raise error
        except KeyboardInterrupt:
            sys.exit(1)

    with pytest.raises(SystemExit) as caught:
        exit_as_lightning_does()
    assert interruption_of(caught.value).number == number
    assert str(interruption_of(KeyboardInterrupt("go on"))) == "go on"


BLOCKED = "import signal; print({signal.SIGINT, signal.SIGTERM} <= signal.pthread_sigmask(signal.SIG_BLOCK, []))"


def test_what_is_held_is_done_before_it_is_raised() -> None:
    done = []

    def work() -> None:
        with held():
            signal.raise_signal(signal.SIGTERM)
            child = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)
            done.append(child.stdout)
        done.append("after")

    with pytest.raises(Interrupted) as caught, raised():
        work()
    assert caught.value.number == signal.SIGTERM and done == ["True\n"]


def test_what_another_thread_is_sent_is_held_too() -> None:
    """A process's signal goes to any thread that does not block it."""
    done = []

    def work() -> None:
        with held():
            thread = threading.Thread(target=unblock_and_send)
            thread.start()
            thread.join()
            done.append("all of it")
        done.append("after")

    with pytest.raises(Interrupted), raised():
        work()
    assert done == ["all of it"]


def unblock_and_send() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)
