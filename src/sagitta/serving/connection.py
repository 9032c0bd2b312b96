"""A client's connection: uvicorn's, with ends for what it waits for without end."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from sagitta.serving.refusal import Limits, RequestError

_HEAD = 64 * 2**10  # bytes of a request's head
_LINGER = 5.0  # seconds in which the rest of a body that was refused may come, so that its sender reads why


def connection(limits: Limits) -> type[asyncio.Protocol]:
    """Return the protocol of connections within limits."""

    class Connection(HttpToolsProtocol):
        """Closes a connection that sends no head, half of one, or the rest of a refused body for too long."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._timer: asyncio.TimerHandle | None = None
            self._in_head, self._head = True, 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._refuse(RequestError(503, "busy", "too many connections are open; ask again", 1))
                return
            self._set_timer(limits.receive)

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._in_head:
                self._head += len(data)
                if self._timer is None:
                    self._set_timer(limits.receive)
            super().data_received(data)
            if self._in_head and self._head > _HEAD and not self.transport.is_closing():
                self._refuse(RequestError(431, "head_too_large", f"more than {_HEAD:,} bytes before the body"))

        def on_headers_complete(self) -> None:
            self._in_head, self._head = False, 0
            self._cancel_timer()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_head = True
            self._cancel_timer()
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._in_head and not self.transport.is_closing():
                self._set_timer(_LINGER)

        def timeout_keep_alive_handler(self) -> None:
            self._end()

        def send_400_response(self, msg: str) -> None:
            self._refuse(RequestError(400, "bad_request", "this is no request of HTTP"))

        def _refuse(self, refusal: RequestError) -> None:
            body = json.dumps(refusal.to_dict()).encode()
            head = [STATUS_LINE[refusal.status], b"content-type: application/json\r\nconnection: close\r\n"]
            head += [f"{name}: {value}\r\n".encode() for name, value in refusal.headers.items()]
            self.transport.write(b"".join([*head, b"content-length: %d\r\n\r\n" % len(body), body]))
            self.transport.close()

        def _set_timer(self, seconds: float) -> None:
            self._cancel_timer()
            self._timer = self.loop.call_later(seconds, self._end)

        def _cancel_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _end(self) -> None:
            if self.transport.is_closing() or self.transport.get_write_buffer_size():
                self.transport.abort()  # nobody reads what stands there
            else:
                self.transport.close()

    return Connection
