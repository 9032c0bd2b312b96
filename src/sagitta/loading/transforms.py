"""Anybody's transforms of single uint8 images: of either kind, seeded by (seed, epoch, row), here or in processes.

Two kinds of callables are understood:

- *torchvision's*: called as ``t(image)`` with a uint8 tensor (C, H, W);
- *Albumentations'*: called as ``t(image=array)["image"]`` with a uint8 array (H, W, C). A callable is of this kind
  where it has an attribute ``available_keys``, as all of Albumentations' have, or takes ``image`` by keyword only.

Either returns uint8, which is normalised by us, or floats, which are passed on as float32; of any size that all images
of a batch share. Torch's generator of the CPU, NumPy's global one and ``random``'s are seeded for each image, and those
that an Albumentations transform holds itself; give such a transform as it is, since inside of a function its generators
are not to be found.
"""

import inspect
import pickle
import random
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.errors import ConfigError, SagittaError
from sagitta.loading.draws import Ints, Stream, uniform
from sagitta.pool import Pool, ahead

Transform = Callable[..., Any]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

_SHOWN = 200  # characters of a transform's description in an error


class OwnTransform:
    """A person's transform of one image, and what makes it a function of (seed, epoch, row).

    Args:
        transform: of either kind.
        seed: of the run.
        rows: how many there are, for errors: a key beyond is a copy of row ``key % rows``.

    Raises:
        ConfigError: it cannot be called.
    """

    def __init__(self, transform: Transform, seed: int = 0, rows: int = 0) -> None:
        if not callable(transform):
            raise ConfigError(
                f"transform {transform!r}: cannot be called; give a torchvision v2 or an Albumentations transform"
            )
        self._transform = transform
        self._seed, self._rows = seed, rows
        self._by_keyword = _takes_keyword(transform)

    def image(self, image: Tensor) -> Tensor:
        """Return an image after the transform, drawing from the generators as they are.

        Args:
            image: (C, H, W) uint8, contiguous.

        Returns:
            (C, H', W') uint8 or float32.

        Raises:
            ConfigError: the transform returns something else.
        """
        if self._by_keyword:
            result = self._transform(image=image.permute(1, 2, 0).contiguous().numpy())
            result = result.get("image") if isinstance(result, Mapping) else _Wrong(result)
            if isinstance(result, np.ndarray):
                array = result[..., None] if result.ndim == 2 else result
                result = torch.from_numpy(np.ascontiguousarray(array)).movedim(-1, 0)
        else:
            result = self._transform(image)
        if isinstance(result, Tensor) and result.ndim == 3:
            if result.dtype == torch.uint8:
                return result.as_subclass(Tensor)
            if result.is_floating_point():
                return result.as_subclass(Tensor).float()
        raise ConfigError(
            f"transform {self._name()} returned {_kind(result)}, not an image of uint8 or floats: torchvision's take "
            "and return a tensor (C, H, W), Albumentations' take image= and return a dict with 'image'"
        )

    def batch(self, images: Tensor, keys: Ints, epoch: int) -> Tensor:
        """Return images after the transform, seeded; the generators are put back.

        Torch's intra-op threads are one meanwhile, since the last bit of a sum depends on their number.

        Args:
            images: (B, C, H, W) uint8 on the host.
            keys: (B,) what the random numbers of each image depend on, with the seed and ``epoch``.
            epoch: number of the epoch.

        Returns:
            (B, C, H', W') uint8 or float32.

        Raises:
            ConfigError: the transform fails, or the images that it returns do not fit together, or are none.
        """
        seeds = (uniform(self._seed, epoch, keys, Stream.TRANSFORM, 1)[:, 0] * 2**53).astype(np.int64)
        images = images.contiguous()  # the same memory whatever decoded it, and in every process
        changed = []
        with _generators_kept():
            for image, seed, key in zip(images, seeds.tolist(), keys.tolist(), strict=True):
                self._start(seed)
                try:
                    changed.append(self.image(image))
                except SagittaError:
                    raise
                except Exception as error:  # whatever the person's own code raises
                    shape = "x".join(map(str, image.shape))
                    row = key % self._rows if self._rows else key
                    reason = f"{type(error).__name__}: {_first_line(error)}"
                    raise ConfigError(f"transform {self._name()} fails on row {row} ({shape}): {reason}") from error
        found = sorted({f"{'x'.join(map(str, image.shape))} {image.dtype}".replace("torch.", "") for image in changed})
        if len(found) > 1:
            raise ConfigError(
                f"transform {self._name()} returned images of {found[0]} and {found[1]} in one batch: let it end with "
                "one size and type"
            )
        batch = torch.stack(changed)
        if batch.dtype == torch.uint8 and batch.shape[1] != images.shape[1]:
            raise ConfigError(
                f"transform {self._name()} returned {batch.shape[1]} channels, but {images.shape[1]} are normalised: "
                "let it keep the channels, or return normalised floats"
            )
        return batch

    def batches(
        self, decoded: Iterable[tuple[Tensor, Ints]], epoch: int, workers: int
    ) -> Generator[tuple[Tensor, Ints], None, None]:
        """Yield batches after the transform with their keys, in order; in ``workers`` processes, or here with none.

        Raises:
            ConfigError: see :meth:`batch`.
            SagittaError: a process died.
        """
        if not workers:
            for images, keys in decoded:
                yield self.batch(images, keys, epoch), keys
            return
        jobs = ((images.numpy(), keys, epoch) for images, keys in decoded)
        try:
            with Pool(self, workers, apart=True, script=self._of_script()) as pool:
                for array, keys in ahead(lambda job: pool.submit(_change, job), jobs, workers):
                    yield torch.from_numpy(array), keys
        except BrokenProcessPool:
            raise SagittaError(
                f"a process for transform {self._name()} died: guard the script with `if __name__ == '__main__':`, or "
                "define the transform in a module; or memory ran out: take fewer transform_workers"
            ) from None

    def check_sendable(self) -> None:
        """Make sure that processes can be given the transform.

        Raises:
            ConfigError: they cannot.
        """
        try:
            lost = self._of_script() and not hasattr(sys.modules["__main__"], "__file__")
            reason = "it is defined in a notebook or on the command line"
        except Exception as error:  # whatever the transform's own pickling raises
            lost, reason = True, _first_line(error)
        if lost:
            raise ConfigError(
                f"transform {self._name()} cannot be sent to worker processes ({reason}): define it in a module, or "
                "take transform_workers=0"
            )

    def describe(self) -> str:
        """Return the transform's ``repr`` without addresses, which differ from run to run."""
        if inspect.isroutine(self._transform):
            return f"{self._transform.__module__}.{self._transform.__qualname__}"
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(self._transform))

    def _name(self) -> str:
        """Return its description on one line."""
        text = " ".join(self.describe().split())
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

    def _of_script(self) -> bool:
        """Return whether something of the transform is defined in the script that is run."""
        return b"__main__" in pickle.dumps(self._transform)

    def _start(self, seed: int) -> None:
        """Seed every generator that the transform may draw from."""
        torch.default_generator.manual_seed(seed)  # the CPU's alone, unlike torch.manual_seed
        np.random.seed(seed % 2**32)  # what people's transforms draw from
        random.seed(seed)
        # Albumentations 2 draws from generators of its own. One for all parts: `set_random_seed` would give each part
        # the same numbers, so that two flips of probability 0.5 would always come together.
        if hasattr(self._transform, "set_random_state"):
            self._transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        elif hasattr(self._transform, "set_random_seed"):
            self._transform.set_random_seed(seed)


class _Wrong:
    """Stands for a result that is no mapping, so that it is not taken for an image."""

    def __init__(self, result: object) -> None:
        self.result = result


def _change(own: OwnTransform, job: tuple[npt.NDArray[np.uint8], Ints, int]) -> tuple[Pixels, Ints]:
    """Do one batch, in a process: arrays travel through the pipe, tensors would take shared memory and descriptors."""
    images, keys, epoch = job
    return own.batch(torch.from_numpy(images), keys, epoch).numpy(), keys


def _takes_keyword(transform: Transform) -> bool:
    if hasattr(transform, "available_keys"):
        return True
    try:
        parameter = inspect.signature(transform).parameters.get("image")
    except (TypeError, ValueError):  # some callables that are not written in Python have none
        return False
    return parameter is not None and parameter.kind is inspect.Parameter.KEYWORD_ONLY


def _kind(result: object) -> str:
    """Return in a few words what a transform returned."""
    if isinstance(result, _Wrong):
        return _kind(result.result)
    if isinstance(result, Tensor):
        return f"a tensor {tuple(result.shape)} of {str(result.dtype).removeprefix('torch.')}"
    return "nothing" if result is None else f"a {type(result).__name__}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Put back afterwards what the transform's seeds change: three global generators, and torch's threads."""
    threads, of_torch, of_numpy, of_python = (
        torch.get_num_threads(),
        torch.get_rng_state(),
        np.random.get_state(),
        random.getstate(),
    )
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
