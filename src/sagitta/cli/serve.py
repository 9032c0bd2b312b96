"""`sagitta serve`: models behind HTTP."""

from pathlib import Path
from typing import Any

from sagitta.cli.options import Command, byte_size, whole

_MODELS_HELP = """run directories, checkpoints, or what sagitta export made, which is served without torch; NAME=PATH
names one, and the first answers where a client names none"""
_REPLACED = "Files that are replaced are noticed: the new model is tried, then it takes over, and no request is lost."


def serve(argv: list[str]) -> None:
    """Serve models until a signal asks for the end."""
    from sagitta.verbs import serve as serve_models

    parser = Command(
        "serve",
        "RUN|EXPORT… [--OPTION VALUE …]",
        "Answer images over HTTP: POST /v1/predict, a page for a browser at /, /v1/models, /openapi.json, /health, "
        "/ready and /metrics. The end by Ctrl-C or SIGTERM answers what was taken.",
        _REPLACED,
    )
    parser.add_argument("models", nargs="+", metavar="RUN|EXPORT", help=_MODELS_HELP)
    parser.add_argument("--host", metavar="ADDRESS", help="where to listen (127.0.0.1: this machine alone is answered)")
    parser.add_argument("--port", type=_port, metavar="N", help="0: one that is free (8000)")
    parser.add_argument("--token-file", metavar="FILE", help="with the token that clients must bear")
    parser.add_argument("--device", metavar="NAME", help="of runs: auto, cpu, cuda, or such as cuda:1 (auto)")
    parser.add_argument("--accuracy", metavar="A", type=float, help="abstain where answers are less often right: 0.99")
    parser.add_argument("--coverage", metavar="C", type=float, help="sets that hold the class in this share: 0.9")
    parser.add_argument("--batch-size", metavar="N", type=whole, help="images a model sees at a time (32)")
    parser.add_argument("--max-body", metavar="BYTES", type=byte_size, help="of a request (32M)")
    parser.add_argument("--max-pixels", metavar="N", type=whole, help="of an image (64000000)")
    parser.add_argument("--max-images", metavar="N", type=whole, help="in a request (64)")
    parser.add_argument("--max-queue", metavar="N", type=whole, help="images that wait for a model (256)")
    parser.add_argument("--timeout", metavar="SECONDS", type=whole, help="in which an image must be answered (30)")
    a, _ = parser.parse(argv)
    given: dict[str, Any] = {name: value for name, value in vars(a).items() if value is not None and name != "models"}
    if "token_file" in given:
        given["token_file"] = Path(given["token_file"])
    serve_models(a.models, **given)


def _port(text: str) -> int:
    """Parse a port."""
    from argparse import ArgumentTypeError

    if not text.isdigit() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r}: must be a port, 0 to 65535")
    return int(text)
