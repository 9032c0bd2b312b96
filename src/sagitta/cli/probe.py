"""`sagitta probe`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sagitta.cli.common import DATA_HELP, command, config_error, positive
from sagitta.cli.fit import fit_parser, parse_fit

if TYPE_CHECKING:
    from sagitta.training import Candidate


def probe(argv: list[str]) -> None:
    """Compare frozen networks by a linear head; the best becomes a run."""
    from rich.console import Console

    from sagitta import evaluation
    from sagitta.conversion import ConvertOptions
    from sagitta.loading import ImageData
    from sagitta.run import CONFIG_FILE, new_run_directory, save_config
    from sagitta.sources import SourceOptions
    from sagitta.training import as_table, probe, write_run

    a = _probe_parser().parse_args(argv)
    candidates = _candidates(a.model, a.weights)
    evaluation.quiet()
    convert, layout = ConvertOptions(val=a.val, test=a.test), SourceOptions(group_column=a.group)
    data = ImageData(a.source, convert=convert, layout=layout, verbose=True)
    data.prepare_data()
    data.setup()
    run = new_run_directory(a.out, a.source)
    try:
        results = probe(data, candidates, image_size=a.image_size, batch_size=a.batch_size, verbose=True)
    except BaseException:
        run.rmdir()
        raise
    best = results[0].candidate
    given = {"--val": a.val, "--test": a.test, "--group": a.group, "--image-size": a.image_size}
    fit = [a.source, "--model", best.name, "--tune", "head"]
    fit += ["--weights", best.weights] if best.weights else ["--pretrained"]
    fit += [text for name, value in given.items() if value is not None for text in (name, str(value))]
    parser = fit_parser()
    save_config(run / CONFIG_FILE, parser.dump(parse_fit(parser, fit)))
    write_run(run, data, results, embed=a.embed)
    Console(width=None if sys.stdout.isatty() else 120).print(as_table(results))
    print(f"Everything is in {run}: {best.name} with its new head\nNext: sagitta predict {run} PHOTOS…")


def _probe_parser() -> argparse.ArgumentParser:
    parser = command("probe", "Fit a linear head on the features of pretrained networks; the best one becomes a run.")
    parser.add_argument("source", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--model", metavar="A,B,C", required=True, help="networks of timm or torchvision")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        action="append",
        default=[],
        help="files or runs in the order of the networks, with commas or repeated (default: the published weights)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory to make (runs/NAME-1, -2, …)")
    parser.add_argument("--embed", action="store_true", help="keep all features as Parquet in the run directory")
    parser.add_argument("--batch-size", type=positive, help="images at a time (what is fast on the device)")
    parser.add_argument("--image-size", type=positive, help="pixels a side (that of the weights)")
    parser.add_argument("--val", type=float, help="share of rows for val where the source has none (0.1)")
    parser.add_argument("--test", type=float, help="likewise for test (0.1 where no split is given)")
    parser.add_argument("--group", metavar="COLUMN", help="manifest column whose equal values stay in one split")
    return parser


def _candidates(models: str, weights: list[str]) -> list["Candidate"]:
    """Return the networks with their weights, matched by order; those without a file take the published weights."""
    from sagitta.training import Candidate

    names = [name for name in models.split(",") if name]
    files: list[str | None] = [file for text in weights for file in text.split(",")]
    if not names or len(files) > len(names):
        raise config_error(f"--model names {len(names)} networks and --weights {len(files)} files; give one for each")
    files += [None] * (len(names) - len(files))
    return [Candidate(name, file or None) for name, file in zip(names, files, strict=True)]
