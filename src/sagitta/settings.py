"""Everything a person can set, by one set of names, and what a recipe makes of what was left open.

The names are those of the arguments of :class:`ImageData`, :class:`Classifier` and Lightning's Trainer, declared there
and nowhere else: ``data.image_size``, ``model.lr``, ``trainer.max_epochs``. ``OPTIONS`` gives the common ones short
names, which command line and Python share. Torch and Lightning are imported when the first value is checked.
"""

import copy
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sagitta.errors import ConfigError
from sagitta.terminal import WholeWords

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from sagitta.conversion import ConvertOptions
    from sagitta.dataset import ShardSet
    from sagitta.loading import ImageData
    from sagitta.models import Recipe
    from sagitta.sources import SourceOptions

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Option:
    """A setting with a short name.

    Attributes:
        name: as ``--name`` on the command line, and with underscores in Python.
        key: of the setting.
        metavar: what stands behind it on the command line; empty for a flag that means true.
        help: one line.
        group: under which help lists it.
    """

    name: str
    key: str
    metavar: str
    help: str
    group: str


OPTIONS = (
    Option("model", "model.name", "NAME", "network of timm or torchvision (by size and device)", "model"),
    Option("pretrained", "model.pretrained", "", "begin with its published weights", "model"),
    Option("weights", "model.weights", "FILE", "begin with those of a file, a checkpoint or a run", "model"),
    Option("tune", "model.tune", "WHAT", "what of it is trained: full, head, gradual (full)", "model"),
    Option("epochs", "trainer.max_epochs", "N", "at most so many (4 to 40)", "training"),
    Option("time", "time", "TIME", "the best that fits into 90s, 10m, 1h30m in all", "training"),
    Option("lr", "model.lr", "RATE", "highest learning rate; auto measures (3e-4 to 6e-3)", "training"),
    Option("batch-size", "data.batch_size", "N", "images a device; auto measures (16 to 128)", "training"),
    Option("image-size", "data.image_size", "N", "pixels a side (the weights'; 224, thumbnails as is)", "training"),
    Option("patience", "patience", "N", "epochs without better val_loss; 0: no end (0 to 10)", "training"),
    Option("ema", "ema", "DECAY", "moving average of weights; 0: none (0 to 0.999)", "training"),
    Option("mixup", "model.mixup", "ALPHA", "mix pairs of images, such as 0.2", "training"),
    Option("cutmix", "model.cutmix", "ALPHA", "put boxes of images into others, such as 1.0", "training"),
    Option("class-weights", "model.class_weights", "HOW", "balanced: rare classes count more", "training"),
    Option("refit", "refit", "", "a given val, too, has the last word of a solved head", "training"),
    Option("keep", "keep", "N", "how many best epochs stay, as weights alone (1)", "training"),
    Option("folds", "data.folds", "N", "cross-validate: one member a fold, averaged", "training"),
    Option("seed", "seed", "N", "of weights, order and augmentation (0)", "training"),
    Option("devices", "trainer.devices", "N", "how many (all of the accelerator)", "machine"),
    Option("precision", "trainer.precision", "HOW", "such as 32-true, bf16-mixed, 16-mixed (by device)", "machine"),
    Option("logger", "logger", "NAMES", "csv, tensorboard, wandb; several with commas (csv)", "machine"),
    Option("val", "data.convert.val", "SHARE", "for validation where the source has none (0.1)", "data"),
    Option("test", "data.convert.test", "SHARE", "for the test where no split is given (0.1)", "data"),
    Option("group", "data.layout.group_column", "COLUMN", "whose equal values stay in one split", "data"),
    Option("range", "data.convert.range", "LOW,HIGH", "of deep samples, made 0 to 255; or auto", "data"),
    Option("bands", "data.convert.bands", "N,N,N", "of many, as red, green, blue: 3,2,1; or one", "data"),
    Option("allow-group-overlap", "data.convert.allow_group_overlap", "", "take splits that share groups", "data"),
    Option("min-images", "data.convert.min_images", "N", "leave out classes with fewer readable images", "data"),
    Option("layout", "data.layout.layout", "NAME", "folders, manifest, …: where its detection is wrong", "data"),
    Option("path-column", "data.layout.path_column", "COLUMN", "of a table: the file", "data"),
    Option(
        "label-column", "data.layout.label_column", "COLUMN", "of a table: the class, or several of 0 and 1", "data"
    ),
    Option("split-column", "data.layout.split_column", "COLUMN", "of a table: train, val or test", "data"),
    Option("label-separator", "data.layout.label_separator", "TEXT", "between several labels; '' for one", "data"),
)
"""What most people set, in the order of help."""

_KEY_OF = {option.name.replace("-", "_"): option.key for option in OPTIONS}
_SHORT_OF = {option.key: f"--{option.name}" for option in OPTIONS}

_BY_RECIPE = {
    "model.name": "name",
    "model.optimizer": "optimizer",
    "model.lr": "lr",
    "model.weight_decay": "weight_decay",
    "model.schedule": "schedule",
    "model.layer_decay": "layer_decay",
    "model.freeze_bn": "freeze_bn",
    "model.label_smoothing": "label_smoothing",
    "data.batch_size": "batch_size",
    "data.augmentation.auto": "auto",
    "data.augmentation.cutout": "cutout",
    "trainer.precision": "precision",
    "trainer.max_epochs": "epochs",
    "ema": "ema",
    "patience": "patience",
}
"""Setting -> field of the recipe that decides it where nobody has."""


_LIMITED = {"train": "an epoch of training", "val": "a validation", "test": "a test", "predict": "a prediction"}
"""Stages whose batches a flag limits. Its type is declared here: Lightning's ``Optional[Union[int, float]]`` becomes
``Union[float, int]``, and one batch all of them, where a module that says so was imported before: scikit-learn does."""

_NO_END = float("inf")
_LIMITS = {
    "seed": (0, 2**32 - 1),
    "patience": (0, _NO_END),
    "ema": (0, 0.9999999),
    "data.image_size": (1, 8192),  # the blank images of the trial alone would fill the memory
    "data.threads": (0, 1024),
    "model.weight_decay": (0, 1e9),
    "trainer.devices": (-1, 4096),
    "trainer.num_nodes": (1, 4096),
    "trainer.max_epochs": (-1, _NO_END),
    "trainer.min_epochs": (0, _NO_END),
    "trainer.max_steps": (-1, _NO_END),
    "trainer.min_steps": (0, _NO_END),
    "trainer.limit_train_batches": (0, _NO_END),
    "trainer.limit_val_batches": (0, _NO_END),
    "trainer.limit_test_batches": (0, _NO_END),
    "trainer.limit_predict_batches": (0, _NO_END),
    "trainer.overfit_batches": (0, _NO_END),
    "trainer.val_check_interval": (0, _NO_END),
    "trainer.check_val_every_n_epoch": (1, _NO_END),
    "trainer.num_sanity_val_steps": (-1, _NO_END),
    "trainer.log_every_n_steps": (0, _NO_END),
    "trainer.accumulate_grad_batches": (1, _NO_END),
    "trainer.gradient_clip_val": (0, _NO_END),
    "trainer.reload_dataloaders_every_n_epochs": (0, _NO_END),
}
"""Smallest and largest value of a number; the others are checked by the class that takes them."""


@dataclass(frozen=True)
class Settings:
    """Settings of a training, as plain values: those of ``config.yaml``. Made by :meth:`of`, which checks them.

    Attributes:
        source: the data, see :class:`sagitta.ImageData`.
        data: further arguments of ``ImageData``; what is found in the dataset is not among them.
        model: arguments of :class:`sagitta.Classifier`, likewise.
        trainer: arguments of Lightning's Trainer.
        seed: of weights, order and augmentation.
        logger: csv, tensorboard, wandb, or several with commas.
        patience: epochs without a better val_loss before stopping; 0 never stops early; None is for the recipe.
        ema: decay of the weights' moving average a step, 0 for none; None is for the recipe.
        refit: a head that is kept as solved is fitted to a given ``val`` too; to one that Sagitta made, it always is.
        keep: how many checkpoints of the best epochs are kept, their weights alone.
        time: wall time of the whole, such as ``10m``, that decides what is tried and how long; no run keeps it.
    """

    source: str
    data: Values = field(default_factory=dict)
    model: Values = field(default_factory=dict)
    trainer: Values = field(default_factory=dict)
    seed: int = 0
    logger: str = "csv"
    patience: int | None = None
    ema: float | None = None
    keep: int = 1
    refit: bool = False
    time: str | None = None

    @classmethod
    def of(cls, values: Values) -> "Settings":
        """Return settings with every default filled in.

        Args:
            values: by dotted names such as ``model.lr``, or nested; text is read as on the command line.

        Raises:
            ConfigError: a name is unknown, or a value is not of its kind or out of range; names the nearest.
        """
        given = _flat(values)
        if "lightning.pytorch" not in sys.modules:
            _outlined(given)  # most mistakes are known before torch and Lightning are loaded
        if given.get("time") is not None:
            seconds_of(str(given["time"]))
        from jsonargparse import ArgumentError

        try:
            config = _parsed(given)
            for key, value in given.items():
                if isinstance(value, str) and value and config.get(key) is None and _takes_text(key):
                    config[key] = value  # `null` and `~` are names like any other
            _check_values(config)
            _parser().instantiate(config.clone())
        except (ArgumentError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _explained(str(error), given) from None
        _check_named(config.source)
        settings = cls(**{name: _plain(value) for name, value in vars(config).items()})
        _remember(settings.values(), config)
        return settings

    @classmethod
    def read(cls, path: Path, changes: Values | None = None) -> "Settings":
        """Return the settings in a YAML file such as ``RUN/config.yaml``, with some of them changed.

        Raises:
            ConfigError: there is no such file, it is not YAML, or as :meth:`of` does.
        """
        return cls.of(read_values(path) | dict(changes or {}))

    def changed(self, changes: Values) -> "Settings":
        """Return the same settings but for some, by dotted names.

        Raises:
            ConfigError: as :meth:`of` does.
        """
        return Settings.of(self.values() | dict(changes))

    def get(self, key: str) -> Any:
        """Return one value by its dotted name."""
        return self.values().get(key)

    def to_yaml(self) -> str:
        """Return the text of ``config.yaml``.

        Raises:
            ConfigError: an argument of the Trainer is no plain value.
        """
        from yaml import YAMLError

        try:
            return str(_parser().dump(_parsed(self.values())))
        except (ValueError, YAMLError) as error:
            raise ConfigError(f"config.yaml cannot hold these settings: {' '.join(str(error).split())}") from None

    def values(self) -> dict[str, Any]:
        """Return every value by its dotted name."""
        return _flat(vars(self))

    # What they become.

    def image_data(self, *, verbose: bool = False) -> "ImageData":
        """Return the data, not yet prepared; a batch size that is to be measured is the default for now."""
        from sagitta.loading import ImageData

        arguments = vars(self._instances().data)
        if arguments["batch_size"] == "auto":
            arguments["batch_size"] = None
        return ImageData(self.source, seed=self.seed, verbose=verbose, **arguments)

    def apply_to(self, data: "ImageData") -> None:
        """Give data that was made before a recipe was known the batch size and augmentation that it decided."""
        found = self._instances().data
        data.batch_size, data.augmentation = found.batch_size, found.augmentation

    def trainer_arguments(self) -> dict[str, Any]:
        """Return the arguments of Lightning's Trainer, made anew, since its callbacks have a state."""
        return dict(vars(self._instances().trainer))

    def _instances(self) -> "Namespace":
        instances: Namespace = _parser().instantiate(_parsed(self.values()))
        return instances

    def recipe(self, dataset: "ShardSet") -> "Recipe":
        """Return the recipe for the true situation: rows, classes, size of the input, weights and device."""
        from sagitta.loading import Preprocessing
        from sagitta.models import Situation, choose, open_weights

        name, weights = self.model["name"], self.model["weights"]
        device = device_of(self.trainer["accelerator"])
        return choose(
            Situation(
                max(Preprocessing.of_dataset(dataset.info, self.data["image_size"]).size),
                len(dataset.splits.get("train", ())),
                pretrained=self.model["pretrained"] or weights is not None,
                tune=self.model["tune"],
                model=open_weights(weights).model() if weights is not None and name == "auto" else name,
                device=device,
                bf16=_computes_bf16(device),
                classes=len(dataset.info.class_names),
                head_first=not dataset.info.multilabel,
                epochs=self.trainer["max_epochs"] or 0,
            )
        )

    def undecided(self) -> list[str]:
        """Return the names of the settings that are left to the recipe; what is to be measured is not among them."""
        trainer = self.trainer
        ends = trainer["max_steps"] != -1 or trainer["max_time"] is not None
        values = self.values()
        undecided = [key for key in _BY_RECIPE if values.get(key) is None]
        return [
            *(["model.name"] if self.model["name"] == "auto" else []),
            *(key for key in undecided if not (ends and key == "trainer.max_epochs")),
        ]

    def resolve(self, dataset: "ShardSet") -> "Settings":
        """Return the settings with everything decided that was left open; of resolved ones, the same.

        Args:
            dataset: what will be trained on.

        Raises:
            ConfigError: weights do not say which network they are of.
        """
        recipe, undecided = self.recipe(dataset), self.undecided()
        return self.changed({key: getattr(recipe, _BY_RECIPE[key]) for key in undecided}) if undecided else self


def settings_of(
    source: str | os.PathLike[str] | None, options: Values, *bases: "Settings | Values | str | os.PathLike[str] | None"
) -> Settings:
    """Return settings from short names, on top of others.

    Args:
        source: the data; None takes that of ``bases``.
        options: by the short names of ``OPTIONS`` with underscores; None counts as not given.
        bases: settings, values by dotted names, or a YAML file; the later ones count.

    Raises:
        ConfigError: as :meth:`Settings.of` does.
    """
    return Settings.of(_together(source, options, bases))


def check_early(
    source: str | os.PathLike[str] | None,
    options: Values,
    *bases: "Settings | Values | str | os.PathLike[str] | None",
    data: bool = True,
) -> dict[str, Any]:
    """Refuse what :func:`settings_of` would, and data that is not there, as far as that is known without torch.

    Returns every value by its dotted name, as far as it is known without torch.

    Args:
        source: as for :func:`settings_of`, and so the next two.
        options: see there.
        bases: see there.
        data: it has to be there by the name that is given.

    Raises:
        ConfigError: as :meth:`Settings.of` does.
        SourceError: there is no data.
    """
    from sagitta.loading import check_data

    config = _outlined(_together(source, options, bases))
    if data:
        check_data(config.source, *_of_sources(config))
    return _flat(config.as_dict())


def own_source(run: Path, name_it: str = "name it as DATA") -> str:
    """Return where the data of a run lies, as its configuration says.

    Args:
        run: run directory or checkpoint file.
        name_it: as for :func:`sagitta.run.find_source`.

    Raises:
        ConfigError: it has no configuration, or its data is not there any more.
    """
    from sagitta.run import CONFIG_FILE, find_source, run_of

    folder = run_of(run)
    if folder is None or not (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"{run}: no configuration that names the data; give DATA")
    return find_source(folder, str(read_values(folder / CONFIG_FILE).get("source")), name_it)


def _together(source: str | os.PathLike[str] | None, options: Values, bases: Iterable[Any]) -> dict[str, Any]:
    """Return what :func:`settings_of` is given as values by dotted names."""
    values: dict[str, Any] = {}
    for base in bases:
        if isinstance(base, str | os.PathLike):
            values |= read_values(Path(base))
        elif isinstance(base, Settings | Mapping | None):
            values |= _flat(vars(base) if isinstance(base, Settings) else base or {})
        else:
            kind = type(base).__name__
            raise ConfigError(f"settings of type {kind}: give Settings, a mapping of names to values, or a YAML file")
    if source is not None:
        values["source"] = os.fspath(source)
    return values | keys_of(options)


def keys_of(options: Values) -> dict[str, Any]:
    """Return the options that are given, not None, by their dotted names instead of their short ones."""
    return {_KEY_OF[name]: value for name, value in options.items() if value is not None}


def read_values(path: Path) -> dict[str, Any]:
    """Return the values in a YAML file by dotted names, unchecked.

    Raises:
        ConfigError: there is no such file, or it is not YAML of names and values.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path}: no such file; a configuration is a run's config.yaml") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder; give the file in it: {path / 'config.yaml'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no names and values; a configuration is a run's config.yaml")
    return _flat(values)


def full_help() -> str:
    """Return the help of every setting of data, model and trainer, without the markup of the docstrings it is from."""
    plain = re.sub(r":\w+:`~?([^`]+)`", r"\1", str(_parser().format_help()))
    return re.sub(r"``?([^`]*)``?", r"\1", plain)


_SYNONYMS = {
    "learning-rate": "--lr", "epoch": "--epochs", "max-epochs": "--epochs", "arch": "--model", "network": "--model",
    "size": "--image-size", "img-size": "--image-size", "imgsz": "--image-size", "bs": "--batch-size",
    "batch": "--batch-size", "gpus": "--devices", "workers": "--data.threads", "output": "--out",
    "checkpoint": "--weights",
}  # fmt: skip
"""What other tools call some options."""


def short_name(key: str) -> str:
    """Return a setting's name as a person writes it: ``--epochs`` for ``trainer.max_epochs``."""
    return _SHORT_OF.get(key, f"--{key}")


def unknown_option(name: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that is not known, with what it may have meant, of ``known`` and every setting."""
    short, leaf = list(known), name.rpartition(".")[2].lstrip("-").replace("_", "-").lower()
    if (hint := _SYNONYMS.get(leaf)) not in short:
        hint = next(iter(difflib.get_close_matches(f"--{leaf}", short, n=1, cutoff=0.7)), None)
    if hint is None:
        every = [f"--{key}" for key in _keys()]
        same = (each for each in every if each.rpartition(".")[2].replace("_", "-") == leaf)
        hint = next(same, next(iter(difflib.get_close_matches(name, every, n=1)), None))
    return ConfigError(f"{name}: no such option{f'; did you mean {hint}?' if hint else ', see --help'}")


def device_of(accelerator: str) -> str:
    """Return the kind of device that Lightning will choose, as far as recipes differ."""
    import torch

    return "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"


def _computes_bf16(device: str) -> bool:
    """Return whether bfloat16 is faster than float32 on a kind of device."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))


@cache
def _parser() -> "ArgumentParser":
    """Return the parser that knows every setting by the signatures of data, model and Trainer."""
    from sagitta.models import preload

    preload()
    import lightning.pytorch as pl

    from sagitta.loading import ImageData
    from sagitta.models import Classifier

    parser = _parser_of_ours()
    parser.add_class_arguments(ImageData, "data", skip=_FOUND | _NOT_OF_DATA, instantiate=False)
    parser.add_class_arguments(Classifier, "model", skip=_FOUND | _NOT_OF_MODEL, instantiate=False)
    parser.add_class_arguments(pl.Trainer, "trainer", skip=_NOT_OF_TRAINER, instantiate=False)
    return _with_own_types(parser)


@cache
def _outline() -> "ArgumentParser":
    """Return a parser of the same settings that needs neither torch nor Lightning.

    It knows their names, and the values of those whose types are plain; it lets pass what only the whole one can judge.
    """
    from sagitta.conversion import ConvertOptions
    from sagitta.images import Profile
    from sagitta.loading import Policy
    from sagitta.models import Schedule, Tune, read_kinds, read_signature
    from sagitta.sources import SourceOptions

    kinds = read_kinds("lightning.fabric.plugins.precision.precision")  # whose names for precisions the Trainer takes
    kinds |= {"Profile": Profile, "Policy": Policy, "Schedule": Schedule, "Tune": Tune}
    parser = _parser_of_ours()
    groups: tuple[tuple[str, str, str, set[str]], ...] = (
        ("data", "sagitta.loading.datamodule", "ImageData", _FOUND | _NOT_OF_DATA),
        ("data.augmentation", "sagitta.loading.augmentation", "Augmentation", set()),
        ("model", "sagitta.models.classifier", "Classifier", _FOUND | _NOT_OF_MODEL),
        ("trainer", "lightning.pytorch.trainer.trainer", "Trainer", _NOT_OF_TRAINER),
    )
    parts = {"augmentation": None, "convert": ConvertOptions, "layout": SourceOptions}
    for group, module, name, skipped in groups:
        for each in read_signature(module, name, kinds):
            if each.name in skipped:
                continue
            if group == "data" and each.name in parts:
                if (part := parts[each.name]) is not None:
                    parser.add_class_arguments(part, f"data.{each.name}")
                continue
            parser.add_argument(f"--{group}.{each.name}", type=each.kind, default=each.default)
    return _with_own_types(parser)


def _outlined(given: Values) -> "Namespace":
    """Return values as the outline reads them.

    Raises:
        ConfigError: a name is unknown, or a value is not of its kind or out of range.
    """
    from jsonargparse import ArgumentError

    if given.get("time") is not None:
        seconds_of(str(given["time"]))
    try:
        config: Namespace = _outline().parse_object(_nested(given))
        _check_values(config)
        _of_sources(config)
    except (ArgumentError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _explained(str(error), given) from None
    _check_named(config.source)
    return config


def _of_sources(config: "Namespace") -> "tuple[SourceOptions, ConvertOptions]":
    """Return how a source is read and converted; nothing else of the outline is made, for that takes torch.

    Raises:
        ConfigError: a value is out of range.
    """
    from sagitta.conversion import ConvertOptions
    from sagitta.sources import SourceOptions

    return SourceOptions(**vars(config.data.layout)), ConvertOptions(**vars(config.data.convert))


def _check_named(source: Any) -> None:
    if not source:
        raise ConfigError("no DATA given, such as in: sagitta fit digits; see sagitta fit --help")
    if not isinstance(source, str):
        raise ConfigError(f"DATA of type {type(source).__name__}: give a path or a name; see sagitta fit --help")


_FOUND = {"seed", "class_names", "preprocessing"}
_NOT_OF_DATA = {"source", "batch_size", "verbose", "train_transform", "eval_transform", "transform_workers"}
_NOT_OF_MODEL = {"lr", "num_classes", "multilabel"}
_NOT_OF_TRAINER = {"logger", "default_root_dir", *(f"limit_{name}_batches" for name in _LIMITED)}
"""Arguments that are found, given in another way, or declared below."""


def _parser_of_ours() -> "ArgumentParser":
    """Return a parser of what is no argument of a class."""
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    parser = ArgumentParser(
        prog="sagitta fit DATA",
        exit_on_error=False,
        usage="sagitta fit DATA [OPTION VALUE …]",
        formatter_class=type("Help", (WholeWords, DefaultHelpFormatter), {}),
    )
    parser.add_argument("--source", metavar="DATA", help="the same as DATA in front, for YAML")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation")
    parser.add_argument("--logger", type=str, default="csv", help="csv, tensorboard, wandb, or several with commas")
    parser.add_argument("--patience", type=int | None, help="epochs without a better val_loss; 0: never stop early")
    parser.add_argument("--ema", type=float | None, help="decay of the weights' moving average a step; 0: none")
    parser.add_argument(
        "--time", type=str | None, help="wall time of the whole, such as 10m, that decides what is done"
    )
    parser.add_argument("--keep", type=int, default=1, help="how many of the best epochs stay, as weights alone")
    parser.add_argument("--refit", type=bool, default=False, help="fit a solved head to a given val, too")
    return parser


def _with_own_types(parser: "ArgumentParser") -> "ArgumentParser":
    """Return a parser with the arguments whose types are ours, not those of the signatures."""
    parser.add_argument(
        "--data.batch_size",
        type=int | Literal["auto"] | None,
        help="images a device and batch; auto: on a GPU the largest that fits, on a CPU the smallest that is as fast",
    )
    parser.add_argument(
        "--model.lr",
        type=float | Literal["auto"] | None,
        help="highest learning rate, that of the head; auto: by a range test (Smith 2017)",
    )
    for name, split in _LIMITED.items():
        parser.add_argument(
            f"--trainer.limit_{name}_batches",
            type=int | float | None,
            help=f"so many batches of {split}, or such a share: 1 is one batch, 1.0 all of them",
        )
    return parser


_MOST_REMEMBERED = 32
_remembered: "dict[str, Namespace]" = {}
"""What was parsed of values, as JSON: the same settings are asked for a dozen times a run, 0.05 s each."""


def _parsed(values: Values) -> "Namespace":
    """Return the parser's namespace of values by dotted names, the caller's own.

    Raises:
        ArgumentError: a name is unknown, or a value is not of its kind.
    """
    key = _as_json(values)
    if key is not None and (known := _remembered.get(key)) is not None:
        config: Namespace = known.clone()
    else:
        config = _parser().parse_object(_nested(values))
    return config


def _remember(values: Values, config: "Namespace") -> None:
    if (key := _as_json(values)) is not None:
        _remembered[key] = config.clone()
        while len(_remembered) > _MOST_REMEMBERED:
            del _remembered[next(iter(_remembered))]


def _as_json(values: Values) -> str | None:
    """Return values as text; None where one is an object, which has a state."""
    try:
        return json.dumps(values, sort_keys=True)
    except TypeError:
        return None


@cache
def _takes_text(key: str) -> bool:
    """Return whether a setting may be any text."""
    from jsonargparse import ArgumentError

    try:
        return bool(_parser().parse_object(_nested({key: "text"})).get(key) == "text")
    except (ArgumentError, TypeError, ValueError):
        return False


def _check_values(config: "Namespace") -> None:
    """Refuse values that are out of range.

    Raises:
        ConfigError: one is.
    """
    from sagitta.loading import check_arguments
    from sagitta.models import check_ranges

    _check_limits(config)
    check_ranges({**vars(config.model), **({"lr": None} if config.model.lr == "auto" else {})})
    data = config.data
    size = None if data.batch_size == "auto" else data.batch_size
    check_arguments(size, data.image_size, data.profile, data.folds, data.fold)


def _check_limits(config: "Namespace") -> None:
    for key, (least, most) in _LIMITS.items():
        value = config.get(key)
        if isinstance(value, str) and re.fullmatch(r"-?\d+", value):  # as in --devices 2
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and not least <= value <= most:
            wanted = f"at least {least}" if most == _NO_END else f"from {least} to {most}"
            raise ConfigError(f"{short_name(key)} {value}: must be {wanted}")


def seconds_of(text: str) -> int:
    """Return a time such as ``90s``, ``10m`` or ``1h30m`` in seconds.

    Raises:
        ConfigError: it is none, or 0; names one.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip().lower())
    seconds = (
        sum(int(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    )
    if not seconds:
        number = text.strip() if text.strip().isdigit() and int(text) else None
        hint = f"did you mean {number}m, or {number}s?" if number else "such as 90s, 10m or 1h30m"
        raise ConfigError(f"--time {text}: must be a time with its unit; {hint}")
    return seconds


def _keys() -> list[str]:
    return list(_flat(_outline().get_defaults().as_dict()))


def _flat(values: Values, prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted names; an empty mapping says nothing."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value) if isinstance(value, Path) else value
    return flat


def _nested(values: Values) -> dict[str, Any]:
    """Return values by dotted names nested; below a class, as in ``trainer.strategy.static_graph``, its arguments.

    A name that ends in ``+`` adds to a list, such as ``trainer.callbacks+``.
    """
    nested: dict[str, Any] = {}
    for name, value in copy.deepcopy(dict(values)).items():  # the parser changes lists in place
        *groups, leaf = name.split(".")
        inside = nested
        for group in groups:
            if isinstance(inside.get(group), str):
                inside[group] = {"class_path": inside[group], "init_args": {}}
                inside = inside[group]["init_args"]
            else:
                inside = inside.setdefault(group, {})
        if leaf.endswith("+"):
            inside.setdefault(leaf[:-1], []).append(value)
        else:
            inside[leaf] = value
    return nested


def _plain(value: Any) -> Any:
    """Return the parser's namespaces, at any depth, as dictionaries."""
    from jsonargparse import Namespace

    if isinstance(value, Namespace):
        return {name: _plain(each) for name, each in vars(value).items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


def _explained(message: str, given: Values) -> ConfigError:
    """Return what the parser complains about as one sentence, by the name that a person uses."""
    if unknown := re.search(r"(?:Group '([\w.]+)' does not accept option|Option) '([\w.-]+)'", message):
        name = ".".join(part for part in unknown.groups() if part)
        return unknown_option(f"--{name}", _SHORT_OF.values())
    if key := re.search(r'Parser key "([\w.]+)"', message):
        kinds = [_KINDS[kind] for kind in re.findall(r"Expected a <class '(\w+)'>", message) if kind in _KINDS]
        choices = [choice for found in re.findall(r"typing\.Literal\[(.*?)\]", message) for choice in found.split(", ")]
        if found := re.search(r"Problem with given class_path '([\w.]+)':\s+(.+?)\s+- ", message):
            return ConfigError(f"{short_name(key[1])} {found[1]}: {found[2]}")
        if "Expected a dot import path string" in message:
            kinds = ["the import path of a class, such as lightning.pytorch.callbacks.Timer"]
        wanted = list(dict.fromkeys([*kinds, *(choice.strip("'\"") for choice in choices)]))
        if wanted:
            value = " ".join(str(given.get(key[1], given.get(f"{key[1]}+", "this value"))).split())
            return ConfigError(f"{short_name(key[1])} {value}: must be {' or '.join(wanted)}")
    return ConfigError(f"{' '.join(message.split())}; see sagitta fit --help")
