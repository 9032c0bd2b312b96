"""`sagitta report`: one page about a run, or about several; and the line that says where one was left behind."""

from pathlib import Path

from sagitta.cli.options import Command
from sagitta.errors import ConfigError
from sagitta.terminal import show


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
        "--figures",
        metavar="DIR",
        help="each figure as SVG (PNG, too, with resvg-py), and the table in Markdown and LaTeX, for a paper",
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
