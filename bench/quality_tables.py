"""`heads.json`, `head-time.json` and `finetune.json` as Markdown, for :mod:`table`."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

OURS = "Sagitta"
HEADS = (
    OURS,
    "logistic, standardised",
    "logistic, unit length",
    "ridge",
    "LDA, shrinkage",
    "nearest class mean",
    "k-NN",
)
SYSTEMS = {
    "ours": "`sagitta fit --refit`",
    "timm": "timm's train.py",
    "fastai": "fastai `fine_tune(8)`",
    "autogluon": "AutoGluon `medium_quality`",
    "lightly": "lightly-train",
}
PEERS = {"timm": "timm's script", "fastai": "fastai", "autogluon": "AutoGluon", "lightly": "lightly-train"}
SETS = {
    "birds": "birds: 832 photos, 195 classes",
    "butterflies": "butterflies: 440, 10",
    "cat-breeds": "cat breeds: 1,000, 5",
    "dogs-vs-cats": "dogs or cats: 480, 2",
}
POINTS, NATS, SHARE, FINETUNE_POINTS = 0.01, 0.01, 0.5, 0.005
"""Bars: our head may be a point below the best and 0.01 nats above, and take half of the features' time; fine-tuning
may be half a point below."""

Rows = list[str]
Cell = dict[str, Any]


def heads(report: dict[str, Any]) -> str:
    """Return what heads reach: a line a set and network, then one a cell."""
    if not report:
        return NOTHING
    cells: list[Cell] = list(report["cells"].values())
    develop, judge = ([cell for cell in cells if cell["set"] in report[group]] for group in ("develop", "judge"))
    counts = sorted({len(found) for cell in cells for found in cell["runs"].values() if found})
    intro = (
        f"{_span(counts)} random divisions a cell on {_machine(report)}; test accuracy, then log loss in nats, on the "
        "mean; CPU seconds of the head alone. All heads of a cell have the same divisions. Differences are Sagitta's "
        "less the best peer's of the cell, paired, with a 95 % interval (Student's t over the divisions, which share "
        "images). The first table has means over the sizes, of the heads that all sizes allow. A dash: not defined, or "
        "not measured."
    )
    parts = [intro, "\n".join(_sets(cells))]
    for title, some in (("developed on", develop), ("judged once", judge)):
        if some:
            parts += [f"Sets {title}:", "\n".join(_cells(some))]
    return "\n\n".join(parts)


NOTHING = "Not measured yet."


def _sets(cells: Sequence[Cell]) -> Rows:
    """Return the bars: means over a set's sizes, of heads that have all of them."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        groups[cell["set"], cell["network"]].append(cell["summary"]["means"])
    titles = ["set, network", "accuracy", "best peer", "difference", f"at least -{100 * POINTS:g}"]
    titles += ["log loss", "best peer", "difference", f"at most +{NATS:g}"]
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|---:|---|---:|---" * 2 + "|"]
    for (name, network), every in groups.items():
        columns = [f"{name}, {network}"]
        for key, better, bar in (("acc", 1, POINTS), ("loss", -1, NATS)):
            means = {
                head: statistics.fmean(means[head][key] for means in every)
                for head in HEADS
                if all(key in means.get(head, {}) for means in every)
            }
            mine = means.pop(OURS, None)
            if mine is None or not means:
                columns += ["-"] * 4
                continue
            best = max(means, key=lambda head: better * means[head])
            difference = mine - means[best]
            columns += [_number(mine, key), f"{best} {_number(means[best], key)}", _signed(difference, key)]
            columns.append("yes" if better * difference >= -bar else "**no**")
        lines.append("| " + " | ".join(columns) + " |")
    return lines


def _cells(cells: Sequence[Cell]) -> Rows:
    """Return a line a cell: each head's accuracy, our differences, log losses and CPU seconds."""
    titles = [
        "set",
        "network",
        "a class",
        *HEADS,
        "difference",
        "log loss, best peer's",
        "difference",
        "CPU s, logistic's",
    ]
    lines = ["| " + " | ".join(titles) + " |", "|---|---|---:" + "|---:" * (len(titles) - 3) + "|"]
    for cell in sorted(cells, key=lambda cell: (cell["set"], cell["network"], cell["size"])):
        summary, means = cell["summary"], cell["summary"]["means"]
        columns = [cell["set"], cell["network"], str(cell["size"])]
        columns += [_number(means.get(head, {}).get("acc"), "acc") for head in HEADS]
        losses = {head: means[head]["loss"] for head in HEADS[1:] if "loss" in means.get(head, {})}
        best = min(losses, key=lambda head: losses[head]) if losses else ""
        seconds = [means.get(head, {}).get("cpu") for head in HEADS[:2]]
        columns += [
            _interval(summary.get("acc"), "acc"),
            f"{_number(means.get(OURS, {}).get('loss'), 'loss')}, {_number(losses.get(best), 'loss')}",
            _interval(summary.get("loss"), "loss"),
            ", ".join("-" if each is None else f"{each:.2f}" for each in seconds),
        ]
        lines.append("| " + " | ".join(columns) + " |")
    return lines


def head_time(report: dict[str, Any]) -> str:
    """Return seconds and memory of the head beside those of the features."""
    if not report:
        return NOTHING
    rates = report["images_s"]
    speeds = ", ".join(f"{network} {rate:,.0f} images/s" for network, rate in rates.items())
    titles = ["images", "classes", "head, s", "CPU s", "features, MiB", "more memory at most, MiB"]
    titles += [f"of the features' time, {network}" for network in rates] + ["at most half"]
    lines = ["| " + " | ".join(titles) + " |", "|---:" * (len(titles) - 1) + "|---|"]
    for row in report["heads"].values():
        shares = [row["seconds"] * rate / row["images"] for rate in rates.values()]
        columns = [f"{row['images']:,}", f"{row['classes']:,}", f"{row['seconds']:.2f}", f"{row['cpu']:.2f}"]
        columns += [f"{row['features_mib']:.0f}", f"{row['more_mib']:.0f}", *(f"{share:.2f}" for share in shares)]
        lines.append("| " + " | ".join([*columns, "yes" if max(shares) <= SHARE else "**no**"]) + " |")
    intro = (
        f"Generated features of {report['dimensions']:,} dimensions on {_machine(report)}, medians of "
        f"{report['passes']}; features from photos, decoding included: {speeds}."
    )
    return f"{intro}\n\n" + "\n".join(lines)


def finetune(report: dict[str, Any]) -> str:
    """Return a table a set and network, and the bars."""
    if not report:
        return NOTHING
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for key, run in report["runs"].items():
        name, network, system, _seed = key.split("/")
        groups[name, network][system].append(run)
    lines = [
        "| set, network | | test accuracy (min-max) | log loss | CPU s (min-max) | of ours | seeds | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    bars = [
        "| set, network | Sagitta | best of the others | difference | at least -0.5 points |",
        "|---|---:|---|---:|---|",
    ]
    pairs = []
    for (name, network), systems in groups.items():
        own = _median([run for run in systems.get("ours", []) if "error" not in run], "cpu")
        lines += [f"| {name}, {network} | {' | '.join(each)} |" for each in _systems(systems, own)]
        reached = _reached(systems)
        if len(reached) > 1 and "ours" in reached:
            mine = reached.pop("ours")
            best = max(reached, key=lambda system: reached[system])
            difference = mine - reached[best]
            pairs.append((mine, reached))
            met = "yes" if difference >= -FINETUNE_POINTS else "**no**"
            title = SYSTEMS.get(best, best)
            bars.append(
                f"| {name}, {network} | {mine:.1%} | {title} {reached[best]:.1%} | {100 * difference:+.1f} | {met} |"
            )
    peers = ", ".join(f"{name} {value}" for name, value in report.get("environments", {}).items())
    intro = (
        f"Medians over the seeds on {_machine(report)}, with {peers}; all start from the same weights file and see the "
        "same rows. The others had three times our processor time as it was when first measured. AutoGluon, "
        "lightly-train and the plain heads run once; a plain head is fitted on train and val, and its CPU "
        "seconds contain those of the features."
    )
    return "\n\n".join([intro, "\n".join(lines), "\n".join(bars)] + ([_mean_line(pairs)] if pairs else []))


def finetune_summary(report: dict[str, Any]) -> str:
    """Return README's table: accuracy and processor seconds of every system, on the sets that all of them have seen."""
    lines = [
        f"| test accuracy, CPU s | `fit` | `probe` | {' | '.join(PEERS.values())} | best plain head |",
        "|---" + "|---:" * (len(PEERS) + 3) + "|",
    ]
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for key, run in report["runs"].items():
        name, network, system, _seed = key.split("/")
        if "error" not in run:
            found[name, network][system].append(run)
    for (name, _), systems in sorted(found.items()):
        if systems.keys() < {"ours", "heads", *PEERS}:
            continue
        cells = [
            f"{statistics.median(run['acc'] for run in systems[system]):.1%}, {_median(systems[system], 'cpu'):.0f}"
            for system in ("ours", *PEERS)
        ]
        (run,) = systems["heads"]
        plain = [head for name, head in run["heads"].items() if name != OURS and "acc" in head]
        best = max(plain, key=lambda head: float(head["acc"]))
        mine, other = (
            f"{head['acc']:.1%}, {run['features_cpu'] + head['cpu']:.0f}" for head in (run["heads"][OURS], best)
        )
        cells = [cells[0], mine, *cells[1:], other]
        lines.append(f"| {SETS.get(name, name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _systems(systems: dict[str, list[dict[str, Any]]], own: float | None) -> list[Rows]:
    """Return the columns of each system of a set, in the order of :data:`SYSTEMS`, then the plain heads."""
    rows = []
    for system, title in SYSTEMS.items():
        runs = [run for run in systems.get(system, []) if "error" not in run]
        failed = [run["error"] for run in systems.get(system, []) if "error" in run]
        if not runs:
            rows += [[title, "-", "-", "-", "-", "0", failed[0][:80].replace("|", "/")]] if failed else []
            continue
        accuracies, cpu = [run["acc"] for run in runs], [run["cpu"] for run in runs]
        note = "stopped by the limit" if any(run.get("stopped") for run in runs) else ""
        times = "-" if own is None else f"{statistics.median(cpu) / own:.2f}"
        rows.append(
            [
                title,
                f"{statistics.median(accuracies):.1%} ({min(accuracies):.1%}-{max(accuracies):.1%})",
                f"{_median(runs, 'loss'):.3f}",
                f"{statistics.median(cpu):,.0f} ({min(cpu):,.0f}-{max(cpu):,.0f})",
                times,
                str(len(runs)),
                note,
            ]
        )
    for run in systems.get("heads", []):
        for head, found in run["heads"].items():
            if "error" not in found:
                cpu_seconds = run["features_cpu"] + found["cpu"]
                times = "-" if own is None else f"{cpu_seconds / own:.2f}"
                loss = _number(found.get("loss"), "loss")
                rows.append([f"head alone: {head}", f"{found['acc']:.1%}", loss, f"{cpu_seconds:,.0f}", times, "1", ""])
    return rows


def _reached(systems: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return each system's median accuracy; of a plain head its own, but not of Sagitta's, which is no competitor."""
    reached = {
        system: statistics.median(run["acc"] for run in runs if "error" not in run)
        for system, runs in systems.items()
        if system != "heads" and any("error" not in run for run in runs)
    }
    for run in systems.get("heads", []):
        reached |= {head: found["acc"] for head, found in run["heads"].items() if "acc" in found and head != OURS}
    return reached


def _mean_line(pairs: Sequence[tuple[float, dict[str, float]]]) -> str:
    """Return the means over the sets, of ours and of the best that was run on all of them."""
    mine = statistics.fmean(own for own, _ in pairs)
    common = set.intersection(*(set(reached) for _, reached in pairs))
    means = {system: statistics.fmean(reached[system] for _, reached in pairs) for system in sorted(common)}
    if not means:
        return f"Mean over {len(pairs)}: Sagitta {mine:.1%}; nothing else was run on all of them."
    best = max(means, key=lambda system: means[system])
    return f"Mean over {len(pairs)}: Sagitta {mine:.1%}, {SYSTEMS.get(best, best)} {means[best]:.1%}."


def _median(runs: Sequence[dict[str, Any]], key: str) -> float | None:
    return statistics.median(run[key] for run in runs) if runs else None


def _machine(report: dict[str, Any]) -> str:
    machine, versions = report["machine"], report["versions"]
    cores = "core" if machine["cores"] == 1 else "cores"
    return f"{machine['cores']} {cores} of {machine['cpu']} (torch {versions['torch']})"


def _number(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if key == "acc" else f"{value:.3f}"


def _signed(value: float, key: str) -> str:
    return f"{100 * value:+.2f}" if key == "acc" else f"{value:+.3f}"


def _interval(found: dict[str, Any] | None, key: str) -> str:
    if found is None:
        return "-"
    text = _signed(found["difference"], key)
    return f"{text} ({_signed(found['low'], key)} to {_signed(found['high'], key)})" if "low" in found else text


def _span(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
