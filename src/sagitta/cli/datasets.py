"""`sagitta convert` and `sagitta inspect`."""

from pathlib import Path

from sagitta.cli.common import DATA_HELP, byte_size, command, config_error


def convert(argv: list[str]) -> None:
    """Turn a source into a dataset."""
    from sagitta.conversion import ConvertOptions, convert
    from sagitta.files import user_cache
    from sagitta.sources import LAYOUTS, SourceOptions, open_source

    parser = command("convert", "Turn images into a dataset of standard Parquet that every tool opens.")
    parser.add_argument("source", metavar="SRC", help=DATA_HELP)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make")
    parser.add_argument("--val", type=float, help="share of rows for val where the source has none (0.1)")
    parser.add_argument("--test", type=float, help="likewise for test (0.1 where no split is given)")
    parser.add_argument("--seed", type=int, default=0, help="of the stratified split")
    parser.add_argument("--group", metavar="COLUMN", help="manifest column whose equal values stay in one split")
    parser.add_argument("--layout", choices=LAYOUTS, help="how the source is laid out, where the detection is wrong")
    parser.add_argument("--label-column", help="manifest column with the class")
    parser.add_argument("--label-separator", help="between several labels in one cell; '' for one label (detected)")
    parser.add_argument("--path-column", help="manifest column with the file")
    parser.add_argument("--split-column", help="manifest column with the split")
    parser.add_argument("--resize", type=int, metavar="PIXELS", help="make the shorter side so long; never enlarges")
    parser.add_argument("--quality", type=int, help="JPEG quality 1-100 of re-encoded images (90 with --resize)")
    parser.add_argument(
        "--restart-markers",
        action="store_true",
        help="let training decode only the tiles of a JPEG that a crop needs; pixels stay as they are (lossless)",
    )
    parser.add_argument("--shard-size", type=byte_size, default=ConvertOptions().shard_size, help="bytes, or 256M, 1G")
    parser.add_argument("--workers", type=int, help="processes (all cores); never changes the output")
    parser.add_argument(
        "--on-bad",
        choices=("quarantine", "fail"),
        default="quarantine",
        help="what to do with unreadable images",
    )
    a = parser.parse_args(argv)
    layout = SourceOptions(
        layout=a.layout,
        label_column=a.label_column,
        label_separator=a.label_separator,
        path_column=a.path_column,
        split_column=a.split_column,
        group_column=a.group,
    )
    options = ConvertOptions(
        val=a.val, test=a.test, seed=a.seed, resize=a.resize, quality=a.quality,
        restart_markers=a.restart_markers, shard_size=a.shard_size, workers=a.workers, on_bad=a.on_bad,
    )  # fmt: skip
    source = open_source(a.source, layout, cache=user_cache())
    print(source.describe())
    info = convert(source, a.out, options, progress=True)
    counts = ", ".join(f"{name} {split.rows}" for name, split in info.splits.items())
    print(
        f"{a.out}: {len(info.class_names)} classes, {counts}, {info.quarantined} quarantined. Next: sagitta fit {a.out}"
    )


def inspect(argv: list[str]) -> None:
    """Print what a dataset holds, or which decoder is used."""
    from sagitta.dataset import contact_sheet, summarise
    from sagitta.images import engine

    parser = command("inspect", "Show classes, splits, sizes, formats and how a dataset was prepared.")
    parser.add_argument("dataset", type=Path, nargs="?", metavar="DATASET", help="a converted dataset")
    parser.add_argument("--engine", action="store_true", help="which decoder is used, and how to get the fast one")
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="PNG", help="also write a picture of some images of each class"
    )
    a = parser.parse_args(argv)
    if a.engine:
        print(engine())
        if a.dataset is None:
            return
    if a.dataset is None:
        raise config_error("no DATASET given; see sagitta inspect --help")
    print(summarise(a.dataset))
    if a.contact_sheet:
        contact_sheet(a.dataset, a.contact_sheet)
        print(f"contact sheet: {a.contact_sheet}")
