"""`sagitta fit`, `sagitta probe` and `sagitta ensemble`: what makes a run."""

import shlex
import time
from pathlib import Path

from sagitta.cli.options import DATA_HELP, Command, whole
from sagitta.cli.report import show_report
from sagitta.terminal import show


def fit(argv: list[str]) -> None:
    """Train, validate and test a classifier."""
    from sagitta.settings import full_help, read_values
    from sagitta.verbs import fit as run_fit

    parser = Command(
        "fit",
        "DATA [--OPTION VALUE …]",
        "Train, validate and test a classifier; everything is in one run directory.",
        "Everything else by its full name, such as --trainer.max_steps 100: --help all",
    )
    parser.add_argument("source", nargs="?", metavar="DATA", help=DATA_HELP)
    names = parser.add_options("model", "training", "data", "machine")
    parser.add_argument("--out", metavar="DIR", help="run directory to make (runs/NAME-1, -2, …)")
    parser.add_argument(
        "--config", metavar="FILE", action="append", default=[], help="YAML of settings: RUN/config.yaml"
    )
    parser.add_argument("--resume", metavar="RUN", help="go on with an interrupted run, in its directory")
    if argv[-2:] == ["--help", "all"]:
        print(full_help())
        return
    a, values = parser.parse(argv, dotted=True)
    _remember("fit", argv)
    read = [read_values(Path(file)) for file in a.config]
    settings = {name: value for each in [*read, values] for name, value in each.items()}
    options = {name: getattr(a, name) for name in names}
    from sagitta.ranks import is_first_process

    run = run_fit(a.source, **options, settings=settings, out=a.out, resume=a.resume)
    if not is_first_process() or not run.metrics:  # the others are silent; a fast_dev_run has nothing to show
        return
    record = run.record
    best = (
        f"the best checkpoint is {run.path / record['best_checkpoint']}"
        if "best_checkpoint" in record
        else (f"the members are in {run.path / 'members'}")
    )
    show(f"{run.text()}\n\nEverything is in {run.path}, {best}")
    show(f"Next: sagitta predict {run.path} PHOTOS…   or   sagitta test {run.path} OTHER_DATA")
    show_report(run.report_file)


def probe(argv: list[str]) -> None:
    """Compare frozen networks by a linear head; the best becomes a run."""
    from sagitta.verbs import probe as run_probe

    parser = Command(
        "probe",
        "DATA --model A,B,C [--OPTION VALUE …]",
        "Fit a linear head on the features of pretrained networks; the best one becomes a run.",
    )
    parser.add_argument("source", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--model", metavar="A,B,C", required=True, help="networks of timm or torchvision")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        action="append",
        help="files or runs in the order of the networks, with commas or repeated (default: the published weights)",
    )
    parser.add_argument("--image-size", metavar="N", type=whole, help="pixels a side (that of the weights)")
    parser.add_argument("--batch-size", metavar="N", type=whole, help="images at a time (what is fast on the device)")
    parser.add_argument("--refit", action="store_true", help="fit the head to a val that the source gives, too")
    parser.add_argument("--embed", action="store_true", help="keep all features as Parquet in the run directory")
    parser.add_argument("--out", metavar="DIR", help="run directory to make (runs/NAME-1, -2, …)")
    names = parser.add_options("data")
    a, _ = parser.parse(argv)
    _remember("probe", argv)
    own = {name: getattr(a, name) for name in ("weights", "image_size", "batch_size", "refit", "embed", "out")}
    run = run_probe(a.source, a.model, **own, **{name: getattr(a, name) for name in names})
    name = run.record["probe"][0]["model"]
    show(
        f"{run.text()}\nEverything is in {run.path}: {name} with its new head\nNext: sagitta predict {run.path} PHOTOS…"
    )
    show_report(run.report_file)


def ensemble(argv: list[str]) -> None:
    """Make some runs one that averages their probabilities."""
    from sagitta.verbs import ensemble as run_ensemble

    parser = Command(
        "ensemble",
        "RUN RUN… [--out DIR]",
        "Average the probabilities of some runs, by weights that are found on rows that none was trained on.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="runs of the same classes; networks and image sizes may differ"
    )
    parser.add_argument("--out", metavar="DIR", help="run directory to make (runs/ensemble-1, -2, …)")
    a, _ = parser.parse(argv)
    _remember("ensemble", argv)
    run = run_ensemble(a.runs, out=a.out)
    show(f"{run.text()}\n\nEverything is in {run.path}, with copies of the checkpoints")
    show(f"Next: sagitta predict {run.path} PHOTOS…   or   sagitta test {run.path} OTHER_DATA")
    show_report(run.report_file)


def _remember(name: str, argv: list[str]) -> None:
    """Put the command into the record of the run, and when it began."""
    from sagitta.clock import BEGAN
    from sagitta.run import COMMAND

    BEGAN.set(time.monotonic())
    COMMAND.set(shlex.join(["sagitta", name, *argv]))
