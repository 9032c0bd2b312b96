"""Streams of predictions: the figures of a test, whatever the chunks; gone on with; a row for what cannot be read."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import nn

import sagitta
from sagitta.cli import main
from sagitta.errors import ConfigError, SourceError
from sagitta.evaluation import Asked, predict, predict_into
from sagitta.evaluation.inputs import open_inputs
from sagitta.evaluation.output import Unfinished
from sagitta.evaluation.predictor import Predictor

pytestmark = pytest.mark.usefixtures("inside")
RUN = Path("run")


def images(count: int = 120) -> list[str]:
    return sorted(map(str, Path("images").rglob("*.png")))[:count]


def test_the_test_split_of_the_dataset_gets_the_predictions_of_the_test() -> None:
    (data,) = Path("cache/datasets").iterdir()
    tested = pq.read_table(next(RUN.glob("tests/*/predictions.parquet")))
    found = predict(RUN, [data], Asked(every=True), split="test")
    assert found["path"].to_pylist() == tested["path"].to_pylist()
    assert found["class"].to_pylist() == tested["predicted"].to_pylist()
    ours = np.stack([found[f"p:{name}"].to_numpy() for name in sagitta.Run(RUN).class_names], axis=1)
    np.testing.assert_allclose(ours, np.stack(tested["probabilities"].to_pylist()), atol=1e-6)
    assert main(["predict", "run", str(data), "--split", "test", "-o", "test.parquet"]) == 0
    assert pq.read_table("test.parquet").equals(found.select(pq.read_schema("test.parquet").names))


def test_files_have_the_predictions_of_their_rows_in_every_size_of_batch() -> None:
    expected = predict(RUN, images(), Asked(batch_size=120))
    for size in (1, 7):
        found = predict(RUN, images(), Asked(batch_size=size))
        assert found.drop(["probability", "probability_2"]).equals(expected.drop(["probability", "probability_2"]))
        for name in ("probability", "probability_2"):
            np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), atol=1e-5)
    wrong = sum(row["class"] != Path(row["path"]).parent.name for row in expected.to_pylist())
    assert wrong < 12


def test_features_are_what_the_last_layer_is_given() -> None:
    classifier = sagitta.Run(RUN).classifier()
    found = predict(RUN, images(9), Asked(every=True, embed=True))
    assert classifier.network is not None
    head: Any = list(classifier.network.children())[-1]
    features = np.stack(found["features"].to_pylist())
    logits = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares[:, 0], found["p:green"].to_numpy(), atol=1e-5)
    both = predict(RUN, images(3), Asked(embed=True, flip=True))
    assert len(both["features"][0].as_py()) == features.shape[1]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_an_interrupted_table_goes_on_and_ends_with_the_same_bytes(
    suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.png").write_text("no image")
    command = ["predict", "run", "images", "broken.png", "images", "--batch-size", "50", "--all", "-o"]
    assert main([*command, f"whole{suffix}"]) == 0
    told, add = [], Unfinished.add

    def end(table: Unfinished, *batch: Any) -> None:
        add(table, *batch)
        told.append(table)
        if len(told) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Unfinished, "add", end)
    assert main([*command, f"found{suffix}"]) == 130
    assert f"kept in found{suffix}.partial, and the same command goes on from there" in capsys.readouterr().err
    assert not Path(f"found{suffix}").exists()
    assert main([*command, f"found{suffix}"]) == 0 and len(told) == 5
    words = capsys.readouterr().err
    assert "100 of 241 rows were there from before" in words
    assert "1 of 241 images could not be read, the first is broken.png: not an image" in words
    assert words.endswith(f"sagitta: 241 images in found{suffix}\n")
    assert Path(f"found{suffix}").read_bytes() == Path(f"whole{suffix}").read_bytes()
    assert not [*Path().glob("*.partial*"), *Path().glob("*.journal")]
    assert main([*command, f"found{suffix}"]) == 0 and "from before" not in capsys.readouterr().err


# A command that does nothing more behind its fourth batch, so that it does not end before it is killed.
STOPPED = """
import sys, time
from sagitta.cli import main
from sagitta.evaluation.output import Unfinished
add, done = Unfinished.add, []
def last(*batch):
    add(*batch)
    done.append(batch)
    if len(done) == 4:
        time.sleep(600)
Unfinished.add = last
main(sys.argv[1:])
"""


@pytest.mark.parametrize("suffix", [".csv", pytest.param(".jsonl", marks=pytest.mark.slow)])
def test_killed_in_the_middle_a_table_goes_on_and_ends_with_the_same_bytes(
    suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", "run", *["images"] * 4, "--batch-size", "64", "-o"]
    output, partial, journal = (Path(f"killed{suffix}{end}") for end in ("", ".partial", ".journal"))
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", STOPPED, *command, str(output)])
    try:
        while not (journal.exists() and journal.read_bytes().count(b"\n") == 2 + 4):
            assert process.poll() is None
            time.sleep(0.01)
        seen = partial.read_bytes()  # as `tail` does, while it runs
    finally:
        process.kill()
    assert process.wait() < 0 and not output.exists()
    assert seen.endswith(b"\n") and seen.count(b"\n") == 4 * 64 + (suffix == ".csv")
    with partial.open("ab") as file:
        file.write(b'"torn')
    assert main([*command, str(output)]) == 0 and "256 of 480 rows were there from before" in capsys.readouterr().err
    assert main([*command, f"whole{suffix}"]) == 0 and "from before" not in capsys.readouterr().err
    whole = Path(f"whole{suffix}").read_bytes()
    assert output.read_bytes() == whole and whole.startswith(seen) and not partial.exists() and not journal.exists()


def test_a_table_of_other_images_options_or_weights_is_begun_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("run", "other", dirs_exist_ok=True)
    add = Unfinished.add

    def end(table: Unfinished, *batch: Any) -> None:
        add(table, *batch)
        raise KeyboardInterrupt

    def interrupted(run: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Unfinished, "add", end)
            with pytest.raises(KeyboardInterrupt):
                predict_into(Path(run), images(9), Path("some.csv"), Asked(batch_size=4))

    for run, count, size, what in (("run", 8, 4, "images"), ("run", 9, 3, "options"), ("other", 9, 4, "run")):
        interrupted("run")
        asked = Asked(batch_size=size)
        predict_into(Path(run), images(count), Path("some.csv"), asked)
        assert f"some.csv.partial was of another table (other {what})" in capsys.readouterr().err
        predict_into(Path(run), images(count), Path("again.csv"), asked)
        assert Path("some.csv").read_bytes() == Path("again.csv").read_bytes()


def test_a_split_of_what_is_not_divided_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """All of its images would else pass for those that the run's own test has measured."""
    first, *_ = images()
    table = Path("undivided.csv")
    table.write_text(f"file,label\n{first},{Path(first).parent.name}\n")
    for source in ("images", "digits", str(table)):
        assert main(["predict", "run", source, "--split", "test", "-o", "no.csv"]) == 2
        assert f"{source} is not divided by itself" in capsys.readouterr().err and not Path("no.csv").exists()
    table.write_text(f"file,label,split\n{first},{Path(first).parent.name},train\n")
    for split in ("test", "train"):  # of a train that it names itself, a run makes its own
        assert main(["predict", "run", str(table), "--split", split, "-o", "no.csv"]) == 2
        assert f"--split {split}: {table} has train only, which counts as undivided" in capsys.readouterr().err
    table.unlink()


def test_images_that_were_changed_in_place_are_not_mixed_with_what_they_were(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("images/red", "changing", dirs_exist_ok=True)
    command = ["predict", "run", "changing", "--batch-size", "9"]
    assert main([*command, "-o", "whole.csv"]) == 0
    striking = [line for line in capsys.readouterr().err.splitlines() if "like none of the classes" in line]
    chunk, add = Predictor.chunk, Unfinished.add

    def once(table: Unfinished, *batch: Any) -> None:
        add(table, *batch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "chunk", 9)
        patch.setattr(Unfinished, "add", once)
        assert main([*command, "-o", "cut.csv"]) == 130
    assert chunk is Predictor.chunk
    for what in ("partial", "journal"):
        shutil.copy(f"cut.csv.{what}", f"kept.{what}")
    assert main([*command, "-o", "cut.csv"]) == 0  # what is said in the end is of all rows
    told = capsys.readouterr().err
    assert "9 of 60 rows were there from before" in told and all(line in told for line in striking)
    assert Path("cut.csv").read_bytes() == Path("whole.csv").read_bytes()

    for what in ("partial", "journal"):
        shutil.move(f"kept.{what}", f"cut.csv.{what}")
    for path in Path("changing").iterdir():
        shutil.copy(images()[0], path)  # a green one
    assert main([*command, "-o", "cut.csv"]) == 0
    assert "was of another table (other images)" in capsys.readouterr().err
    with Path("cut.csv").open(newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} == {"green"}


def test_what_cannot_be_read_is_a_row_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    (folder := Path("mixed")).mkdir(exist_ok=True)
    shutil.copy(images(1)[0], folder / "a b,\nc.png")
    (folder / "half.png").write_bytes(Path(images(1)[0]).read_bytes()[:200])
    (folder / "text.png").write_text("no image")
    command = ["predict", "run", "mixed", "gone.png", images(1)[0], images(1)[0], "-o", "rows.csv"]
    Path("gone.png").symlink_to("nowhere")
    assert main(command) == 0 and main([*command, "--strict"]) == 1
    assert "3 of 6 images could not be read, the first is mixed/half.png" in capsys.readouterr().err
    with Path("rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [
        *("mixed/a b,\nc.png", "mixed/half.png", "mixed/text.png", "gone.png"),
        *images(1) * 2,
    ]
    assert [bool(row["error"]) for row in rows] == [False, True, True, True, False, False]
    assert rows[0]["class"] == rows[4]["class"] == "green" and rows[1]["class"] == ""
    assert main([*command, "--columns", "id,label", "--strict"]) == 1
    assert "2 images share their id with another one" in capsys.readouterr().err
    assert Path("rows.csv").read_text().splitlines()[:3] == ['"id","label"', '"a b,', 'c","green"']
    capsys.readouterr()
    with pytest.raises(SourceError, match=r"none of the 2 images is readable; mixed/text\.png: not an image"):
        predict_into(RUN, ["mixed/text.png", "mixed/half.png"], Path("none.csv"))
    with pytest.raises(SourceError, match="none of the 1 images"):
        predict(RUN, ["mixed/text.png"])
    assert not list(Path().glob("none.csv*"))


def test_standard_output_gets_csv_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "images/red", "--top-k", "1", "--batch-size", "9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '"path","class","probability","error"' and len(lines) == 61
    assert main(["predict", "run", "images/red", "--top-k", "1", "--batch-size", "9", "-o", "-"]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_standard_output_gets_lines_of_json_where_its_name_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "run", "images/red", "--batch-size", "9"]
    for words in (["-o", "-.jsonl"], ["--output=-.jsonl"], ["-o", "lines.jsonl"]):
        assert main([*command, *words]) == 0
    printed = capsys.readouterr().out.encode()
    assert printed == Path("lines.jsonl").read_bytes() * 2 and not list(Path().glob("-*"))
    assert main([*command, "-o", "-.parquet"]) == 2 and "name a file for Parquet" in capsys.readouterr().err


def test_images_are_sorted_into_folders_of_their_classes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "images/red", "--sort-into", "sorted", "-o", "sorted.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("sorted.jsonl").read_text().splitlines()]
    assert sorted(str(path) for path in Path("sorted").rglob("*.png")) == sorted(
        f"sorted/{row['class']}/{Path(row['path']).name}" for row in rows
    )
    assert main(["predict", "run", "images/red", "--copy"]) == 2
    assert main(["predict", "run", "images", "--sort-into", "images/sorted"]) == 2
    assert "would be found again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(device="gpu0"), "device gpu0"),
        (Asked(device="cuda:x"), "give auto, cpu, cuda"),
        (Asked(device="cpu", precision="16-mixed"), "not on a CPU"),
        (Asked(precision="7-bit"), "precision 7-bit"),
        (Asked(columns="id,klass"), "'klass' is no column"),
        (Asked(columns="green=id,all"), "green is given twice"),
        (Asked(columns="id,label", every=True), "leave --all and --embed out"),
        (Asked(top_k=0), "--top-k 0"),
        (Asked(batch_size=0), "--batch-size 0"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(asked: Asked, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        predict_into(RUN, images(1), Path("none.csv"), asked)
    assert "\n" not in str(error.value) and not list(Path().glob("none.csv*"))


def test_lower_precision_is_near() -> None:
    expected = predict(RUN, images(9))["probability"].to_numpy()
    found = predict(RUN, images(9), Asked(precision="bf16-mixed", device="cpu"))["probability"].to_numpy()
    assert 0 < np.abs(found - expected).max() < 0.05


def test_outputs_that_are_not_finite_are_rows_with_a_reason() -> None:
    predictor = Predictor(RUN, Asked(batch_size=4))
    network: Any = predictor.members[0].network
    inner, calls = network.forward, []

    def odd(pixels: Any) -> Any:
        calls.append(len(pixels))
        logits = inner(pixels)
        if len(calls) == 1:
            logits[1] = float("nan")
        return logits

    network.forward = odd
    (found,) = predictor.predict(open_inputs(images(9)))
    assert list(found.errors) == [1] and "not finite" in found.errors[1] and sorted(found.classes) == [0, *range(2, 9)]
    assert found.table["class"].null_count == found.table["error"].null_count - 7 == 1 and calls == [4, 4, 1]


@pytest.fixture
def hastened(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the images were many."""
    monkeypatch.setattr("sagitta.models.compiled._PIXELS", 1)


@pytest.mark.usefixtures("hastened")
def test_openvino_says_the_same_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(every=True, embed=True)
    fast = predict(RUN, images(), asked)
    told = capsys.readouterr().err
    assert re.search(r"OpenVINO [\d.]+ computes the network, .*probabilities of 60 images agree within 1e-04", told)
    monkeypatch.setattr("sagitta.evaluation.predictor.can_translate", lambda: False)
    slow = predict(RUN, images(), asked)
    assert "pip install 'sagitta[fast]'" in capsys.readouterr().err
    assert fast.schema == slow.schema and fast["class"].equals(slow["class"])
    for name in fast.schema.names:
        if name.startswith("p:") or name in ("features", "probability", "unfamiliar"):
            ours, plain = (np.array(table[name].to_pylist()) for table in (fast, slow))
            np.testing.assert_allclose(ours, plain, atol=1e-4 * max(1, np.abs(plain).max()))


@pytest.mark.usefixtures("hastened")
def test_a_table_of_another_engine_is_another_table() -> None:
    predictor, inputs = Predictor(RUN, Asked()), open_inputs(images())
    plain = predictor.key(inputs)
    predictor.hasten(inputs)
    assert predictor.engine.startswith("OpenVINO") and predictor.key(inputs) != plain


@pytest.mark.usefixtures("hastened")
@pytest.mark.parametrize("wrong", [lambda *_: None, lambda body, _: nn.Sequential(body, nn.Softmax(dim=1))])
def test_an_engine_that_answers_otherwise_is_not_used(
    wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Predictor(RUN, Asked())
    expected = pa.Table.from_batches([found.table for found in plain.predict(open_inputs(images()))], plain.schema)
    monkeypatch.setattr("sagitta.models.compiled.translated", wrong)
    found = predict(RUN, images(), Asked())
    assert "PyTorch computes the network" in capsys.readouterr().err
    assert found.equals(expected)


@pytest.mark.usefixtures("hastened")
def test_images_of_all_parts_are_compared(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"a{number}.jpg").write_text("no image")
    unreadable = sorted(map(str, tmp_path.iterdir()))
    told = Predictor(RUN, Asked()).hasten(open_inputs([*unreadable, *images()]))
    assert told is not None and "probabilities of 40 images agree" in told
    told = Predictor(RUN, Asked()).hasten(open_inputs([*unreadable, *images(20)]))
    assert told is not None and re.search(r"PyTorch computes the network: only \d+ of \d+ images", told)


@pytest.mark.usefixtures("hastened")
def test_other_precisions_and_few_images_are_left_to_pytorch() -> None:
    assert Predictor(RUN, Asked(precision="bf16-mixed")).hasten(open_inputs(images())) is None
    told = Predictor(RUN, Asked()).hasten(open_inputs(images(20)))
    assert told is not None and told.endswith("only 20 of 20 images to compare by can be read")
