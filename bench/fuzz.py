"""Damaged files against everything that reads them: no crash, no hang, no wrong pixels, no traceback, bounded memory.

    python bench/fuzz.py                              # 100,000 mutants
    python bench/fuzz.py images --count 1000          # one target
    python bench/fuzz.py images --first 17 --count 1  # mutant 17 again

A mutant is decided by target, seed and number. It is tried in a child process, so that a crash, a hang or a lack of
memory is known to be its own; it is kept then, in ``--keep``. The verdicts: ``read``, ``refused`` (a SagittaError in
one line), and what must not be: ``wrong``, ``traceback``, ``memory``, ``crash``, ``hang``.

The core under the sanitizers: build it by ``CXXFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
python setup.py build_ext --inplace --force``, then run this with ``LD_PRELOAD=$(g++ -print-file-name=libasan.so)
ASAN_OPTIONS=abort_on_error=1:detect_leaks=0:allocator_may_return_null=1``, for which there is no limit of memory.
"""

import argparse
import atexit
import faulthandler
import io
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import seeds
from sagitta.conversion import ConvertOptions, convert
from sagitta.dataset import ShardSet
from sagitta.errors import DatasetError, ImageError, SagittaError
from sagitta.files import content_hash
from sagitta.images import (
    JOB,
    BatchError,
    Reduction,
    add_restart_markers,
    decode,
    decode_batch,
    native,
    read_header,
    reduce,
    verify,
)
from sagitta.sources import SourceOptions, open_source

SHARES = {"images": 0.8, "convert": 0.04, "archives": 0.04, "tables": 0.04, "arrays": 0.03, "shards": 0.05}
GOOD = ("read", "refused")
MEMORY, SECONDS = 3 * 2**30, 60
OUT = 24  # pixels a side of a batch
REDUCTIONS = (("0,255", None), (None, "1"), ("0,65535", "1,1,1"))
NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 254, 255)


class WrongError(Exception):
    """What was read is not what is there."""


# --- mutants ------------------------------------------------------------------------------------------------------


def mutate(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file once to four times; ``other`` is what pieces are taken from."""
    changed = bytearray(data)
    for _ in range(min(4, int(rng.geometric(0.6)))):
        size = len(changed)
        if not size:
            break
        at = int(rng.integers(size if rng.integers(4) else min(size, 64)))  # a quarter in headers
        length = int(rng.integers(1, 1 + min(size - at, 1 << int(rng.integers(1, 10)))))
        kind = int(rng.integers(9))
        if kind <= 1:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            changed[at] = int(rng.choice(NUMBERS))
        elif kind == 3:
            width = int(rng.choice([2, 4, 8]))
            value = int(rng.choice([0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1])) % 2 ** (8 * width)
            changed[at : at + width] = value.to_bytes(width, "little" if rng.integers(2) else "big")
        elif kind == 4:
            del changed[at : size if rng.integers(4) == 0 else at + length]
        elif kind == 5:
            changed[at : at + length] = bytes(length)
        elif kind == 6:
            changed[at:at] = changed[at : at + length]
        elif kind == 7:
            start = int(rng.integers(max(1, len(other))))
            changed[at : at + length] = other[start : start + length]
        else:
            changed[at : at + length] = rng.bytes(length)
    return bytes(changed)


def picked(files: dict[str, bytes], rng: np.random.Generator) -> tuple[str, bytes]:
    """Return one of the files, damaged by pieces of another."""
    names = list(files)
    name, other = names[rng.integers(len(names))], names[rng.integers(len(names))]
    return name, mutate(files[name], files[other], rng)


# --- targets: each tries one mutant, which it yields first --------------------------------------------------------

Trial = Iterator[bytes]


def images(rng: np.random.Generator, _folder: Path) -> Trial:
    """Decode, verify, reduce, mark, and decode regions by both engines."""
    files = _images()
    data = mutate(files[rng.integers(len(files))], files[rng.integers(len(files))], rng)
    yield data
    channels = int(rng.choice([1, 3]))
    pixels, reason = _tried(lambda: decode(data, channels))
    header, _ = _tried(lambda: read_header(data))
    _, other_reason = _tried(lambda: verify(data))
    if reason != other_reason:
        raise WrongError(f"decode: {reason}, verify: {other_reason}")
    how, _ = Reduction.of(*REDUCTIONS[rng.integers(len(REDUCTIONS))])
    reduced, _ = _tried(lambda: reduce(data, how))
    if reduced is not None and reduced.changed:
        decode(reduced.data)
    if header is None and pixels is not None:
        raise WrongError("pixels without a header")
    if header is None:
        raise ImageError(reason)
    if pixels is not None and pixels.shape != (header.height, header.width, channels):
        raise WrongError(f"{pixels.shape} where the header says {header}")
    if pixels is not None and (told := _pillow_refuses(data)) and not (told == "SyntaxError" and data[1:4] == b"PNG"):
        raise WrongError(f"decodes though Pillow raises {told}")
    _regions(data, header, None if pixels is None else pixels, channels, rng)
    if native.library():
        marked = add_restart_markers(data)
        if marked != data and pixels is not None and not np.array_equal(decode(marked, channels), pixels):
            raise WrongError("restart markers change pixels")
    if pixels is None:
        raise ImageError(reason)


@cache
def _images() -> list[bytes]:
    return seeds.images()


def _tried(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return what a call returns, or None and the reason of its refusal, which must be one line."""
    try:
        return call(), ""
    except ImageError as error:
        if not str(error) or "\n" in str(error):
            raise WrongError(f"no reason in one line: {str(error)!r}") from error
        return None, str(error)


def _pillow_refuses(data: bytes) -> str:
    try:
        Image.open(io.BytesIO(data)).load()
    except Exception as error:
        return type(error).__name__
    return ""


def _regions(data: bytes, header: Any, pixels: Any, channels: int, rng: np.random.Generator) -> None:
    """Decode random regions with both engines; of what decodes as a whole, compare them with that."""
    jobs = np.zeros(2, JOB)
    for job in jobs:
        width, height = (int(rng.integers(1, side + 1)) for side in (header.width, header.height))
        left, top = int(rng.integers(header.width - width + 1)), int(rng.integers(header.height - height + 1))
        job["box"] = left, top, left + width, top + height
        job["resized"] = OUT + rng.integers(0, 20, 2)
        job["window"] = rng.integers(0, job["resized"] - OUT + 1)
        job["flip"], job["orientation"] = rng.integers(2), header.orientation
    profile = "exact" if rng.integers(3) else "fast"
    found: list[tuple[Any, str]] = []
    for switch in ("1", "0"):
        os.environ["SAGITTA_NATIVE"] = switch
        out = np.zeros((2, OUT, OUT, channels), np.uint8)
        try:
            decode_batch([data] * 2, jobs, out, profile=profile)  # type: ignore[arg-type]
            found.append((out, ""))
        except BatchError as error:
            found.append((None, error.reason))
        finally:
            os.environ.pop("SAGITTA_NATIVE")
    (by_core, first), (by_pillow, second) = found
    if first != second or (profile == "exact" and not np.array_equal(by_core, by_pillow)):
        raise WrongError(f"engines differ: {first or 'pixels'}, {second or 'pixels'}")
    if (by_pillow is None) != (pixels is None):
        raise WrongError(f"whole and region differ: {second or 'pixels'}")
    if pixels is not None and channels == 3 and profile == "exact":
        for job, got in zip(jobs, by_pillow, strict=True):
            if not np.array_equal(got, _cropped(pixels, job)):
                raise WrongError(f"the region {job} is not that of the whole")


def _cropped(pixels: Any, job: np.void) -> npt.NDArray[np.uint8]:
    (top, left), (height, width) = job["window"], job["resized"]
    crop = Image.fromarray(pixels).crop(tuple(job["box"].tolist())).resize((width, height), Image.Resampling.BILINEAR)
    window = np.asarray(crop)[top : top + OUT, left : left + OUT]
    return window[:, ::-1] if job["flip"] else window


def converted(source: Path, folder: Path, rng: np.random.Generator, **options: Any) -> ShardSet:
    """Convert, open, and compare every row's bytes with their hash."""
    cut = ConvertOptions(workers=1, val=0, test=0, shard_size=2000, resize=8 if rng.integers(4) == 0 else None)
    opened = open_source(str(source), SourceOptions(**options), cache=folder / "cache")
    convert(opened, folder / "out", cut)
    if left := list(folder.glob(".out*")):
        raise WrongError(f"left: {left}")
    shards = ShardSet.open(folder / "out")
    for split in shards.splits.values():
        for row, wanted in enumerate(split.content_hashes.to_pylist()):
            decode(data := bytes(split.image(row)))
            if content_hash(data) != wanted:
                raise WrongError("bytes are not those that were scanned")
        if len(split.labels) != len(split):
            raise WrongError("labels are missing")
    return shards


def whole(rng: np.random.Generator, folder: Path) -> Trial:
    """Convert a folder of images of which two are damaged; all that is kept must be what the files hold."""
    files, bad = seeds.named(), []
    for _ in range(2):
        candidates = _images()
        data = mutate(candidates[rng.integers(len(candidates))], files["a/0.png"], rng)
        bad.append(data)
        files[f"{'ab'[len(bad) % 2]}/bad{len(bad)}.{rng.choice(['png', 'jpg', 'tif', 'webp'])}"] = data
    yield b"".join(bad)
    seeds.write(files, folder / "source")
    shards = converted(folder / "source", folder, rng, layout="folders")
    rows = {split.path(row): bytes(split.image(row)) for split in shards.splits.values() for row in range(len(split))}
    if any(shards.info.provenance["options"]["resize"] is None and files[path] != rows[path] for path in rows):
        raise WrongError("rows are not the files")
    if len(rows) + shards.info.quarantined != len(files):
        raise WrongError("rows are missing")


def archives(rng: np.random.Generator, folder: Path) -> Trial:
    """Convert a damaged archive."""
    name, data = picked(seeds.archives(), rng)
    yield data
    (folder / name).write_bytes(data)
    converted(folder / name, folder, rng)


def tables(rng: np.random.Generator, folder: Path) -> Trial:
    """Convert a folder of images beside a damaged table."""
    name, data = picked(seeds.tables(), rng)
    yield data
    seeds.write({**seeds.named(), name: data}, folder / "source")
    converted(folder / "source" / name if rng.integers(2) else folder / "source", folder, rng)


def arrays(rng: np.random.Generator, folder: Path) -> Trial:
    """Convert arrays of pixels of which a file is damaged."""
    kinds = seeds.arrays()
    files = kinds[list(kinds)[rng.integers(len(kinds))]]
    name, data = picked(files, rng)
    yield data
    seeds.write({**files, name: data}, folder / "source")
    converted(folder / "source", folder, rng)


def shards(rng: np.random.Generator, folder: Path) -> Trial:
    """Open a dataset of which a file, perhaps that of the index, is damaged, and read all of it."""
    original = _dataset()
    shutil.copytree(original, folder / "out")
    names = sorted(path for path in (folder / "out").rglob("*") if path.is_file() and path.suffix != ".lock")
    path = names[rng.integers(len(names))]
    data = mutate(path.read_bytes(), names[0].read_bytes(), rng)
    yield data
    path.write_bytes(data)
    wanted = ShardSet.open(original).splits["train"]
    found = ShardSet.open(folder / "out", cache=None).splits["train"]
    if len(found) != len(wanted):
        raise DatasetError("fewer rows")
    same = all(bytes(found.image(row)) == bytes(wanted.image(row)) for row in range(len(found)))
    same = found.labels.tolist() == wanted.labels.tolist() and same
    if not same and path.suffix == ".arrow":  # damaged shards are for `verify`, which reads every byte
        raise WrongError("the index leads to something else")


@cache
def _dataset() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder)
    seeds.write(seeds.named(24), folder / "source")
    converted(folder / "source", folder, np.random.default_rng(1))
    return folder / "out"


TARGETS: dict[str, Callable[[np.random.Generator, Path], Trial]] = {
    "images": images, "convert": whole, "archives": archives, "tables": tables, "arrays": arrays, "shards": shards,
}  # fmt: skip


# --- children -----------------------------------------------------------------------------------------------------


def attempt(target: str, seed: int, number: int, keep: Path) -> str:
    """Try a mutant; returns the verdict, and keeps the mutant where that is a bad one."""
    rng = np.random.default_rng([seed, list(TARGETS).index(target), number])
    kept = keep / f"{target}-{seed}-{number}"
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        trial = TARGETS[target](rng, Path(folder))
        kept.write_bytes(next(trial))  # before anything is tried, which may be the end of this process
        try:
            next(trial, None)
            verdict = "read"
        except SagittaError as error:
            verdict = "refused" if str(error) and "\n" not in str(error) else f"traceback {error!r}"
        except WrongError as error:
            verdict = f"wrong {error}"
        except MemoryError:
            verdict = "memory"
        except Exception:
            verdict = f"traceback {traceback.format_exc(limit=-4)}"
    if verdict in GOOD:
        kept.unlink()
    return " | ".join(verdict.split("\n"))


def child(target: str, seed: int, numbers: range, keep: Path) -> None:
    """Say of each mutant that it begins, and its verdict."""
    faulthandler.enable()
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # which takes address space by the terabyte
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    for number in numbers:
        out.write(f"{number} begins\n")
        out.write(f"{number} {attempt(target, seed, number, keep)}\n")


def run(target: str, seed: int, numbers: range, keep: Path) -> Counter[str]:
    """Try mutants in children, a new one after each that ended; prints what must not be; returns the verdicts."""
    verdicts: Counter[str] = Counter()
    while numbers:
        command = [sys.executable, __file__, target, "--seed", str(seed), "--keep", str(keep), "--child"]
        command += ["--first", str(numbers.start), "--count", str(len(numbers))]
        with (
            tempfile.TemporaryFile("w+") as said,  # not a pipe, which would be full one day
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process,
        ):
            at, ending = _follow(process, target, numbers, verdicts)
            said.seek(0)
            told = " | ".join(said.read().splitlines()[-12:])
        if not ending and process.returncode:  # before anything was tried
            raise SystemExit(told)
        if ending:
            print(f"{target} {at}: {ending}: {told}", flush=True)
            verdicts[ending.split()[0]] += 1
        numbers = range(at + 1, numbers.stop)
    return verdicts


def _follow(process: "subprocess.Popen[bytes]", target: str, numbers: range, verdicts: Counter[str]) -> tuple[int, str]:
    """Count a child's verdicts; returns the last mutant, and how it ended the child, if it did."""
    assert process.stdout
    at, begun, rest = numbers.start - 1, False, b""
    before = now = _worked(process)
    while True:
        if not select.select([process.stdout], [], [], SECONDS)[0]:
            last, now = now, _worked(process)
            if last < now < before + SECONDS:  # it only waits for others, who need the processor, too
                continue
            process.kill()
            return max(at, numbers.start), f"hang of more than {SECONDS} s"
        before = now = _worked(process)
        if not (block := os.read(process.stdout.fileno(), 1 << 16)):
            break
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            word, _, verdict = line.decode().partition(" ")
            at, begun = int(word), verdict == "begins"
            if not begun:
                verdicts[verdict.split()[0]] += 1
                if verdict not in GOOD:
                    print(f"{target} {at}: {verdict}", flush=True)
    if process.wait() == 0:
        return numbers.stop - 1, ""
    return at, f"crash {process.returncode}" if begun and process.returncode != 1 else ""


def _worked(process: "subprocess.Popen[bytes]") -> float:
    """Return the seconds that a process has had of the processor."""
    return time.clock_gettime(~process.pid << 3 | 2)  # as Linux numbers the clocks of processes


def main() -> int:
    """Run targets; returns 1 where something was that must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (all)")
    parser.add_argument("--count", type=int, default=100_000, help="mutants, of all targets together")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="folder for the mutants that fail")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    chosen = {target: SHARES[target] for target in a.target or TARGETS}
    a.keep.mkdir(parents=True, exist_ok=True)
    failed = False
    for target, share in chosen.items():
        numbers = range(a.first, a.first + max(1, round(a.count * share / sum(chosen.values()))))
        if a.child:
            child(target, a.seed, numbers, a.keep)
            continue
        began = time.monotonic()
        verdicts = run(target, a.seed, numbers, a.keep)
        failed |= not set(verdicts) <= set(GOOD)
        told = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.most_common())
        print(f"{target}: {len(numbers)} mutants in {time.monotonic() - began:.0f} s: {told}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
