"""Every flag of the Trainer that a person may give, on a few digits: what it says is what happens, or one line."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.optim.lr_scheduler import OneCycleLR

from sagitta.errors import ConfigError
from sagitta.evaluation import evaluate
from sagitta.loading import Loader
from sagitta.run import read_metrics, read_record
from sagitta.settings import Settings
from sagitta.training import Fitted
from sagitta.training.fitting import fit

BATCHES, VAL, TEST = 8, 2, 3  # of 8 images an epoch


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders of 64 images to train, 16 to validate and 24 to test on, 4 classes; a cache of its own."""
    root, images = tmp_path_factory.mktemp("flags"), load_digits()
    for split, begin, end in (("train", 0, 64), ("val", 64, 80), ("test", 80, 104)):
        for row in range(begin, end):
            folder = root / "digits" / split / str(images.target[row] % 4)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((images.images[row] * 15.9).astype(np.uint8)).save(folder / f"{row}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGITTA_CACHE", str(root / "cache"))
        yield root / "digits"


@dataclass
class Seen(pl.Callback):
    """What a training did, noted from inside."""

    rows: list[list[tuple[int, ...]]] = field(default_factory=list)  # of each batch of each epoch
    validated: list[int] = field(default_factory=list)  # batches of each validation, the sanity check's too
    inference: set[bool] = field(default_factory=set)
    steps: int = 0
    dtypes: set[torch.dtype] = field(default_factory=set)
    anomalies: bool = False
    loaders: set[int] = field(default_factory=set)
    kept: list[Any] = field(default_factory=list)  # so that no two loaders have the same number
    trainer: Any = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rows.append([])
        self.kept.append(trainer.train_dataloader)
        self.loaders.add(id(trainer.train_dataloader))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, number: int) -> None:
        loader = trainer.train_dataloader
        assert isinstance(loader, Loader)
        self.rows[-1].append(tuple(loader.rows_of(trainer.current_epoch, number).tolist()))
        self.dtypes |= {batch[0].dtype, *(each.dtype for each in pl_module.parameters())}
        self.anomalies = torch.is_anomaly_enabled()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated.append(0)

    def on_validation_batch_start(self, *_: Any) -> None:
        self.validated[-1] += 1

    def on_test_batch_start(self, *_: Any) -> None:
        self.inference.add(torch.is_inference_mode_enabled())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps, self.trainer = trainer.global_step, trainer


Check = Callable[[Seen, Fitted], Any]
USUAL = {"model.name": "resnet20", "data.batch_size": 8, "trainer.max_epochs": 2, "trainer.accelerator": "cpu"}
EVERY = [sum(range(64))] * 2  # the rows of both epochs
MIXED: dict[str, Any] = {"ema": 0.9, "model.mixup": 0.2, "model.cutmix": 1.0, "model.class_weights": "balanced"}


def settings_with(source: Path, settings: dict[str, Any]) -> Settings:
    """Return usual settings, with flags of the Trainer, and others by their dotted names."""
    whole = {name if "." in name or name == "ema" else f"trainer.{name}": value for name, value in settings.items()}
    return Settings.of({"source": str(source), **USUAL, **whole})


def run_of(source: Path, out: Path, settings: dict[str, Any]) -> tuple[Seen, Fitted]:
    seen = Seen()
    return seen, fit(settings_with(source, settings), out, callbacks=[seen])


def sums(seen: Seen) -> list[int]:
    return [sum(map(sum, epoch)) for epoch in seen.rows]


def same_rows(batches: int, validated: int | None = None) -> Check:
    """The same rows in both epochs, and of val its first batches, as many as Lightning takes."""
    validated = min(VAL, batches) if validated is None else validated

    def check(seen: Seen, _: Fitted) -> bool:
        return seen.rows[0] == seen.rows[1] and len(seen.rows[0]) == batches and seen.validated[-1] == validated

    return check


def weights(dtype: torch.dtype) -> Check:
    return lambda seen, _: seen.dtypes == {dtype}


def steps(count: int, epochs: int = 2) -> Check:
    """So many optimizer steps, and a schedule that is made for them."""

    def check(seen: Seen, fitted: Fitted) -> bool:
        scheduler: Any = seen.trainer.lr_scheduler_configs[0].scheduler
        if isinstance(scheduler, OneCycleLR):
            ends = scheduler.total_steps == count
        else:
            last, behind = (scheduler.lr_lambdas[0](step) for step in (count - 1, count))
            ends = last > behind == pytest.approx(0, abs=1e-9)
        return seen.steps == count and read_record(fitted.run)["epochs"] == epochs and ends

    return check


def quietly(seen: Seen, fitted: Fitted) -> bool:
    return seen.validated == [2] and "train_loss_step" not in read_metrics(fitted.run) and seen.inference == {False}


def everything(seen: Seen, fitted: Fitted) -> bool:
    whole = sums(seen) == EVERY and seen.validated == [2] * 3 and seen.inference == {True}
    return whole and 0 < len(read_metrics(fitted.run)["train_loss_step"]) <= 2 * BATCHES


def profiled(*names: str) -> Check:
    return lambda _, fitted: {path.name for path in (fitted.run / "profile").iterdir()} >= set(names)


def evaluated(images: int) -> Check:
    return lambda _, fitted: fitted.evaluation is not None and len(fitted.evaluation.predictions) == images


ONE: dict[str, Any] = {"max_epochs": 1}
CASES: list[tuple[dict[str, Any], Check]] = [
    ({"precision": "64-true", **MIXED}, weights(torch.float64)),
    ({"precision": "64-true", **ONE}, weights(torch.float64)),
    ({"precision": "bf16-true", **MIXED}, weights(torch.bfloat16)),
    ({"precision": "bf16-true", **ONE}, weights(torch.bfloat16)),
    ({"precision": "16-true", "model.optimizer": "sgd", "model.lr": 0.01, **MIXED, **ONE}, weights(torch.float16)),
    ({"precision": "bf16-mixed", **MIXED, **ONE}, weights(torch.float32)),
    ({"overfit_batches": 1}, same_rows(1)),
    ({"overfit_batches": 0.5}, same_rows(4, validated=1)),
    ({"overfit_batches": 2, "data.balanced": True, "ema": 0.9}, same_rows(2)),
    ({"overfit_batches": 2, "reload_dataloaders_every_n_epochs": 1}, same_rows(2)),
    ({"limit_train_batches": 3}, steps(6)),
    ({"limit_train_batches": "1"}, steps(2)),
    ({"limit_train_batches": 0.5, "model.schedule": "one-cycle"}, steps(8)),
    ({"limit_train_batches": 0.5, "model.schedule": "cosine", "accumulate_grad_batches": 3}, steps(4)),
    (
        {"limit_train_batches": 100, "limit_val_batches": 1},
        lambda seen, _: sums(seen) == EVERY and seen.validated[1] == 1,
    ),
    ({"limit_val_batches": 0.5, **ONE}, lambda seen, _: set(seen.validated) == {1}),
    ({"limit_test_batches": 1, **ONE}, evaluated(8)),
    ({"limit_test_batches": 0.7, **ONE}, evaluated(16)),
    ({"limit_test_batches": 0, **ONE}, lambda _, fitted: fitted.evaluation is None),
    ({"reload_dataloaders_every_n_epochs": 1}, lambda seen, _: len(seen.loaders) == 2 and sums(seen) == EVERY),
    ({"num_sanity_val_steps": 0, "log_every_n_steps": 0, "inference_mode": False, **ONE}, quietly),
    ({"num_sanity_val_steps": 1, **ONE}, lambda seen, _: seen.validated == [1, 2]),
    ({"num_sanity_val_steps": -1, **ONE}, lambda seen, _: seen.validated == [2, 2]),
    ({"accumulate_grad_batches": 3}, steps(6)),
    ({"accumulate_grad_batches": 3, "model.schedule": "one-cycle"}, steps(6)),
    ({"accumulate_grad_batches": 100, **ONE}, lambda seen, _: seen.steps == 1),
    ({"detect_anomaly": True, **ONE}, lambda seen, _: seen.anomalies),
    ({"profiler": "simple", **ONE}, profiled("fit-simple.txt", "test-simple.txt")),
    ({"profiler": "advanced", **ONE}, profiled("fit-advanced.txt")),
    ({"profiler": "SimpleProfiler", **ONE}, profiled("fit-simple.txt")),
    ({"max_time": "00:00:00:00"}, lambda seen, _: seen.steps <= 1),
    ({"max_steps": 5, "model.schedule": "one-cycle"}, steps(5, epochs=1)),
    ({"max_steps": 5, "max_epochs": -1}, steps(5, epochs=1)),
    ({"min_epochs": 2, "max_time": "00:00:00:00"}, lambda seen, _: seen.steps == 2 * BATCHES),
    ({"min_steps": 9, "max_time": "00:00:00:00"}, lambda seen, _: 9 <= seen.steps < 2 * BATCHES),
    ({"val_check_interval": 0.5, **ONE}, lambda seen, _: seen.validated == [2] * 3),
    ({"val_check_interval": 3, **ONE}, lambda seen, _: seen.validated == [2] * 3),
    ({"val_check_interval": 5, "check_val_every_n_epoch": None}, lambda seen, _: seen.validated == [2] * 4),
    ({"check_val_every_n_epoch": 2}, lambda seen, _: seen.validated == [2] * 2),
    ({"callbacks+": "LearningRateMonitor", **ONE}, lambda _, fitted: "lr-AdamW/pg1" in read_metrics(fitted.run)),
    (dict.fromkeys(("deterministic", "enable_checkpointing", "enable_model_summary"), True), everything),
    (
        {"sync_batchnorm": True, "use_distributed_sampler": False, "log_every_n_steps": 1, "strategy": "auto"},
        everything,
    ),
]


@pytest.mark.filterwarnings("ignore:.*torch.cuda.*")
@pytest.mark.parametrize(
    ("flags", "check"), CASES, ids=[" ".join(f"{name}={value}" for name, value in flags.items()) for flags, _ in CASES]
)
def test_a_flag_does_what_it_says_and_the_run_can_be_tested(
    digits: Path, tmp_path: Path, flags: dict[str, Any], check: Check
) -> None:
    seen, fitted = run_of(digits, tmp_path / "run", flags)
    assert check(seen, fitted)
    assert "best_checkpoint" in read_record(fitted.run)
    again = evaluate(fitted.run, None, None, {}, verbose=False)
    assert len(again.predictions) == 24
    if fitted.evaluation is not None and len(fitted.evaluation.predictions) == 24:
        assert again.metrics == pytest.approx(fitted.evaluation.metrics, abs=1e-5)
    shutil.rmtree(fitted.run)


def test_a_fast_development_run_passes_once_and_keeps_nothing(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, fitted = run_of(digits, tmp_path / "run", {"fast_dev_run": 2})
    assert seen.steps == 2 and seen.validated == [2] and fitted.evaluation is None
    assert not list(fitted.run.rglob("*.ckpt")) and "nothing is kept" in capsys.readouterr().out


def test_clipped_gradients_are_not_the_same(digits: Path, tmp_path: Path) -> None:
    losses = []
    every: list[dict[str, Any]] = [
        {},
        {"gradient_clip_val": 1e-4},
        {"gradient_clip_val": 1e-4, "gradient_clip_algorithm": "value"},
    ]
    for number, flags in enumerate(every):
        how: dict[str, Any] = {"model.optimizer": "sgd", "model.lr": 0.1, "model.weight_decay": 0.0, **ONE}
        _, fitted = run_of(digits, tmp_path / str(number), {**flags, **how})
        losses.append(read_metrics(fitted.run)["train_loss_epoch"])
    free, by_norm, by_value = losses
    assert free[0] != by_norm[0] != by_value[0] != free[0]


@pytest.mark.parametrize(
    ("flags", "words", "converted"),
    [
        ({"enable_checkpointing": False}, "enable_checkpointing false: a run is tested by its best", False),
        ({"barebones": True}, "barebones true: a run is made of logs", False),
        ({"limit_predict_batches": 3}, "limit_predict_batches 3: a fit predicts nothing", False),
        ({"overfit_batches": 1, "limit_train_batches": 2}, "limit_train_batches 2: --trainer.overfit_batches", False),
        ({"gradient_clip_algorithm": "value"}, "clips nothing without --trainer.gradient_clip_val", False),
        ({"gradient_clip_val": 1.0, "gradient_clip_algorithm": "median"}, "median is invalid", False),
        ({"devices": 2, "use_distributed_sampler": False}, "use_distributed_sampler false: each device", False),
        ({"devices": 2, "sync_batchnorm": True}, "sync_batchnorm true: torch has it for GPUs only", False),
        ({"min_epochs": 3}, "min_epochs 3: more than --epochs 2", False),
        ({"min_steps": 3, "max_steps": 2}, "min_steps 3: more than --trainer.max_steps 2", False),
        ({"check_val_every_n_epoch": 3}, "check_val_every_n_epoch 3: there are 2 epochs", False),
        ({"val_check_interval": 0}, "val_check_interval 0: must be above 0", False),
        ({"limit_train_batches": 1.5}, "1.5", False),
        ({"precision": "8-true"}, "8-true", False),
        ({"profiler": "nonsense"}, "profiler", False),
        ({"max_time": "soon"}, "soon", False),
        ({"strategy": "nonsense"}, "invalid strategy name", False),
        ({"plugins": "nonsense"}, "--trainer.plugins nonsense: must be the import path of a class", False),
        ({"callbacks+": "nonsense"}, "--trainer.callbacks nonsense: must be the import path of a class", False),
        ({"callbacks+": "EarlyStopping"}, "EarlyStopping: the following arguments are required: monitor", False),
        ({"overfit_batches": 0.1}, "overfit_batches 0.1: train has 8 batches; take a whole number, or at least", True),
        ({"limit_train_batches": 0.1}, "limit_train_batches 0.1: train has 8 batches", True),
        ({"limit_val_batches": 0.1}, "limit_val_batches 0.1: val has 2 batches", True),
        ({"limit_test_batches": 0.1}, "limit_test_batches 0.1: test has 3 batches", True),
        ({"limit_train_batches": 3, "val_check_interval": 5}, "val_check_interval 5: an epoch has 3 batches", True),
        ({"val_check_interval": 30, "check_val_every_n_epoch": None}, "30: the training has 16 batches", True),
    ],
)
def test_what_cannot_be_is_one_line_and_makes_no_run(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], words: str, converted: bool
) -> None:
    """Before the source is converted, unless only the data can tell."""
    source = digits if converted else tmp_path / "is not looked at"
    monkeypatch.setattr("sys.argv", [__file__])  # a script, which may have several processes, and no notebook
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    with pytest.raises(ConfigError) as error:
        run_of(source, tmp_path / "run", flags)
    assert words in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 300
    assert not (tmp_path / "run").exists()


class Interrupt(pl.Callback):
    """Ctrl-C in the middle of the second epoch."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "flags",
    [
        {"precision": "64-true", "ema": 0.9, "limit_train_batches": 3},
        {"precision": "bf16-true", "ema": 0.9, "accumulate_grad_batches": 3},
        {"overfit_batches": 2, "data.balanced": True, "val_check_interval": 1},
        {"reload_dataloaders_every_n_epochs": 1, "gradient_clip_val": 0.1, "limit_val_batches": 1, **MIXED},
    ],
    ids=str,
)
def test_what_was_interrupted_goes_on_to_the_same_weights(digits: Path, tmp_path: Path, flags: dict[str, Any]) -> None:
    settings = settings_with(digits, flags)
    with pytest.raises(KeyboardInterrupt):
        fit(settings, tmp_path / "run", callbacks=[Interrupt()])
    fit(Settings.read(tmp_path / "run" / "config.yaml"), resume=tmp_path / "run")
    fit(settings, tmp_path / "whole")
    run, whole = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("run", "whole")
    )
    for key in {"state_dict", "current_model_state"} & set(whole):
        assert all(torch.equal(run[key][name], tensor) for name, tensor in whole[key].items())
    assert read_metrics(tmp_path / "run") == read_metrics(tmp_path / "whole")
