"""What is asked for of predictions, and whether it can be had as far as that is known without torch."""

import operator
from dataclasses import dataclass
from functools import cached_property

from sagitta.errors import ConfigError

_ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps", "tpu")

Column = tuple[str, str]
"""Its name, and what it says."""


@dataclass(frozen=True)
class Asked:
    """What is to be predicted of each image, and how.

    Attributes:
        top_k: how many classes a row, where the model gives one label.
        every: a column for the probability of every class.
        embed: what the network's last layer is given, as a column.
        columns: a template such as ``id,label`` in place of the usual columns, see :mod:`sagitta.evaluation.answers`.
        batch_size: images the network sees at a time; by default what is fast on the device.
        flip: take the mean of the probabilities of each image and its mirror image.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        precision: as Lightning names it; by default that of the training, and on a CPU float32.
        accuracy: share of answers that are to be right; the others abstain.
        coverage: share of images whose class is to be in the set.
    """

    top_k: int = 5
    every: bool = False
    embed: bool = False
    columns: str | None = None
    batch_size: int | None = None
    flip: bool = False
    device: str = "auto"
    precision: str | None = None
    accuracy: float | None = None
    coverage: float | None = None

    @cached_property
    def template(self) -> list[Column] | None:
        """The columns, where they are not the usual ones.

        Raises:
            ConfigError: as :func:`read_template` does.
        """
        return None if self.columns is None else read_template(self.columns)

    def check(self) -> None:
        """Refuse what cannot be had of any run.

        Raises:
            ConfigError: a number is out of range, a device is no name of one, or columns are named twice.
        """
        _check_whole("--top-k", self.top_k)
        if self.batch_size is not None:
            _check_whole("--batch-size", self.batch_size)
        if self.template is not None and (self.every or self.embed):
            raise ConfigError(
                "--columns names every column: leave --all and --embed out, and name all or features there"
            )
        check_device(self.device)
        if self.accuracy is not None:
            check_share("--accuracy", self.accuracy, 0.99)
        if self.coverage is not None:
            check_share("--coverage", self.coverage, 0.9)


def read_template(text: str) -> list[Column]:
    """Return the columns of a template such as ``id,label`` or ``image=file,cat=p:cat``: names, and what they say.

    Raises:
        ConfigError: a name is missing or given twice.
    """
    columns = []
    for part in text.split(","):
        name, equals, what = part.strip().partition("=")
        what = what if equals else name
        if not name or not what:
            raise ConfigError(f"--columns {text}: a name is missing; give such as id,label or id,cat=p:cat")
        columns.append((name, "class" if what == "label" else what))
    names = [name for name, _ in columns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"--columns {text}: {twice} is given twice")
    return columns


def check_device(name: str) -> None:
    """Refuse what is no name of a device.

    Raises:
        ConfigError: it is none; whether the machine has such a device, torch knows.
    """
    accelerator, _, number = name.partition(":")
    if accelerator not in _ACCELERATORS or (number and not number.isdigit()):
        raise ConfigError(f"--device {name}: give auto, cpu, cuda, or such as cuda:1")


def check_share(option: str, share: float, example: float) -> None:
    """Refuse what cannot be promised whatever the images.

    Raises:
        ConfigError: the share does not lie between 0 and 1.
    """
    if not 0 < share < 1:
        raise ConfigError(f"{option} {share:g}: must lie between 0 and 1, such as {example:g}")


def _check_whole(name: str, value: int) -> None:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} {value}: must be a whole number, at least 1")
