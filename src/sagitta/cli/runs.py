"""`sagitta validate`, `test`, `predict` and `report`: what is done with a run."""

import sys
from pathlib import Path
from typing import Any, Literal

from sagitta.cli.options import DATA_HELP, DIVIDING, TTA_HELP, Command, whole
from sagitta.errors import ConfigError
from sagitta.terminal import show


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


def report(argv: list[str]) -> None:
    """Write one page about a run, or about several side by side."""
    from sagitta.verbs import figures
    from sagitta.verbs import report as write_page

    parser = Command(
        "report",
        "RUN [RUN …] [--OPTION VALUE …]",
        "Write one HTML page, which loads nothing, about a run: figures with intervals, confusions, the worst "
        "mistakes, a map of the images, the data; or about several side by side, with paired tests.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories")
    parser.add_argument(
        "--out", metavar="FILE", help="the page (RUN/report.html; of several runs comparison.html beside the first)"
    )
    parser.add_argument("--no-images", action="store_true", help="without pictures of the data, where it is private")
    parser.add_argument(
        "--figures", metavar="DIR", help="each figure as SVG and PNG, and the table in Markdown and LaTeX, for a paper"
    )
    parser.add_argument("--no-page", action="store_true", help="with --figures: these alone")
    a, _ = parser.parse(argv)
    if a.no_page and (a.figures is None or a.out is not None):
        raise ConfigError("--no-page: leaves only what --figures DIR writes; give that, and no --out")
    if a.figures is not None:
        written = figures(a.runs, a.figures, images=not a.no_images)
        show(f"{len(written)} files of figures are in {a.figures}")
    if not a.no_page:
        show_report(write_page(a.runs, out=a.out, images=not a.no_images))


def show_report(path: Path | None) -> None:
    """Say where a report is, if there is one."""
    if path is not None:
        show(f"Report: {path}")
