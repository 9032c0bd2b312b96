"""Going on with a run that was interrupted: from which checkpoint, with which settings changed, and with which log.

What may change is what does not make another training of it:

=============================================  =========================================================================
``source``, ``data.convert``, ``data.layout``  the rows have to be the same; they may have moved
``data.folds``, ``data.image_size``, ``seed``  fixed
``data.batch_size``, ``trainer.devices``       may change together: images a step, over all devices, are fixed
``model.name``, ``weights``, ``optimizer``     fixed, and whether there is an average (``ema``)
everything else                                taken over: epochs, learning rate and schedule as if they had been
                                               planned like that from the beginning, from the next step on
=============================================  =========================================================================
"""

import csv
import io
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
import torch

from sagitta.dataset import plural
from sagitta.errors import ConfigError
from sagitta.files import write_atomic
from sagitta.loading import ImageData
from sagitta.models import is_intact
from sagitta.ranks import is_first_process, shared
from sagitta.run import (
    CONFIG_FILE,
    LAST_CHECKPOINT,
    MEMBERS,
    PREVIOUS_CHECKPOINT,
    find_source,
    read_record,
)
from sagitta.settings import Settings, read_values, short_name
from sagitta.training.watch import say

_FIXED = {
    "seed": "order and crops follow it",
    "data.folds": "rows are divided by it",
    "data.fold": "rows are divided by it",
    "data.image_size": "the network has learned at it",
    "data.profile": "the network has learned its pixels",
    "model.name": "the weights are of it",
    "model.pretrained": "the weights have begun",
    "model.weights": "the weights have begun",
    "model.stages": "the size of the head follows it",
    "model.tune": "the optimizer's state is of it",
    "model.optimizer": "the optimizer's state is of it",
}


@dataclass(frozen=True)
class Continuation:
    """How a run is gone on with.

    Attributes:
        run: its directory.
        checkpoint: where it stands; None where it was interrupted before the first one, and begins anew.
        changed: what is set otherwise than before: values before and now, by dotted names.
        moved: other data is named, which may be the same.
    """

    run: Path
    checkpoint: Path | None
    changed: Mapping[str, tuple[Any, Any]]
    moved: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end, and nothing is asked for that could change it."""
        return not self.changed and not self.moved and "best_checkpoint" in read_record(self.run)

    def check(self, data: ImageData, world: int) -> None:
        """Refuse other data, or another number of images a step, than the run began with.

        Args:
            data: set up.
            world: number of devices.
        """
        if self.checkpoint is None:
            return
        state = _read(self.checkpoint).get(type(data).__name__, {})
        if state.get("fingerprint") not in (None, data.info.fingerprint):
            raise ConfigError(
                f"{self.run}: was trained before images, labels or the options of {data.source} changed; begin "
                "another run"
            )
        before = state.get("train_loader", {}).get("global_batch")
        if before not in (None, now := data.batch_size * world):
            each = f" ({data.batch_size} a device)" if world > 1 else ""
            raise ConfigError(
                f"{self.run}: has {before} images a step, not {now}{each}; "
                + (
                    f"give --batch-size {before // world}"
                    if before % world == 0
                    else "resume on as many devices as before"
                )
            )

    def prepare(self, settings: Settings) -> list[pl.Callback]:
        """Say where the training goes on, cut its log behind that, and return what has to happen when it starts."""
        if self.checkpoint is None:
            say(f"resume: {self.run} ended before its first checkpoint; it begins anew")
            if is_first_process():
                for name in ("checkpoints", "lightning_logs", "predictions"):
                    shutil.rmtree(self.run / name, ignore_errors=True)
            return []
        found = _read(self.checkpoint)
        epoch, inside = _position(found)
        if (limit := settings.trainer["max_epochs"]) not in (None, -1) and limit < epoch:
            raise ConfigError(
                f"--epochs {limit}: {self.run} has {plural(epoch, 'epoch')} behind it; give at least that"
            )
        if (
            limit == epoch
            and self.changed
            and "refit" not in self.changed
            and "best_checkpoint" in read_record(self.run)
        ):
            names = " and ".join(map(short_name, self.changed))
            raise ConfigError(f"{self.run}: is finished, so {names} would change nothing; give a larger --epochs, too")
        if 0 <= settings.trainer["max_steps"] < found["global_step"]:
            raise ConfigError(
                f"--trainer.max_steps {settings.trainer['max_steps']}: {self.run} has {found['global_step']} steps "
                "behind it; give at least that"
            )
        changes = "".join(
            f"; {short_name(key)} {_shown(now)} instead of {_shown(before)}"
            for key, (before, now) in self.changed.items()
        )
        if (patience := _ended_by_patience(found, settings)) is not None:
            changes += f"; early stopping had ended the training there, --patience above {patience} goes on"
        say(f"resume: goes on {'inside' if inside else 'after'} epoch {epoch + inside}{changes}")
        if is_first_process():
            _cut_logs(self.run, found["loops"]["fit_loop"]["epoch_loop.state_dict"].get("_batches_that_stepped"))
        return [_Continued(settings)]


class _Continued(pl.Callback):
    """Lets a resumed training follow its settings where the checkpoint holds those from before.

    Each device does so whether anything has changed or not: it makes no difference then, and one that reads the
    configuration after another has written it cannot know.
    """

    def __init__(self, settings: Settings) -> None:
        self.patience = settings.patience

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plan the schedule anew, and end at once what early stopping had ended."""
        _plan_anew(trainer, pl_module)
        for number, stopping in enumerate(trainer.early_stopping_callbacks):
            if number == 0 and self.patience:  # ours, which stands before a person's own
                stopping.patience = self.patience
            if stopping.wait_count >= stopping.patience:
                trainer.should_stop = True


def _plan_anew(trainer: pl.Trainer, pl_module: Any) -> None:
    """Have optimizer and schedule as they would be here had the training begun with its present settings."""
    optimizer, config = trainer.optimizers[0], trainer.lr_scheduler_configs[0]
    fresh = pl_module.configure_optimizers()
    position, schedule = config.scheduler.last_epoch, fresh["lr_scheduler"]["scheduler"]
    for group, planned in zip(optimizer.param_groups, fresh["optimizer"].param_groups, strict=True):
        group.update({name: value for name, value in planned.items() if name != "params"})
    schedule.optimizer, schedule.last_epoch, schedule._step_count = optimizer, position - 1, position
    schedule.step()
    config.scheduler = schedule


def continuation(run: Path, settings: Settings) -> Continuation:
    """Return how a run can be gone on with: as the first process finds it, before it writes its configuration.

    Args:
        run: run directory.
        settings: the run's own, with some of them changed.

    Raises:
        ConfigError: settings changed that cannot; or all checkpoints are damaged.
    """
    changed, checkpoint, moved = shared("continuation", lambda: _found(run, settings))
    return Continuation(run, None if checkpoint is None else Path(checkpoint), changed, moved)


def _found(run: Path, settings: Settings) -> tuple[dict[str, tuple[Any, Any]], str | None, bool]:
    """Return what has changed, the checkpoint, and whether other data is named, of :func:`continuation`."""
    before, now = Settings.of(read_values(run / CONFIG_FILE)).values(), settings.values()
    changed = {key: (before.get(key), now[key]) for key in now if now[key] != before.get(key)}
    for key, (was, wanted) in changed.items():
        if key in _FIXED or key.startswith(("data.convert.", "data.layout.")):
            why = _FIXED.get(key, "the rows follow it")
            raise ConfigError(
                f"{short_name(key)} {_shown(wanted)}: {run} began with {_shown(was)}, and {why}; leave it out, or "
                "begin another run"
            )
        if key == "ema" and not (was and wanted):
            raise ConfigError(
                f"--ema {_shown(wanted)}: {run} began {'with' if was else 'without'} an average; leave it out"
            )
    own, source = changed.pop("source", (None, None))  # what counts is in it
    moved = own is not None and not _same_place(run, own, source)
    changed.pop("data.threads", None)  # changes no result
    checkpoint = find_last(run)
    if checkpoint is None and "best_checkpoint" in read_record(run):
        raise ConfigError(
            f"{run}: cannot be resumed, it came to its end without checkpoints/{LAST_CHECKPOINT}; its weights can be "
            f"gone on with: sagitta fit DATA --weights {run}"
        )
    return changed, None if checkpoint is None else str(checkpoint), moved


def _same_place(run: Path, own: str, source: str) -> bool:
    try:
        return Path(find_source(run, own)).resolve() == Path(source).resolve()
    except ConfigError:  # it is not there any more
        return False


def with_data(run: Path, settings: Settings) -> Settings:
    """Return settings that find the data from here, and from anywhere if it was given anew.

    Args:
        run: run directory.
        settings: the run's own, with some of them changed.

    Raises:
        ConfigError: the run's data is not where it was.
    """
    own = str(read_values(run / CONFIG_FILE)["source"])
    if settings.source == own:
        return settings.changed({"source": find_source(run, own)})
    given = Path(settings.source).expanduser()
    return settings.changed({"source": str(given.absolute())}) if given.exists() else settings


def find_last(run: Path) -> Path | None:
    """Return the checkpoint to go on from, the one before it where the last is damaged; None where there is none.

    Raises:
        ConfigError: there are some, and all of them are damaged.
    """
    folder = run / "checkpoints"
    # Version 0.1.0 kept an older one as last.ckpt beside last-v1.ckpt.
    older = sorted(folder.glob("last-v*.ckpt"), key=lambda path: int(path.stem[6:]), reverse=True)
    there = [path for path in (*older, folder / LAST_CHECKPOINT, folder / PREVIOUS_CHECKPOINT) if path.is_file()]
    for number, path in enumerate(there):
        if is_complete(path):
            if number:
                say(f"warning: {there[0]} is damaged; the run goes on from {path.name}, which was written before it")
            return path
    if there:
        if "best_checkpoint" in read_record(run):
            raise ConfigError(
                f"{there[0]}: damaged; the run came to its end, and its weights can be gone on with: "
                f"sagitta fit DATA --weights {run}"
            )
        raise ConfigError(
            f"{there[0]}: damaged, and so is every other one to go on from; remove {folder}, and the run begins anew"
        )
    return None


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint is as it was written."""
    try:
        _read(checkpoint)
    except (OSError, EOFError, ValueError, RuntimeError, UnpicklingError):
        return False
    return zipfile.is_zipfile(checkpoint) and is_intact(checkpoint)


def is_begun(run: Path) -> bool:
    """Return whether there is something to go on from: a checkpoint, or members."""
    folder = run / "checkpoints"
    return (run / MEMBERS).is_dir() or any((folder / name).is_file() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT))


def _read(checkpoint: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return found


def _position(checkpoint: Mapping[str, Any]) -> tuple[int, bool]:
    """Return how many epochs are finished, and whether another has begun."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return progress["processed"], progress["started"] > progress["processed"]


def _ended_by_patience(checkpoint: Mapping[str, Any], settings: Settings) -> int | None:
    """Return the patience at which a training has stopped for good; None where it goes on."""
    states = [state for name, state in checkpoint["callbacks"].items() if name.startswith("EarlyStopping{")]
    patience: int | None = settings.patience
    return patience if patience and states and states[0]["wait_count"] >= patience else None


def _cut_logs(run: Path, step: int | None) -> None:
    """Remove what was logged of steps that will be made again: ``step`` is the first of them."""
    for path in (run / "lightning_logs").glob("version_*/metrics.csv"):
        with path.open(newline="") as file:
            rows = csv.reader(file)
            header = next(rows, None)
            if step is None or header is None or "step" not in header:
                continue
            column, read = header.index("step"), list(rows)
        # A row may be half written.
        kept = [row for row in read if len(row) == len(header) and row[column].isdigit() and int(row[column]) < step]
        if len(kept) < len(read):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([header, *kept])
            write_atomic(path, text.getvalue())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
