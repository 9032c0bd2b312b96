"""The processes of one run, one a device: who is the first, what they tell each other, how they begin and end together.

::

    rank 0 ── starts ──> rank 1        the first process of each machine starts the others there, as the same command;
      │ store                          torchrun and SLURM start all of them, and give them the variables of a rank
    rank 2 ── starts ──> rank 3        another machine, which MASTER_ADDR and NODE_RANK lead to the first

What the first process finds is told to the others through a store, which is there before they compute together. Where
one of them ends before its time, the others end within seconds, and one line says so.
"""

import atexit
import itertools
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sagitta.errors import ConfigError, SagittaError
from sagitta.pool import usable_cores
from sagitta.terminal import show

if TYPE_CHECKING:
    import lightning.pytorch as pl

T = TypeVar("T")
P = ParamSpec("P")

# As Lightning looks for them, the first that is set; a launcher of one process a machine gives only the last two.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK", "GROUP_RANK")

_LEADER = "SAGITTA_LEADER"  # tells a process which one started it
_A_CORE = 4  # processes of a run, at most
_CONNECTED = 1800.0  # seconds that the first process is waited for, as torch does
_LOOKED = 0.2  # seconds between two looks at the others
_SAID = 2.0  # seconds that the others leave the first process to say what has happened to all
_SEEN = 5.0  # seconds in which a process that broke a connection is seen to have ended
_FREE = 10.0  # seconds in which a process comes out by itself of what it computes with others
_ENDED = 30.0  # seconds that others have to end where this one has come to its end

_stores: dict[tuple[str, int], Any] = {}  # that of each address; it ends with the process
_numbers = itertools.count()
_channel: "list[_Channel]" = []  # the one of now, if any
_started: "list[_Others]" = []  # the processes that this one started, if any


def is_first_process() -> bool:
    """Return whether this process speaks for all of a run: its rank is 0, or it is alone.

    Lightning keeps the rank, once it is there. Before, what started the process says it: nothing that is refused waits
    for Lightning.
    """
    if (kept := sys.modules.get("lightning.fabric.utilities.rank_zero")) is not None:
        return int(getattr(kept.rank_zero_only, "rank", None) or 0) == 0
    given = next((rank for name in _RANKS if (rank := os.environ.get(name)) is not None), "0")
    return not given.isdigit() or int(given) == 0


def by_first_process(function: Callable[P, T]) -> Callable[P, T | None]:
    """Let a function be called by the first process only; it returns None in the others."""

    @wraps(function)
    def called(*arguments: P.args, **named: P.kwargs) -> T | None:
        return function(*arguments, **named) if is_first_process() else None

    return called


class _Channel:
    """What the first process tells the others; each value once, under a name."""

    def __init__(self, store: Any, number: int) -> None:
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # torch's types forget it

        self._store = PrefixStore(f"sagitta-{attempt}-{number}", store)

    def tell(self, name: str, value: Any) -> None:
        self._store.set(name, json.dumps(value, default=str))

    def hear(self, name: str) -> Any:
        while (value := self._get(name)) is None:  # the store's own waiting would not hear a signal
            if failure := self.failure():
                raise SagittaError(failure)
            time.sleep(_LOOKED)
        return value

    def fail(self, failure: str) -> None:
        """Tell all, from any process, that the run cannot go on; the first reason holds."""
        from torch.distributed import DistError

        if not self.failure():
            with suppress(DistError):
                self.tell("failure", failure)

    def failure(self) -> str:
        """Return in words why the run cannot go on; empty where it can."""
        try:
            return self._get("failure") or ""
        except SagittaError as error:
            return str(error)

    def _get(self, name: str) -> Any:
        from torch.distributed import DistError

        try:
            return json.loads(self._store.get(name)) if self._store.check([name]) else None
        except DistError:
            raise SagittaError("the first process of this run has ended") from None


def shared(name: str, find: Callable[[], T]) -> T:
    """Return what ``find`` finds in the first process, in every process of the run; it is only called there.

    Args:
        name: of the value, once within :func:`connected`; without other processes it means nothing.
        find: returns what JSON can hold.

    Raises:
        SagittaError: the first process found an error, or has ended.
    """
    if not _channel:
        return find()
    if is_first_process():
        try:
            value = find()
        except BaseException as error:
            _channel[0].tell(name, {"error": str(error) or "the first process has ended"})
            raise
        _channel[0].tell(name, {"value": value})
        return value
    heard = _channel[0].hear(name)
    if "error" in heard:
        raise ConfigError(heard["error"])
    found: T = heard["value"]
    return found


@contextmanager
def connected(trainer: "pl.Trainer") -> Iterator[None]:
    """Let :func:`shared` reach all processes meanwhile that a Trainer on several devices works with.

    Raises:
        ConfigError: the first process cannot be reached, or cannot be reached by others.
    """
    if trainer.world_size == 1:
        yield
        return
    _end_with_leader()
    channel = _Channel(_connect(trainer), next(_numbers))
    _channel.insert(0, channel)
    try:
        yield
    except Exception:
        channel.fail(_ended(trainer))
        raise
    finally:
        _channel.remove(channel)


def check_alike(name: str, value: str, problem: str) -> None:
    """Refuse what is not the same in all processes.

    Args:
        name: of the value, as for :func:`shared`.
        value: in this process.
        problem: what to say, in the process where the value is another one than in the first.

    Raises:
        ConfigError: with ``problem``, and the name of the machine.
    """
    if shared(name, lambda: value) != value:
        raise ConfigError(f"{platform.node()}: {problem}")


def _connect(trainer: Any) -> Any:
    """Return the store at the address that the processes will also find each other by to compute together.

    torch shares one server of a process and port; torchrun has one of its own there.
    """
    from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]  # torch's types forget them

    environment = trainer.strategy.cluster_environment
    external = environment.creates_processes_externally
    if trainer.num_nodes > 1 and not external and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise ConfigError(
            f"--trainer.num_nodes {trainer.num_nodes}: the machines cannot find each other; set MASTER_ADDR and "
            "MASTER_PORT, the same on each, and NODE_RANK, from 0"
        )
    address = str(environment.main_address)
    # Where nobody names a port the system chooses one; a free one that is looked for first may be taken meanwhile.
    chooses = "MASTER_PORT" not in os.environ and not external and is_first_process()
    port = 0 if chooses else int(environment.main_port)
    if (address, port) in _stores:
        return _stores[address, port]
    serves = is_first_process() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not serves:
        _wait_for(address, port)
    try:
        store = TCPStore(
            address, port, is_master=serves, wait_for_workers=False, multi_tenant=True, timeout=timedelta(minutes=5)
        )
    except (DistError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{address}:{port}: the processes of this run cannot meet there ({reason}); name another MASTER_PORT"
        ) from None
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(store.port)
    _stores[address, store.port] = store
    return store


def _wait_for(address: str, port: int) -> None:
    began = time.monotonic()
    while True:
        try:
            socket.create_connection((address, port), timeout=5).close()
        except OSError as error:
            if time.monotonic() - began > _CONNECTED:
                raise ConfigError(
                    f"{address}:{port}: the first process of this run does not answer there ({error}); start it, and "
                    "let MASTER_ADDR and MASTER_PORT name it on every machine"
                ) from None
            time.sleep(_LOOKED)
        else:
            return


def check_processes(trainer: "pl.Trainer") -> None:
    """Refuse far more processes than the machine has cores: a mistyped number of them takes all that it has.

    Raises:
        ConfigError: there are so many.
    """
    most = _A_CORE * usable_cores()
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > most:
        raise ConfigError(
            f"--devices {trainer.num_devices}: as many processes, for {usable_cores()} cores; give {usable_cores()}, "
            f"or {most} at most"
        )


@contextmanager
def launched(trainer: "pl.Trainer", advice: Callable[[], str]) -> Iterator[None]:
    """Have the other processes of this machine meanwhile; where one ends before its time, all do, with one line.

    Args:
        trainer: that the processes compute with.
        advice: returns what to do after that.

    Raises:
        ConfigError: they would be far too many.
        SagittaError: another process has ended before its time.
    """
    check_processes(trainer)
    launcher = trainer.strategy.launcher
    if trainer.world_size == 1 or launcher is None or launcher.is_interactive_compatible:  # which forks
        yield
        return
    _end_with_leader()
    _words[:] = [advice]
    others = _others(trainer)
    left = threading.Event()
    channel = _channel[0] if _channel else None
    threading.Thread(target=_watch, args=(left, others, channel, advice), daemon=True, name="sagitta-ranks").start()
    try:
        yield
    except BaseException as error:
        asked = isinstance(error, KeyboardInterrupt | SystemExit)
        lost = "" if asked else _lost(error)
        if others is not None and not asked:
            lost = others.failure(_SEEN if lost else 0) or lost
        if others is not None:
            others.end(_SAID if asked else 0)
        if channel is not None and not asked:
            channel.fail(lost or _ended(trainer))
        if not asked and not is_first_process():
            # The first process has said it by then, and whoever started this one has ended it.
            time.sleep(_SAID if others is not None or not lost else 3 * _FREE)
        if lost:
            raise SagittaError(f"{lost}; {advice()}") from None
        raise
    finally:
        _words.clear()
        left.set()


def _watch(
    left: threading.Event, others: "_Others | None", channel: _Channel | None, advice: Callable[[], str]
) -> None:
    """End this process, too, where another one ends before its time and this one cannot notice by itself."""
    while not left.wait(_LOOKED):
        failure = (others.failure(0) if others else "") or (channel.failure() if channel else "")
        if not failure:
            continue
        if channel is not None:
            channel.fail(failure)
        if not left.wait(_FREE):  # it waits for those that are gone
            if others is not None:
                others.end(0)
            if is_first_process() or (others is not None and others.failure(0)):
                show(f"sagitta: {failure}; {advice()}", sys.stderr)
            os._exit(2)
        return


def _lost(error: BaseException) -> str:
    """Return in words that the connection to another process broke; empty where an error is about something else."""
    from torch.distributed import DistError

    broken = isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "Connection closed by peer"))
    )
    return "another process of this run has ended, which may say why" if broken else ""


def _others(trainer: Any) -> "_Others | None":
    """Return the processes that this one has started, or starts now; None where it starts none."""
    environment, local = trainer.strategy.cluster_environment, trainer.num_devices
    if _started:
        return _started[0]
    if environment.creates_processes_externally or local == 1:
        return None
    own = {
        "MASTER_ADDR": str(environment.main_address),
        "MASTER_PORT": str(environment.main_port),
        "NODE_RANK": str(environment.node_rank()),
        "WORLD_SIZE": str(trainer.world_size),
        "LOCAL_RANK": "0",  # now Lightning starts no others
    }
    os.environ |= own
    first = environment.node_rank() * local
    _started.append(_Others({first + rank: _start(rank) for rank in range(1, local)}, trainer.world_size))
    return _started[0]


def _start(local_rank: int) -> "subprocess.Popen[bytes]":
    """Start this command once more as another rank, which does not listen to Ctrl-C: the first process tells it."""
    environment = {**os.environ, "LOCAL_RANK": str(local_rank), _LEADER: str(os.getpid())}
    main = threading.current_thread() is threading.main_thread()
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        return subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environment)
    finally:
        if main:
            signal.signal(signal.SIGINT, heard)


class _Others:
    """The processes that this one has started.

    Args:
        processes: by rank.
        world: how many take part in the run.
    """

    def __init__(self, processes: "dict[int, subprocess.Popen[bytes]]", world: int) -> None:
        self._processes, self._world = processes, world
        self._failure, self._ended = "", False
        atexit.register(self.end, _ENDED)

    def failure(self, patience: float) -> str:
        """Return in words which process has ended before its time, waiting for one to do so; empty for none."""
        last = time.monotonic() + patience
        while not (self._failure or self._ended):
            for rank, process in self._processes.items():
                if code := process.poll():
                    self._failure = f"process {rank + 1} of {self._world} {_how(code)}"
            if time.monotonic() > last:
                break
            time.sleep(_LOOKED)
        return self._failure

    def end(self, patience: float) -> None:
        """Wait for the processes to end, and then end them."""
        last = time.monotonic() + patience
        self._ended = True
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, last - time.monotonic()))
        for process in self._processes.values():
            process.kill()
            process.wait()


def _ended(trainer: "pl.Trainer") -> str:
    return f"process {trainer.global_rank + 1} of {trainer.world_size} has ended with an error"


def _how(code: int) -> str:
    number = -code if code < 0 else code - 128  # as a shell, and this program, report a signal
    with suppress(ValueError):
        return f"was ended by {signal.Signals(number).name}"
    return f"has ended with an error (exit code {code})"


_words: list[Callable[[], str]] = []  # what to do where the process that started this one has gone


def _end_with_leader() -> None:
    """End this process as soon as the one that started it has gone, whatever it waits for."""
    leader = os.environ.pop(_LEADER, "")  # what this process starts is none of the run's
    if leader:
        threading.Thread(target=_follow, args=(int(leader),), daemon=True, name="sagitta-leader").start()


def _follow(leader: int) -> None:
    while os.getppid() == leader:
        time.sleep(_LOOKED)
    if _words and os.environ.get("LOCAL_RANK") == "1":  # one for all
        show(f"sagitta: the first process of this machine has ended; {_words[0]()}", sys.stderr)
    os._exit(2)
