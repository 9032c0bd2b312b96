"""A headless Chromium, driven by its DevTools protocol: opens a page, runs script in it, collects what it complains of.

aiohttp comes with Lightning; nothing else is needed. The browser is looked for under its usual names.
"""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_COMPLAINTS = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}
_PATIENCE = 60

Call = Callable[..., Awaitable[dict[str, Any]]]


def found() -> str | None:
    """Return the browser's path, or None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def visit(
    page: Path | str, scripts: list[str], *, width: int = 1200, height: int = 900, dark: bool = False,
    paper: bool = False, options: Sequence[str] = (), shot: Path | None = None,
) -> tuple[list[Any], list[str]]:  # fmt: skip
    """Return what scripts return in a page, one after the other, and everything that the browser complains of.

    Args:
        page: file or address.
        scripts: expressions, of which promises are awaited.
        width: of the window, pixels; below 600 it is a phone's.
        height: likewise.
        dark: whether the person likes it dark.
        paper: show it as it is printed.
        options: of the browser, beside the usual ones.
        shot: PNG of the page as it is at the end.
    """
    browser = found()
    assert browser is not None
    usual = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-port=0",
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        port = Path(home) / "DevToolsActivePort"
        command = [browser, *usual, *options, f"--user-data-dir={home}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return asyncio.run(
                asyncio.wait_for(_visited(port, page, scripts, (width, height), _media(dark, paper), shot), _PATIENCE)
            )
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _media(dark: bool, paper: bool) -> dict[str, Any]:
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    return {"media": "print" if paper else "", "features": features}


async def _visited(
    port: Path,
    page: Path | str,
    scripts: list[str],
    size: tuple[int, int],
    media: dict[str, Any],
    shot: Path | None,
) -> tuple[list[Any], list[str]]:
    while not (port.is_file() and port.read_text().count("\n")):
        await asyncio.sleep(0.05)
    address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json"
    async with aiohttp.ClientSession() as session:
        async with session.get(address) as answer:
            tab = next(each for each in await answer.json() if each["type"] == "page")
        async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            complaints: list[str] = []
            events: list[str] = []
            number = 0

            async def call(method: str, **parameters: Any) -> dict[str, Any]:
                nonlocal number
                number += 1
                await socket.send_json({"id": number, "method": method, "params": parameters})
                while True:
                    message = await socket.receive_json()
                    if message.get("id") == number:
                        assert "error" not in message, message
                        return dict(message["result"])
                    events.append(message.get("method", ""))
                    if message.get("method") in _COMPLAINTS:
                        complaints.append(json.dumps(message["params"]))

            for domain in ("Page", "Runtime", "Log"):
                await call(f"{domain}.enable")
            metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
            await call("Emulation.setDeviceMetricsOverride", **metrics)
            await call("Emulation.setEmulatedMedia", **media)
            await call("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
            while "Page.loadEventFired" not in events:
                await call("Runtime.evaluate", expression="1")
                await asyncio.sleep(0.02)
            found = []
            for script in scripts:
                result = await call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
                assert "exceptionDetails" not in result, result["exceptionDetails"]
                found.append(result["result"].get("value"))
            if shot is not None:
                picture = await call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
                shot.write_bytes(base64.b64decode(picture["data"]))
            return found, complaints
