"""The benchmarks' JSON as Markdown: every table between the markers of bench/README.md, three short ones in README.md.

python bench/table.py [--results bench/results]
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quality_tables

ROOT = Path(__file__).parents[1]
SPLITS = {  # how many images the recipes and the probe learn from, choose by and are tested on
    "digits": "1,439 / 179 / 179",
    "mnist": "54,001 / 5,999 / 10,000",
    "cifar-10-batches-py": "8,000 / 1,000 / 1,000",
    "butterflies": "310 / 40 / 90",
    "dogs-vs-cats": "288 / 32 / 160",
}
OURS = ("Sagitta", "Sagitta, restart markers", "Sagitta, fast", "Sagitta, thumbnails")
WELL_KNOWN = ("DALI", "torchvision", "FFCV")
GENERAL = ("torchvision, thumbnails", "HF datasets, thumbnails", "FFCV, thumbnails")

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Bar:
    """One claim: a ratio of medians of one run, and what it should be."""

    work: str
    ratio: float
    bar: float
    against: str

    def line(self) -> str:
        """Return its row of the table."""
        met = "yes" if self.ratio >= self.bar else "**no**"
        return f"| {self.work} | {self.against} | {self.ratio:.2f} | {self.bar} | {met} |"


def rate(results: Results, name: str) -> float:
    """Return a loader's median images a second, 0 where it could not be measured."""
    return float(statistics.median(results[name].get("images_per_second") or [0.0]))


def fastest(results: Results, names: list[str]) -> str:
    """Return the fastest of some loaders."""
    return max(names, key=lambda name: rate(results, name))


def loader_bars(rows: dict[str, Results]) -> list[Bar]:
    """Return the bars of speed, and of processor time and memory, of the rows that were measured."""
    bars = []

    def speed(work: str, row: str, ours: str, names: list[str], bar: float) -> None:
        best = fastest(rows[row], names)
        bars.append(Bar(work, rate(rows[row], ours) / rate(rows[row], best), bar, best))

    if "train" in rows:
        peers = _peers(rows, "train")
        limit = "limit: region decode, restart markers"
        speed("train, antialias", "train", "Sagitta", [name for name in peers if _antialiased(name)], 1.5)
        speed("train, any pixels", "train", "Sagitta", peers, 1.3)
        speed("train, restart markers", "train", "Sagitta, restart markers", peers, 2.0)
        speed("train, restart markers", "train", "Sagitta, restart markers", [limit], 0.8)
        bars += _lowest(rows["train"], peers)
    if "float32" in rows:
        speed("train, float32", "float32", "Sagitta", _peers(rows, "float32"), 1.5)
    if {"eval", "pixels"} <= rows.keys():
        peers = _peers(rows, "eval")
        for work, most in (("evaluation, peers equal to Pillow", 0), ("evaluation, peers within 2 of 255", 2)):
            speed(
                work, "eval", "Sagitta", [name for name in peers if rows["pixels"][name].get("max", 255) <= most], 1.3
            )
    if "camera" in rows:
        speed("camera photos, fast", "camera", "Sagitta, fast", _peers(rows, "camera"), 3)
    if "cifar" in rows:
        speed("32 x 32", "cifar", "Sagitta, thumbnails", ["limit: vectorised"], 0.9)
        speed("32 x 32", "cifar", "Sagitta, thumbnails", list(GENERAL), 5)
    return bars


def _lowest(results: Results, peers: list[str]) -> list[Bar]:
    cpu = {name: statistics.median(results[name].get("cpu_seconds_per_1000") or [9e9]) for name in results}
    memory = {name: results[name].get("memory_mib", {}).get("pss", 9e9) for name in results}
    bars = []
    for work, costs in (("CPU seconds, train", cpu), ("memory, train", memory)):
        best = min(peers, key=lambda name: costs[name])
        bars.append(Bar(work, costs[best] / costs["Sagitta"], 1.0, best))
    return bars


def other_bars(rows: dict[str, Results]) -> list[Bar]:
    """Return the bars of random rows and of conversion."""
    bars = []
    if "row" in rows:
        bars.append(Bar("random row", 2 / rows["row"]["Sagitta"]["microseconds"], 1.0, "2 µs"))
    if "convert" in rows:
        seconds = {name: statistics.median(result["seconds"]) for name, result in rows["convert"].items()}
        best = min((name for name in seconds if name not in ("Sagitta", "cp -r")), key=lambda name: seconds[name])
        for against, bar in ((best, 1.5), ("cp -r", 0.5)):
            bars.append(Bar("convert 1.1 GB", seconds[against] / seconds["Sagitta"], bar, against))
    return bars


def _peers(rows: dict[str, Results], row: str) -> list[str]:
    return [name for name in rows[row] if name not in OURS and not name.startswith("limit")]


def _antialiased(name: str) -> bool:
    return name not in ("DALI, no antialias", "FFCV")


def comparison(rows: dict[str, Results]) -> list[str]:
    """Return the table of loaders: a line each, fastest first."""
    columns = [name for name in ("float32", "eval", "camera") if name in rows]
    titles = {"float32": "float32", "eval": "evaluation", "camera": "camera"}
    header = ["loader", "train images/s (min-max)", "CPU s / 1,000", "memory MiB", "first batch s"]
    header += [titles[column] for column in columns] + ["pixels against Pillow's"]
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 2) + "|---|"]
    train = rows.get("train", {})
    for name in sorted(train, key=lambda name: -rate(train, name)):
        cells = [name, *_train_cells(train[name]), *(_rate_cell(rows[column], name) for column in columns)]
        lines.append("| " + " | ".join([*cells, _pixels_cell(rows.get("pixels", {}), name)]) + " |")
    return lines


def _train_cells(result: dict[str, Any], digits: int = 2) -> list[str]:
    if "error" in result:
        return [result["error"][:60], "", "", ""]
    speeds = result["images_per_second"]
    return [
        f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})",
        f"{statistics.median(result['cpu_seconds_per_1000']):.{digits}f}",
        f"{result['memory_mib']['pss']:,}" if "memory_mib" in result else "",
        f"{result['first_batch_seconds']:.2f}" if "memory_mib" in result else "",
    ]


def _rate_cell(results: Results, name: str) -> str:
    name = "Sagitta, fast" if name == "Sagitta" and "Sagitta, fast" in results else name
    if name not in results:
        return ""
    speed = rate(results, name)
    return f"{speed:,.{0 if speed >= 100 else 1}f}" if speed else "-"


def _pixels_cell(pixels: Results, name: str) -> str:
    if name.startswith("limit"):
        return ""
    result = pixels.get(name.split(", restart")[0], {})
    if "max" not in result:
        return "-"
    return "equal" if not result["max"] else f"differ by {result['mean']:.2g}, at most {result['max']}"


def thumbnails(results: Results) -> list[str]:
    """Return the table of 32 x 32 images."""
    lines = ["| 32 x 32, batch 512, float32 | images/s (min-max) | CPU s / 1,000 |", "|---|---:|---:|"]
    for name in sorted(results, key=lambda name: -rate(results, name)):
        speed, cpu = _train_cells(results[name], digits=4)[:2]
        lines.append(f"| {name.removesuffix(', thumbnails')} | {speed} | {cpu} |")
    return lines


def converters(results: Results) -> list[str]:
    """Return the table of converters."""
    lines = ["| 10,000 photos, 1.1 GB | seconds until on disk (min-max) | until written |", "|---|---:|---:|"]
    for name in sorted(results, key=lambda name: statistics.median(results[name]["seconds"])):
        seconds, written = results[name]["seconds"], results[name]["seconds_written"]
        span = f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"
        lines.append(f"| {name} | {span} | {statistics.median(written):.1f} |")
    return lines


def recipes(report: dict[str, Any]) -> str:
    """Return the tables of ``recipes.json``: accuracy and time, then what test-time augmentation changes."""
    lines = ["| data, train / val / test | command | test accuracy (min-max) | log loss | seconds |"]
    lines.append("|---|---|---:|---:|---:|")
    for name, found in report["data"].items():
        command = found["command"].removesuffix(" --seed SEED")
        cells = (_percent(found["test_acc"]), f"{found['test_loss']['median']:.3f}", _seconds(found["seconds"]))
        lines.append(f"| {name}, {SPLITS[name]} | `{command}` | {' | '.join(cells)} |")
    changes = ["| test accuracy (log loss) | plain | `--tta flip` |", "|---|---:|---:|"]
    for name, found in report["data"].items():
        if "tta_acc" in found:
            pairs = ((found[f"{kind}_acc"]["median"], found[f"{kind}_loss"]["median"]) for kind in ("test", "tta"))
            changes.append(f"| {name} | {' | '.join(f'{acc:.2%} ({loss:.3f})' for acc, loss in pairs)} |")
    counts = sorted({len(found["runs"]) for found in report["data"].values()})
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return "\n\n".join(
        [
            f"Medians over {seeds} seeds on {report['hardware']['cpus']} cores, torch {report['versions']['torch']}; "
            "seconds of the whole command, imports, conversion and test included; `python bench/recipes.py`.",
            "\n".join(lines),
            "\n".join(changes),
        ]
    )


def probes(report: dict[str, Any]) -> str:
    """Return the table of ``probe.json``."""
    lines = ["| data, train / val / test | | test accuracy (min-max) | seconds (min-max) | of a plain pass |"]
    lines.append("|---|---|---:|---:|---:|")
    titles = {"probe": "`sagitta probe`", "lightning": "plain Lightning, 10 epochs", "pass": "one plain pass"}
    for name, found in report["data"].items():
        plain = found["pass"]["seconds"]["median"]
        for kind, title in titles.items():
            accuracy = _percent(found[kind]["test_acc"]) if "test_acc" in found[kind] else ""
            share = f"{found[kind]['seconds']['median'] / plain:.2f}"
            cells = (title, accuracy, _seconds(found[kind]["seconds"]), share)
            lines.append(f"| {name}, {SPLITS[name]} | {' | '.join(cells)} |")
    repeats = len(next(iter(report["data"].values()))["runs"]["probe"])
    machine = report["machine"]
    head = (
        f"mobilenetv2_100, {machine['cores']} cores of {machine['cpu']}, torch {report['versions']['torch']}, medians "
        f"of {repeats} runs in turn, from the JPEG folder to the test, imports aside; `python bench/probe.py`."
    )
    means = [
        f"{name} {found['divisions']['probe_acc']:.2%} (log loss {found['divisions']['probe_log_loss']:.3f}) against "
        f"{found['divisions']['adam_acc']:.2%} ({found['divisions']['adam_log_loss']:.3f})"
        for name, found in report["data"].items()
    ]
    times = next(iter(report["data"].values()))["divisions"]["divisions"]
    tail = f"Mean over {times} random divisions of the same sizes, probe against those ten epochs: {'; '.join(means)}."
    return "\n\n".join([head, "\n".join(lines), tail])


def _percent(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2%} ({spread['min']:.2%}-{spread['max']:.2%})"


def _seconds(spread: dict[str, float]) -> str:
    return f"{spread['median']:,.1f} ({spread['min']:,.1f}-{spread['max']:,.1f})"


def loaders(report: dict[str, Any]) -> str:
    """Return the tables of ``loader.json``."""
    rows = {name: row["results"] for name, row in report["rows"].items()}
    machine = report["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items() if name != "engine")
    dates = [row["date"][:10] for row in report["rows"].values()]
    days = sorted({min(dates), max(dates)})
    parts = [
        [
            f"Measured on {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, Python "
            f"{machine['python']}, {' to '.join(days)}; medians of one run; "
            "`python bench/loader.py`."
        ],
        comparison(rows),
        ["| claim | against | ratio | bar | met |", "|---|---|---:|---:|---|"]
        + [bar.line() for bar in loader_bars(rows) + other_bars(rows)],
        thumbnails(rows["cifar"]) if "cifar" in rows else [],
        converters(rows["convert"]) if "convert" in rows else [],
        [f"Versions: {versions}; {report['versions']['engine']}."],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def loader_summary(report: dict[str, Any]) -> str:
    """Return README's table of loaders: Sagitta and the best known, fastest first."""
    rows = {name: row["results"] for name, row in report["rows"].items()}
    names = [name for name in rows["train"] if name in (*OURS, *WELL_KNOWN)]
    lines = [
        "| loader | train images/s | evaluation images/s | pixels against Pillow's, of 255 |",
        "|---|---:|---:|---|",
    ]
    for name in sorted(names, key=lambda name: -rate(rows["train"], name)):
        cells = [name, _rate_cell(rows["train"], name), _rate_cell(rows["eval"], name)]
        cells.append(_pixels_cell(rows["pixels"], name))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def results_summary(recipe: dict[str, Any]) -> str:
    """Return README's table of what a command without weights ends with, and how soon."""
    lines = ["| command | images: train / val / test | test accuracy | seconds |", "|---|---:|---:|---:|"]
    for name, found in recipe["data"].items():
        if "--weights" not in (command := found["command"].removesuffix(" --seed SEED")):
            accuracy, seconds = (found[key]["median"] for key in ("test_acc", "seconds"))
            lines.append(f"| `{command}` | {SPLITS[name]} | {accuracy:.1%} | {seconds:.0f} |")
    return "\n".join(lines)


def with_tables(text: str, results: Path) -> str:
    """Return Markdown with the text between each pair of markers made anew from the results.

    Args:
        text: Markdown; between ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->`` stands a table.
        results: folder of the JSON files.
    """
    loader, recipe, probe = (
        json.loads((results / f"{name}.json").read_text()) for name in ("loader", "recipes", "probe")
    )
    tables = {
        "loader": loaders(loader),
        "recipes": recipes(recipe),
        "probe": probes(probe),
        "heads": quality_tables.heads(_optional(results / "heads.json")),
        "head-time": quality_tables.head_time(_optional(results / "head-time.json")),
        "finetune": quality_tables.finetune(_optional(results / "finetune.json")),
        "finetune-summary": quality_tables.finetune_summary(_optional(results / "finetune.json")),
        "loader-summary": loader_summary(loader),
        "results-summary": results_summary(recipe),
    }
    for name, table in tables.items():
        begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        if begin in text:
            before, rest = text.split(begin)
            text = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    return text


def _optional(path: Path) -> dict[str, Any]:
    """Return results that are finished in pieces: empty before the first."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def main() -> None:
    """Put the tables into both files."""
    parser = argparse.ArgumentParser(description="Write the benchmarks' tables into README.md and bench/README.md.")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    options = parser.parse_args()
    for path in (ROOT / "README.md", ROOT / "bench" / "README.md"):
        path.write_text(with_tables(path.read_text(), options.results))


if __name__ == "__main__":
    main()
