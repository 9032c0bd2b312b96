"""How many photos a second `sagitta serve` answers on this machine, against what the same model does without a server.

    python bench/serving.py EXPORT PHOTOS [--seconds 60] [--clients 32] [--litserve PYTHON]

EXPORT is an export's folder with ``model.onnx``, PHOTOS a folder of JPEGs. Clients, each a connection that asks again
as soon as it is answered, run in one process of their own on the same cores. Compared, one after the other:

- bare: a loop that reads, decodes and runs the model in batches of 32 in ONNX Runtime, with nobody to talk to;
- served: `sagitta serve`; once more with batches of one;
- LitServe with the recipe of its own documentation: PIL, numpy and ONNX Runtime, its batching switched on. PYTHON is
  that of an environment with litserve, onnxruntime, numpy and Pillow.

``cpu_ms_an_image`` is processor time of all of a server's processes: on a machine where others compute it tells more
than images a second. What the clients themselves took stands in ``client_cpu_seconds``.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BATCH = 32


def photos_of(folder: Path) -> list[bytes]:
    """Return the photos."""
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]


def bare(export: Path, photos: list[bytes], seconds: float) -> dict[str, Any]:
    """Return what a loop does that decodes and runs the model, with all cores, by the same decoder."""
    from sagitta.serving import Named, Wanted, open_engine

    engine = open_engine(export, Wanted())
    named = [Named("", data) for data in photos]
    batches = [(named * 2)[start : start + BATCH] for start in range(0, len(named), BATCH)]
    engine.answer(batches[0])
    times: list[float] = []
    count, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        engine.answer(batches[len(times) % len(batches)])
        times.append(time.perf_counter() - start)
        count += BATCH
    passed = time.perf_counter() - began
    return {
        "images_per_second": count / passed,
        "images": count,
        "cpu_seconds": time.process_time() - cpu,
        "seconds": passed,
    }


async def _client(
    port: int, requests: list[bytes], first: int, end: float, times: list[float], errors: list[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = first
    while time.monotonic() < end:
        began = time.perf_counter()
        writer.write(requests[number % len(requests)])
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b" 200 " not in head[:20]:
            errors.append((head[:30] + body[:200]).decode(errors="replace"))
        times.append(time.perf_counter() - began)
        number += 1
    writer.close()


async def _load(port: int, requests: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    times: list[float] = []
    errors: list[str] = []
    end, began = time.monotonic() + seconds, time.perf_counter()
    spread = len(requests) // clients or 1
    every = (_client(port, requests, number * spread, end, times, errors) for number in range(clients))
    await asyncio.gather(*every)
    passed = time.perf_counter() - began
    centiles = statistics.quantiles(times, n=100)
    return {
        "images_per_second": len(times) / passed,
        "images": len(times),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        **{f"p{each}_ms": round(1e3 * centiles[each - 1], 2) for each in (50, 95, 99)},
        "client_cpu_seconds": time.process_time(),
        "seconds": passed,
    }


def load(port: int, folder: Path, path: str, kind: str, clients: int, seconds: float) -> dict[str, Any]:
    """Return what a process of clients sees."""
    command = [sys.executable, __file__, "--as-client", str(port), str(folder), path, kind, str(clients), str(seconds)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def as_client(port: str, folder: str, path: str, kind: str, clients: str, seconds: str) -> None:
    """Be that process."""
    import base64

    bodies = photos_of(Path(folder))
    if kind == "application/json":
        bodies = [json.dumps({"image": base64.b64encode(body).decode()}).encode() for body in bodies]
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: %d\r\n\r\n"
    requests = [(head % len(body)).encode() + body for body in bodies]
    print(json.dumps(asyncio.run(_load(int(port), requests, int(clients), float(seconds)))))


def _cpu(session: int) -> float:
    """Return the processor time of all processes of a session so far."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks += int(fields[11]) + int(fields[12]) if int(fields[3]) == session else 0
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(command: list[str], port: int, ready: str = "/ready") -> Iterator[dict[str, Any]]:
    """Run a server; yields how many seconds it took until it was ready, and afterwards its memory and CPU time."""
    import http.client

    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    found: dict[str, Any] = {}
    try:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", ready)
                if connection.getresponse().status < 500:
                    break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode}") from None
                time.sleep(0.02)
            finally:
                connection.close()
        found["ready_after_seconds"] = round(time.perf_counter() - began, 2)
        before = _cpu(process.pid)
        yield found
        found["server_cpu_seconds"] = round(_cpu(process.pid) - before, 2)
        status = Path(f"/proc/{process.pid}/status").read_text()
        found["peak_memory_mb"] = int(status.partition("VmHWM:")[2].split()[0]) // 1024
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    """Measure, and write ``results/serving.json``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("export", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--litserve", metavar="PYTHON")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "serving.json")
    a = parser.parse_args()
    found: dict[str, Any] = {}
    short = max(2.0, a.seconds / 3)
    image = "image/jpeg"

    def begun(name: str, told: dict[str, Any]) -> None:
        found[name] = told | {"machine_load": round(os.getloadavg()[0], 2)}
        cpu = told["server_cpu_seconds"] if "server_cpu_seconds" in told else told["cpu_seconds"]
        found[name]["cpu_ms_an_image"] = round(1e3 * cpu / told["images"], 2)
        print(name, json.dumps(found[name]), flush=True)

    ours = [sys.executable, "-m", "sagitta", "serve", str(a.export), "--port", "8765"]
    begun("bare loop, before", bare(a.export, photos_of(a.photos), short))
    with server(ours, 8765) as told:
        seen = load(8765, a.photos, "/v1/predict", image, a.clients, a.seconds)
    begun(f"served, {a.clients} clients", seen | told)
    begun("bare loop, after", bare(a.export, photos_of(a.photos), short))
    with server(ours, 8765) as told:
        seen = load(8765, a.photos, "/v1/predict", image, 1, short)
    begun("served, 1 client", seen | told)
    with server([*ours, "--batch-size", "1"], 8765) as told:
        seen = load(8765, a.photos, "/v1/predict", image, a.clients, short)
    begun("served, batches of 1", seen | told)
    if a.litserve:
        recipe = [a.litserve, str(HERE / "litserve_recipe.py"), str(a.export), "8766"]
        with server(recipe, 8766, "/health") as told:
            seen = load(8766, a.photos, "/predict", "application/json", a.clients, short)
        begun("LitServe's recipe", seen | told)
    loops = [found[f"bare loop, {when}"]["images_per_second"] for when in ("before", "after")]
    served = found[f"served, {a.clients} clients"]["images_per_second"]
    found["share of the bare loop"] = round(served / statistics.mean(loops), 3)
    cpus = [found[f"bare loop, {when}"]["cpu_ms_an_image"] for when in ("before", "after")]
    own = found[f"served, {a.clients} clients"]["cpu_ms_an_image"]
    found["share of the bare loop, by processor time"] = round(statistics.mean(cpus) / own, 3)
    found["times batches of 1"] = round(served / found["served, batches of 1"]["images_per_second"], 2)
    if a.litserve:
        cpu = found["LitServe's recipe"]["cpu_ms_an_image"]
        found["times LitServe's recipe, by processor time"] = round(cpu / own, 2)
        found["times LitServe's recipe"] = round(served / found["LitServe's recipe"]["images_per_second"], 2)
    told = {"export": a.export.parent.name, "photos": len(photos_of(a.photos)), "cores": os.cpu_count()}
    machine = {"machine": platform.machine(), "python": platform.python_version(), "seconds": a.seconds}
    a.out.write_text(json.dumps(told | machine | found, indent=2) + "\n")
    print({name: value for name, value in found.items() if not isinstance(value, dict)})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-client"]:
        as_client(*sys.argv[2:])
    else:
        main()
