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
        "Found as copies: equal pixels; and near ones, also mirrored or turned by quarters: resized, recompressed, "
        "brighter, darker, grey, cropped by up to about 5 %. Not found: crops of 20 %, turns by a few degrees, "
        "borders; nor near copies of images of less than 16 pixels. Of copies in two splits the one in train is named "
        "by path, and goes where the action is drop; the one in val or test stays, so that its figures do. Act on it: "
        "sagitta convert SRC OUT --drop-duplicates for equal pixels; or review FINDINGS.csv and run sagitta convert "
        "SRC OUT --fix FINDINGS.csv, for which column action says drop, relabel (the class in column proposed_label "
        "is taken), review or none. Column score orders the rows of a kind: copies, the share of details that agree; "
        "labels, the proposed class's probability less the label's; cues, the share told right; odd images, what was "
        "measured, in pixels or grey levels (a blank one: 0).",
    )
    parser.add_argument("source", metavar="DATASET", help=DATA_HELP)
    parser.add_argument("--out", metavar="FILE", help="write every finding: FINDINGS.csv or FINDINGS.parquet")
    parser.add_argument("--contact-sheet", metavar="PNG", help="also write a picture of the worst of each kind")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where train leaks into val or test")
    parser.add_argument("--model", metavar="NAME", help="network, by whose features label errors are looked for")
    parser.add_argument("--weights", metavar="FILE", help="its weights: a file, a checkpoint or a run")
    parser.add_argument("--pretrained", action="store_true", help="its published weights")
    parser.add_argument(
        "--run", metavar="RUN", help="network and weights of a run, instead of --model, --weights and --pretrained"
    )
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
