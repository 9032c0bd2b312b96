"""Every option of every command takes every value, or refuses it in one line: no traceback reaches a person.

The options are taken from help and from the settings, so that a new one is covered by itself.
"""

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sagitta as package
from sagitta.cli import main
from sagitta.cli.options import Command
from sagitta.errors import ConfigError, SagittaError
from sagitta.settings import Settings, full_help

from .test_cli import Result, refused, sagitta

VALUES = ("-1", "0", "1e30", "1000000000000", "nan", "inf", "", "null", "abc")
COSTLY = ("", "-1", "1000000000000")
"""For commands that read a run at each call."""
NAMED = re.compile(r"^  (?:-\w, )?(--[\w-]+)", re.MULTILINE)
SLOW = {"model.compile", "trainer.num_nodes", "trainer.strategy", "trainer.profiler", "trainer.max_epochs"}
"""Not run: compiling takes minutes, other nodes are waited for, and epochs without end are what was asked for."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 64 images, their dataset, and a run on it."""
    work = tmp_path_factory.mktemp("options")
    rng = np.random.default_rng(0)
    for number in range(64):
        (folder := work / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(folder / f"{number}.png")
    assert sagitta("convert", "photos", "dataset", cwd=work).returncode == 0
    assert sagitta("fit", "dataset", *FAST, "--out", "run", cwd=work).returncode == 0
    return work


FAST = ("--model", "simple-cnn", "--epochs", 1, "--batch-size", 8, "--trainer.accelerator", "cpu")


def refusal(values: dict[str, Any]) -> str | None:
    """Return why settings are refused, None where they are not; any other error is one."""
    try:
        Settings.of(values).to_yaml()
    except SagittaError as error:
        return str(error)
    return None


def options_of(command: str, work: Path) -> list[str]:
    found = NAMED.findall(sagitta(command, "--help", cwd=work).stdout)
    assert len(found) > 1
    return [name for name in found if name != "--help"]


def taken_or_refused(result: Result, *words: object) -> None:
    if result.returncode != 0:
        refused(result)
    assert "Traceback" not in result.stderr, words


@pytest.mark.parametrize(
    ("command", "arguments", "values"),
    [
        ("convert", ["photos", "out"], VALUES),
        ("inspect", ["dataset"], VALUES),
        ("predict", ["run", "photos"], COSTLY),
        ("test", ["run", "photos"], COSTLY),
        ("validate", ["run", "photos"], COSTLY[:1]),
        ("probe", ["photos", "--model", "simple-cnn", "--weights", "run"], COSTLY[:2]),
    ],
)
def test_every_option_takes_or_refuses_every_value(
    work: Path, command: str, arguments: list[str], values: tuple[str, ...]
) -> None:
    for name in options_of(command, work):
        for value in values:
            taken_or_refused(sagitta(command, *arguments, f"{name}={value}", cwd=work), name, value)
            shutil.rmtree(work / "out", ignore_errors=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Encountered .nan. values")  # a learning rate of 1e30 ends there
def test_every_setting_takes_or_refuses_every_value_and_what_is_left_trains(work: Path) -> None:
    keys = dict.fromkeys(re.findall(r"^  --([\w.]+)", full_help(), re.MULTILINE))
    assert len(keys) > 80
    left: list[tuple[str, str]] = []
    for key in keys:
        for value in VALUES:
            if (why := refusal({"source": str(work / "dataset"), key: value})) is None:
                left.append((key, value))
            assert why != "" and "\n" not in (why or ""), (key, value)
    for key, value in [each for each in left if each[0] not in SLOW][::12]:
        run = sagitta("fit", "dataset", *FAST, "--trainer.fast_dev_run", "1", f"--{key}={value}", cwd=work)
        taken_or_refused(run, key, value)


@pytest.mark.parametrize(
    "value", [[1], {"a": {}}, (), b"x", object(), float("nan"), float("-inf"), 1j, {1}, 10**30, -1, Settings]
)
def test_values_of_the_wrong_kind_from_python_are_refused_in_one_line(value: Any) -> None:
    for key in (
        "source",
        "seed",
        "model.lr",
        "model.weights",
        "data.image_size",
        "data.convert.val",
        "trainer.devices",
    ):
        assert "\n" not in (refusal({"source": "digits", key: value}) or ""), (key, value)


def test_names_that_mean_nothing_elsewhere_are_names() -> None:
    settings = Settings.of({"source": "digits", "data.layout.label_column": "null", "data.layout.group_column": "~"})
    assert settings.data["layout"]["label_column"] == "null" and settings.data["layout"]["group_column"] == "~"
    assert Settings.of({"source": "digits", "patience": "null"}).patience is None


@pytest.mark.parametrize("option", [("--val", "0.3"), ("--label-column", "x"), ("--layout", "folders")])
def test_what_a_converted_dataset_cannot_take_is_refused(work: Path, option: tuple[str, str]) -> None:
    refused(sagitta("fit", "dataset", *FAST, *option, cwd=work), "dataset: converted already", option[1])


def test_two_dashes_are_no_value() -> None:
    for option in ("--val", "--split", "--tta"):
        with pytest.raises(ConfigError, match=f"argument {option}: expected one argument"):
            Command("test", "", "").parse([f"{option}=--"])


def test_the_whole_help_has_no_markup(work: Path) -> None:
    text = sagitta("fit", "--help", "all", cwd=work).stdout
    assert "`" not in text and ":class:" not in text and "--data.augmentation.erase" in text


COMMANDS = (
    "convert", "inspect", "doctor", "fit", "validate", "test", "probe", "ensemble", "predict", "explain", "export",
    "push", "serve", "report",
)  # fmt: skip
OWN = {"exporting": ("export", "push"), "serving": ("serve",), "reporting": ("report", "fit")}
"""Packages whose errors are those of these commands alone; what others say may come of any."""


def raised_texts(path: Path) -> list[str]:
    """Return the text of each error that a module raises, with a star for what is filled in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            for text in ast.walk(node.exc):
                if isinstance(text, ast.JoinedStr):
                    found.append(
                        "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in text.values)
                    )
                elif isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found.append(text.value)
    return found


def test_errors_name_options_that_the_command_has(capsys: pytest.CaptureFixture[str]) -> None:
    has: dict[str, set[str]] = {}
    for command in COMMANDS:
        with pytest.raises(SystemExit, match=r"^0$"):
            main([command, "--help"])
        has[command] = {*re.findall(r"(--[\w-]+)", capsys.readouterr().out), "--help"}
    source = Path(package.__file__).parent
    checked = 0
    for path in source.rglob("*.py"):
        inside = path.relative_to(source)
        if inside.parts[0] == "cli" or (not inside.parent.name.isidentifier() and inside.parent.name):
            continue
        for text in raised_texts(path):
            for said in re.finditer(r"sagitta (\w+)([^;`]*)", text):
                if said[1] in has:
                    named = set(re.findall(r"--[a-z][\w-]*(?![\w.-])", said[2]))
                    assert named <= has[said[1]], f"{inside}: {text}"
            alone = re.sub(r"sagitta (\w+)([^;`]*)", "", text)
            commands = OWN.get(inside.parts[0], COMMANDS)
            for option in re.findall(r"--[a-z][\w-]*(?![\w.-])", alone):
                assert any(option in has[command] for command in commands), f"{inside}: {text}"
                checked += 1
    assert checked > 60


ADVISED = re.compile(r"--(?:range|bands|layout|(?:path|label|split)-column|label-separator|group|min-images)\b")


@pytest.mark.parametrize(
    ("command", "lacks"),
    [
        (("predict", "run"), True),
        (("test", "run"), True),
        (("validate", "run"), True),
        (("export", "run", "--data"), True),
        (("benchmark", "run", "--data"), True),
        (("fit",), False),
        (("convert",), False),
        (("doctor",), False),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_complaint_advises_only_what_the_command_has(
    work: Path,
    command: tuple[str, ...],
    lacks: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Or says where to go with it: whoever reads a source does not know for whom."""
    monkeypatch.chdir(work)
    if not Path("deep").is_dir():
        Path("deep/a").mkdir(parents=True)
        Image.fromarray(np.linspace(-1, 1, 81, dtype=np.float32).reshape(9, 9)).save("deep/a/1.tif")
        Path("table.csv").write_text("what,kind,sort\nphotos/a/0.png,x,y\n")
    with pytest.raises(SystemExit):
        main([command[0], "--help"])
    own = set(NAMED.findall(capsys.readouterr().out))
    advised = False
    for data in ("deep", "table.csv"):
        assert main([*command, data, *(("out",) if command == ("convert",) else ())]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        options = set(ADVISED.findall(line))
        assert options, line
        advised |= not options <= own
        assert options <= own or "of sagitta convert, so make a dataset with that, and give it here" in line, line
    assert advised == lacks
