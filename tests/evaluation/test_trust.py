"""The columns beside a prediction: a pure function of a batch, and what a run can promise."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.errors import ConfigError
from sagitta.evaluation.calibration import VALIDATION_FILE
from sagitta.evaluation.conformal import Abstention
from sagitta.evaluation.members import Model, Part
from sagitta.evaluation.novelty import Familiar
from sagitta.evaluation.trust import Trust, open_trust
from sagitta.models import Classifier
from sagitta.run import write_record

PROBABILITIES = np.array([[0.2, 0.7, 0.1], [0.4, 0.35, 0.25], [0.05, 0.05, 0.9]], np.float32)


def test_columns_of_a_batch() -> None:
    bank = np.tile(np.eye(4, dtype=np.float16)[:1], (5, 1))
    familiar = Familiar(bank, np.linspace(0, 0.5, 200, dtype=np.float32))
    trust = Trust(["a", "b", "c"], familiar, Abstention(0.7, 0.99, 0.95, 0.5, 100), 0.3)
    features = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0.1, 0, 0]], np.float32)
    columns = trust(PROBABILITIES, features)
    assert columns["abstain"].to_pylist() == [False, True, False]  # 0.7 of float32 is what it is compared with
    assert columns["set"].to_pylist() == [["b"], ["a", "b"], ["c"]]
    unfamiliar = columns["unfamiliar"].to_pylist()
    assert unfamiliar[0] < unfamiliar[2] < 0.1 and unfamiliar[1] > 0.999
    assert trust.unanswered == [False, True, False]
    sure = trust(PROBABILITIES[:1], features[1:2])  # of what looks like none of the classes, however sure it is
    assert sure["abstain"].to_pylist() == [True] and trust.unanswered == [True]
    first, second = trust.lines()
    assert first.startswith("abstained from 2 of 4 images; answers from a probability of 0.7000 on: 50.0% of known")
    assert first.endswith("99.00% of them right, at least 95.00% with 95 % confidence")
    assert second == "2 of 4 images look like none of the classes (column unfamiliar)"
    assert not Trust(["a", "b", "c"], None)(PROBABILITIES, None)
    mean = Trust(["a", "b", "c"], None, Abstention(0.7, 0.99, 0.95, 0.5, 100), members=3)
    mean(PROBABILITIES, None)
    assert "found out of fold, by single members; the mean of 3 is right more often" in mean.lines()[1]
    unasked = Trust(["a", "b", "c"], familiar)
    assert list(unasked(PROBABILITIES, features)) == ["unfamiliar"] and unasked.unanswered == [False, True, False]


def model(*, multilabel: bool = False) -> Model:
    return Model("best.ckpt", (Part(Classifier(class_names=["a", "b", "c"], multilabel=multilabel)),))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 100 unseen rows, of which the most certain 90 are right."""
    (tmp_path / "checkpoints").mkdir()
    for name in ("best", "other"):
        (tmp_path / "checkpoints" / f"{name}.ckpt").touch()
    write_record(tmp_path, best_checkpoint="checkpoints/best.ckpt")
    sure = np.linspace(0.99, 0.5, 100)
    rows = np.stack([sure, 0.6 * (1 - sure), 0.4 * (1 - sure)], axis=1).astype(np.float32)
    labels = ["a"] * 90 + ["b"] * 10
    table = {"label": labels, "probabilities": pa.array(list(rows), pa.list_(pa.float32()))}
    pq.write_table(pa.table(table), tmp_path / VALIDATION_FILE)
    return tmp_path


def test_a_run_promises_what_its_rows_show(run: Path) -> None:
    trust = open_trust(run, model(), accuracy=0.95, coverage=0.95)
    assert trust.familiar is None and trust.abstention is not None
    assert trust.abstention.accuracy == 1 and 59 <= trust.abstention.answered <= 90
    assert trust.level == pytest.approx(0.6 * (1 - np.linspace(0.99, 0.5, 100)[94]), abs=1e-3)  # 96 of 101 rows
    assert open_trust(run / "checkpoints" / "best.ckpt", model(), accuracy=0.95).abstention == trust.abstention
    assert open_trust(run, model()).abstention is None


def test_what_cannot_be_promised_is_refused_in_a_line(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes 299 images .* has 100"):
        open_trust(run, model(), accuracy=0.99)
    with pytest.raises(ConfigError, match="--coverage: the model gives several labels an image"):
        open_trust(run, model(multilabel=True), coverage=0.9)
    with pytest.raises(ConfigError, match="--accuracy and --tta"):
        open_trust(run, model(), accuracy=0.9, flip=True)
    with pytest.raises(ConfigError, match=r"is of another checkpoint than other.ckpt; give the run"):
        open_trust(run / "checkpoints" / "other.ckpt", model(), accuracy=0.9)
    write_record(run, calibration={"lacking": ["c"]})
    for what in ("accuracy", "coverage"):
        asked: dict[str, Any] = {what: 0.5}
        with pytest.raises(ConfigError, match=r"promise it have no image of 1 class \(c\), and that is no chance"):
            open_trust(run, model(), **asked)
    write_record(run, calibration={"lacking": []})
    (run / VALIDATION_FILE).unlink()
    with pytest.raises(ConfigError, match=r"has no validation.parquet"):
        open_trust(run, model(), accuracy=0.9)
