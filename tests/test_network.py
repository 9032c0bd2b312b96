"""Whether somebody answers is known in seconds."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from sagitta import network
from sagitta.errors import ConfigError, SourceError
from sagitta.models.networks import check_network
from sagitta.network import reach
from sagitta.sources.builtin import MIRROR_VARIABLE
from sagitta.sources.detect import open_source


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def refusing() -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/"


def test_any_answer_is_one() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # which says 501 to everything
        threading.Thread(target=server.handle_request, daemon=True).start()
        reach(f"http://127.0.0.1:{server.server_port}/")


def test_nobody_there_is_said() -> None:
    url = refusing()
    with pytest.raises(ConnectionError, match=f"no answer from {url[7:-1]}: Connection refused"):
        reach(url)


def test_somebody_silent_is_not_waited_for(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="no answer from 127"):
        reach(silent)
    assert time.monotonic() - start < 20


def test_published_weights_and_downloads_fail_at_once_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path
    monkeypatch.setattr(constants, "ENDPOINT", refusing())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(cache / "torch"))
    monkeypatch.setenv(MIRROR_VARIABLE, refusing())
    with pytest.raises(
        ConfigError, match=r"pretrained weights of 'resnet18' cannot be had \(no answer from 127\.0\.0\.1"
    ):
        check_network("resnet18", pretrained=True)
    for source in ("hf://user/name", "mnist"):
        with pytest.raises(SourceError, match=r"no answer from 127\.0\.0\.1"):
            open_source(source, cache=cache)
