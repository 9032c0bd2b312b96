"""How good heads and fine-tuning are, beside what others would use: accuracy, log loss and CPU seconds.

    python bench/quality.py heads                     # twenty divisions of the sets to develop on; results/heads.json
    python bench/quality.py heads --sets birds --sizes 4 --again Sagitta    # our head anew; the peers' results stay
    python bench/quality.py head-time                 # seconds and memory of the head alone; results/head-time.json
    python bench/quality.py finetune --sets birds --systems ours fastai --seeds 0    # a part of results/finetune.json
    python bench/quality.py check                     # each fine-tuning system for one epoch on two butterflies

What is in a JSON already is not measured again, so everything can be interrupted and finished in pieces; ``--again``
measures anew. The sets to develop on are the defaults of ``heads`` and ``finetune``: the others, see
:mod:`features`, are judged once at the end, with ``--sets judge``.
"""

import argparse
import contextlib
import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import features
import finetune
import head_time
import heads
import plain_heads
from measure import machine

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("sagitta", "torch", "timm", "scikit-learn", "numpy")
GROUPS = {"develop": features.DEVELOP, "judge": features.JUDGE, "all": features.SETS}

Report = dict[str, Any]

_INNERMOST = re.compile(r"\{[^{}\[\]]*\}")  # objects that hold no others: a line each


def load(path: Path) -> Report:
    """Return what was measured before."""
    report: Report = json.loads(path.read_text()) if path.exists() else {}
    return report


def save(path: Path, report: Report) -> None:
    """Write a report with machine and versions; whole or not at all."""
    report |= {"machine": machine(), "versions": {name: version(name) for name in PACKAGES}}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    text = json.dumps(report, indent=1)
    temporary.write_text(_INNERMOST.sub(lambda found: " ".join(found[0].split()), text) + "\n")
    temporary.replace(path)


def now() -> str:
    """Return the date and the minute."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def chosen_sets(names: Sequence[str]) -> list[str]:
    """Return sets by their names or the names of their groups, each once."""
    return list(dict.fromkeys(name for each in names for name in GROUPS.get(each, (each,))))


def run_heads(options: argparse.Namespace) -> None:
    """Compare the heads in every cell that is asked for."""
    path = options.out or RESULTS / "heads.json"
    report = load(path)
    found = report.setdefault("cells", {})
    report |= {"develop": list(features.DEVELOP), "judge": list(features.JUDGE)}
    for name, network, size in heads.cells(chosen_sets(options.sets), options.networks, options.sizes):
        data = features.labelled(name, network)
        if not heads.worth_a_cell(data.labels, size):
            continue
        key = f"{name}/{network}/{size}"
        cell = found.get(key, {"set": name, "network": network, "size": size, "runs": {}})
        for head in options.again:
            cell["runs"].pop(head, None)
        anything = False
        for number in range(options.divisions):
            if heads.compare(data, size, number, options.heads, cell):
                anything = True
                found[key] = cell | {"date": now(), "summary": heads.summary(cell)}
                save(path, report)
        if anything:
            print(key, *_brief(found[key]["summary"]), flush=True)


def _brief(summary: dict[str, Any]) -> list[str]:
    """Return our differences to the best peers, for the terminal."""
    return [
        f"{kind} {summary[kind]['difference']:+.4f} to {summary[kind]['best']}"
        for kind in ("acc", "loss")
        if kind in summary
    ] or ["no head of ours"]


def run_head_time(options: argparse.Namespace) -> None:
    """Time the head, and the features beside it."""
    path = options.out or RESULTS / "head-time.json"
    report = load(path)
    rates, rows = report.setdefault("images_s", {}), report.setdefault("heads", {})
    report |= {"dimensions": head_time.DIMENSIONS, "passes": head_time.PASSES, "load": round(os.getloadavg()[0], 2)}
    for network in options.networks:
        if network not in rates or options.again:
            rates[network] = head_time.measure_features(network, "butterflies")
            print(network, rates[network], "images/s", flush=True)
            save(path, report)
    for key in options.rows:
        count, classes = head_time.TIMES[key]
        if key not in rows or options.again:
            rows[key] = head_time.measure_head(count, classes) | {"date": now()}
            save(path, report)
        shares = [f"{rows[key]['seconds'] * rate / count:.2f} of {network}'s" for network, rate in rates.items()]
        print(key, rows[key], *shares, flush=True)


def run_finetune(options: argparse.Namespace) -> None:
    """Run every system on every set with every seed that is asked for; each result is kept at once."""
    path = options.out or RESULTS / "finetune.json"
    report = load(path)
    runs = report.setdefault("runs", {})
    for job in finetune.jobs(chosen_sets(options.sets), options.networks, options.systems, options.seeds):
        if job.key in runs and not options.again:
            continue
        limit = finetune.limit(job, runs)
        if limit is None and job.system in finetune.CAPPED:
            print(f"{job.key}: skipped, {finetune.OURS} has no result on it to be capped by", flush=True)
            continue
        print(job.key, now(), flush=True)
        runs[job.key] = finetune.run(job, limit) | {"date": now(), "load": round(os.getloadavg()[0], 2)}
        report["environments"] = finetune.versions()
        save(path, report)
        print(" ", {key: value for key, value in runs[job.key].items() if key != "log"}, flush=True)


def run_check(options: argparse.Namespace) -> None:
    """Run each system for one epoch on two butterflies; what it reports must be scikit-learn's accuracy."""
    for system in options.systems:
        found = finetune.check(system, options.networks[0], options.cpu_seconds)
        print(system, found, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=run.__doc__)
        one.set_defaults(run=run)
        one.add_argument("--networks", nargs="+", choices=features.NETWORKS, default=list(features.NETWORKS))
        one.add_argument("--out", type=Path)
        return one

    one = command("heads", run_heads)
    one.add_argument("--sets", nargs="+", choices=[*GROUPS, *features.SETS], default=["develop"])
    one.add_argument("--sizes", nargs="+", type=int, choices=heads.SIZES, default=list(heads.SIZES))
    one.add_argument("--divisions", type=int, default=20)
    one.add_argument("--heads", nargs="+", choices=plain_heads.HEADS, default=list(plain_heads.HEADS))
    one.add_argument("--again", nargs="+", choices=plain_heads.HEADS, default=[], help="fit these anew")
    one = command("head-time", run_head_time)
    one.add_argument("--rows", nargs="+", choices=head_time.TIMES, default=list(head_time.TIMES))
    one.add_argument("--again", action="store_true")
    one = command("finetune", run_finetune)
    one.add_argument("--sets", nargs="+", choices=[*finetune.GROUPS, *finetune.SETS], default=["develop"])
    one.add_argument("--systems", nargs="+", choices=finetune.SYSTEMS, default=list(finetune.SYSTEMS))
    one.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    one.add_argument("--again", action="store_true")
    one = command("check", run_check)
    one.add_argument("--cpu-seconds", type=float, help="let them run until this limit, not for one epoch")
    one.add_argument("--systems", nargs="+", choices=finetune.SYSTEMS, default=list(finetune.SYSTEMS))
    return parser


def main() -> None:
    """Run the command that is named."""
    options = _parser().parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        options.run(options)


if __name__ == "__main__":
    main()
