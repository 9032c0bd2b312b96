"""Counts and times for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)

TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What a server counts.

    Attributes:
        requests: by path and status.
        seconds: from a request's head to its answer.
        images: by model, and by whether they could be read.
        batch: images that a model saw at a time.
        model_seconds: that a batch took.
        queued: images that wait.
        running: requests that are read or answered.
        bytes: of their bodies.
        replaced: how often a model was replaced, by whether that worked.
    """

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter("sagitta_requests", "requests", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "sagitta_request_seconds", "from a request's head to its answer", ["path"], buckets=_SECONDS, registry=own
        )
        self.images = Counter("sagitta_images", "images", ["model", "outcome"], registry=own)
        self.batch = Histogram(
            "sagitta_batch_images", "images that a model saw at a time", ["model"], buckets=_SIZES, registry=own
        )
        self.model_seconds = Histogram(
            "sagitta_batch_seconds", "that a batch took, decoding included", ["model"], buckets=_SECONDS, registry=own
        )
        self.queued = Gauge("sagitta_queued_images", "images that wait for a model", ["model"], registry=own)
        self.running = Gauge("sagitta_running_requests", "requests that are read or answered", registry=own)
        self.bytes = Gauge("sagitta_body_bytes", "bytes of bodies that are held", registry=own)
        self.replaced = Counter("sagitta_replaced", "models that were replaced", ["model", "outcome"], registry=own)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
