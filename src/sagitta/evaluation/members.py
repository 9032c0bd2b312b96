"""What a run predicts with: one checkpoint, or members whose probabilities are averaged.

Members may be different networks, of different image sizes and preprocessing. Those that read images alike are one
classifier, so no image is decoded twice for them; the others read the data their own way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sagitta.errors import ConfigError
from sagitta.models import Classifier, Task, averaged, load_classifier
from sagitta.run import CONFIG_FILE, find_checkpoint, members_of, read_record, run_of
from sagitta.settings import Settings


@dataclass(frozen=True)
class Part:
    """A classifier, or several that read images alike as one.

    Attributes:
        classifier: on the CPU, in evaluation mode.
        share: of the mean of all parts.
        precision: of its training, which gives the values that ended it; None where nobody noted it.
    """

    classifier: Classifier
    share: float = 1.0
    precision: str | None = None


@dataclass(frozen=True)
class Model:
    """What a run predicts with.

    Attributes:
        name: of its checkpoint, or ``members``.
        parts: whose probabilities are averaged; all have the same classes, in an order of their own.
    """

    name: str
    parts: tuple[Part, ...]

    @property
    def first(self) -> Classifier:
        """The classifier whose order of the classes and thresholds are those of the whole."""
        return self.parts[0].classifier

    @property
    def class_names(self) -> list[str]:
        """What each output means."""
        return self.first.class_names

    @property
    def task(self) -> Task:
        """One label an image, or several."""
        return self.first.task


def open_model(run: Path, *, flip: bool = False) -> Model:
    """Open a run's best checkpoint, a checkpoint file, or the members of a run.

    Args:
        run: run directory or checkpoint file.
        flip: take the mean of the probabilities of each image and its mirror image.

    Raises:
        ConfigError: there is no such run, or its members are not all trained.
    """
    members = members_of(run)
    if members is None:
        checkpoint = find_checkpoint(run)
        model = Model(checkpoint.name, (Part(load_classifier(checkpoint), precision=precision_of(run)),))
    else:
        places = [run / member["run"] for member in members]
        parts = [
            Part(load_classifier(find_checkpoint(place)), float(member["weight"]), precision_of(place))
            for place, member in zip(places, members, strict=True)
            if member["weight"] > 0
        ]
        model = Model("members", tuple(_together(parts, read_record(run).get("thresholds"))))
    for part in model.parts:
        part.classifier.flip = flip
    return model


def unfinished(model: Model) -> str:
    """Return what has to be said of what a run says that was ended before its end."""
    return f"the run did not come to its end: this is {model.name}, its best so far, and it is not calibrated"


def precision_of(run: Path) -> str | None:
    """Return the precision that a run was trained with, as its configuration says."""
    folder = run_of(run)
    if folder is None or not (folder / CONFIG_FILE).is_file():
        return None
    precision: str | None = Settings.read(folder / CONFIG_FILE).trainer["precision"]
    return precision


def one_classifier(run: Path) -> Classifier:
    """Return the model of a run as one classifier.

    Raises:
        ConfigError: as :func:`open_model` does, or its members read images in different ways.
    """
    model = open_model(run)
    if len(model.parts) > 1:
        raise ConfigError(
            f"{run}: its members read images in {len(model.parts)} different ways, so they are no single classifier; "
            "predict and evaluate with the run, or open one of its members"
        )
    return model.first


def _together(parts: list[Part], thresholds: Mapping[str, float] | None) -> list[Part]:
    """Return one part for those that read images alike, in the order of the first of each."""
    groups: list[list[Part]] = []
    for part in parts:
        how = (part.classifier.preprocessing, part.precision)
        alike = (group for group in groups if (group[0].classifier.preprocessing, group[0].precision) == how)
        if (group := next(alike, None)) is None:
            groups.append([part])
        else:
            group.append(part)
    found = []
    for group in groups:
        classifiers, shares = [part.classifier for part in group], [part.share for part in group]
        own = None if thresholds is None else [thresholds[name] for name in classifiers[0].class_names]
        found.append(Part(averaged(classifiers, shares, own), sum(shares), group[0].precision))
    return found
