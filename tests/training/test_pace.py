"""How many epochs fit into a time is a pure function of what was measured; a training that becomes slow ends early."""

import time
from pathlib import Path

import pytest

from sagitta.evaluation import quiet, quiet_trainer
from sagitta.settings import Settings
from sagitta.training.candidates import make
from sagitta.training.pace import Deadline, Pace, measure, plan_epochs, seconds_after

ROWS = {"train": 1000, "val": 100, "test": 200}


def test_epochs_are_what_fits_with_what_follows() -> None:
    """An epoch is 10 s and 0.5 s of validation; behind the last are 5 validations, a test and 3 s: 6.5 s."""
    pace = Pace(training=100.0, evaluation=200.0)
    assert seconds_after(pace, val=100, test=200, checks=5) == 2.5 + 1 + 3
    found = [plan_epochs(left, pace, **ROWS, checks=5, most=30) for left in (0, 18, 19, 31, 119, 10_000)]
    assert found == [0, 0, 1, 2, 9, 30]  # nine tenths of the time are planned
    assert plan_epochs(-5, pace, **ROWS, checks=5, most=30) == 0
    assert plan_epochs(18, pace, **ROWS, checks=0, most=30) == 1
    assert plan_epochs(119, Pace(50.0, 200.0), **ROWS, checks=5, most=30) == 4


@pytest.fixture
def settings(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    values = {"source": photo_folder, "model.name": "simple-cnn", "data.image_size": 16, "data.batch_size": 8}
    return Settings.of(values | {"trainer.accelerator": "cpu"})


def test_a_pace_is_measured_in_a_few_steps_even_where_one_is_all(settings: Settings) -> None:
    with quiet():
        for limit in (60.0, 0.0):
            made = make(settings)
            pace = measure(made.resolved, made.data, made.classifier, limit)
            assert pace.training > 0 and pace.evaluation > 0


@pytest.mark.parametrize(("late", "epochs"), [(1e9, 3), (0.0, 1)])
def test_a_training_ends_where_the_time_is_over(settings: Settings, late: float, epochs: int) -> None:
    deadline = Deadline(late)
    with quiet():
        made = make(settings)
        trainer = quiet_trainer(accelerator="cpu", max_epochs=3, callbacks=[deadline])
        trainer.fit(made.classifier, made.data)
    assert trainer.global_step == (1 if late == 0 else 3 * trainer.num_training_batches)
    assert "val_loss" in trainer.callback_metrics  # also of the epoch that was cut
    assert deadline.epochs == epochs


@pytest.mark.parametrize(("planned", "epochs"), [({}, 3), ({"validation": 1e-9}, 1), ({"epoch": 1e-9}, 1)])
def test_a_slow_epoch_or_validation_leaves_less_time(
    settings: Settings, planned: dict[str, float], epochs: int
) -> None:
    """Either takes a million times as long as planned here, so what follows would, too: no second epoch fits."""
    deadline = Deadline(time.monotonic() + 10_000, after=1.0, **planned)
    with quiet():
        made = make(settings)
        trainer = quiet_trainer(accelerator="cpu", max_epochs=3, callbacks=[deadline])
        trainer.fit(made.classifier, made.data)
    assert deadline.epochs == epochs
    assert deadline.slower > 1e6 if planned else deadline.slower == 1.0
    assert (trainer.global_step == 1) == ("epoch" in planned)
