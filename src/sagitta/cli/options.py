"""The one way in which every command reads its options: short ones from ``OPTIONS``, all others by dotted names."""

import argparse
import re
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

from sagitta.errors import ConfigError
from sagitta.settings import OPTIONS, unknown_option
from sagitta.sources import LAYOUT_NAMES, UNDERSTOOD
from sagitta.terminal import WholeWords

DATA_HELP = (
    f"what you have: a converted dataset; {UNDERSTOOD}, local or hf://user/name; "
    "or digits, mnist, fashion-mnist, cifar10, cifar100, imagenette"
)

TTA_HELP = """test-time augmentation: mean of the probabilities of an image and its mirror image, at twice the time;
it gained 2 points of accuracy on a small part of CIFAR-10 and 1 on dogs vs. cats"""

_TITLES = {
    "model": "model",
    "training": "training (in brackets what a recipe chooses by the situation; it is printed)",
    "machine": "machine and log",
    "data": f"data, layout {', '.join(LAYOUT_NAMES)}",
}


DIVIDING = ("val", "test", "group", "allow-group-overlap", "min-images", "range", "bands")
"""Options of data that only a training has: what is tested is never divided, and its pixels are the model's matter."""


_OWN: ContextVar[tuple[str, frozenset[str]] | None] = ContextVar("_OWN", default=None)  # of the command that runs


def with_a_way(message: str) -> str:
    """Return a complaint, with the way to follow it where it advises options of data that the command lacks.

    Who reads a source does not know for whom. What lacks an option takes a dataset that was made with it.
    """
    own = _OWN.get()
    if own is None or "sagitta convert" in message:
        return message
    name, options = own
    of_data = {f"--{option.name}" for option in OPTIONS if option.group == "data"}
    advised = dict.fromkeys(re.findall(r"--[a-z]+(?:-[a-z]+)*", message))
    lacking = [option for option in advised if option in of_data - options]
    if not lacking:
        return message
    which = "it" if len(lacking) == 1 else "they"
    are = "an option" if len(lacking) == 1 else "options"
    return (
        f"{message}; {name} has no {' and no '.join(lacking)}: {which} {'is' if which == 'it' else 'are'} {are} of "
        "sagitta convert, so make a dataset with that, and give it here"
    )


class Command(argparse.ArgumentParser):
    """The parser of one command; complaints are errors of ours, and nothing ends the process but ``--help``."""

    def __init__(self, name: str, usage: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"sagitta {name}", usage=f"sagitta {name} {usage}",
            description=description, epilog=epilog, allow_abbrev=False,
            formatter_class=lambda prog: WholeWords(prog, max_help_position=26), add_help=False,
        )  # fmt: skip
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)  # who reads of it has found it

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message}; see {self.prog} --help")

    def add_options(self, *groups: str, without: Sequence[str] = ()) -> list[str]:
        """Add the common options of some groups, but for some by name; returns their names in Python."""
        names = []
        for group in groups:
            section = self.add_argument_group(_TITLES[group])
            for option in (option for option in OPTIONS if option.group == group and option.name not in without):
                how: dict[str, Any] = {"metavar": option.metavar} if option.metavar else {"action": "store_true"}
                section.add_argument(f"--{option.name}", **how, default=None, help=option.help)
                names.append(option.name.replace("-", "_"))
        return names

    def parse(self, argv: Sequence[str], *, dotted: bool = False) -> tuple[argparse.Namespace, dict[str, str]]:
        """Return the options, and the values of dotted names such as ``--trainer.max_steps 100``.

        Args:
            argv: behind the command's name.
            dotted: dotted names are understood.

        Raises:
            ConfigError: an option is unknown (names the nearest), lacks its value or has one too many.
        """
        if not dotted:  # else all can be said
            _OWN.set((self.prog, frozenset(self._option_string_actions)))
        argv = _joined(argv)
        for word in argv:
            if word.startswith("--") and word.endswith("=--"):  # for which argparse gives an empty list
                self.error(f"argument {word[:-3]}: expected one argument")
        values, rest = _dotted(argv) if dotted else ({}, list(argv))
        options, unknown = self.parse_known_args(rest)
        if unknown:
            name = unknown[0].partition("=")[0]
            if name.startswith("-"):
                raise unknown_option(name, [word for word in self._option_string_actions if word.startswith("--")])
            self.error(f"{unknown[0]}: one argument too many")
        return options, values


def _joined(argv: Sequence[str]) -> list[str]:
    """Return the arguments with a value that begins as an option does in one word with its option.

    So do a range below zero, as in ``--range -1000,400``, and standard output, as in ``-o -.jsonl``.
    """
    words: list[str] = []
    for word in argv:
        after = bool(words) and words[-1] in ("--range", "--data.convert.range", "-o", "--output")
        if after and word[:1] == "-" and word[1:2] in set("0123456789."):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _dotted(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Take ``--group.name value`` and ``--group.name=value`` out of the arguments; returns both parts."""
    values: dict[str, str] = {}
    rest, words = [], list(argv)
    while words:
        name, equals, value = (word := words.pop(0)).partition("=")
        if not (name.startswith("--") and "." in name):
            rest.append(word)
        elif name.endswith("+") and name[2:] in values:  # of others the last one counts, as everywhere
            raise ConfigError(
                f"{name}: is given twice, and only the last would count; give a list of them in a --config"
            )
        elif equals:
            values[name[2:]] = value
        elif words and not words[0].startswith("--"):
            values[name[2:]] = words.pop(0)
        else:
            raise ConfigError(f"{name}: its value is missing, such as {name} VALUE")
    return values, rest


def whole(text: str) -> int:
    """Parse a number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least 1")
    return int(text)


def byte_size(text: str) -> int:
    """Parse a number of bytes, such as 256M."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    if not number.isdigit() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give bytes, or such as 256M or 1G")
    return int(number) * unit
