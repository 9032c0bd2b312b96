"""Models behind HTTP."""

from collections.abc import Sequence
from importlib.util import find_spec

from sagitta.errors import ConfigError
from sagitta.verbs.places import PathLike, listed, path_of


def serve(
    models: PathLike | Sequence[PathLike],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: PathLike | None = None,
    device: str = "auto",
    accuracy: float | None = None,
    coverage: float | None = None,
    batch_size: int | None = None,
    max_body: int | None = None,
    max_pixels: int | None = None,
    max_images: int | None = None,
    max_queue: int | None = None,
    timeout: float | None = None,
) -> None:
    """Answer images over HTTP until a signal asks for the end; what was taken is answered before.

    Args:
        models: runs, checkpoints or exports, or one alone; ``NAME=PATH`` names one.
        host: address to listen at; by default this machine alone is answered.
        port: 0 for one that is free.
        token_file: file with the token that clients must bear.
        device: of runs: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        accuracy: to be reached by what is answered, such as 0.99; ``abstain`` says where there is no answer.
        coverage: share of images whose class is in ``set``, such as 0.9.
        batch_size: images a model sees at a time (32).
        max_body: bytes of a request (32 MiB).
        max_pixels: of an image (64 million).
        max_images: in a request (64).
        max_queue: images that wait for a model (256); further requests are sent away for the moment.
        timeout: seconds in which an image must be answered (30).

    Raises:
        SagittaError: a model cannot be opened, a promise not be kept, or nothing can be heard at that address.
    """
    needed = ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client")
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ConfigError(f"serve needs {', '.join(missing)}: pip install 'sagitta[serve]'")
    from sagitta.serving import Limits, Wanted
    from sagitta.serving import serve as serve_models

    limits = {"body": max_body, "pixels": max_pixels, "images": max_images, "queue": max_queue, "answer": timeout}
    given = {name: value for name, value in limits.items() if value is not None}
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: must be a whole number, at least 1")
    own = Limits(**given)  # type: ignore[arg-type]
    wanted = Wanted(device, accuracy, coverage, 32 if batch_size is None else batch_size, own.pixels)
    where = None if token_file is None else path_of(token_file)
    serve_models(
        [str(each) for each in listed(models)], host=host, port=port, token_file=where, wanted=wanted, limits=own
    )
