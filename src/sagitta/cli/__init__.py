"""The command line: parse, call one verb, print. Heavy imports happen inside the command that needs them."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from sagitta.cli import datasets, runs
from sagitta.cli import fit as fitting
from sagitta.errors import SagittaError
from sagitta.pool import spin_little
from sagitta.terminal import WholeWords, show

_COMMANDS: tuple[tuple[str, Callable[[list[str]], None], str], ...] = (
    ("convert", datasets.convert, "images to a dataset: Parquet, verified, split, with a quarantine table"),
    ("inspect", datasets.inspect, "what a dataset holds and how it was prepared"),
    ("fit", fitting.fit, "train, validate and test a classifier on anything you have"),
    ("validate", runs.validate, "evaluate a run on validation data"),
    ("test", runs.test, "evaluate a run on test data"),
    ("probe", fitting.probe, "a linear head on a pretrained network's features, in seconds; compares networks"),
    ("predict", runs.predict, "classify image files with a run"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for an error that a person can mend, told in one line."""
    spin_little()  # before a command loads torch
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    try:
        options, rest = parser.parse_known_args(arguments[:1])
    except argparse.ArgumentError as error:
        return _complain(f"{error.message}; see sagitta --help")
    command: Callable[[list[str]], None] | None = getattr(options, "run", None)
    if command is None:
        if rest:
            return _complain(f"{rest[0]}: no such option; see sagitta --help")
        parser.print_help()
        return 0
    try:
        command(rest + arguments[1:])
    except SagittaError as error:
        return _complain(str(error))
    except OSError as error:
        if error.errno is None:
            raise
        return _complain(f"{error.filename or 'writing a file'}: {error.strerror}")
    except KeyboardInterrupt:
        return _complain("interrupted; what was finished is kept, and the same command goes on from there", code=130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _complain(message: str, code: int = 2) -> int:
    show(f"sagitta: {' '.join(message.split())}", sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sagitta",
        description="From a folder of photos to an evaluated image classifier.",
        epilog="`sagitta COMMAND --help` explains a command. Begin with: sagitta fit digits",
        exit_on_error=False,
        formatter_class=WholeWords,
    )
    parser.add_argument("--version", action="version", version=f"sagitta {version('sagitta')}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, run, text in _COMMANDS:
        commands.add_parser(name, help=text, add_help=False).set_defaults(run=run)
    return parser
