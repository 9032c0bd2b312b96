"""A run directory: made once, never overwritten; what it records, how it is opened again, and how it reads.

::

    RUN/config.yaml            the resolved configuration; `sagitta fit --config` on it repeats the run
    RUN/run.json               versions, hardware, seed, dataset, command, result
    RUN/checkpoints/           image-classifier-epoch=05-val_loss=0.08.ckpt: the best weights; last.ckpt: to resume from
    RUN/lightning_logs/        version_N/metrics.csv
    RUN/pace.csv               a line an epoch: seconds, learning rate, images a second, share of waiting for data
    RUN/predictions/           epoch=05.png
    RUN/training_images.parquet  digests of the images that it was trained on, and of those that chose its checkpoint
    RUN/validation.parquet     what the kept weights say of rows that they have not learned from, calibrated
    RUN/familiar.safetensors   features of training images, by which others are found unfamiliar
    RUN/test_logs.csv          one line for each test
    RUN/tests/001-NAME/        what each test found out, see sagitta.evaluation.testlog
    RUN/report.html            all of it as one page, see sagitta.reporting

A run of `--folds`, or of `sagitta ensemble`, has members in place of a checkpoint; their probabilities are averaged::

    RUN/members/1/ …           each an ordinary run; run.json's `members` holds their weights
    RUN/out_of_fold/           of `--folds`: each row of train and val by the member that was not trained on it
"""

import csv
import difflib
import itertools
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from sagitta.errors import ConfigError
from sagitta.files import check_place, lock, remedy, write_atomic
from sagitta.pool import usable_cores
from sagitta.ranks import by_first_process, is_first_process
from sagitta.sources import BUILTIN

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
LAST_CHECKPOINT = "last.ckpt"
PREVIOUS_CHECKPOINT = "previous.ckpt"
TEST_LOG = "test_logs.csv"
HANDED_ON = "model.safetensors"
"""The checkpoint of a run that was handed on, see ``sagitta export --to safetensors``."""
PREPROCESSING_FILE = "preprocessing.json"
"""What an export in another format has beside its model."""
PACE_FILE = "pace.csv"
REPORT_FILE = "report.html"
TESTS = "tests"
MEMBERS = "members"
OUT_OF_FOLD = "out_of_fold"
_OF_THE_END = ("best_checkpoint", "epochs", "result", "calibration", "mixture")  # in run.json
PYTHON = "Python"
COMMAND: ContextVar[str] = ContextVar("command", default=PYTHON)
"""What the person typed, for the record; ``PYTHON`` where nobody typed a command."""
_LOCK = ".lock"
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


def new_run_directory(out: Path | None, source: str) -> Path:
    """Make and return the run directory: ``out``, or the first free one of ``runs/NAME-1``, ``runs/NAME-2`` and so on.

    Raises:
        ConfigError: ``out`` exists and is not an empty folder, or it cannot be made.
    """
    try:
        return _claim(out) if out else _claim_numbered(Path("runs"), name_of(source))
    except OSError as error:
        raise ConfigError(f"no run directory can be made: {remedy(error)}") from None


def name_of(source: str) -> str:
    """Return what a folder for something made of some data is called."""
    return re.sub(r"[^\w.-]+", "-", Path(source).resolve().stem if os.sep in source else source).strip("-.") or "run"


def check_free(out: Path | None) -> None:
    """Refuse a run directory that could not be made, before anything long begins.

    Raises:
        ConfigError: ``out`` exists and is not an empty folder, or nothing can be made there.
    """
    if not is_first_process():
        return
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        resumable = (out / CONFIG_FILE).is_file() and not {"ensemble", "probe"} & set(read_record(out))
        raise ConfigError(
            f"{out}: exists already, and a run is never overwritten; name another --out, or "
            + (f"go on with --resume {out}" if resumable else "remove it")
        )
    place = (out or Path("runs")).absolute()
    above = next(folder for folder in place.parents if folder.exists())
    try:
        check_place(above / RUN_FILE)
    except OSError as error:
        error.filename = str(out or "runs")
        raise ConfigError(f"no run directory can be made: {remedy(error)}") from None


def _claim(out: Path) -> Path:
    check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _claim_numbered(parent: Path, name: str) -> Path:
    number = 1
    while True:
        run = parent / f"{name}-{number}"
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return run


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Let nobody else train in a run directory meanwhile; the first process does, for all.

    Raises:
        ConfigError: somebody does.
    """
    if not is_first_process():
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(run / _LOCK, wait=False, needed=False))
        except BlockingIOError:
            raise ConfigError(f"{run}: another process is training in it; wait for its end, or end it") from None
        yield


def find_checkpoint(run: Path) -> Path:
    """Return the checkpoint to evaluate: the file itself, or a run's best by validation loss, else its last.

    Of a run that has not come to its end, the best is that of the lowest loss in its name.

    Raises:
        ConfigError: there is no such run, or it has no checkpoint.
    """
    if run.is_file():
        return run
    if not run.is_dir():
        raise ConfigError(f"{run}: no such run directory or checkpoint{_near(run)}")
    if (run / MEMBERS).is_dir():
        raise ConfigError(f"{run}: has members in place of a checkpoint of its own; name one: {run / MEMBERS / '1'}")
    best = read_record(run).get("best_checkpoint")
    candidates: list[Path] = [run / best] if best else []
    candidates += sorted((run / "checkpoints").glob("image-classifier-*.ckpt"), key=_named_loss)
    candidates += [run / "checkpoints" / LAST_CHECKPOINT, run / HANDED_ON]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if (run / RUN_FILE).is_file() or (run / CONFIG_FILE).is_file():
        raise ConfigError(f"{run}: no checkpoint in it; the run ended before its first was written, so fit once more")
    if (run / PREPROCESSING_FILE).is_file():
        raise ConfigError(f"{run}: an export, and no run; sagitta serve answers by it, its run does everything else")
    raise ConfigError(
        f"{run}: no run, and no checkpoint in it; a run directory holds {RUN_FILE} and checkpoints/*.ckpt, and stands "
        "before the data"
    )


def members_of(run: Path) -> list[dict[str, Any]] | None:
    """Return what ``run.json`` says of each member: ``run``, its folder in this one, and ``weight``; None without any.

    Raises:
        ConfigError: there are members, but they did not come to their end.
    """
    if not (run / MEMBERS).is_dir():
        return None
    found: list[dict[str, Any]] | None = read_record(run).get("members")
    if found is None:
        raise ConfigError(
            f"{run}: not all of its members are there yet; go on with sagitta fit --resume {run}, or name one: "
            f"{run / MEMBERS / '1'}"
        )
    return found


def checkpoints_of(run: Path) -> list[Path]:
    """Return the files by which a run, or a checkpoint, predicts.

    Raises:
        ConfigError: there is no such run, or its members are not all trained.
    """
    members = members_of(run)
    if members is None:
        return [find_checkpoint(run)]
    return [run / RUN_FILE, *(find_checkpoint(run / member["run"]) for member in members)]


def resumable(run: Path) -> Path:
    """Return the configuration of a run that can be resumed.

    Raises:
        ConfigError: there is no such run, it is made of others, or it is a probe that was ended before its end.
    """
    record = read_record(run)
    if "ensemble" in record:
        raise ConfigError(f"{run}: made of finished runs by sagitta ensemble; there is nothing to go on with")
    if "probe" in record and "best_checkpoint" not in record:
        raise ConfigError(f"{run}: what a sagitta probe left that was ended; remove it, and probe again")
    if not (run / CONFIG_FILE).is_file():
        missing = f"{CONFIG_FILE} is missing" if run.is_dir() else "there is no such run directory"
        raise ConfigError(f"{run}: cannot be resumed, {missing}")
    return run / CONFIG_FILE


def weights_file(path: Path) -> Path:
    """Return the file that weights are read from: itself, or a run's checkpoint.

    Raises:
        ConfigError: there is none.
    """
    if path.is_dir():
        return find_checkpoint(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such checkpoint")
    return path


def _named_loss(checkpoint: Path) -> float:
    found = re.search(r"val_loss=(\d+\.\d+)", checkpoint.name)
    return float(found[1]) if found else float("inf")


def _near(run: Path) -> str:
    """Return a hint at runs of a similar name, or at those in ``runs``."""
    found = sorted({path.parent for folder in {run.parent, Path("runs")} for path in folder.glob(f"*/{RUN_FILE}")})
    names = {str(path): path.name for path in found}
    close = [path for path in names if difflib.get_close_matches(run.name, [names[path]])]
    shown = close or list(names)[-3:]
    return f"; {'did you mean' if close else 'there is'} {' or '.join(shown[:3])}" if shown else ""


def run_of(path: Path) -> Path | None:
    """Return the run directory that a path is, or whose checkpoint it is; None where it is neither."""
    folder = path.absolute().parent.parent if path.is_file() else path
    return folder if (folder / RUN_FILE).is_file() or (folder / CONFIG_FILE).is_file() else None


def find_source(run: Path, source: str, name_it: str = "name it as DATA") -> str:
    """Return where the data of a run lies, seen from here: its configuration names it from where the run was made.

    Args:
        run: run directory.
        source: as its configuration names it; a built-in, or something on the Hub, is no place.
        name_it: how a person names the data anew, in the words of the command.

    Raises:
        ConfigError: it is not there any more; names the places.
    """
    if source in BUILTIN or source.startswith("hf://"):
        return source
    if Path(source).expanduser().is_absolute():
        places = [Path(source).expanduser()]
    else:
        made = read_record(run).get("directory")
        # Version 0.1.0 did not note it: most often the run lies in it, as runs/NAME or as NAME.
        begin = [Path(made)] if made else [Path(), run.absolute().parent.parent, run.absolute().parent]
        places = [folder / source for folder in begin]
    for place in places:
        if place.exists():
            return source if place == Path(source) or place == Path.cwd() / source else str(place)
    looked = " and ".join(dict.fromkeys(str(place.absolute()) for place in places))
    raise ConfigError(f"{run}: its data is not there any more, looked for {looked}; {name_it}")


def read_record(run: Path) -> dict[str, Any]:
    """Return ``run.json`` as a dictionary, empty where a run has not written it yet.

    Raises:
        ConfigError: the file is not valid JSON.
    """
    try:
        record: dict[str, Any] = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{run / RUN_FILE}: not valid JSON: {error}") from None
    return record


def has_ended(record: Mapping[str, Any]) -> bool:
    """Return whether a run came to its end, by its record: only then is its checkpoint chosen, and calibrated."""
    return "best_checkpoint" in record or "members" in record


@by_first_process
def write_record(run: Path, **fields: Any) -> None:
    """Add ``fields`` to ``run.json``; the first call also records versions, hardware, the command and its directory."""
    record = read_record(run) or _beginning()
    write_atomic(run / RUN_FILE, json.dumps(record | fields, indent=2, ensure_ascii=False) + "\n")


def _beginning() -> dict[str, Any]:
    """Return what a record begins with: where, by whom and on what."""
    import torch

    return {
        "command": COMMAND.get(),
        "directory": str(Path.cwd()),
        "versions": {"python": platform.python_version()}
        | {
            name: version(name)
            for name in ("sagitta", "torch", "torchvision", "lightning", "timm", "pyarrow", "pillow", "numpy")
        },
        "hardware": {
            "machine": platform.machine(),
            "cpus": usable_cores(),
            "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
    }


@by_first_process
def forget_end(run: Path) -> None:
    """Take out of ``run.json`` that a run came to its end, and what was found out there: it is gone on with.

    What is killed before its next end would else count as finished, with the figures of other weights.
    """
    record = read_record(run)
    kept = {name: value for name, value in record.items() if name not in _OF_THE_END}
    if kept != record:
        write_atomic(run / RUN_FILE, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


@by_first_process
def save_config(path: Path, text: str) -> None:
    """Write the resolved configuration, on the first rank only."""
    write_atomic(path, text)


def read_metrics(run: Path) -> dict[str, list[float]]:
    """Return every logged metric of a run as its values in the order of the steps, over all its ``version_N`` logs."""
    values: dict[str, dict[int, float]] = {}
    for step, row in _logged(run):
        for name, value in row.items():
            if name != "epoch":
                values.setdefault(name, {})[step] = value
    return {name: [steps[step] for step in sorted(steps)] for name, steps in values.items()}


def history_table(run: Path) -> pa.Table:
    """Return what was logged, a row a step: ``step``, ``epoch``, and a column a metric, null where there is none.

    Of a resumed run the later log counts where two hold the same step.
    """
    rows: dict[int, dict[str, float]] = {}
    for step, row in _logged(run):
        rows.setdefault(step, {"step": step}).update(row)
    names = sorted({name for row in rows.values() for name in row} - {"step", "epoch"})
    columns = {name: [rows[step].get(name) for step in sorted(rows)] for name in ("step", "epoch", *names)}
    kinds = {"step": pa.int64(), "epoch": pa.int64()}
    return pa.table({name: pa.array(values, kinds.get(name, pa.float64())) for name, values in columns.items()})


def _logged(run: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the rows of all ``version_N`` logs: the step, and what was logged of it."""
    for path in sorted(
        (run / "lightning_logs").glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name[8:])
    ):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                yield int(row["step"]), {name: float(value) for name, value in row.items() if value and name != "step"}


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Draw at most ``width`` bars between the smallest and the largest value; longer series are averaged in bins."""
    finite = [value for value in values if value == value and abs(value) != float("inf")]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [round(index * len(finite) / count) for index in range(count + 1)]
    bins = [sum(finite[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(bins), max(bins)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in bins)


def sparklines(run: Path) -> dict[str, str]:
    """Return a drawing of the course of every metric that was logged more than once."""
    metrics = {name: values for name, values in sorted(read_metrics(run).items()) if not name.startswith("lr-")}
    return {name: sparkline(values) for name, values in metrics.items() if len(values) > 1}


def history(run: Path, result: Mapping[str, float]) -> str:
    """Return the run history (a sparkline a metric) and the run summary (values of what is kept) as text."""
    lines = sparklines(run)
    width = max((len(name) for name in [*lines, *result]), default=0)
    text = ["", "Run history", *(f"  {name:<{width}}  {line}" for name, line in lines.items())] if lines else []
    text += ["", _summary(run), *(f"  {name:<{width}}  {value:.4f}" for name, value in result.items())]
    return "\n".join(text)


def _summary(run: Path) -> str:
    """Return the title of the run summary, which says what the values are of."""
    record = read_record(run)
    kept, epochs = Path(record.get("best_checkpoint", "")).name, record.get("epochs")
    if found := re.search(r"-epoch=(\d+)-", kept):
        return f"Run summary: epoch {int(found[1]) + 1} of {epochs}, whose weights are kept"
    if kept == LAST_CHECKPOINT:
        return f"Run summary: the last of {epochs} epochs, whose weights are kept"
    return (
        f"Run summary: weights of {kept}{'; train_ is of the best epoch' if epochs else ''}" if kept else "Run summary"
    )
