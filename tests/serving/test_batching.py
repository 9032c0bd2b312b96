"""Images of many requests become batches, each answer goes to its request, and nothing is lost at the end."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from sagitta.serving import Found, Named, RequestError
from sagitta.serving.batching import Batcher
from sagitta.serving.metrics import Metrics


class Echo:
    """Says of an image what number it is; held until it is let go."""

    kind = "echo"
    names: Sequence[str] = ("a", "b")
    thresholds: Sequence[float] | None = None
    about: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[str]] = []

    def answer(self, images: Sequence[Named]) -> Found:
        assert self.go.wait(10)
        self.batches.append([image.name for image in images])
        if any(image.data == b"poison" for image in images):
            raise ZeroDivisionError
        errors = {place: "bad" for place, image in enumerate(images) if image.data == b"bad"}
        numbers = [int(image.data) for image in images if image.data != b"bad"]
        return Found(np.array([[number, 0] for number in numbers], np.float32).reshape(-1, 2), errors)

    def heat(self, image: Named, label: int | None) -> bytes:
        raise NotImplementedError


def named(*data: object) -> list[Named]:
    return [Named(str(each), str(each).encode()) for each in data]


def test_what_waits_becomes_a_batch_and_each_gets_its_own() -> None:
    async def run() -> None:
        engine = Echo()
        batcher = Batcher("echo", engine, 4, 100, Metrics())
        first = batcher.submit(named(1))
        while batcher._waiting:  # until it is taken, and held
            await asyncio.sleep(0.001)
        others = [batcher.submit(named(2, 3)), batcher.submit(named("bad")), batcher.submit(named(4, 5, 6))]
        engine.go.set()
        (alone,) = await first
        assert alone.probabilities is not None and alone.probabilities.tolist() == [1, 0]
        found = await asyncio.gather(*others)
        kept = [[None if row.probabilities is None else row.probabilities[0] for row in rows] for rows in found]
        assert kept == [[2, 3], [None], [4, 5, 6]] and found[1][0].error == "bad"
        assert engine.batches == [["1"], ["2", "3", "bad", "4"], ["5", "6"]]

    asyncio.run(run())


def test_one_that_fails_fails_no_other_and_who_has_gone_is_left_out() -> None:
    async def run() -> None:
        engine = Echo()
        batcher = Batcher("echo", engine, 8, 100, Metrics())
        first = batcher.submit(named(1))
        while batcher._waiting:
            await asyncio.sleep(0.001)
        gone, poison, good = batcher.submit(named(7)), batcher.submit(named("poison")), batcher.submit(named(2))
        gone.cancel()
        engine.go.set()
        await first
        with pytest.raises(ZeroDivisionError):
            await poison
        assert len(await good) == 1
        assert not any("7" in batch for batch in engine.batches)

    asyncio.run(run())


def test_a_full_queue_sends_away_and_the_end_answers_what_was_taken() -> None:
    async def run() -> None:
        engine = Echo()
        batcher = Batcher("echo", engine, 2, 5, Metrics())
        taken = [batcher.submit(named(number)) for number in range(5)]
        with pytest.raises(RequestError) as refused:
            batcher.submit(named(*range(6)))
        assert refused.value.status == 429 and refused.value.retry is not None and refused.value.retry >= 1
        batcher.close()
        engine.go.set()
        await asyncio.to_thread(batcher.join)
        assert [len(rows) for rows in await asyncio.gather(*taken)] == [1] * 5

    asyncio.run(run())
