"""How a model and its data agree on classes, on one label or several, and on what the network's input is.

A model that is not trained yet learns from the data; afterwards the data takes over what the model says, or is refused.
Both are pure but for the call of the data's own ``adopt``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sagitta.errors import ConfigError
from sagitta.loading import Preprocessing
from sagitta.models.networks import pretrained_preprocessing
from sagitta.models.ranges import Tune
from sagitta.models.recipe import Situation, choose
from sagitta.models.task import Task, task_of
from sagitta.models.weights import Weights, open_weights

_UNKNOWN = Preprocessing((224, 224), 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)


@dataclass(frozen=True)
class FirstWeights:
    """What training begins with.

    Attributes:
        pretrained: the published weights.
        path: a file, checkpoint or run.
    """

    pretrained: bool = False
    path: str | None = None

    @property
    def given(self) -> bool:
        """Whether it does not begin from scratch."""
        return self.pretrained or self.path is not None

    @cached_property
    def file(self) -> Weights | None:
        """The open file."""
        return None if self.path is None else open_weights(self.path)

    def sees_stages(self, name: str, class_names: Sequence[str] | None) -> bool:
        """Return whether it is a head for the same network and classes, and sees every stage."""
        fields = {} if self.file is None else self.file.fields
        same = fields.get("name") == name and (class_names is None or list(class_names) == fields.get("class_names"))
        return same and bool(fields.get("stages"))

    def close(self) -> None:
        """Forget the file's tensors."""
        vars(self).pop("file", None)

    def preprocessing(self, name: str) -> Preprocessing | None:
        """Return what the weights of this model were trained for, where there are any and it is known."""
        if self.file is not None:
            return self.file.preprocessing(name)
        return pretrained_preprocessing(name) if self.pretrained else None


@dataclass(frozen=True)
class Agreement:
    """What a model is, and must have in common with its data; None where it is not known yet.

    Attributes:
        name: of the network, ``auto`` until it is known.
        first: what training begins with.
        published: preprocessing that those weights were trained for.
        num_classes: number of outputs.
        class_names: what each output means.
        multilabel: an image has several labels, or none.
        preprocessing: what the network's input has to be.
    """

    name: str
    first: FirstWeights
    published: Preprocessing | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    multilabel: bool | None = None
    preprocessing: Preprocessing | None = None

    @property
    def task(self) -> Task:
        """One label an image, or several."""
        return task_of(self.multilabel)

    @property
    def input(self) -> Preprocessing:
        """What the network is built for: where nothing is known, colour images of 224 x 224."""
        return self.preprocessing or self.published or _UNKNOWN

    def hyper_parameters(self) -> dict[str, Any]:
        """Return plain values by the names of the classifier's arguments, without the first weights.

        Whoever opens a checkpoint has the weights already, and may not have their file.
        """
        return {
            "name": self.name,
            "pretrained": False,
            "weights": None,
            "num_classes": self.num_classes,
            "class_names": None if self.class_names is None else list(self.class_names),
            "multilabel": self.multilabel,
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_dict(),
        }

    def situation(self, data: Any, tune: Tune, device: str) -> Situation:
        """Return what the recipe is chosen by."""
        return Situation(
            max(self.input.size),
            rows=int(getattr(data, "rows", 0)),
            pretrained=self.first.given,
            tune=tune,
            model=self.name,
            device=device,
            classes=self.num_classes or 0,
        )

    def learned(self, data: Any, device: str, *, built: bool) -> "Agreement":
        """Return this with what is open taken from the data and the first weights.

        Args:
            data: any DataModule, or None; whatever it does not say stays open.
            device: kind of device, by which the network is chosen.
            built: there is a network, whose channels stay as they are.
        """
        name, published = self.name, self.published
        if name == "auto" and self.first.given:
            file, usual = self.first.file, choose(Situation(0, pretrained=True, device=device)).name
            name = usual if file is None else file.model()
        if not built:
            published = self.first.preprocessing(name)
        names = self.class_names
        if names is None and (found := getattr(data, "class_names", None)) is not None:
            names = tuple(found)
        several = getattr(data, "multilabel", None) if self.multilabel is None else self.multilabel
        count = self.num_classes
        if count is None:
            count = getattr(data, "num_classes", None) if names is None else len(names)
        how = self.preprocessing or _chosen(data, published)
        if how is not None and built and self.input.channels == 3 and how.channels == 1:
            how = replace(how, mean=how.mean * 3, std=how.std * 3)
        found_out = Agreement(name, self.first, published, count, names, several, how)
        chosen = choose(found_out.situation(data, "full", device)).name  # the given name, where there is one
        return replace(found_out, name=chosen)

    def settled(self, data: Any, *, fresh: bool) -> "Agreement":
        """Let the data take over classes and preprocessing; returns this, with names where only a number was known.

        Args:
            data: any DataModule, or None.
            fresh: the preprocessing was open before, so that the data's profile of decoding becomes the model's.

        Raises:
            ConfigError: the data has other classes, or another number of labels an image.
        """
        several = getattr(data, "multilabel", None)
        if several is not None and several != self.task.multilabel:
            has = f"but the dataset has {task_of(several).words}"
            raise ConfigError(f"the model gives {self.task.words} an image, {has}")
        names = getattr(data, "class_names", None)
        if names is None:
            return self
        mine = self.class_names
        if mine is None and len(names) == self.num_classes:
            mine = tuple(names)  # a model that was trained on ordinary DataLoaders
        if mine is None or len(mine) != self.num_classes:
            has = f"but the dataset has {len(mine or names)} classes"
            raise ConfigError(f"the model has {self.num_classes} outputs, {has}: {some(mine or names)}")
        adopt = getattr(data, "adopt", None)
        if adopt is not None:
            adopt(mine, self.preprocessing)
        elif tuple(names) != mine:
            raise ConfigError(
                f"the model knows the classes {some(mine)}, but the data has {some(names)}; give the labels in the "
                "model's order, or use ImageData, which matches them by name"
            )
        how, own = self.preprocessing, getattr(data, "preprocessing", None)
        if fresh and how is not None and isinstance(own, Preprocessing):
            how = replace(how, profile=own.profile)
        return replace(self, class_names=mine, preprocessing=how)


def _chosen(data: Any, published: Preprocessing | None) -> Preprocessing | None:
    """Return the preprocessing of a fresh model: what the data was told, that of its weights, or the data's own."""
    own = getattr(data, "preprocessing", None)
    if not isinstance(own, Preprocessing):
        return None  # it makes batches in its own way
    if published is None or getattr(data, "wanted_preprocessing", None) is not None:
        return own
    size = getattr(data, "image_size", None)
    published = replace(published, reduction=own.reduction)  # it is the data's, whatever the weights were trained on
    return published if size is None else replace(published, size=(size, size))


def some(names: Sequence[str]) -> str:
    """Return the first few names for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
