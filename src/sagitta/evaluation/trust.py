"""What a prediction says beside its probabilities: whether to abstain, a set of classes, how unfamiliar the image is.

All of it is one function of a batch, :class:`Trust`, by what the run found out on rows that it has not learned
from.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from sagitta.dataset import plural, read_table
from sagitta.errors import ConfigError
from sagitta.evaluation.calibration import VALIDATION_FILE
from sagitta.evaluation.conformal import Abstention, abstain_below, set_level, sets_of
from sagitta.evaluation.lacking import lacking_text
from sagitta.evaluation.members import Model
from sagitta.evaluation.novelty import UNUSUAL, Familiar, read_familiar
from sagitta.evaluation.result import arrays_of
from sagitta.files import file_hash
from sagitta.models import Floats
from sagitta.run import find_checkpoint, has_ended, members_of, read_record, run_of


@dataclass(frozen=True)
class Trust:
    """What is said of each prediction beside its probabilities, and how many were striking so far.

    Attributes:
        names: of the classes, in the order of the probabilities.
        familiar: what the model knows; None where nobody noted it.
        abstention: from which probability on there is an answer; None where no accuracy was asked for.
        level: from which probability on a class belongs to the set; None where no coverage was asked for.
        members: how many models' mean it is, where what is promised was found on rows that each alone has said.
        counts: images, those that look like none of the classes, and abstentions.
        unanswered: which rows (B,) of the last batch are abstained from, or look like none of the classes.
    """

    names: Sequence[str]
    familiar: Familiar | None
    abstention: Abstention | None = None
    level: float | None = None
    members: int = 1
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("images", "unfamiliar", "abstained"), 0))
    unanswered: list[bool] = field(default_factory=list)

    @property
    def needs_features(self) -> bool:
        """Whether a batch is to come with its features."""
        return self.familiar is not None

    def __call__(self, probabilities: Floats, features: Floats | None) -> dict[str, pa.Array]:
        """Return ``abstain`` (bool), ``set`` (list<string>) and ``unfamiliar`` (float, 0 to 1), if known.

        Args:
            probabilities: (B, classes).
            features: (B, D) that the last linear layer is given, of the first member; needed where ``familiar`` is.
        """
        columns: dict[str, pa.Array] = {}
        self.counts["images"] += len(probabilities)
        unfamiliar = None if self.familiar is None or features is None else self.familiar.unfamiliar(features)
        unlike = np.zeros(len(probabilities), np.bool_) if unfamiliar is None else unfamiliar >= np.float32(UNUSUAL)
        if self.abstention is not None:  # what is promised holds for images of the classes alone
            abstain = unlike | (probabilities.max(axis=1) < self.abstention.threshold)
            self.counts["abstained"] += int(abstain.sum())
            columns["abstain"] = pa.array(abstain)
        self.unanswered[:] = (unlike if self.abstention is None else abstain).tolist()
        if self.level is not None:
            rows = [np.flatnonzero(row) for row in sets_of(probabilities, self.level)]
            ranked = [row[np.argsort(-own[row], kind="stable")] for row, own in zip(rows, probabilities, strict=True)]
            columns["set"] = pa.array([[self.names[label] for label in row] for row in ranked], pa.list_(pa.string()))
        if unfamiliar is not None:
            self.counts["unfamiliar"] += int(unlike.sum())
            columns["unfamiliar"] = pa.array(unfamiliar)
        return columns

    def lines(self, counts: Mapping[str, int] | None = None) -> list[str]:
        """Return what a person has to know, one line each.

        Args:
            counts: of other batches, too; None takes those of all batches so far.
        """
        counts = Counter(self.counts if counts is None else counts)
        told, images = [], counts["images"]
        if self.abstention is not None:
            told.append(f"abstained from {counts['abstained']} of {plural(images, 'image')}; {self.abstention}")
        if self.members > 1 and (self.abstention is not None or self.level is not None):
            told.append(
                f"what is promised was found out of fold, by single members; the mean of {self.members} is right more "
                "often, so it abstains from more images, and its sets are larger, than would be needed"
            )
        if unfamiliar := counts["unfamiliar"]:
            like = "looks" if unfamiliar == 1 else "look"
            told.append(
                f"{unfamiliar} of {plural(images, 'image')} {like} like none of the classes (column unfamiliar)"
            )
        return told


def open_trust(
    run: Path, model: Model, *, accuracy: float | None = None, coverage: float | None = None, flip: bool = False
) -> Trust:
    """Return what can be said of a run's predictions.

    Args:
        run: run directory or checkpoint file.
        model: what it predicts with.
        accuracy: share of answers that are to be right, where the others abstain.
        coverage: share of images whose label is to be in the set of classes.
        flip: mirror images take part.

    Raises:
        ConfigError: accuracy or coverage cannot be promised; says why.
    """
    abstention = level = None
    if accuracy is not None or coverage is not None:
        option = "--accuracy" if coverage is None else "--coverage"
        probabilities, labels = _rows(run, model, option, flip=flip)
        own = probabilities[np.arange(len(labels)), labels]
        if accuracy is not None:
            right = probabilities.argmax(axis=1) == labels
            abstention = abstain_below(probabilities.max(axis=1), right, accuracy)
        if coverage is not None:
            level = set_level(own, coverage)
    record = read_record(run) if run.is_dir() else {}
    folds = "ensemble" not in record and record.get("calibration", {}).get("fitted_on") == "out-of-fold"
    members = len(members_of(run) or ()) if folds else 1
    return Trust(model.class_names, _familiar(run), abstention, level, members)


def _rows(
    run: Path, model: Model, option: str, *, flip: bool
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return probabilities (N, classes) and labels (N,) of the rows that a run has not learned from."""
    if model.task.multilabel:
        raise ConfigError(f"{option}: the model gives several labels an image, each by a threshold of its own")
    if flip:
        raise ConfigError(
            f"{option} and --tta: what the run knows of its accuracy is without mirror images; leave one out"
        )
    folder = run_of(run)
    if folder is None or not (folder / VALIDATION_FILE).is_file():
        raise ConfigError(
            f"{option}: {run} has no {VALIDATION_FILE} of images that its model has not learned from; fit keeps it "
            "where there is a val, and probe always: make the run again"
        )
    record = read_record(folder)
    if run.is_dir() and not has_ended(record):
        way = "remove it, and probe again" if "probe" in record else f"go on with sagitta fit --resume {run}"
        raise ConfigError(
            f"{option}: {run} did not come to its end, where it is found out what its model can promise; {way}"
        )
    if run.is_file() and Path(record.get("best_checkpoint", "")).name != run.name:
        raise ConfigError(
            f"{option}: {folder / VALIDATION_FILE} is of another checkpoint than {run.name}; give the run"
        )
    if lacking := record.get("calibration", {}).get("lacking"):
        raise ConfigError(
            f"{option}: the images by which {run} could promise it have {lacking_text(lacking)}; train with a val "
            "that has some of every class"
        )
    for member in record.get("members", ()) if run.is_dir() else ():
        checkpoint = find_checkpoint(folder / member["run"])
        if member.get("checksum", checksum := file_hash(checkpoint)) != checksum:
            raise ConfigError(
                f"{option}: {checkpoint} has changed since it was found out what {run} can promise; make the run again"
            )
    probabilities, labels = arrays_of(read_table(folder / VALIDATION_FILE), model.task, model.class_names)
    return probabilities, labels


def _familiar(run: Path) -> Familiar | None:
    """Return what the first member of a run knows."""
    folder = run_of(run)
    if folder is None:
        return None
    if run.is_dir() and (members := members_of(run)) is not None:
        folder = run / next(member["run"] for member in members if member["weight"] > 0)
    return read_familiar(folder, run.name if run.is_file() else find_checkpoint(folder).name)
