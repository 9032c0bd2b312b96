"""What a request may take, and the one form in which it is refused."""

from dataclasses import dataclass
from typing import Any

from sagitta.errors import ConfigError, SagittaError


class RequestError(SagittaError):
    """A request that is not answered; what a client reads of it.

    Attributes:
        status: of HTTP.
        code: one word for programs.
        retry: seconds after which to ask again, where that may help.
    """

    def __init__(self, status: int, code: str, message: str, retry: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry = status, code, retry

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"error": {"status": self.status, "code": self.code, "message": str(self)}}

    @property
    def headers(self) -> dict[str, str]:
        """What stands beside it."""
        found = {} if self.retry is None else {"Retry-After": str(self.retry)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may take.

    Attributes:
        body: bytes of a request.
        pixels: of an image, by its header; more are not decoded.
        images: in a request.
        queue: images that wait for a model; more requests are sent away for the moment.
        requests: that are read or answered at a time.
        memory: bytes of all bodies that are read or waiting.
        connections: that are open at a time, also idle ones.
        receive: seconds in which a request's head, and then its body, must have come.
        answer: seconds in which an image must have been answered.
        idle: seconds for which a connection without a request stays open.
        drain: seconds for which the end waits for answers that are under way.
    """

    body: int = 32 * 2**20
    pixels: int = 64_000_000
    images: int = 64
    queue: int = 256
    requests: int = 256
    memory: int = 512 * 2**20
    connections: int = 1024
    receive: float = 30.0
    answer: float = 30.0
    idle: float = 30.0
    drain: float = 45.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f"{name} {value}: must be above 0")
        if self.images > self.queue:
            raise ConfigError(f"{self.images} images a request, but only {self.queue} may wait: raise the queue")
