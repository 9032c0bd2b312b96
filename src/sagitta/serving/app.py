"""The paths that a server answers, within limits, and every refusal in one form."""

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sagitta.errors import ConfigError, ImageError
from sagitta.serving.bodies import Budget, announced, images_of, read_body
from sagitta.serving.engine import Named
from sagitta.serving.logs import tell
from sagitta.serving.metrics import TYPE, Metrics
from sagitta.serving.models import Models, Served
from sagitta.serving.openapi import document
from sagitta.serving.refusal import Limits, RequestError
from sagitta.serving.telling import Row, answer, unreadable

_LOOK = 2.0  # seconds between looks at the models' files
_TOP = 5
_OPEN = {"/", "/page.css", "/page.js", "/health", "/ready"}  # without a token
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}

Handler = Callable[[Request], Awaitable[Response]]


class App:
    """What is behind the paths.

    Args:
        models: that answer.
        limits: of requests.
        metrics: what is counted.
        token: that clients must bear; None where anybody may ask.

    Attributes:
        ready: whether more requests are welcome; not before its models are open, nor when it ends. Those that come
            nevertheless are answered.
    """

    def __init__(self, models: Models, limits: Limits, metrics: Metrics, token: str | None) -> None:
        self._models, self._limits, self._metrics, self._token = models, limits, metrics, token
        self._budget, self._running, self.ready = Budget(limits.memory), 0, False
        self._heats = asyncio.Semaphore(1)

    def starlette(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/", self._counted(_file("page.html", "text/html"))),
            Route("/page.css", self._counted(_file("page.css", "text/css"))),
            Route("/page.js", self._counted(_file("page.js", "text/javascript"))),
            Route("/health", self._counted(self._health)),
            Route("/ready", self._counted(self._is_ready)),
            Route("/metrics", self._counted(self._told)),
            Route("/openapi.json", self._counted(self._openapi)),
            Route("/v1/models", self._counted(self._listed)),
            Route("/v1/predict", self._counted(self._predict), methods=["POST"]),
            Route("/v1/explain", self._counted(self._explain), methods=["POST"]),
        ]
        handlers: Any = {HTTPException: self._unknown}
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._models.watch(_LOOK))
        self.ready = True
        try:
            yield
        finally:
            self.ready = False
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            await self._models.close()

    def _counted(self, handler: Handler) -> Handler:
        """Return a handler that is counted and logged, and whose every failure is told in one form."""

        async def run(request: Request) -> Response:
            began, number = time.perf_counter(), secrets.token_hex(8)
            request.state.told = {}
            try:
                self._check_token(request)
                response = await handler(request)
            except RequestError as error:
                response = _refused(error, number)
                request.state.told["reason"] = error.code
            except ClientDisconnect:
                response = _refused(RequestError(400, "gone", "the client went before its body had come"), number)
            except Exception as error:
                tell("failed", 40, error=error, request=number, path=request.url.path)
                failure = RequestError(500, "failed", f"the server failed; its log says why, under {number}")
                response = _refused(failure, number)
            seconds = time.perf_counter() - began
            path, status = request.scope["path"], response.status_code
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(seconds)
            response.headers["X-Request-ID"] = number
            response.headers.update(_SAFE)
            told = {"request": number, "method": request.method, "path": path, "status": status}
            level = 10 if path in ("/health", "/ready", "/metrics") and status < 400 else 20
            tell("request", level, **told, milliseconds=round(1e3 * seconds, 1), **request.state.told)
            return response

        return run

    def _check_token(self, request: Request) -> None:
        if self._token is None or request.url.path in _OPEN:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode("latin-1", "replace"), f"Bearer {self._token}".encode()):
            raise RequestError(401, "no_token", "send the header Authorization: Bearer TOKEN")

    async def _unknown(self, request: Request, error: Exception) -> Response:
        """Answer what no route takes."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        words = {
            404: ("no_such_path", "nothing is here; see /openapi.json"),
            405: ("wrong_method", "not by this method"),
        }
        code, message = words.get(status, ("refused", "this is not taken"))
        number = secrets.token_hex(8)
        response = _refused(RequestError(status, code, message), number)
        tell("request", request=number, method=request.method, path=request.scope["path"][:200], status=status)
        self._metrics.requests.labels("other", status).inc()
        response.headers.update({**_SAFE, **(getattr(error, "headers", None) or {})})
        return response

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _is_ready(self, _: Request) -> Response:
        if not self.ready:
            raise RequestError(503, "not_ready", "the server begins or ends", 1)
        return JSONResponse({"status": "ready", "models": list(self._models.served)})

    async def _told(self, _: Request) -> Response:
        self._metrics.running.set(self._running)
        self._metrics.bytes.set(self._budget.taken)
        return Response(self._metrics.text(), headers={"Content-Type": TYPE})

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(document(self._limits, token=self._token is not None))

    async def _listed(self, _: Request) -> Response:
        limits = {name: getattr(self._limits, name) for name in ("body", "pixels", "images", "answer")}
        return JSONResponse({"sagitta": version("sagitta"), "models": self._models.about(), "limits": limits})

    async def _predict(self, request: Request) -> Response:
        async with self._body(request) as (images, said):
            model, top_k = _asked(request, said)
            served = self._models.get(model)  # nothing may come between this and `submit`: it may be replaced
            found = await self._in_time(request, served.batcher.submit(images))
        self._count(request, served, found)
        if unreadable(found):
            first = f"{images[0].name}: {found[0].error}"
            raise RequestError(422, "unreadable", first if len(images) == 1 else f"none of the images: {first}")
        told = [
            {"name": image.name, **answer(row, served.engine, top_k)} for image, row in zip(images, found, strict=True)
        ]
        return JSONResponse({"model": served.batcher.name, "predictions": told})

    async def _explain(self, request: Request) -> Response:
        async with self._body(request) as (images, said):
            model, _ = _asked(request, said)
            engine = self._models.get(model).engine
            if not engine.about["heat_maps"]:
                raise RequestError(501, "no_heat_maps", "this model has no heat maps here; a run that is served has")
            name = request.query_params.get("class")
            if name is not None and name not in engine.names:
                raise RequestError(400, "no_such_class", "the model has no class of this name")
            label = None if name is None else list(engine.names).index(name)
            await self._in_time(request, self._heats.acquire())
            heat = asyncio.create_task(asyncio.to_thread(engine.heat, images[0], label))
            heat.add_done_callback(self._heated)
            try:
                picture = await self._in_time(request, asyncio.shield(heat))
            except ImageError as error:
                raise RequestError(422, "unreadable", f"{images[0].name}: {error}") from None
            except ConfigError as error:
                raise RequestError(501, "no_heat_maps", str(error)) from None
        return Response(picture, media_type="image/png")

    def _heated(self, heat: "asyncio.Task[bytes]") -> None:
        """Let the next one begin: a thread goes on when its client has gone, so only its end is one."""
        self._heats.release()
        if not heat.cancelled():
            heat.exception()  # asked for, so that none is called forgotten

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[tuple[list[Named], dict[str, Any]]]:
        """Yield a request's images, and what it says beside them; its place and its bytes are given back afterwards."""
        limits, known = self._limits, announced(request.headers, self._limits)
        if self._running >= limits.requests:
            raise RequestError(429, "busy", f"{self._running} requests are under way already; ask again", 1)
        self._budget.take(known or 0)
        self._running, held = self._running + 1, known or 0
        try:
            body = await read_body(request.stream(), limits, self._budget, known)
            held = max(held, len(body)) if known is None else held
            request.state.told["bytes"] = len(body)
            name = request.query_params.get("name")
            found = images_of(request.headers.get("content-type", ""), body, limits, name)
            del body
            yield found
        finally:
            self._running -= 1
            self._budget.give(held)

    async def _in_time(self, request: Request, answering: Awaitable[Any]) -> Any:
        """Return an answer; what nobody waits for any more is not computed, if it has not begun."""
        asked, gone = asyncio.ensure_future(answering), asyncio.create_task(_gone(request))
        try:
            await asyncio.wait((asked, gone), timeout=self._limits.answer, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                return asked.result()
            if gone.done():
                raise RequestError(400, "gone", "the client went before its answer had come")
            raise RequestError(503, "too_slow", f"no answer within {self._limits.answer:g} seconds; ask again", 1)
        finally:
            asked.cancel()
            gone.cancel()

    def _count(self, request: Request, served: Served, found: list[Row]) -> None:
        name, bad = served.batcher.name, sum(row.error is not None for row in found)
        self._metrics.images.labels(name, "answered").inc(len(found) - bad)
        self._metrics.images.labels(name, "unreadable").inc(bad)
        request.state.told |= {"model": name, "images": len(found)} | ({"unreadable": bad} if bad else {})


async def _gone(request: Request) -> None:
    """Wait until a client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _file(name: str, kind: str) -> Handler:
    content = (Path(__file__).parent / name).read_bytes()

    async def run(_: Request) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return run


def _asked(request: Request, said: dict[str, Any]) -> tuple[str | None, int]:
    """Return the model and how many classes are asked for, in the address or in JSON."""
    model = said.get("model", request.query_params.get("model"))
    top_k = said.get("top_k", request.query_params.get("top_k", _TOP))
    if model is not None and not isinstance(model, str):
        raise RequestError(400, "bad_json", '"model" is no name')
    if isinstance(top_k, bool) or not str(top_k).isascii() or not str(top_k).isdigit() or int(str(top_k)[:9]) < 1:
        raise RequestError(400, "bad_top_k", "top_k: must be a whole number, at least 1")
    return model, int(str(top_k)[:9])


def _refused(error: RequestError, number: str) -> Response:
    told = error.to_dict()
    told["error"]["request"] = number
    return JSONResponse(told, error.status, error.headers)
