from pathlib import Path

import numpy as np

from sagitta.diagnosis.labels import label_findings, learned, rows_of, suspects
from sagitta.diagnosis.rows import Rows
from sagitta.evaluation import keep_seen, seen_of
from sagitta.run import write_record
from sagitta.training import Candidate


def test_suspects_are_rows_of_which_another_class_is_confidently_said() -> None:
    probabilities = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.2, 0.8], [0.95, 0.05], [0.45, 0.55]], np.float32
    )
    labels = np.array([0, 0, 0, 1, 1, 1, 0])
    found, classes, margins = suspects(probabilities, labels)
    # The mean of class 0 is 0.5625, that of class 1 is 0.5167; row 6 says 1 with 0.55, more than that mean.
    assert found.tolist() == [5, 2, 6] and classes.tolist() == [0, 1, 1]
    np.testing.assert_allclose(margins, [0.9, 0.8, 0.1], atol=1e-6)


def test_a_class_that_is_never_sure_is_not_suspected_as_a_whole() -> None:
    probabilities = np.tile(np.array([[0.55, 0.45]], np.float32), (6, 1))
    assert suspects(probabilities, np.array([0, 0, 0, 1, 1, 1]))[0].tolist() != list(range(6))
    assert suspects(probabilities, np.array([0, 0, 0, 0, 0, 0]))[0].size == 0


def test_what_a_weak_model_says_is_a_doubt_and_no_error(rows: Rows) -> None:
    labels = rows.labels
    sure = np.where(np.arange(2) == labels[:, None], 0.95, 0.05).astype(np.float32)
    sure[7] = sure[7][::-1]
    every = np.arange(len(rows))
    (row,) = label_findings(rows, every, sure)
    other = rows.info.class_names[1 - labels[7]]
    assert (row["kind"], row["path"], row["proposed_label"]) == ("label-error", rows.paths[7], other)
    assert row["action"] == "review"
    weak = sure.copy()
    weak[::3] = weak[::3, ::-1]  # it is wrong about every third row
    assert {row["kind"] for row in label_findings(rows, every, weak)} == {"label-doubt"}


def test_rows_are_found_by_their_paths(rows: Rows) -> None:
    assert rows_of(rows, [rows.paths[4], "nowhere.jpg", rows.paths[0]]).tolist() == [4, -1, 0]


def test_a_network_that_was_tuned_on_the_labels_is_named(rows: Rows, tmp_path: Path) -> None:
    write_record(tmp_path, seed=0)
    keep_seen(tmp_path, seen_of(rows.shards.splits, trained=("test",), chose=()))
    (note,) = learned(rows, Candidate("resnet20", str(tmp_path)))
    count = len(rows.shards.splits["test"])
    assert note.startswith(f"label errors among {count} images whose label {tmp_path} was trained with")
    write_record(tmp_path, probe=[])  # of a probe only the head has learned, and here it is another one
    assert learned(rows, Candidate("resnet20", str(tmp_path))) == []
    assert learned(rows, Candidate("resnet20")) == []
