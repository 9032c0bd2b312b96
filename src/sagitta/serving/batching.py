"""Requests of many clients -> batches of a model: while one is computed the next gathers, and nobody waits for more.

A batch is taken when the model is free: alone, an image is answered as fast as can be. Of many it is half of those that
are under way: clients that are answered ask again while the other half is computed, where in step with each other they
would let the model wait for all of them.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sagitta.serving.engine import Engine, Named
from sagitta.serving.metrics import Metrics
from sagitta.serving.refusal import RequestError
from sagitta.serving.telling import Row, rows

_WEIGHT = 0.2  # of the last batch in the mean time of an image


@dataclass
class _Ticket:
    """A request's images, of which some may be answered in one batch and the rest in the next."""

    future: "asyncio.Future[list[Row]]"
    images: Sequence[Named]
    found: list[Row] = field(default_factory=list)
    begun: int = 0  # images that were taken into a batch


class Batcher:
    """A model and the images that wait for it.

    Args:
        name: of the model.
        engine: it.
        size: images a batch.
        queue: images that may wait.
        metrics: what is counted.
    """

    def __init__(self, name: str, engine: Engine, size: int, queue: int, metrics: Metrics) -> None:
        self.name, self.engine = name, engine
        self._size, self._queue, self._metrics = size, queue, metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Ticket] = deque()
        self._count = self._last = 0  # images that wait; those of the last batch
        self._image_seconds = 0.0
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name=f"sagitta-{name}", daemon=True)
        self._thread.start()

    def submit(self, images: Sequence[Named]) -> "asyncio.Future[list[Row]]":
        """Return a future of what is found of each image; cancelled, its images are left out.

        Raises:
            RequestError: too many wait already.
        """
        with self._changed:
            if self._count + len(images) > self._queue:
                wait = max(1, math.ceil(self._count * self._image_seconds))
                raise RequestError(429, "busy", f"{self._count} images wait for {self.name} already; ask again", wait)
            ticket = _Ticket(self._loop.create_future(), images)
            self._waiting.append(ticket)
            self._count += len(images)
            self._metrics.queued.labels(self.name).set(self._count)
            self._changed.notify()
        return ticket.future

    def close(self) -> None:
        """Take no more, and end when what was taken is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            images = [ticket.images[place] for ticket, place in batch]
            began = time.perf_counter()
            found = self._found(images)
            seconds = time.perf_counter() - began
            self._image_seconds += _WEIGHT * (seconds / len(images) - self._image_seconds)
            self._metrics.batch.labels(self.name).observe(len(images))
            self._metrics.model_seconds.labels(self.name).observe(seconds)
            self._loop.call_soon_threadsafe(self._answer, batch, found)

    def _found(self, images: Sequence[Named]) -> list[Row | Exception]:
        """Return what is found of each image; where a batch fails, of each alone, so that one fails no other."""
        try:
            return [*rows(self.engine.answer(images), len(images))]
        except Exception as error:
            if len(images) == 1:
                return [error]
            return [found for image in images for found in self._found([image])]

    def _next(self) -> list[tuple[_Ticket, int]]:
        """Return the next batch, each image by its request and place; empty at the end."""
        batch: list[tuple[_Ticket, int]] = []
        with self._changed:
            most = 0
            while True:
                while not batch and not self._waiting and not self._closed:
                    self._changed.wait()
                if not batch:
                    most = self._most()
                if not self._waiting or len(batch) >= most:
                    break
                ticket = self._waiting[0]
                if ticket.future.cancelled():  # whoever asked has gone
                    self._count -= len(ticket.images) - ticket.begun
                    self._waiting.popleft()
                    continue
                batch.append((ticket, ticket.begun))
                ticket.begun += 1
                self._count -= 1
                if ticket.begun == len(ticket.images):
                    self._waiting.popleft()
            self._last = len(batch)
            self._metrics.queued.labels(self.name).set(self._count)
        return batch

    def _most(self) -> int:
        """Return how many images the next batch may have; those of one request are not divided without need."""
        first = len(self._waiting[0].images) - self._waiting[0].begun if self._waiting else 0
        return min(self._size, max(first, math.ceil((self._count + self._last) / 2)))

    def _answer(self, batch: Sequence[tuple[_Ticket, int]], found: Sequence[Row | Exception]) -> None:
        """Hand the rows of a batch to those who wait for them; in the loop's thread."""
        for (ticket, _), row in zip(batch, found, strict=True):
            if ticket.future.done():
                continue
            if isinstance(row, Exception):
                ticket.future.set_exception(row)
                continue
            ticket.found.append(row)
            if len(ticket.found) == len(ticket.images):
                ticket.future.set_result(ticket.found)
