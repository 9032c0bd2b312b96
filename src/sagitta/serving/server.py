"""`sagitta serve`: models opened, a port, and an end that answers what was taken."""

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from sagitta.errors import ConfigError
from sagitta.serving.app import App
from sagitta.serving.connection import connection
from sagitta.serving.engine import Wanted
from sagitta.serving.logs import begin_logs, tell
from sagitta.serving.metrics import Metrics
from sagitta.serving.models import Models, named_paths, opened
from sagitta.serving.opening import identity
from sagitta.serving.refusal import Limits
from sagitta.signals import asking
from sagitta.terminal import show

_BACKLOG = 2048  # connections that wait to be accepted
_FEWEST = 16  # letters of a token


def serve(
    models: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    wanted: Wanted | None = None,
    limits: Limits | None = None,
) -> None:
    """Serve models until a signal asks for the end; what was taken is answered before.

    Args:
        models: runs, checkpoints and exports, each as a path or ``NAME=PATH``; the first answers where none is named.
        host: address to listen at; by default this machine alone is answered.
        port: 0 for any that is free.
        token_file: file with the token that clients must bear.
        wanted: of every model.
        limits: of requests.

    Raises:
        ConfigError: a model cannot be opened, nothing can be heard there, or the token is no secret.
    """
    wanted, limits = wanted or Wanted(), limits or Limits()
    token = None if token_file is None else _read_token(token_file)
    paths = named_paths(list(models))
    if not paths:
        raise ConfigError("there is no model to serve; name a run or an export")
    with closing(_bound(host, port)) as bound:
        engines = {}
        for name, path in paths.items():
            state = identity(path)
            engines[name] = opened(path, wanted), state
        begin_logs()
        metrics = Metrics()
        own = Models(paths, wanted, limits, metrics)
        app = App(own, limits, metrics, token)
        config = uvicorn.Config(
            app.starlette(), http=connection(limits), ws="none", lifespan="on", access_log=False, log_config=None,
            log_level=logging.WARNING, server_header=False, date_header=False, proxy_headers=False, backlog=_BACKLOG,
            timeout_keep_alive=int(limits.idle), timeout_graceful_shutdown=int(limits.drain),
        )  # fmt: skip
        server = _Server(config, app)

        async def run() -> None:
            own.begin(engines)
            where = f"http://{_shown(bound)}"
            server.began = f"serving {', '.join(paths)} at {where}"
            told = {name: engine.kind for name, (engine, _) in engines.items()}
            tell("opened", models=told, address=where, token=token is not None)
            if token is None and not _is_loopback(bound):
                tell("anybody who reaches this address is answered: give --token-file", logging.WARNING)
            await server.serve(sockets=[bound])

        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(run())
        tell("ended")


class _Server(uvicorn.Server):
    """uvicorn's server, which ends at a signal as a service does: without an error."""

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app
        self.began = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        show(self.began)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take note of a signal; at the second one nothing is waited for."""
        self._app.ready = False
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear the signals that ask for the end meanwhile."""
        before = {each: signal.signal(each, self.handle_exit) for each in asking()}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def _read_token(path: Path) -> str:
    """Return a file's token.

    Raises:
        ConfigError: it cannot be read, or could be guessed.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"--token-file {path}: cannot be read as a line of ASCII") from None
    if len(token) < _FEWEST or not token.isprintable() or " " in token:
        raise ConfigError(
            f"--token-file {path}: give at least {_FEWEST} letters without a space, as of openssl rand -hex 32"
        )
    return token


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that has an address, but does not listen yet.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(address)
        except BaseException:
            found.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"--host {host} --port {port}: {reason}; give another, or --port 0 for one that is free"
        ) from None
    return found


def _shown(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(bound: socket.socket) -> bool:
    host = bound.getsockname()[0]
    return str(host).startswith("127.") or host == "::1"
