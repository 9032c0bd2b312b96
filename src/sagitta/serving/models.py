"""Models by name, each replaced when its files are: the new one is tried first, and no request is lost.

Files are looked at every few seconds. What has changed, and stays the same from one look to the next, is opened beside
the model that answers, and answers a trial image itself; from then on requests go to it, and the old one ends with what
it has taken. What cannot be opened is said in the log, and the old one goes on.
"""

import asyncio
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from sagitta.errors import ConfigError, SagittaError
from sagitta.serving.batching import Batcher
from sagitta.serving.engine import Engine, Named, Wanted
from sagitta.serving.logs import tell
from sagitta.serving.metrics import Metrics
from sagitta.serving.opening import identity, name_of, open_engine
from sagitta.serving.refusal import Limits, RequestError

Identity = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Served:
    """A model that answers.

    Attributes:
        batcher: takes its images.
        identity: of its files.
        since: when it was opened.
    """

    batcher: Batcher
    identity: Identity
    since: str

    @property
    def engine(self) -> Engine:
        """What runs it."""
        return self.batcher.engine


def named_paths(models: list[str]) -> dict[str, Path]:
    """Return the paths of what is to be served by names: ``NAME=PATH``, or a path whose folder names it.

    Raises:
        ConfigError: two have one name.
    """
    found: dict[str, Path] = {}
    for model in models:
        before, equals, after = model.partition("=")
        named = equals and before and "/" not in before and not Path(model).exists()
        name, path = (before, Path(after)) if named else (name_of(Path(model)), Path(model))
        if name in found:
            raise ConfigError(f"{path}: a model named {name} is there already; give NAME={path}")
        found[name] = path
    return found


class Models:
    """What a server serves.

    Args:
        paths: of the models by name.
        opened: engines of them.
        wanted: of every model.
        limits: of the queue.
        metrics: what is counted.
    """

    def __init__(self, paths: Mapping[str, Path], wanted: Wanted, limits: Limits, metrics: Metrics) -> None:
        self._paths, self._wanted, self._limits, self._metrics = paths, wanted, limits, metrics
        self.served: dict[str, Served] = {}

    def begin(self, engines: Mapping[str, tuple[Engine, Identity]]) -> None:
        """Take over engines that were opened and tried; in the loop's thread."""
        for name, (engine, state) in engines.items():
            self.served[name] = self._serve(name, engine, state)

    def get(self, name: str | None) -> Served:
        """Return a model; without a name, the only one or the first.

        Raises:
            RequestError: there is none of the name.
        """
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            raise RequestError(404, "no_such_model", f"no model of this name; there are {', '.join(self.served)}")
        return self.served[name]

    async def watch(self, seconds: float) -> None:
        """Replace models whose files are replaced, until this is cancelled."""
        before = {name: served.identity for name, served in self.served.items()}
        while True:
            await asyncio.sleep(seconds)
            for name, path in self._paths.items():
                now = await asyncio.to_thread(identity, path)
                if now and now == before[name] != self.served[name].identity:
                    await self._replace(name, path, now)
                before[name] = now

    async def _replace(self, name: str, path: Path, state: Identity) -> None:
        old = self.served[name]
        try:
            engine = await asyncio.to_thread(opened, path, self._wanted)
        except Exception as error:
            reason = str(error) if isinstance(error, SagittaError) else f"{type(error).__name__}: {error}"
            tell("model not replaced", logging.ERROR, model=name, reason=reason)
            self._metrics.replaced.labels(name, "failed").inc()
            self.served[name] = Served(old.batcher, state, old.since)  # tried once
            return
        self.served[name] = self._serve(name, engine, state)
        old.batcher.close()
        tell("model replaced", model=name)
        self._metrics.replaced.labels(name, "done").inc()

    def _serve(self, name: str, engine: Engine, state: Identity) -> Served:
        batcher = Batcher(name, engine, self._wanted.batch, self._limits.queue, self._metrics)
        return Served(batcher, state, datetime.now(UTC).isoformat(timespec="seconds"))

    async def close(self) -> None:
        """End every model when it has answered what it took."""
        for served in self.served.values():
            served.batcher.close()
        for served in self.served.values():
            await asyncio.to_thread(served.batcher.join)

    def about(self) -> list[dict[str, Any]]:
        """Return what a client may know of each model, for JSON."""
        return [
            {
                "name": name,
                "engine": served.engine.kind,
                "classes": list(served.engine.names),
                "labels": "one" if served.engine.thresholds is None else "several",
                "thresholds": served.engine.thresholds,
                "since": served.since,
                **served.engine.about,
            }
            for name, served in self.served.items()
        ]


def opened(path: Path, wanted: Wanted) -> Engine:
    """Return a model that has answered an image: it can, and the first client need not wait for what is made once.

    Raises:
        ConfigError: it cannot be opened, or does not answer.
    """
    engine = open_engine(path, wanted)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "JPEG")
    try:
        found = engine.answer([Named("trial", buffer.getvalue())])
    except Exception as error:  # whatever a runtime raises for a model that does not fit what it says of itself
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{path}: does not answer a trial image: {reason}") from None
    readable = not (found.errors and engine.about["deep"])  # what is trained on 13 bands reads no JPEG
    if found.probabilities.shape != (int(readable), len(engine.names)):
        reason = found.errors.get(0, f"{found.probabilities.shape[1]} outputs for {len(engine.names)} classes")
        raise ConfigError(f"{path}: does not answer a trial image: {reason}")
    return engine
