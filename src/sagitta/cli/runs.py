"""`sagitta validate`, `test`, `predict` and `explain`: what is done with a run."""

import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any, Literal

from sagitta.cli.options import DATA_HELP, DIVIDING, TTA_HELP, Command, whole
from sagitta.cli.report import show_report
from sagitta.errors import ConfigError
from sagitta.models import preload
from sagitta.signals import Interrupted, interruption_of
from sagitta.terminal import show

_PATHS_HELP = """image files, folders, 'patterns/**/*.jpg', tars and zips, datasets of any kind; - reads a path a line
from standard input"""
_OUTPUT_HELP = """.csv, .parquet or .jsonl; - is standard output and CSV (the default), -.jsonl JSON lines there, and
nothing is kept of what is interrupted"""
_COLUMNS_HELP = """in place of the usual ones, as for a submission: of path, file, id (file without its extension),
label, number, probability, p:CLASS, all (every class, under its name), features, error; image_id=id renames"""
_ACCURACY_HELP = """share of answers that are right, such as 0.99: column abstain is true below the probability from
which on the run's validation images reach it, and of what looks like none of the classes; refused where none does"""
_UNFAMILIAR = (
    "Column unfamiliar: the share of known images that look less unusual to the model than this one, from 0 to 1; from "
    "0.99 on it looks like none of the classes, and so does one in a hundred that belongs to one. It is there where "
    "the run could note how its training images look."
)
_SORT_HELP = """put each image into DIR/CLASS, too, or into DIR/none where it looks like none of the classes or is
abstained from: a second name of the same file, or a copy where the disk has no such thing; replaces nothing"""


def validate(argv: list[str]) -> None:
    """Evaluate a run on validation data."""
    _evaluate(argv, "validate", "val")


def test(argv: list[str]) -> None:
    """Evaluate a run on test data."""
    _evaluate(argv, "test", "test")


def _evaluate(argv: list[str], name: str, purpose: Literal["val", "test"]) -> None:
    from sagitta.verbs import Run, evaluate

    parser = Command(
        name,
        "RUN [DATA] [--OPTION VALUE …]",
        f"Evaluate a run's best checkpoint on every image of DATA, or on the {purpose} split of the run's own; classes "
        "are matched by name.",
    )
    parser.add_argument("run", metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("source", nargs="?", metavar="DATA", help=f"other data than the run's own: {DATA_HELP}")
    parser.set_defaults(split="val")
    if purpose == "test":
        choices = ("train", "val", "test")
        parser.add_argument("--split", choices=choices, default=None, help="of data that has several (test)")
    parser.add_argument("--batch-size", metavar="N", type=whole, help="images a device and batch (64)")
    parser.add_argument("--devices", metavar="N", default="auto", help="how many (auto: all of the accelerator)")
    parser.add_argument("--tta", choices=("flip",), help=TTA_HELP)
    names = parser.add_options("data", without=DIVIDING)
    a, _ = parser.parse(argv)
    options: dict[str, Any] = {name: getattr(a, name) for name in ("split", "batch_size", "devices", *names)}
    evaluation = evaluate(a.run, a.source, flip=a.tta == "flip", **options)
    from sagitta.ranks import is_first_process

    if is_first_process():
        show(evaluation.text())
        if evaluation.folder is not None:
            show_report(Run(evaluation.folder.parents[1]).report_file)


def predict(argv: list[str]) -> int:
    """Classify images; returns 1 where ``--strict`` is asked for and an image could not be read."""
    from sagitta.evaluation import Asked, check_output, partial_of, predict_into

    parser = Command(
        "predict",
        "RUN PATH… [--OPTION VALUE …]",
        "Classify images of any number; one row an image with class, probability and the runners-up. What cannot be "
        "read is a row with the reason. What is interrupted goes on by the same command, where -o names a file.",
        _UNFAMILIAR,
    )
    parser.add_argument("run", metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("paths", nargs="+", metavar="PATH", help=_PATHS_HELP)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        default=Path("-"),
        help=_OUTPUT_HELP,
    )
    parser.add_argument("--top-k", type=whole, metavar="N", default=5, help="how many classes a row (5)")
    parser.add_argument("--all", dest="every", action="store_true", help="a column p:CLASS for every class")
    parser.add_argument("--columns", metavar="A,B", help=_COLUMNS_HELP)
    parser.add_argument("--embed", action="store_true", help="a column of features: what the network's head is given")
    parser.add_argument("--sort-into", type=Path, metavar="DIR", help=_SORT_HELP)
    parser.add_argument("--copy", action="store_true", help="with --sort-into: copies, which share nothing")
    parser.add_argument("--split", metavar="NAME", help="of datasets, and of what one can be made of (all rows)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where an image could not be read")
    parser.add_argument("--batch-size", type=whole, metavar="N", help="images at a time (what is fast on the device)")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, or such as cuda:1 (auto)")
    parser.add_argument(
        "--precision", metavar="P", help="as of fit, such as bf16-mixed (that of the training; on a CPU 32-true)"
    )
    parser.add_argument("--tta", choices=("flip",), help=TTA_HELP)
    parser.add_argument("--accuracy", metavar="A", type=float, help=_ACCURACY_HELP)
    parser.add_argument("--coverage", metavar="C", type=float, help="sets that hold the class in this share: 0.9")
    a, _ = parser.parse(argv)
    check_output(a.output)
    if "" in a.paths:  # as of a variable that is not set; Path takes it for the working directory
        raise ConfigError("one of the paths is empty; name image files, or folders of them (. for this one)")
    names = ("top_k", "every", "embed", "columns", "batch_size", "device", "precision", "accuracy", "coverage")
    asked = Asked(**{name: getattr(a, name) for name in names}, flip=a.tta == "flip")
    if a.copy and a.sort_into is None:
        raise ConfigError("--copy: of what --sort-into DIR makes; give that, too")
    where: dict[str, Any] = {"split": a.split, "sort_into": a.sort_into, "copy": a.copy}
    try:
        found = predict_into(Path(a.run), a.paths, a.output, asked, **where)
    except KeyboardInterrupt as error:
        if not partial_of(a.output).exists():
            raise
        after = f"what is predicted is kept in {partial_of(a.output)}, and the same command goes on from there"
        raise Interrupted(after, interruption_of(error).number) from None
    from sagitta.dataset import plural

    for line in found.lines():
        show(f"sagitta: {line}", sys.stderr)
    places = [f"in {a.output}"] * (a.output.stem != "-") + [f"sorted into {a.sort_into}"] * (a.sort_into is not None)
    if places:
        show(f"sagitta: {plural(found.images, 'image')} {' and '.join(places)}", sys.stderr)
    return int(a.strict and found.unreadable > 0)


def explain(argv: list[str]) -> None:
    """Write heat maps of images, and the training images that are most like them."""
    from sagitta.evaluation import inputs_for

    parser = Command(
        "explain",
        "RUN IMAGE… [--OPTION VALUE …]",
        "Show where in an image a network sees what speaks for its class, and the training images that it finds most "
        "alike: a picture each, and nearest.csv.",
    )
    parser.add_argument("run", metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("paths", nargs="+", metavar="IMAGE", help=_PATHS_HELP)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", default=Path("explained"), help="folder of the pictures (explained)"
    )
    parser.add_argument(
        "--class", dest="class_name", metavar="NAME", help="what is explained (the most probable; each label given)"
    )
    parser.add_argument("--nearest", type=_count, metavar="N", default=5, help="training images beside it; 0: none (5)")
    a, _ = parser.parse(argv)
    how: dict[str, Any] = {"class_name": a.class_name, "nearest": a.nearest}
    inputs = inputs_for(Path(a.run), a.paths)
    preload()
    from sagitta.evaluation import write_explanations

    for line in write_explanations(Path(a.run), inputs, a.output, **how):
        show(line)


def _count(text: str) -> int:
    """Parse a number of at least 0."""
    if not text.isdigit():
        raise ArgumentTypeError(f"{text!r}: must be a whole number, at least 0")
    return int(text)
