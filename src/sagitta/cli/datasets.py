"""`sagitta convert`, `sagitta inspect` and `sagitta verify`."""

import sys
from argparse import ArgumentTypeError
from pathlib import Path

from sagitta.cli.options import DATA_HELP, Command, byte_size, whole
from sagitta.errors import ConfigError
from sagitta.terminal import show


def convert(argv: list[str]) -> None:
    """Turn a source into a dataset."""
    from sagitta.verbs import convert as run_convert

    parser = Command(
        "convert", "SRC OUT [--OPTION VALUE …]", "Turn images into a dataset of standard Parquet that every tool opens."
    )
    parser.add_argument("source", metavar="SRC", help=DATA_HELP)
    parser.add_argument("out", metavar="OUT", help="folder to make")
    names = parser.add_options("data")
    parser.add_argument("--seed", type=int, default=0, help="of the stratified split (0)")
    parser.add_argument("--resize", type=whole, metavar="PIXELS", help="make the shorter side so long; never enlarges")
    parser.add_argument(
        "--quality", type=int, metavar="N", help="JPEG quality 1-100 of re-encoded images (90 with --resize)"
    )
    parser.add_argument(
        "--restart-markers",
        action="store_true",
        help="let training decode only the tiles of a JPEG that a crop needs; pixels stay as they are (lossless)",
    )
    parser.add_argument("--shard-size", type=byte_size, metavar="BYTES", help="such as 1G (256M)")
    parser.add_argument("--workers", type=whole, metavar="N", help="processes (all cores); never changes the output")
    parser.add_argument(
        "--on-bad",
        choices=("quarantine", "fail"),
        help="unreadable images and files that a table names but are missing (missing: fail, unreadable: quarantine)",
    )
    parser.add_argument(
        "--drop-duplicates",
        action="store_true",
        help="leave out all but one of the images of equal pixels; of several splits, those of test stay, then of val",
    )
    parser.add_argument(
        "--fix",
        metavar="FINDINGS",
        help="act on reviewed findings of sagitta doctor: rows of action drop, which exact copies of one label have "
        "already (empty the cell to keep one), are left out and listed in quarantine.parquet; those of action "
        "relabel get the class in column proposed_label",
    )
    a, _ = parser.parse(argv)
    if not a.restart_markers:  # which are refused without it
        _say_core()
    shares = {name: share(f"--{name}", getattr(a, name)) for name in ("val", "test")}
    own = ("seed", "resize", "quality", "restart_markers", "shard_size", "workers", "on_bad", "drop_duplicates", "fix")
    options = {name: getattr(a, name) for name in (*names, *own)} | shares
    options["min_images"] = None if a.min_images is None else count("--min-images", a.min_images)
    options["allow_group_overlap"] = bool(a.allow_group_overlap)
    info = run_convert(a.source, a.out, **options).info
    counts = ", ".join(f"{name} {split.rows}" for name, split in info.splits.items())
    show(
        f"{a.out}: {len(info.class_names)} classes, {counts}, {info.quarantined} quarantined. Next: sagitta fit {a.out}"
    )


def _say_core() -> None:
    """Say, on standard error, where the native core is missing, and the remedy."""
    from sagitta.images import missing_core

    if reason := missing_core():
        show(f"sagitta: {reason}; until then Pillow decodes, which takes several times as long", sys.stderr)


def share(name: str, text: str | None) -> float | None:
    """Parse a share of rows.

    Raises:
        ConfigError: it is not a number.
    """
    try:
        return None if text is None else float(text)
    except ValueError:
        raise ConfigError(f"{name} {text}: must be a number, such as 0.1") from None


def count(name: str, text: str) -> int:
    """Parse a number of at least 1.

    Raises:
        ConfigError: it is none.
    """
    try:
        return whole(text)
    except ArgumentTypeError as error:
        raise ConfigError(f"{name} {error}") from None


def inspect(argv: list[str]) -> None:
    """Print what a dataset holds, which decoder is used, or what an issue about a mistake needs to know."""
    from sagitta.dataset import contact_sheet, summarise
    from sagitta.images import engine

    parser = Command(
        "inspect", "DATASET [--OPTION VALUE …]", "Show classes, splits, sizes, formats and how a dataset was prepared."
    )
    parser.add_argument("dataset", type=Path, nargs="?", metavar="DATASET", help="a converted dataset")
    parser.add_argument("--engine", action="store_true", help="which decoder is used, and how to get the fast one")
    parser.add_argument(
        "--system", action="store_true", help="versions, processor, memory and GPUs, to be pasted into an issue"
    )
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="PNG", help="also write a picture of some images of each class"
    )
    a, _ = parser.parse(argv)
    if a.engine:
        show(engine())
    if a.system:
        from sagitta.verbs import system

        print(system(), flush=True)  # not broken into lines that fit the terminal: it is pasted
    if a.dataset is None and (a.engine or a.system):
        return
    if a.dataset is None:
        raise ConfigError("no DATASET given; see sagitta inspect --help")
    show(summarise(a.dataset))
    _say_core()
    if a.contact_sheet:
        contact_sheet(a.dataset, a.contact_sheet)
        show(f"contact sheet: {a.contact_sheet}")


def verify(argv: list[str]) -> None:
    """Compare a dataset with its checksums."""
    from sagitta.verbs import verify as run_verify

    parser = Command(
        "verify",
        "DATASET",
        "Read every byte of a converted dataset and name what is not as it was written: file, row or column.",
        "Opening a dataset, as fit, test and predict do, checks sagitta.json, the size and the footer of every shard, "
        "and the index; reading checks labels and other columns. Bits inside an image are checked here only.",
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="a converted dataset")
    a, _ = parser.parse(argv)
    show(str(run_verify(a.dataset)))
