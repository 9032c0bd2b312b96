"""Clients that mean no good: others are answered, memory stays bounded, and what waits for nothing is ended."""

import random
import socket
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.servers import Served, picture, serving, write_export

RED = picture("red")
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with little patience."""
    folder = tmp_path_factory.mktemp("hostile")
    write_export(folder / "colours" / "export")
    (folder / "impatient.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from sagitta.serving import Limits, Wanted, serve\n"
        "limits = Limits(body=2**22, pixels=2_000_000, receive=1.5, memory=2**24, connections=300, idle=3)\n"
        "serve([sys.argv[2]], port=0, limits=limits, wanted=Wanted(pixels=limits.pixels))\n"
    )
    with serving(folder, "colours/export", prefix=("impatient.py",)) as it:
        yield it
        assert it.predict(RED)[0] == 200, "it has not lived through all of this"
        assert not [line for line in it.lines() if "traceback" in line]


def raw(served: Served, content: bytes, *, seconds: float = 20, half: bool = False) -> bytes:
    """Return everything that the server sends until it closes a connection, or in so many seconds."""
    with socket.create_connection(("127.0.0.1", served.port), seconds) as connection:
        connection.sendall(content)
        if half:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found


def png(width: int, height: int, data: bytes) -> bytes:
    """Return a PNG whose header promises any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_odd_images_are_answered_or_refused(served: Served, data_dir: Path) -> None:
    paths = sorted(path for path in (data_dir / "odd-images").iterdir() if path.suffix != ".csv")
    assert len(paths) > 60
    statuses = {path.name: served.predict(path.read_bytes())[0] for path in paths}
    assert set(statuses.values()) <= {200, 400, 422}
    assert 20 < sum(status == 200 for status in statuses.values()) < len(paths)


def test_random_bytes_and_damaged_images_are_answered_or_refused(served: Served) -> None:
    random.seed(0)
    for number in range(300):
        body = bytearray(RED if number % 2 else random.randbytes(random.randrange(1, 5000)))
        for _ in range(random.randrange(1, 6)):
            body[random.randrange(len(body))] = random.randrange(256)
        kind = ("image/jpeg", "application/json", "multipart/form-data; boundary=B")[number % 3]
        assert served.predict(bytes(body), kind)[0] in (200, 400, 413, 422)


def test_random_heads_are_answered_or_refused(served: Served) -> None:
    random.seed(1)
    for _ in range(60):
        content = bytearray(HEAD + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc")
        for _ in range(random.randrange(1, 4)):
            content[random.randrange(len(content))] = random.randrange(256)
        assert raw(served, bytes(content), half=True)[:9] in (b"HTTP/1.1 ", b"")


def test_bombs_take_no_memory(served: Served) -> None:
    before = served.memory()
    bombs = [png(30_000, 30_000, zlib.compress(bytes(10**6))), png(2**31 - 1, 2**31 - 1, b""), png(1500, 1400, b"x")]
    for bomb in bombs:
        status, told = served.predict(bomb)
        assert status == 422 and ("pixels" in told["error"]["message"] or len(bomb) < 100)
    with ThreadPoolExecutor(16) as pool:
        large = png(1400, 1400, zlib.compress(bytes(1400 * (1 + 3 * 1400))))
        assert set(pool.map(lambda _: served.predict(large)[0], range(64))) == {200}
    assert served.memory() - before < 300 * 2**20


def test_a_slow_head_and_a_slow_body_end(served: Served) -> None:
    began = time.monotonic()
    assert raw(served, b"POST /v1/pre") == b""
    assert 1 < time.monotonic() - began < 6
    found = raw(served, HEAD + b"Content-Length: 1000\r\n\r\nabc")
    assert found.startswith(b"HTTP/1.1 408 ") and b'"body_too_slow"' in found


def test_half_a_body_and_wrong_lengths_are_refused(served: Served) -> None:
    assert raw(served, HEAD + b"Content-Length: 1000\r\n\r\nabc", half=True)[9:12] in (b"400", b"408", b"")
    for length in (b"-1", b"1e3", b"abc", b"99999999999999999999", b"5\r\nContent-Length: 6"):
        assert raw(served, HEAD + b"Content-Length: %s\r\n\r\nabc" % length)[9:12] in (b"400", b"413")
    longer = raw(served, HEAD + b"Content-Length: %d\r\n\r\n" % len(RED) + RED + b"more of it\r\n\r\n")
    assert b"HTTP/1.1 400 " in longer and b'"bad_request"' in longer
    chunks = b"Transfer-Encoding: chunked\r\n\r\n"
    assert raw(served, HEAD + chunks + b"zz\r\n", half=True)[9:12] in (b"400", b"")


def test_what_is_announced_as_too_large_is_refused_before_it_is_sent(served: Served) -> None:
    began = time.monotonic()
    found = raw(served, HEAD + b"Content-Length: 900000000\r\nExpect: 100-continue\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 413 ") and b"100 Continue" not in found and time.monotonic() - began < 9
    endless = b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + bytes(65536) + b"\r\n") * 80
    assert raw(served, HEAD + endless).startswith(b"HTTP/1.1 413 ")


def test_an_endless_head_is_refused(served: Served) -> None:
    assert raw(served, b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000).startswith(b"HTTP/1.1 431 ")


def test_pipelined_requests_are_answered_in_their_order(served: Served) -> None:
    one = HEAD + b"Content-Length: %d\r\n" % len(RED)
    found = raw(served, (one + b"\r\n" + RED) * 3 + one + b"Connection: close\r\n\r\n" + RED)
    assert found.count(b"HTTP/1.1 200 OK") == 4


def test_connections_that_send_nothing_keep_nobody_out_and_are_ended(served: Served) -> None:
    before = served.memory()
    silent = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(200)]
    assert served.predict(RED)[0] == 200
    assert served.memory() - before < 50 * 2**20
    silent += [socket.create_connection(("127.0.0.1", served.port)) for _ in range(150)]
    for connection in silent:
        connection.settimeout(10)
    ends = [connection.recv(4096) for connection in silent]
    assert {end[:12] for end in ends} == {b"", b"HTTP/1.1 503"} and ends[:200] == [b""] * 200
    for connection in silent:
        connection.close()


def test_bodies_share_a_memory_and_give_it_back(served: Served) -> None:
    held: list[socket.socket] = []
    for _ in range(4):  # as much as all may hold
        connection = socket.create_connection(("127.0.0.1", served.port), 10)
        connection.sendall(HEAD + b"Content-Length: 4194304\r\n\r\n" + bytes(1000))
        held.append(connection)
    time.sleep(0.3)
    status, told, headers = served.ask("POST", "/v1/predict", RED)
    assert status == 429 and told["error"]["code"] == "busy" and int(headers["retry-after"]) >= 1
    for connection in held:
        connection.close()
    deadline = time.monotonic() + 5
    while served.predict(RED)[0] == 429:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_many_at_once_are_all_answered(served: Served) -> None:
    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda _: served.predict(RED), range(240)))
    assert {status for status, _ in found} == {200}
    assert {told["predictions"][0]["class"] for _, told in found} == {"red"}
