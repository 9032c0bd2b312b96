"""`sagitta doctor`: what is wrong with a dataset."""

from sagitta.cli.options import DATA_HELP, Command, whole
from sagitta.terminal import show


def doctor(argv: list[str]) -> int:
    """Look for leaks, copies, odd images, cues and label errors.

    Returns:
        1 with ``--strict`` where train shares images or groups with what measures it, else 0.
    """
    from sagitta.verbs import doctor as examine

    parser = Command(
        "doctor",
        "DATASET [--OPTION VALUE …]",
        "Look for what is wrong with a dataset, the worst first: images that are in several splits or there twice, "
        "exactly or nearly, or under two labels; classes too small; blank, dark, blurred and odd images; cues that "
        "give the class away; and, with a network, probable label errors.",
        "Act on it: sagitta convert SRC OUT --drop-duplicates, or review FINDINGS.csv, whose column action says drop, "
        "relabel, review or none, and sagitta convert SRC OUT --fix FINDINGS.csv",
    )
    parser.add_argument("source", metavar="DATASET", help=DATA_HELP)
    parser.add_argument("--out", metavar="FILE", help="write every finding: FINDINGS.csv or FINDINGS.parquet")
    parser.add_argument("--contact-sheet", metavar="PNG", help="also write a picture of the worst of each kind")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where train leaks into val or test")
    parser.add_argument("--model", metavar="NAME", help="network, by whose features label errors are looked for")
    parser.add_argument("--weights", metavar="FILE", help="its weights: a file, a checkpoint or a run")
    parser.add_argument("--pretrained", action="store_true", help="its published weights")
    parser.add_argument("--run", metavar="RUN", help="network and weights of a run, in place of the last three")
    parser.add_argument("--image-size", metavar="N", type=whole, help="pixels a side (that of the weights)")
    names = parser.add_options("data")
    a, _ = parser.parse(argv)
    own = {
        name: getattr(a, name)
        for name in ("model", "weights", "pretrained", "run", "image_size", "out", "contact_sheet")
    }
    findings = examine(a.source, **own, **{name: getattr(a, name) for name in names})
    show(findings.text())
    if a.out:
        show(f"all of it: {a.out}")
    if a.contact_sheet:
        show(f"contact sheet: {a.contact_sheet}")
    return int(a.strict and findings.leaks > 0)
