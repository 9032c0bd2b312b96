"""Features of a frozen network: computed once an image, kept as Parquet in the user's cache, read as one array.

::

    CACHE/features/MODEL-KEY/PART-FOOTER.parquet    content_hash, vector (fixed-size list<float>)

KEY stands for the network's weights and the preprocessing. Rows are found by the content of their image, so a dataset
that has grown, or another one with the same photos, asks for its new images only. Parts appear whole or not at all; an
interrupted run goes on behind the last one. A part says in its name what size and footer it has, and its pages carry
checksums: what is damaged is removed, and computed again.
"""

import hashlib
import json
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from sagitta.dataset import ShardSet, footer_hash, read_table
from sagitta.errors import ConfigError, DatasetError
from sagitta.files import content_hash, lock, user_cache, write_atomic
from sagitta.loading import Loader, Preprocessing
from sagitta.models.classifier import Classifier
from sagitta.models.compiled import COMPARED, can_translate, translated, translation_pays
from sagitta.models.heads import split_head
from sagitta.models.inference import prepare
from sagitta.models.machine import inference_batch, limit_threads, reuse_memory
from sagitta.models.stages import stage_widths
from sagitta.pool import ahead

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_PART = 4096  # rows; what a run that is killed may lose


class FeatureStore:
    """The features of one network under one preprocessing.

    Args:
        name: of the model, for people; where its head sees every stage, that is added.
        body: network without head.
        preprocessing: what the images become before it.
    """

    def __init__(self, name: str, body: nn.Module, preprocessing: Preprocessing) -> None:
        name = f"{name}+stages" if stage_widths(body) else name
        digest = hashlib.blake2b(json.dumps([name, preprocessing.to_dict()]).encode(), digest_size=8)
        for key, tensor in body.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        self.folder = user_cache() / "features" / f"{name.replace('/', '-')}-{digest.hexdigest()}"

    @classmethod
    def named(cls, name: str) -> "FeatureStore":
        """Open the features of an earlier run by the name of their folder, which stands in its record."""
        store = cls.__new__(cls)
        store.folder = user_cache() / "features" / name
        return store

    @cached_property
    def _parts(self) -> list[tuple[Path, pa.ChunkedArray]]:
        """Each part and its content hashes; what is damaged is removed, and so computed again."""
        parts = []
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                if not path.stem.endswith(f"-{footer_hash(path)}"):
                    raise DatasetError(f"{path}: another size or footer than was written")
                parts.append((path, read_table(path, ["content_hash"]).column(0)))
            except DatasetError:
                path.unlink(missing_ok=True)
        return parts

    def _find(self, hashes: pa.Array) -> Ints:
        """Return (N,) positions in all parts, -1 where there is none."""
        known = pa.chunked_array([chunk for _, part in self._parts for chunk in part.chunks], pa.string())
        found = pc.index_in(hashes, value_set=known.combine_chunks())
        positions: Ints = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return positions

    def missing(self, hashes: pa.Array) -> Ints:
        """Return which of (N,) content hashes have no features yet."""
        return np.flatnonzero(self._find(hashes) < 0)

    def lacking(self, splits: Iterable[pa.Array]) -> int:
        """Return how many features :func:`extract` computes for splits, in this order, by their (N,) content hashes.

        An image that is there again in a later split has its features by then.
        """
        total, known = 0, set[str]()
        for hashes in splits:
            own = hashes.take(pa.array(self.missing(hashes))).to_pylist()
            total += sum(each not in known for each in own)
            known.update(own)
        return total

    @contextmanager
    def computing(self, hashes: pa.Array) -> Iterator[Ints]:
        """Yield which of (N,) content hashes have no features yet; of processes that ask for the same, one at a time.

        On a disk without locks all of them compute, and the parts of one replace the same ones of another.
        """
        path = self.folder / f"{content_hash(''.join(hashes.to_pylist()).encode())}.lock"
        with lock(path, needed=False):
            self.__dict__.pop("_parts", None)
            yield self.missing(hashes)

    def add(self, hashes: pa.Array, vectors: Floats) -> None:
        """Write a part of (N,) content hashes and (N, D) vectors."""
        table = pa.table({"content_hash": hashes, "vector": vectors_array(vectors)})
        name = content_hash("".join(hashes.to_pylist()).encode())
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="none", use_dictionary=False, write_page_checksum=True)
        data = sink.getvalue().to_pybytes()
        write_atomic(self.folder / f"{name}-{footer_hash(data)}.parquet", data)
        self.__dict__.pop("_parts", None)

    def read(self, hashes: pa.Array, out: Floats | None = None) -> Floats:
        """Return features (N, D) of (N,) content hashes that all are there; into ``out``, if given.

        Raises:
            DatasetError: some are damaged; they are removed, so that the next call of :func:`extract` computes them.
        """
        positions, start = self._find(hashes), 0
        for path, part in self._parts:
            wanted = np.flatnonzero((positions >= start) & (positions < start + len(part)))
            if wanted.size:
                vectors = self._vectors(path, len(part))
                if out is None:
                    out = np.empty((len(hashes), vectors.shape[1]), np.float32)
                out[wanted] = vectors[positions[wanted] - start]
            start += len(part)
        assert out is not None
        return out

    def _vectors(self, path: Path, rows: int) -> Floats:
        try:
            column = read_table(path, ["vector"]).column(0).combine_chunks()
            numbers, width = column.flatten(), column.type.list_size
            if len(numbers) == rows * width:
                vectors: Floats = numbers.to_numpy().reshape(rows, width)
                return vectors
        except DatasetError:
            pass
        path.unlink(missing_ok=True)
        self.__dict__.pop("_parts", None)
        raise DatasetError(
            f"{path}: these features are damaged, and removed now; run the same command again, which computes them"
        )


def vectors_array(vectors: Floats) -> pa.Array:
    """Return (N, D) numbers as an Arrow array of N lists of the fixed size D."""
    flat = pa.Array.from_buffers(pa.float32(), vectors.size, [None, pa.py_buffer(np.ascontiguousarray(vectors))])
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def extract(
    store: FeatureStore,
    body: nn.Module,
    shards: ShardSet,
    split: str,
    preprocessing: Preprocessing,
    batch_size: int | None = None,
) -> Generator[int, None, None]:
    """Compute and store the features that a split lacks; yields numbers of images done, at most ``_PART`` unsaved.

    Args:
        store: where they go.
        body: network without head, float32 normalised (B, C, H, W) to (B, D).
        shards: the dataset.
        split: of the dataset.
        preprocessing: evaluation crop and normalisation.
        batch_size: images at a time; by default what is fast on the device.

    Raises:
        ConfigError: the network gives something else than one vector an image.
        DatasetError: an image cannot be decoded.
    """
    hashes = shards.splits[split].content_hashes
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    batch_size = batch_size or inference_batch(device)
    limit_threads()
    reuse_memory()
    if not store.missing(hashes).size:
        return
    loader = Loader(shards, split, batch_size, train=False, preprocessing=preprocessing, normalize=False)
    with store.computing(hashes) as rows:
        yield from _computed(store, body.to(device), loader, hashes, rows, device)


def unit_length(vectors: Floats) -> Floats:
    """Return rows (N, D) at length one, float32, so that their products are cosines; those of nothing stay so."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return found


def vectors_of(classifier: Classifier, shards: ShardSet, split: str, rows: Ints) -> Floats:
    """Return what the last linear layer is given of some rows (N,) of a split, (N, D); nothing of it is kept.

    Args:
        classifier: with its preprocessing, on the CPU.
        shards: the dataset.
        split: of it.
        rows: of the split.

    Raises:
        ConfigError: the network does not end in one linear layer.
        DatasetError: an image cannot be decoded.
    """
    network, how = classifier.network, classifier.preprocessing
    assert network is not None
    assert how is not None
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    body = prepare(split_head(network, classifier.name)[0]).to(device)
    loader = Loader(shards, split, inference_batch(device), train=False, preprocessing=how, normalize=False)
    found = [_forward(body, images.to(device, non_blocking=True), how) for images in _decoded(loader, rows)]
    return np.concatenate(found)


def _computed(
    store: FeatureStore, body: nn.Module, loader: Loader, hashes: pa.Array, rows: Ints, device: torch.device
) -> Iterator[int]:
    """Compute and store the features of some rows of (N,) content hashes, see :func:`extract`."""
    done: list[Floats] = []
    saved = count = 0
    how = loader.preprocessing
    if can_translate() and translation_pays(len(rows), how, device):
        some, _ = loader.take(rows[:COMPARED])
        with torch.inference_mode():
            body = translated(body, how.normalize(some).contiguous(memory_format=torch.channels_last)) or body
    try:
        for images in _decoded(loader, rows):
            done.append(_forward(body, images.to(device, non_blocking=True), how))
            count += len(images)
            yield len(images)
            if count - saved >= _PART:
                store.add(hashes.take(rows[saved:count]), np.concatenate(done))
                saved, done = count, []
    finally:
        if done:
            count = saved + sum(map(len, done))
            store.add(hashes.take(rows[saved:count]), np.concatenate(done))


def _forward(body: nn.Module, images: Tensor, preprocessing: Preprocessing) -> Floats:
    with torch.inference_mode():
        pixels = preprocessing.normalize(images).contiguous(memory_format=torch.channels_last)
        vectors = body(pixels)
    if vectors.ndim != 2:
        shape = "x".join(map(str, vectors.shape[1:]))
        raise ConfigError(f"{type(body).__name__}: its head takes {shape} numbers an image, not a vector; use fit")
    found: Floats = vectors.float().cpu().numpy()
    return found


def _decoded(loader: Loader, rows: Ints) -> Iterator[Tensor]:
    """Yield uint8 images of the rows, in order; one batch a thread is decoded ahead."""
    size = loader.batch_size
    batches = (rows[start : start + size] for start in range(0, len(rows), size))
    with ThreadPoolExecutor(loader.threads, "sagitta-features") as pool:
        for images, _ in ahead(lambda some: pool.submit(loader.take, some), batches, loader.threads):
            yield images
