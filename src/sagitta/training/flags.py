"""Flags of Lightning's Trainer that cannot do in a run what they say, refused in one line; and where profiles go."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from sagitta.dataset import plural
from sagitta.errors import ConfigError
from sagitta.loading import ImageData, Plan
from sagitta.settings import Settings, short_name

_PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
_NOT_IN_A_RUN = {
    "enable_checkpointing": (False, "a run is tested by its best checkpoint and gone on with from its last"),
    "barebones": (True, "a run is made of logs and checkpoints, which it leaves out"),
}


def check_flags(settings: Settings, trainer: pl.Trainer) -> None:
    """Refuse what has no effect, or no run, whatever the data is.

    Args:
        settings: as far as they are decided.
        trainer: that they give.

    Raises:
        ConfigError: names the flag and the reason.
    """
    flags, devices = settings.trainer, trainer.num_devices * trainer.num_nodes
    if flags["limit_predict_batches"] is not None:
        raise _refused(settings, "limit_predict_batches", "a fit predicts nothing; leave it out")
    if flags["overfit_batches"]:
        for name in ("limit_train_batches", "limit_val_batches"):
            if flags[name] is not None:
                other = short_name("trainer.overfit_batches")
                raise _refused(settings, name, f"{other} takes its place; give one of the two")
    if flags["gradient_clip_algorithm"] and not flags["gradient_clip_val"]:
        raise _refused(settings, "gradient_clip_algorithm", "clips nothing without --trainer.gradient_clip_val")
    if devices > 1 and not flags["use_distributed_sampler"]:
        raise _refused(
            settings, "use_distributed_sampler", "each device reads its own part of every batch; leave it out"
        )
    if devices > 1 and flags["sync_batchnorm"] and trainer.strategy.root_device.type == "cpu":
        raise _refused(settings, "sync_batchnorm", "torch has it for GPUs only; leave it out")
    check_length(settings)


def check_words(settings: Settings) -> None:
    """Refuse what Lightning itself would refuse in words that are not ours.

    Raises:
        ConfigError: names the flag and the reason.
    """
    for name, (value, reason) in _NOT_IN_A_RUN.items():
        if settings.trainer[name] is value:
            raise _refused(settings, name, f"{reason}; leave it out")


def check_length(settings: Settings) -> None:
    """Refuse numbers of epochs and steps that contradict, or leave no epoch that is validated.

    Raises:
        ConfigError: names the flag and the reason.
    """
    flags, epochs = settings.trainer, settings.trainer["max_epochs"] or 0  # None: not decided; -1: no end
    for least, most in (("min_epochs", epochs), ("min_steps", flags["max_steps"])):
        if (flags[least] or 0) > most > 0:
            other = short_name(f"trainer.{least.replace('min', 'max')}")
            raise _refused(settings, least, f"more than {other} {most}")
    if (flags["check_val_every_n_epoch"] or 0) > epochs > 0:
        reason = f"there {'is' if epochs == 1 else 'are'} {plural(epochs, 'epoch')}, and none would be validated"
        raise _refused(settings, "check_val_every_n_epoch", f"{reason}; the best one is chosen by its val_loss")


def check_batches(settings: Settings, data: ImageData, world: int) -> None:
    """Refuse numbers and shares of batches that this data does not have.

    Args:
        settings: nothing open.
        data: set up.
        world: number of devices.

    Raises:
        ConfigError: names the flag and how many batches there are.
    """
    check_length(settings)
    for split in ("train", "val", "test"):
        name, batches = _limit_of(settings, split), _batches(data, split, world)
        limit = settings.trainer[name]
        if isinstance(limit, float) and 0 < limit < 1 and batches and not int(batches * limit):
            least = math.ceil(100 / batches) / 100
            raise _refused(settings, name, f"{split} has {batches} batches; take a whole number, or at least {least:g}")
    interval, epochs = settings.trainer["val_check_interval"], settings.trainer["max_epochs"] or 0
    batches = train_batches(settings, data, world)
    if not isinstance(interval, int) or isinstance(interval, bool):
        return
    if settings.trainer["check_val_every_n_epoch"] is not None:
        if interval > batches:
            raise _refused(
                settings,
                "val_check_interval",
                f"an epoch has {batches} batches; take at most that, or a share of the epoch such as 0.5",
            )
    elif interval > batches * epochs > 0:
        raise _refused(
            settings, "val_check_interval", f"the training has {batches * epochs} batches; take at most that"
        )


def train_batches(settings: Settings, data: ImageData, world: int = 1) -> int:
    """Return how many batches an epoch of the training has, as limited."""
    batches, limit = _batches(data, "train", world), settings.trainer[_limit_of(settings, "train")]
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _batches(data: ImageData, split: str, world: int) -> int:
    rows = len(data.shards.splits.get(split, ()))
    plan = Plan(rows, data.batch_size * world, drop_last=split == "train") if rows else None
    return 0 if plan is None else plan.batches(world)


def _limit_of(settings: Settings, split: str) -> str:
    """Return the flag that says how many batches of a split are taken."""
    overfits = settings.trainer["overfit_batches"] and split != "test"
    return "overfit_batches" if overfits else f"limit_{split}_batches"


def _refused(settings: Settings, name: str, reason: str) -> ConfigError:
    value = settings.trainer[name]
    text = str(value).lower() if isinstance(value, bool) else value
    return ConfigError(f"{short_name(f'trainer.{name}')} {text}: {reason}")


def profiler_in(folder: Path, chosen: Any) -> Any:
    """Return the Trainer's profiler, which writes into a folder where nobody has said where.

    Lightning would write a report into its log, or into the folder of a logger.

    Args:
        folder: made when there is something to write.
        chosen: a profiler, or its name; what is no name of one, Lightning refuses.
    """
    kind = _PROFILERS.get(chosen.lower()) if isinstance(chosen, str) else None
    profiler = chosen if kind is None else kind()
    if isinstance(profiler, Profiler):
        profiler.dirpath = profiler.dirpath or folder
        profiler.filename = profiler.filename or type(profiler).__name__.removesuffix("Profiler").lower()
    return profiler


@contextmanager
def determinism_named() -> Iterator[None]:
    """Tell in one line what has no deterministic version.

    Raises:
        ConfigError: instead of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        what = str(error).split(" does not have")[0]
        flag = short_name("trainer.deterministic")
        raise ConfigError(
            f"{flag} true: {what} has no deterministic version on this device; take {flag} warn, or another model"
        ) from error
