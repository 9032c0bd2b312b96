"""One resolution of settings: checked when made, decided by the recipe for the true situation, the same in YAML."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sagitta.conversion.pipeline import convert
from sagitta.dataset.shards import ShardSet
from sagitta.errors import ConfigError
from sagitta.models.recipe import Situation, choose
from sagitta.settings import OPTIONS, Settings, _outline, _parser, check_early, seconds_of, settings_of, unknown_option
from sagitta.sources.detect import open_source


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    root = tmp_path_factory.mktemp("digits")
    convert(open_source("digits", cache=root), root / "dataset")
    return ShardSet.open(root / "dataset")


def test_settings_are_the_same_after_pickle_yaml_and_a_second_resolution(digits: ShardSet, tmp_path: Path) -> None:
    settings = Settings.of({"source": "digits", "model.lr": "2e-3", "data": {"augmentation": {"erase": 0.25}}})
    assert settings.model["lr"] == 0.002 and settings.data["augmentation"]["erase"] == 0.25
    assert pickle.loads(pickle.dumps(settings)) == settings
    resolved = settings.resolve(digits)
    assert settings.undecided() and not resolved.undecided() and resolved.resolve(digits) == resolved
    assert resolved.model["lr"] == 0.002 and resolved.patience is not None
    (tmp_path / "config.yaml").write_text(resolved.to_yaml())
    assert Settings.read(tmp_path / "config.yaml") == resolved


def test_classes_of_the_trainer_are_settings_too(tmp_path: Path) -> None:
    values = {"trainer.strategy": "DDPStrategy", "trainer.strategy.find_unused_parameters": "true"}
    bar = {"trainer.callbacks+": "lightning.pytorch.callbacks.RichProgressBar", "trainer.accelerator": "cpu"}
    settings = Settings.of({"source": "digits", **values, **bar})
    arguments = settings.trainer_arguments()
    assert [type(each).__name__ for each in arguments["callbacks"]] == ["RichProgressBar"]
    assert type(arguments["strategy"]).__name__ == "DDPStrategy"
    assert settings.trainer["strategy"]["init_args"]["find_unused_parameters"] is True
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    assert Settings.read(tmp_path / "config.yaml") == settings == pickle.loads(pickle.dumps(settings))


def test_the_recipe_is_that_of_the_true_situation(digits: ShardSet) -> None:
    settings = Settings.of({"source": "digits", "trainer.accelerator": "cpu"})
    recipe = choose(Situation(8, len(digits.splits["train"]), classes=10))
    resolved = settings.resolve(digits)
    assert (resolved.model["name"], resolved.model["lr"], resolved.trainer["max_epochs"]) == (
        recipe.name,
        recipe.lr,
        recipe.epochs,
    )
    photos = settings.changed({"data.image_size": 224}).resolve(digits)
    assert photos.model["name"] == "resnet18"
    steps = settings.changed({"trainer.max_steps": 7}).resolve(digits)
    assert steps.trainer["max_epochs"] is None  # the steps end it


def test_what_is_to_be_measured_stays(digits: ShardSet) -> None:
    resolved = Settings.of({"source": "digits", "model.lr": "auto", "data.batch_size": "auto"}).resolve(digits)
    assert resolved.model["lr"] == resolved.data["batch_size"] == "auto" and not resolved.undecided()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model.lr": "abc"}, "--lr abc: must be a number or auto"),
        ({"model": {"lr": [1]}}, "--lr [1]: must be a number or auto"),
        ({"trainer.max_epochs": 2.5}, "--epochs 2.5: must be a whole number"),
        ({"model.tune": "tail"}, "--tune tail: must be head or full or gradual"),
        ({"data.balanced": "maybe"}, "--data.balanced maybe: must be true or false"),
        ({"model.learning_rate": 1}, "--model.learning_rate: no such option; did you mean --lr?"),
        ({"trainer.max_epoch": 3}, "--trainer.max_epoch: no such option; did you mean --epochs?"),
        ({"data.augmentation.cutout": 1.5}, "augmentation out of range"),
        ({"data.convert.quality": 200}, "quality 200: must be 1 to 100"),
    ],
)
def test_a_wrong_value_is_one_sentence(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.of({"source": "digits", **values})
    assert str(caught.value).startswith(words)


def test_no_data_is_said() -> None:
    with pytest.raises(ConfigError, match="no DATA given"):
        Settings.of({})


def test_later_bases_and_options_count(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("source: photos\nmodel:\n  lr: 1e-3\n  name: resnet18\ntrainer: {}\n")
    settings = settings_of(None, {"lr": 5e-3, "epochs": None}, tmp_path / "config.yaml", {"trainer.max_steps": 3})
    assert (settings.source, settings.model["name"], settings.model["lr"]) == ("photos", "resnet18", 5e-3)
    assert settings.trainer["max_steps"] == 3 and settings.trainer["max_epochs"] is None


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no such file"), ("a: [", "not YAML"), ("- 1", "no names and values"), ("\x00", "not YAML")],
)
def test_a_bad_configuration_file_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        Settings.read(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("--learning-rate", "--lr"),
        ("--modle", "--model"),
        ("--batch_size", "--batch-size"),
        ("--max-epochs", "--epochs"),
        ("--max-steps", "--trainer.max_steps"),
        ("--restart-markers", "--data.convert.restart_markers"),
    ],
)
def test_an_unknown_option_names_the_nearest(name: str, meant: str) -> None:
    error = unknown_option(name, [f"--{option.name}" for option in OPTIONS])
    assert str(error) == f"{name}: no such option; did you mean {meant}?"


def test_every_option_is_a_setting() -> None:
    settings = Settings.of({"source": "digits"})
    for option in OPTIONS:
        group, _, name = option.key.rpartition(".")
        assert name in (settings.get(option.key), *_names(settings, group)), option


def _names(settings: Settings, group: str) -> list[str]:
    inside: Any = vars(settings)
    for part in filter(None, group.split(".")):
        inside = inside[part]
    return list(inside)


def test_the_ranges_that_help_names_are_those_of_the_recipes() -> None:
    """What stands in brackets behind an option spans what ``choose`` gives over very different situations."""
    situations = [
        Situation(size, rows, pretrained=pretrained, tune=tune, model=model, classes=10, head_first=pretrained)
        for size in (8, 32, 224)
        for rows in (100, 5_000, 50_000, 2_000_000)
        for pretrained in (False, True)
        for tune in ("full", "head")
        for model in ("auto", "resnet18")
    ]
    recipes = [choose(situation) for situation in situations]
    helps = {option.name: option.help for option in OPTIONS}
    for name, field in (("epochs", "epochs"), ("batch-size", "batch_size"), ("patience", "patience")):
        values = [getattr(recipe, field) for recipe in recipes]
        assert f"({min(values)} to {max(values)})" in helps[name]
    assert (min(r.lr for r in recipes), max(r.lr for r in recipes)) == (3e-4, 6e-3)
    assert "(3e-4 to 6e-3)" in helps["lr"]
    assert (min(r.ema for r in recipes), max(r.ema for r in recipes)) == (0, 0.999) and "(0 to 0.999)" in helps["ema"]


@pytest.mark.parametrize(("range", "bands"), [("0,4095", "3,2,1"), ("auto", "4"), ("-1000,0.5", None)])
def test_ranges_and_bands_are_text_in_yaml_too(range: str, bands: str | None, tmp_path: Path) -> None:
    settings = settings_of("photos", {"range": range, "bands": bands})
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    for each in (settings, Settings.read(tmp_path / "config.yaml")):
        assert (each.get("data.convert.range"), each.get("data.convert.bands")) == (range, bands)


@pytest.mark.parametrize("options", [{"range": "4095,0"}, {"range": "dark"}, {"bands": "1,2"}, {"bands": "red"}])
def test_a_range_or_bands_that_are_none_are_one_sentence(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(options))} {next(iter(options.values()))}: give ") as caught:
        settings_of("photos", options)
    assert "\n" not in str(caught.value)


def test_a_time_has_its_unit() -> None:
    assert [seconds_of(text) for text in ("90s", "10m", "1h", "1h30m", "1h0m5s", " 2M ")] == [
        90, 600, 3600, 5400, 3605, 120
    ]  # fmt: skip
    for text in ("", "10", "m", "0s", "1.5h", "-1m", "30m1h", "10 m", "10min"):
        with pytest.raises(ConfigError, match="--time"):
            seconds_of(text)
    with pytest.raises(ConfigError, match="did you mean 600m, or 600s"):
        Settings.of({"source": "photos", "time": 600})


def test_one_batch_is_not_all_of_them_whatever_was_imported_before() -> None:
    """``Optional[Union[int, float]]`` is ``Union[float, int]`` behind whoever says that first, as scikit-learn does."""
    program = (
        "from typing import Optional, Union\n"
        "Optional[Union[float, int]]\n"
        "from sagitta.settings import Settings\n"
        "names = [f'limit_{stage}_batches' for stage in ('train', 'val', 'test')] + ['overfit_batches']\n"
        "for one in (1, '1', 1.0, '1.0'):\n"
        "    given = Settings.of({'source': 'digits', **{f'trainer.{name}': one for name in names}})\n"
        "    print(*(f'{given.trainer[name]!r} {given.trainer_arguments()[name]!r}' for name in names))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"] * 16 + ["1.0"] * 16


def test_the_outline_has_the_settings_of_the_whole_with_the_same_defaults() -> None:
    found, wanted = _outline().get_defaults().as_flat(), _parser().get_defaults().as_flat()
    assert set(vars(found)) == set(vars(wanted))
    assert {name: value for name, value in vars(wanted).items() if vars(found)[name] != value} == {}


def test_what_the_outline_refuses_reads_as_what_the_whole_refuses() -> None:
    code = """
import sys
from sagitta.errors import ConfigError
from sagitta.settings import Settings, _parser
if sys.argv[1:]:
    _parser()
for name, value in (
    ("model.lr", "x"), ("model.tune", "x"), ("trainer.max_steps", "1.5"), ("trainer.precision", "fp16"),
    ("data.augmentation.auto", "x"), ("data.folds", 1), ("model.mixup", -1), ("seed", -1), ("data.convert.val", 2),
    ("data.image_size", 0), ("trainer.nonsense", 1), ("data.convert.nonsense", 1), ("ema", "x"), ("keep", "x"),
):
    try:
        Settings.of({"source": "digits", name: value})
    except ConfigError as error:
        print(name, error)
print("torch" in sys.modules)
"""
    texts = [
        subprocess.run([sys.executable, "-c", code, *more], capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
        for more in ([], ["whole"])
    ]
    assert texts[0][-2:] == ["False", ""] and texts[1][-2:] == ["True", ""]
    assert len(texts[0]) == 16 and texts[0][:-2] == texts[1][:-2]


def test_the_outline_makes_no_object_of_a_class_that_somebody_names(recwarn: pytest.WarningsRecorder) -> None:
    given = {"trainer.callbacks": [{"class_path": "collections.Counter", "init_args": {"monitor": "val_loss"}}]}
    early = check_early("digits", {"val": 0.2}, given)
    assert early["trainer.callbacks"] == given["trainer.callbacks"] and early["data.convert.val"] == 0.2
    assert not recwarn.list
