"""The command line: parse, call one verb, print. Heavy imports happen inside the command that needs them."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextvars import copy_context
from importlib.metadata import version

from sagitta.cli import datasets, doctor, export, projects, report, runs
from sagitta.cli import fit as fitting
from sagitta.cli import serve as serving
from sagitta.cli.options import with_a_way
from sagitta.errors import SagittaError
from sagitta.files import remedy
from sagitta.pool import spin_little
from sagitta.signals import interruption_of, raised
from sagitta.terminal import WholeWords, show

_COMMANDS: tuple[tuple[str, Callable[[list[str]], int | None], str], ...] = (
    ("convert", datasets.convert, "images to a dataset: Parquet, verified, split, with a quarantine table"),
    ("inspect", datasets.inspect, "what a dataset holds and how it was prepared"),
    ("doctor", doctor.doctor, "what is wrong with a dataset: leaks, copies, odd images, cues, probable label errors"),
    ("verify", datasets.verify, "every byte of a dataset against its checksums: names what is damaged"),
    ("fit", fitting.fit, "train, validate and test a classifier on anything you have"),
    ("validate", runs.validate, "evaluate a run on validation data"),
    ("test", runs.test, "evaluate a run on test data"),
    ("probe", fitting.probe, "a linear head on a pretrained network's features, in seconds; compares networks"),
    ("ensemble", fitting.ensemble, "several runs as one: the mean of their probabilities, weighed on unseen rows"),
    ("predict", runs.predict, "classify images of any number with a run"),
    ("explain", runs.explain, "where a network sees what it says of an image, and the training images most like it"),
    ("export", export.export, "a run as ONNX, OpenVINO, torch.export, safetensors or a hub's folder, proven on images"),
    ("benchmark", export.benchmark, "a run as every such format on this machine: size, accuracy, speed; one table"),
    ("push", export.push, "a run, or a dataset, to the Hugging Face hub, with a card"),
    ("serve", serving.serve, "models behind HTTP, and a page for a browser: of runs, or of exports without torch"),
    ("new", projects.new, "a folder of code to begin with: your own LightningModule on the data engine"),
    ("report", report.report, "one page about a run, or about several side by side; figures for a paper"),
)
_AFTER_INTERRUPTION = {
    "convert": "what is finished is kept, and the same command goes on from there",
    "doctor": "nothing was written; features that were computed are kept, and the same command begins again",
    "fit": "there is no run yet; what is converted is kept, and the same command begins again",
    "probe": "no run was made; features that were computed are kept, and the same command goes on from there",
    "ensemble": "nothing was made; the same command begins again",
    "export": "nothing was written; the same command begins again",
    "benchmark": "nothing was kept; the same command begins again",
    "explain": "pictures that are whole are kept, and features that were computed; the same command begins again",
    "push": "nothing was committed, and a repository may have been made; the same command begins again",
    "predict": "nothing was kept; the same command begins again, and with -o FILE it goes on where it was",
}
_NOTHING_LEFT = "nothing was changed; the same command begins again"
_UNREAD = 128 + 13  # as a shell reports the signal PIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0; 1 where ``--strict`` asks for it; 2 for an error that a person can mend, told in one line; 130
        after Ctrl-C, and 143 after SIGTERM, with a line on how to go on; 141 where a pipe's reader ended before the
        command did, as ``head`` does.
    """
    _mend_streams()
    spin_little()  # before a command loads torch
    try:
        # What a command remembers of itself, such as its words for the record, ends with it.
        code = copy_context().run(_run, list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        _silence()
        return _UNREAD
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the command is done, and somebody has read enough of what it says
        _silence()
    except OSError as error:
        _silence()
        return _complain(remedy(error))
    return code


def _run(arguments: list[str]) -> int:
    parser = _parser()
    try:
        options, rest = parser.parse_known_args(arguments[:1])
    except argparse.ArgumentError as error:
        return _complain(f"{error.message}; see sagitta --help")
    command: Callable[[list[str]], int | None] | None = getattr(options, "run", None)
    if command is None:
        if rest:
            return _complain(f"{rest[0]}: no such option; see sagitta --help")
        parser.print_help()
        return 0
    if bad := next((word for word in arguments if not _is_utf8(word)), None):
        return _complain(f"{bad!a}: the name is not valid UTF-8; rename it")
    try:
        with raised():
            code = command(rest + arguments[1:])
    except SagittaError as error:
        return _complain(with_a_way(str(error)))
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        return _complain(remedy(error))
    except MemoryError:
        return _complain("out of memory; give a smaller --batch-size or --image-size, or close other programs")
    except KeyboardInterrupt as error:
        interruption = interruption_of(error)
        resumed = any(word.partition("=")[0] == "--resume" for word in arguments)  # so there is a run
        after = _NOTHING_LEFT if resumed else _AFTER_INTERRUPTION.get(arguments[0], _NOTHING_LEFT)
        after = str(error) or after
        return _complain(f"{interruption.what}; {after}", code=interruption.code)
    return code or 0


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _complain(message: str, code: int = 2) -> int:
    line = f"sagitta: {' '.join(message.split())}"
    if sys.stderr.isatty():
        show(line, sys.stderr)
    else:  # one line, whatever COLUMNS says: a script reads it
        print(line, file=sys.stderr, flush=True)
    return code


def _mend_streams() -> None:
    """Let output go nowhere where a stream is closed, and names that a stream cannot write be written escaped.

    The number of a closed stream would be that of the next file that is opened, and what a library says would go there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _silence() -> None:
    """Let what is still to be written go nowhere, so that the interpreter does not fail on it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
