"""Whether somebody answers at an address, asked before a client that would try again for a minute."""

import http.client
import queue
import ssl
import threading
import urllib.error
import urllib.request
from urllib.parse import urlsplit

_SECONDS = 5.0  # for names, connection and answer together


def reach(url: str) -> None:
    """Return when a server answers at ``url``, with whatever it says; proxies of the environment are used.

    Raises:
        ConnectionError: nobody answers within seconds; says who, and why.
    """
    if "all" in urllib.request.getproxies():  # such as SOCKS, which only the client knows
        return
    answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    # A thread, since the time for looking up a name cannot be limited.
    threading.Thread(target=lambda: answer.put(_asked(url)), daemon=True).start()
    try:
        error = answer.get(timeout=_SECONDS)
    except queue.Empty:
        error = TimeoutError(f"not within {_SECONDS:.0f} s")
    if error is not None:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(f"no answer from {urlsplit(url).netloc}: {getattr(reason, 'strerror', None) or reason}")


def _asked(url: str) -> Exception | None:
    """Return why there was no answer; None where there was one."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # The client may know the certificate that is missing here.
        return None if isinstance(getattr(error, "reason", error), ssl.SSLError) else error
