"""`sagitta validate`, `test` and `predict`: what is done with a run."""

import sys
from pathlib import Path
from typing import Any

from sagitta.cli.common import TTA_HELP, command, config_error
from sagitta.cli.fit import fit_parser, parse_fit


def validate(argv: list[str]) -> None:
    """Evaluate a run on validation data."""
    _evaluate(argv, "val")


def test(argv: list[str]) -> None:
    """Evaluate a run on test data."""
    _evaluate(argv, "test")


def _evaluate(argv: list[str], split: str) -> None:
    from sagitta import evaluation

    parser = command(
        "validate" if split == "val" else split,
        f"Evaluate a run's best checkpoint on the {split} split; classes are matched by name.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("source", nargs="?", metavar="DATA", help="other data (default: what the run was trained on)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a device and batch")
    parser.add_argument("--devices", default="auto", help="how many devices, as Lightning's Trainer takes it")
    parser.add_argument("--tta", choices=("flip",), help=TTA_HELP)
    a = parser.parse_args(argv)
    evaluation.quiet()
    settings: dict[str, Any] = {"batch_size": a.batch_size, "verbose": True}
    own = _objects_of(a.run)
    if a.source is None:
        if own is None:
            raise config_error(f"{a.run}: no configuration that names the data; give DATA")
        a.source = own.source
        settings |= {"convert": own.data.convert, "layout": own.data.layout}
    how = evaluation.EvaluateOptions(a.devices, None if own is None else own.trainer.precision, a.tta == "flip")
    result = evaluation.evaluate(a.run, a.source, split, how, **settings)
    print(result.text())


def _objects_of(run: Path) -> Any:
    """Return a run's configuration as settings of data and Trainer; None for a run or checkpoint without one."""
    from sagitta.run import CONFIG_FILE

    if not (run / CONFIG_FILE).is_file():
        return None
    parser = fit_parser()
    return parser.instantiate(parse_fit(parser, ["--config", str(run / CONFIG_FILE)]))


def predict(argv: list[str]) -> None:
    """Classify image files."""
    from sagitta import evaluation
    from sagitta.evaluation import predict, write_predictions

    parser = command("predict", "Classify image files; one row a file with class, probability and the runners-up.")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="image files, or folders of them")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=".csv or .parquet; without it, CSV on the terminal"
    )
    parser.add_argument("--top-k", type=int, default=5, help="how many classes a row")
    parser.add_argument("--batch-size", type=int, default=64, help="images a batch")
    parser.add_argument("--tta", choices=("flip",), help=TTA_HELP)
    a = parser.parse_args(argv)
    evaluation.quiet()
    table = predict(a.run, a.paths, top_k=a.top_k, batch_size=a.batch_size, flip=a.tta == "flip")
    write_predictions(table, a.output)
    unreadable = table.num_rows - table["error"].null_count
    if unreadable:
        print(
            f"sagitta: {unreadable} of {table.num_rows} files could not be read; the column error says why",
            file=sys.stderr,
        )
