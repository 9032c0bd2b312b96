"""`sagitta validate`, `test` and `predict`: what is done with a run."""

import sys
from pathlib import Path
from typing import Any, Literal

from sagitta.cli.options import DATA_HELP, DIVIDING, TTA_HELP, Command, whole
from sagitta.cli.preloading import preload
from sagitta.errors import ConfigError
from sagitta.terminal import show


def validate(argv: list[str]) -> None:
    """Evaluate a run on validation data."""
    _evaluate(argv, "validate", "val")


def test(argv: list[str]) -> None:
    """Evaluate a run on test data."""
    _evaluate(argv, "test", "test")


def _evaluate(argv: list[str], name: str, purpose: Literal["val", "test"]) -> None:
    from sagitta.verbs import evaluate

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
    preload()
    options: dict[str, Any] = {name: getattr(a, name) for name in ("split", "batch_size", "devices", *names)}
    evaluation = evaluate(a.run, a.source, flip=a.tta == "flip", **options)
    from sagitta.ranks import is_first_process

    if is_first_process():
        show(evaluation.text())


def predict(argv: list[str]) -> None:
    """Classify image files."""
    from sagitta.dataset import plural
    from sagitta.evaluation import check_output, list_files, reduced, write_predictions
    from sagitta.verbs import predict_table

    parser = Command(
        "predict",
        "RUN PATH… [--OPTION VALUE …]",
        "Classify image files; one row a file with class, probability and the runners-up.",
    )
    parser.add_argument("run", metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image files, or folders of them")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=".csv or .parquet; without it, CSV on the terminal"
    )
    parser.add_argument("--top-k", type=whole, metavar="N", default=5, help="how many classes a row (5)")
    parser.add_argument("--batch-size", type=whole, metavar="N", help="images at a time (what is fast on the device)")
    parser.add_argument("--tta", choices=("flip",), help=TTA_HELP)
    a, _ = parser.parse(argv)
    if a.output is not None:
        check_output(a.output)
    if "" in a.paths:  # as of a variable that is not set; Path takes it for the working directory
        raise ConfigError("one of the paths is empty; name image files, or folders of them (. for this one)")
    listed = list_files([Path(path) for path in a.paths])
    preload()
    table = predict_table(a.run, listed.files, top_k=a.top_k, batch_size=a.batch_size, flip=a.tta == "flip")
    write_predictions(table, a.output)
    for words, count in reduced(table).items():
        show(f"sagitta: reduced: {words}, in {plural(count, 'file')}", sys.stderr)
    unreadable = table.num_rows - table["error"].null_count
    told = (
        [f"{unreadable} of {table.num_rows} files could not be read; the column error says why"] if unreadable else []
    )
    if listed.skipped:
        told.append(f"skipped {plural(listed.skipped, 'file')} of text beside the images (.txt, .csv and the like)")
    if told:
        show(f"sagitta: {'; '.join(told)}", sys.stderr)
