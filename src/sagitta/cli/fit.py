"""`sagitta fit`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sagitta.cli.common import DATA_HELP, config_error

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from sagitta.loading import ImageData, Preprocessing

_FIT_SHORT = {
    "--model": "--model.name",
    "--weights": "--model.weights",
    "--tune": "--model.tune",
    "--mixup": "--model.mixup",
    "--cutmix": "--model.cutmix",
    "--class-weights": "--model.class_weights",
    "--lr": "--model.lr",
    "--epochs": "--trainer.max_epochs",
    "--batch-size": "--data.batch_size",
    "--image-size": "--data.image_size",
    "--val": "--data.convert.val",
    "--test": "--data.convert.test",
    "--group": "--data.layout.group_column",
    "--label-separator": "--data.layout.label_separator",
}

_MEASURED = ("data.batch_size", "model.lr")  # in this order: the rate depends on the size

_RECIPE = {
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
    "ema": "ema",
    "patience": "patience",
}


def fit(argv: list[str]) -> None:
    """Train, validate and test a classifier; what nobody set is decided by a recipe, or measured."""
    import lightning.pytorch as pl

    from sagitta import evaluation, training
    from sagitta.loading import ImageData
    from sagitta.models import Classifier
    from sagitta.run import CONFIG_FILE, new_run_directory, save_config

    evaluation.quiet()
    parser = fit_parser()
    config = parse_fit(parser, argv)
    out, resumed = config.pop("out"), config.pop("resume")
    measured = [key for key in _MEASURED if config[key] == "auto"]
    for key in measured:
        config[key] = None  # for now; the recipe's
    preprocessing = _begin(config, resumed)
    objects = parser.instantiate(config)
    data = ImageData(config.source, seed=config.seed, preprocessing=preprocessing, verbose=True, **vars(objects.data))
    data.prepare_data()
    data.setup("fit")
    _follow_recipe(config, data)
    objects = parser.instantiate(config)
    data.batch_size, data.augmentation = objects.data.batch_size, objects.data.augmentation
    if measured:
        _measure(measured, config, objects, data)
        objects = parser.instantiate(config)
    pl.seed_everything(config.seed, verbose=False)
    model = vars(objects.model) | ({"pretrained": False, "weights": None} if resumed else {})
    classifier = Classifier(
        **model,
        class_names=data.class_names,
        preprocessing=data.preprocessing.to_dict(),
        seed=config.seed,
        multilabel=data.multilabel,
    )
    run = resumed or new_run_directory(out, config.source)
    if not resumed:
        save_config(run / CONFIG_FILE, parser.dump(config))
    options = training.FitOptions(
        run,
        config.seed,
        tuple(config.logger.split(",")),
        config.patience,
        config.ema,
        resumed and run / "checkpoints" / "last.ckpt",
    )
    training.print_beginning(data, classifier, config.trainer.max_epochs, run)
    training.print_result(run, *training.fit(data, classifier, vars(objects.trainer), options))


def _measure(keys: Sequence[str], config: Any, objects: Any, data: "ImageData") -> None:
    """Put batch size and learning rate as measured in the place of ``auto``; print a line on each."""
    from sagitta import training
    from sagitta.models import Classifier

    known = {"class_names": data.class_names, "preprocessing": data.preprocessing.to_dict()}
    simple = {"multilabel": data.multilabel, "schedule": "constant", "class_weights": None}

    def build() -> Classifier:
        return Classifier(**vars(objects.model) | known | simple)

    def found(find: Any) -> float:
        value, line = find(build, data, vars(objects.trainer))
        print(line, flush=True)
        return float(value)

    if "data.batch_size" in keys:
        size = int(training.from_first_process("batch_size", lambda: found(training.find_batch_size)))
        config.data.batch_size = data.batch_size = size
    if "model.lr" in keys:
        config.model.lr = training.from_first_process("lr", lambda: found(training.find_lr))


def _follow_recipe(config: Any, data: "ImageData") -> None:
    """Fill in, by the recipe for this situation, what nobody has set; print the recipe and why it was chosen."""
    from lightning.pytorch.utilities import rank_zero_only

    from sagitta.models import Situation, choose

    model, trainer = config.model, config.trainer
    situation = Situation(
        max(data.preprocessing.size),
        len(data.shards.splits["train"]),
        pretrained=model.pretrained or model.weights is not None,
        tune=model.tune,
        model=model.name,
        device=(device := _device(trainer.accelerator)),
        bf16=_computes_bf16(device),
    )
    recipe = choose(situation)
    followed = [key for key in _RECIPE if config[key] is None]
    for key in followed:
        config[key] = getattr(recipe, _RECIPE[key])
    model.name = recipe.name
    if trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None:
        trainer.max_epochs = recipe.epochs
        followed.append("trainer.max_epochs")
    if followed:
        rank_zero_only(print)(f"recipe: {recipe.reason}")


def _begin(config: Any, resumed: Path | None) -> "Preprocessing | None":
    """Name the model that weights belong to, and return the preprocessing that they, or the resumed run, ask for.

    An image size changes the size and nothing else.
    """
    from dataclasses import replace

    from sagitta.models import Situation, choose, load_classifier, open_weights, pretrained_preprocessing

    if resumed:
        return load_classifier(resumed / "checkpoints" / "last.ckpt").preprocessing
    model, size = config.model, config.data.image_size
    if model.weights is not None:
        weights = open_weights(model.weights)
        if model.name == "auto":
            model.name = weights.model()
        found = weights.preprocessing(model.name)
    elif model.pretrained:
        device = _device(config.trainer.accelerator)
        model.name = choose(Situation(0, pretrained=True, model=model.name, device=device)).name
        found = pretrained_preprocessing(model.name)
    else:
        found = None
    return found if found is None or size is None else replace(found, size=(size, size))


def _device(accelerator: str) -> str:
    """Return the kind of device that Lightning will choose, as far as recipes differ."""
    import torch

    return "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"


def _computes_bf16(device: str) -> bool:
    """Return whether bfloat16 is faster than float32 on a kind of device."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def fit_parser() -> "ArgumentParser":
    """Return the parser of every setting of data, model and trainer."""
    import lightning.pytorch as pl
    from jsonargparse import ArgumentParser

    from sagitta.loading import ImageData
    from sagitta.models import Classifier

    short = ", ".join(f"{name} = {long}" for name, long in _FIT_SHORT.items())
    parser = ArgumentParser(
        prog="sagitta fit DATA",
        description=f"Train, validate and test a classifier. DATA is {DATA_HELP}.",
        epilog=f"Short forms: {short}. Every setting of Lightning's Trainer is a --trainer.SETTING.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--source", metavar="DATA", help="the same as DATA in front, for YAML")
    parser.add_argument("--config", action="config", help="YAML with any of these settings, such as RUN/config.yaml")
    parser.add_argument("--out", type=Path | None, metavar="DIR", help="run directory to make (runs/NAME-1, -2, …)")
    parser.add_argument(
        "--resume", type=Path | None, metavar="RUN", help="continue an interrupted run in its directory"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation")
    parser.add_argument("--logger", default="csv", help="csv, tensorboard, wandb, or several with commas")
    parser.add_argument(
        "--patience", type=int | None, help="epochs without a better val_loss before stopping; 0: never stop early"
    )
    parser.add_argument(
        "--ema", type=float | None, help="decay of the weights' moving average a step, such as 0.99; 0: none"
    )
    found = {"seed", "class_names", "preprocessing", "verbose"}
    parser.add_class_arguments(ImageData, "data", skip={"source", "batch_size", *found}, instantiate=False)
    parser.add_argument(
        "--data.batch_size",
        type=int | Literal["auto"] | None,
        help="images a device and batch; auto: on a GPU the largest that fits, on a CPU the smallest that is as fast",
    )
    parser.add_class_arguments(Classifier, "model", skip={"lr", "num_classes", "multilabel", *found}, instantiate=False)
    parser.add_argument(
        "--model.lr",
        type=float | Literal["auto"] | None,
        help="highest learning rate, that of the head; auto: by a range test (Smith 2017)",
    )
    parser.add_class_arguments(pl.Trainer, "trainer", skip={"logger", "default_root_dir"}, instantiate=False)
    return parser


def parse_fit(parser: "ArgumentParser", argv: list[str]) -> Any:
    """Parse after expanding the leading DATA, the short forms and ``--resume RUN`` (its configuration comes first)."""
    from argparse import ArgumentError

    arguments = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        if argument == "--pretrained":
            arguments.append("--model.pretrained=true")
        else:
            arguments.append(_FIT_SHORT.get(name, name) + equals + value)
    if arguments and not arguments[0].startswith("-"):
        arguments.insert(0, "--source")
    try:
        config = parser.parse_args(arguments)
        if config.resume is not None:
            config = parser.parse_args(["--config", str(_resumable(config.resume)), *arguments])
    except (ArgumentError, TypeError) as error:
        raise config_error(f"{error}; see sagitta fit --help") from None
    if config.source is None:
        raise config_error("no DATA given, such as in: sagitta fit digits; see sagitta fit --help")
    config.pop("config", None)
    return config


def _resumable(run: Path) -> Path:
    from sagitta.run import CONFIG_FILE

    for needed in (run / CONFIG_FILE, run / "checkpoints" / "last.ckpt"):
        if not needed.is_file():
            raise config_error(f"{run}: cannot be resumed, {needed.relative_to(run)} is missing")
    return run / CONFIG_FILE
