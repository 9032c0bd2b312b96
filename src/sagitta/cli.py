"""The command line. Heavy imports happen inside the command that needs them, so that `--help` is instant."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sagitta import __version__

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from sagitta.augment import Preprocessing
    from sagitta.data import ImageData
    from sagitta.probe import Candidate

_DATA_HELP = """what you have: a converted dataset; class folders, also under train/ val/ test/; files named
cat.0.jpg; a CSV, TSV or Parquet manifest; a .tar or .zip of these; WebDataset tars; MNIST idx files; CIFAR batches;
Hugging Face image Parquet (folder or hf://user/name); or digits, mnist, fashion-mnist, cifar10, cifar100, imagenette"""

_TTA_HELP = "test-time augmentation: mean of the probabilities of an image and its mirror image, at twice the time"

_SOUP_HELP = """Average a run's best checkpoints, greedily, as long as their validation does not get worse (model soup,
Wortsman et al. 2022)."""

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for an error that a person can mend, told in one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options, rest = parser.parse_known_args(arguments[:1])
    command: Callable[[list[str]], None] | None = getattr(options, "run", None)
    if command is None:
        parser.print_help()
        return 0
    from sagitta.schema import SagittaError

    try:
        command(rest + arguments[1:])
    except SagittaError as error:
        return _complain(str(error))
    except OSError as error:
        if error.errno is None:
            raise
        return _complain(f"{error.filename or 'writing a file'}: {error.strerror}")
    except KeyboardInterrupt:
        return _complain("interrupted; what was finished is kept, and the same command goes on from there", code=130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _complain(message: str, code: int = 2) -> int:
    print(f"sagitta: {' '.join(message.split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sagitta",
        description="From a folder of photos to an evaluated image classifier.",
        epilog="`sagitta COMMAND --help` explains a command. Begin with: sagitta fit digits",
    )
    parser.add_argument("--version", action="version", version=f"sagitta {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, run, text in (
        ("convert", _convert, "images to a dataset: Parquet, verified, split, with a quarantine table"),
        ("inspect", _inspect, "what a dataset holds and how it was prepared"),
        ("fit", _fit, "train, validate and test a classifier on anything you have"),
        ("validate", _validate, "evaluate a run on validation data"),
        ("test", _test, "evaluate a run on test data"),
        ("soup", _soup, "average a run's best checkpoints where that validates better"),
        ("probe", _probe, "a linear head on a pretrained network's features, in seconds; compares networks"),
        ("predict", _predict, "classify image files with a run"),
    ):
        commands.add_parser(name, help=text, add_help=False).set_defaults(run=run)
    return parser


def _command(name: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"sagitta {name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def _convert(argv: list[str]) -> None:
    from sagitta.convert import ConvertOptions, convert
    from sagitta.index import user_cache
    from sagitta.sources import LAYOUTS, SourceOptions, open_source

    parser = _command("convert", "Turn images into a dataset of standard Parquet that every tool opens.")
    parser.add_argument("source", metavar="SRC", help=_DATA_HELP)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make")
    parser.add_argument("--val", type=float, help="share of rows for val where the source has none (0.1)")
    parser.add_argument("--test", type=float, help="likewise for test (0.1 where no split is given)")
    parser.add_argument("--seed", type=int, default=0, help="of the stratified split")
    parser.add_argument("--group", metavar="COLUMN", help="manifest column whose equal values stay in one split")
    parser.add_argument("--layout", choices=LAYOUTS, help="how the source is laid out, where the detection is wrong")
    parser.add_argument("--label-column", help="manifest column with the class")
    parser.add_argument("--label-separator", help="between several labels in one cell; '' for one label (detected)")
    parser.add_argument("--path-column", help="manifest column with the file")
    parser.add_argument("--split-column", help="manifest column with the split")
    parser.add_argument("--resize", type=int, metavar="PIXELS", help="make the shorter side so long; never enlarges")
    parser.add_argument("--quality", type=int, help="JPEG quality 1-100 of re-encoded images (90 with --resize)")
    parser.add_argument(
        "--restart-markers",
        action="store_true",
        help="let training decode only the tiles of a JPEG that a crop needs; pixels stay as they are (lossless)",
    )
    parser.add_argument("--shard-size", type=_size, default=ConvertOptions().shard_size, help="bytes, or 256M, 1G")
    parser.add_argument("--workers", type=int, help="processes (all cores); never changes the output")
    parser.add_argument(
        "--on-bad",
        choices=("quarantine", "fail"),
        default="quarantine",
        help="what to do with unreadable images",
    )
    a = parser.parse_args(argv)
    layout = SourceOptions(
        layout=a.layout,
        label_column=a.label_column,
        label_separator=a.label_separator,
        path_column=a.path_column,
        split_column=a.split_column,
        group_column=a.group,
    )
    options = ConvertOptions(
        val=a.val, test=a.test, seed=a.seed, resize=a.resize, quality=a.quality,
        restart_markers=a.restart_markers, shard_size=a.shard_size, workers=a.workers, on_bad=a.on_bad,
    )  # fmt: skip
    source = open_source(a.source, layout, cache=user_cache())
    print(source.describe())
    info = convert(source, a.out, options, progress=True)
    counts = ", ".join(f"{name} {split.rows}" for name, split in info.splits.items())
    print(
        f"{a.out}: {len(info.class_names)} classes, {counts}, {info.quarantined} quarantined. Next: sagitta fit {a.out}"
    )


def _size(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    if not number.isdigit() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give bytes, or such as 256M or 1G")
    return int(number) * unit


def _inspect(argv: list[str]) -> None:
    from sagitta.decode import engine
    from sagitta.inspection import contact_sheet, summarise

    parser = _command("inspect", "Show classes, splits, sizes, formats and how a dataset was prepared.")
    parser.add_argument("dataset", type=Path, nargs="?", metavar="DATASET", help="a converted dataset")
    parser.add_argument("--engine", action="store_true", help="which decoder is used, and how to get the fast one")
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="PNG", help="also write a picture of some images of each class"
    )
    a = parser.parse_args(argv)
    if a.engine:
        print(engine())
        if a.dataset is None:
            return
    if a.dataset is None:
        raise _config_error("no DATASET given; see sagitta inspect --help")
    print(summarise(a.dataset))
    if a.contact_sheet:
        contact_sheet(a.dataset, a.contact_sheet)
        print(f"contact sheet: {a.contact_sheet}")


def _fit(argv: list[str]) -> None:
    import lightning.pytorch as pl

    from sagitta import train
    from sagitta.data import ImageData
    from sagitta.model import Classifier
    from sagitta.run import CONFIG_FILE, new_run_directory, save_config

    train.quiet()
    parser = _fit_parser()
    config = _parse_fit(parser, argv)
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
    options = train.FitOptions(
        run,
        config.seed,
        tuple(config.logger.split(",")),
        config.patience,
        config.ema,
        resumed and run / "checkpoints" / "last.ckpt",
    )
    train.print_beginning(data, classifier, config.trainer.max_epochs, run)
    train.print_result(run, *train.fit(data, classifier, vars(objects.trainer), options))


_MEASURED = ("data.batch_size", "model.lr")  # in this order: the rate depends on the size


def _measure(keys: Sequence[str], config: Any, objects: Any, data: "ImageData") -> None:
    """Put batch size and learning rate as measured in the place of ``auto``; print a line on each."""
    from sagitta import tuning
    from sagitta.model import Classifier

    known = {"class_names": data.class_names, "preprocessing": data.preprocessing.to_dict()}
    simple = {"multilabel": data.multilabel, "schedule": "constant", "class_weights": None}

    def build() -> Classifier:
        return Classifier(**vars(objects.model) | known | simple)

    def found(find: Any) -> float:
        value, line = find(build, data, vars(objects.trainer))
        print(line, flush=True)
        return float(value)

    if "data.batch_size" in keys:
        size = int(tuning.from_first_process("batch_size", lambda: found(tuning.find_batch_size)))
        config.data.batch_size = data.batch_size = size
    if "model.lr" in keys:
        config.model.lr = tuning.from_first_process("lr", lambda: found(tuning.find_lr))


_RECIPE = {
    "model.optimizer": "optimizer",
    "model.lr": "lr",
    "model.weight_decay": "weight_decay",
    "model.schedule": "schedule",
    "model.layer_decay": "layer_decay",
    "model.label_smoothing": "label_smoothing",
    "data.batch_size": "batch_size",
    "data.augmentation.auto": "auto",
    "data.augmentation.cutout": "cutout",
    "trainer.precision": "precision",
    "ema": "ema",
    "patience": "patience",
}


def _follow_recipe(config: Any, data: "ImageData") -> None:
    """Fill in, by the recipe for this situation, what nobody has set; print the recipe and why it was chosen."""
    from lightning.pytorch.utilities import rank_zero_only

    from sagitta.recipe import Situation, choose

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

    from sagitta.model import load_classifier
    from sagitta.networks import pretrained_preprocessing
    from sagitta.recipe import Situation, choose
    from sagitta.weights import open_weights

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


def _fit_parser() -> "ArgumentParser":
    import lightning.pytorch as pl
    from jsonargparse import ArgumentParser

    from sagitta.data import ImageData
    from sagitta.model import Classifier

    short = ", ".join(f"{name} = {long}" for name, long in _FIT_SHORT.items())
    parser = ArgumentParser(
        prog="sagitta fit DATA",
        description=f"Train, validate and test a classifier. DATA is {_DATA_HELP}.",
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


def _parse_fit(parser: "ArgumentParser", argv: list[str]) -> Any:
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
        raise _config_error(f"{error}; see sagitta fit --help") from None
    if config.source is None:
        raise _config_error("no DATA given, such as in: sagitta fit digits; see sagitta fit --help")
    config.pop("config", None)
    return config


def _resumable(run: Path) -> Path:
    from sagitta.run import CONFIG_FILE

    for needed in (run / CONFIG_FILE, run / "checkpoints" / "last.ckpt"):
        if not needed.is_file():
            raise _config_error(f"{run}: cannot be resumed, {needed.relative_to(run)} is missing")
    return run / CONFIG_FILE


def _config_error(message: str) -> Exception:
    from sagitta.schema import ConfigError

    return ConfigError(message)


def _validate(argv: list[str]) -> None:
    _evaluate(argv, "val")


def _test(argv: list[str]) -> None:
    _evaluate(argv, "test")


def _evaluate(argv: list[str], split: str) -> None:
    from sagitta import train

    parser = _command(
        "validate" if split == "val" else split,
        f"Evaluate a run's best checkpoint on the {split} split; classes are matched by name.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("source", nargs="?", metavar="DATA", help="other data (default: what the run was trained on)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a device and batch")
    parser.add_argument("--devices", default="auto", help="how many devices, as Lightning's Trainer takes it")
    parser.add_argument("--tta", choices=("flip",), help=_TTA_HELP)
    a = parser.parse_args(argv)
    train.quiet()
    settings: dict[str, Any] = {"batch_size": a.batch_size, "verbose": True}
    if a.source is None:
        a.source, own = _data_of(a.run)
        settings |= {name: own[name] for name in ("convert", "layout")}
    evaluation = train.evaluate(a.run, a.source, split, devices=a.devices, flip=a.tta == "flip", **settings)
    print(evaluation.text())


def _data_of(run: Path) -> tuple[str, dict[str, Any]]:
    """Return what a run was trained on, and the settings of its data."""
    from sagitta.run import CONFIG_FILE

    if not (run / CONFIG_FILE).is_file():
        raise _config_error(f"{run}: no {CONFIG_FILE} that names the data; give DATA")
    config = _parse_fit(parser := _fit_parser(), ["--config", str(run / CONFIG_FILE)])
    return config.source, vars(parser.instantiate(config).data)


def _soup(argv: list[str]) -> None:
    from sagitta import train
    from sagitta.data import ImageData
    from sagitta.model import load_classifier
    from sagitta.run import find_checkpoint
    from sagitta.soup import SOUP, soup

    parser = _command("soup", _SOUP_HELP)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--devices", default="auto", help="how many devices, as Lightning's Trainer takes it")
    a = parser.parse_args(argv)
    train.quiet()
    source, settings = _data_of(a.run)
    model = load_classifier(find_checkpoint(a.run))
    settings |= {"class_names": model.class_names, "preprocessing": model.preprocessing}
    data = ImageData(source, **settings)
    data.prepare_data()
    data.setup("fit")
    kept, score = soup(a.run, data, a.devices)
    for one in kept:
        print(f"{one.score:.4f}  {one.name}")
    if len(kept) > 1:
        print(f"{score:.4f}  their average, now the run's best checkpoint: {a.run / SOUP}. Next: sagitta test {a.run}")
    else:
        print("no average was as good; the run stays as it is")


def _probe(argv: list[str]) -> None:
    from rich.console import Console

    from sagitta import train
    from sagitta.convert import ConvertOptions
    from sagitta.data import ImageData
    from sagitta.probe import as_table, probe, write_run
    from sagitta.run import CONFIG_FILE, new_run_directory, save_config
    from sagitta.sources import SourceOptions

    a = _probe_parser().parse_args(argv)
    candidates = _candidates(a.model, a.weights)
    train.quiet()
    convert, layout = ConvertOptions(val=a.val, test=a.test), SourceOptions(group_column=a.group)
    data = ImageData(a.source, convert=convert, layout=layout, verbose=True)
    data.prepare_data()
    data.setup()
    run = new_run_directory(a.out, a.source)
    try:
        results = probe(data, candidates, image_size=a.image_size, batch_size=a.batch_size, verbose=True)
    except BaseException:
        run.rmdir()
        raise
    best = results[0].candidate
    given = {"--val": a.val, "--test": a.test, "--group": a.group, "--image-size": a.image_size}
    fit = [a.source, "--model", best.name, "--tune", "head"]
    fit += ["--weights", best.weights] if best.weights else ["--pretrained"]
    fit += [text for name, value in given.items() if value is not None for text in (name, str(value))]
    parser = _fit_parser()
    save_config(run / CONFIG_FILE, parser.dump(_parse_fit(parser, fit)))
    write_run(run, data, results, embed=a.embed)
    Console(width=None if sys.stdout.isatty() else 120).print(as_table(results))
    print(f"Everything is in {run}: {best.name} with its new head\nNext: sagitta predict {run} PHOTOS…")


def _probe_parser() -> argparse.ArgumentParser:
    parser = _command("probe", "Fit a linear head on the features of pretrained networks; the best one becomes a run.")
    parser.add_argument("source", metavar="DATA", help=_DATA_HELP)
    parser.add_argument("--model", metavar="A,B,C", required=True, help="networks of timm or torchvision")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        action="append",
        default=[],
        help="files or runs in the order of the networks, with commas or repeated (default: the published weights)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory to make (runs/NAME-1, -2, …)")
    parser.add_argument("--embed", action="store_true", help="keep all features as Parquet in the run directory")
    parser.add_argument("--batch-size", type=_positive, help="images at a time (what is fast on the device)")
    parser.add_argument("--image-size", type=_positive, help="pixels a side (that of the weights)")
    parser.add_argument("--val", type=float, help="share of rows for val where the source has none (0.1)")
    parser.add_argument("--test", type=float, help="likewise for test (0.1 where no split is given)")
    parser.add_argument("--group", metavar="COLUMN", help="manifest column whose equal values stay in one split")
    return parser


def _candidates(models: str, weights: list[str]) -> list["Candidate"]:
    """Return the networks with their weights, matched by order; those without a file take the published weights."""
    from sagitta.probe import Candidate

    names = [name for name in models.split(",") if name]
    files: list[str | None] = [file for text in weights for file in text.split(",")]
    if not names or len(files) > len(names):
        raise _config_error(f"--model names {len(names)} networks and --weights {len(files)} files; give one for each")
    files += [None] * (len(names) - len(files))
    return [Candidate(name, file or None) for name, file in zip(names, files, strict=True)]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least 1")
    return int(text)


def _predict(argv: list[str]) -> None:
    from sagitta import train
    from sagitta.predict import predict, write_predictions

    parser = _command("predict", "Classify image files; one row a file with class, probability and the runners-up.")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="image files, or folders of them")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=".csv or .parquet; without it, CSV on the terminal"
    )
    parser.add_argument("--top-k", type=int, default=5, help="how many classes a row")
    parser.add_argument("--batch-size", type=int, default=64, help="images a batch")
    parser.add_argument("--tta", choices=("flip",), help=_TTA_HELP)
    a = parser.parse_args(argv)
    train.quiet()
    table = predict(a.run, a.paths, top_k=a.top_k, batch_size=a.batch_size, flip=a.tta == "flip")
    write_predictions(table, a.output)
    unreadable = table.num_rows - table["error"].null_count
    if unreadable:
        print(
            f"sagitta: {unreadable} of {table.num_rows} files could not be read; the column error says why",
            file=sys.stderr,
        )
