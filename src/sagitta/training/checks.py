"""What is known to fail is refused before anything long begins: numbers, loggers, devices, splits."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sagitta.errors import ConfigError
from sagitta.ranks import check_processes
from sagitta.settings import Settings, short_name

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from sagitta.loading import ImageData

Look = Callable[["ImageData"], Callable[[Path], None]]
"""Looks at the data before a run begins, and returns what tells what it found, and leaves it in the run's directory."""
LOGGERS = ("csv", "tensorboard", "wandb")
_COUNTS = tuple(
    f"trainer.{name}"
    for name in ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches", "val_check_interval")
)


def check_numbers(settings: Settings, checkpoint: Path | None) -> None:
    """Refuse what Lightning would take, and fail on after a whole training, or at its end.

    No epoch at all leaves a solved head, where there are first weights.
    """
    first = checkpoint is None and (settings.model["pretrained"] or settings.model["weights"] is not None)
    for key in _COUNTS:
        if settings.get(key) == 0 and not (first and key == "trainer.max_epochs"):
            raise ConfigError(f"{short_name(key)} 0: must be above 0; the best epoch is chosen by its val_loss")


def check_loggers(logger: str) -> None:
    """Refuse loggers that are not known, or not installed; several with commas."""
    names = logger.split(",")
    if unknown := sorted(set(names) - set(LOGGERS)):
        raise ConfigError(f"logger {', '.join(unknown)}: choose from {', '.join(LOGGERS)}")
    for name in names:
        if name != "csv" and find_spec(name) is None:
            raise ConfigError(f"logger {name}: not installed; pip install 'sagitta[{name}]'")


def check_devices(settings: Settings, trainer: "pl.Trainer") -> None:
    """Refuse several devices where the processes for the others cannot be started by running this program again.

    Those of Lightning's spawning and forking strategies could not hand back what they found.
    """
    check_processes(trainer)
    launcher = trainer.strategy.launcher
    if launcher is None or trainer.num_devices * trainer.num_nodes == 1:
        return
    runs_again = Path(sys.argv[0]).is_file() and "ipykernel" not in sys.modules
    children = any(word in str(settings.trainer["strategy"]) for word in ("spawn", "fork", "notebook"))
    if children or not runs_again or launcher.is_interactive_compatible:
        raise ConfigError(
            f"{trainer.num_devices} devices: each needs a process that runs the same program, which a notebook, "
            "python -c, and strategies that spawn or fork cannot give; use the strategy ddp in a script or on the "
            "command line: sagitta fit DATA --devices N"
        )


def check_splits(settings: Settings, data: "ImageData") -> None:
    """Refuse data without ``train`` or ``val``."""
    for split in ("train", "val"):
        if not len(data.shards.splits.get(split, ())):
            if settings.get("data.convert.val") == 0:
                remedy = "leave --val 0 away"
            elif data.class_counts.max() < 3:
                remedy = "no class has three different images; sagitta probe takes fewer"
            else:
                remedy = "convert its source again, with --val 0.1 or without --val"
            raise ConfigError(f"{settings.source}: no {split} split to fit on; {remedy}")
