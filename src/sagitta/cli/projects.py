"""`sagitta new`: a folder of code to begin with."""

import shlex

from sagitta.cli.options import Command
from sagitta.terminal import show


def new(argv: list[str]) -> None:
    """Make a folder of code."""
    from sagitta.verbs import new as new_project

    parser = Command(
        "new",
        "NAME",
        "Make a folder of code for training a network of your own: train.py, a LightningModule of 60 lines on "
        "ImageData; config.yaml, predict.py, a test, and README.md, which says how they are used.",
    )
    parser.add_argument("name", metavar="NAME", help="the folder to make; one that is there must be empty")
    a, _ = parser.parse(argv)
    made = new_project(a.name)
    show(f"{made}: {', '.join(sorted(path.name for path in made.iterdir()))}")
    there = "" if made.samefile(".") else f"cd {shlex.quote(str(made))} && "
    show(f"Next: {there}python train.py PHOTOS   (README.md says the rest)")
