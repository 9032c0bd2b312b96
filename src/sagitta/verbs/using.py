"""What is done with a run: test, predict, explain, report, export, benchmark."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from sagitta.models import preload
from sagitta.run import CONFIG_FILE, checkpoints_of, run_of
from sagitta.settings import check_early, keys_of, own_source
from sagitta.terminal import show
from sagitta.verbs.places import PathLike, listed, path_of, plain

if TYPE_CHECKING:
    import pyarrow as pa

    from sagitta.evaluation import Evaluation, Explanations
    from sagitta.exporting import Benchmark, Exported, Pushed


def evaluate(
    run: PathLike,
    source: PathLike | None = None,
    *,
    split: Literal["train", "val", "test"] | None = None,
    batch_size: int | None = None,
    devices: int | str | Sequence[int] = "auto",
    flip: bool = False,
    layout: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    label_separator: str | None = None,
) -> "Evaluation":
    """Evaluate a run's best checkpoint, or a checkpoint file; classes are matched by name, or refused.

    Other data than the run's is never divided: every image of it counts, or every one of the split that is chosen.
    Each test is recorded in the run's directory, whose report is written anew; but for one of ``val``. What is returned
    says in ``tested`` what was evaluated, and how many of the images the model was trained on.

    Args:
        run: run directory or checkpoint file.
        source: other data than the run's own: a folder of test images, or anything that :func:`convert` takes.
        split: of data that has several; by default ``test``, or ``val``, and figures named so, where there is no test.
        batch_size: images a device and batch (64).
        devices: as Lightning's Trainer takes it.
        flip: take the mean of the probabilities of each image and its mirror image.
        layout: as for :func:`convert`, and so the next four.
        path_column: see there.
        label_column: see there.
        split_column: see there.
        label_separator: see there.

    Raises:
        SagittaError: there is no such run, the data cannot be read, or has classes that the model does not know.
    """
    began = monotonic()
    options = {
        "batch_size": batch_size,
        "layout": layout,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "label_separator": label_separator,
    }
    where, purpose = plain(source), "val" if split == "val" else "test"
    checkpoints_of(path_of(run))
    if where is None:
        own_source(path_of(run))
    else:
        check_early(where, options, {"data.convert.purpose": purpose})
    preload()
    from sagitta.evaluation import evaluate as evaluate_run
    from sagitta.reporting import leave_report

    how: dict[str, Any] = {"purpose": purpose, "devices": devices, "flip": flip}
    evaluation = evaluate_run(path_of(run), where, split, keys_of(options), **how)
    if evaluation.folder is not None:
        leave_report(evaluation.folder.parents[1], monotonic() - began)
    return evaluation


def predict(
    run: PathLike,
    paths: PathLike | Sequence[PathLike],
    *,
    top_k: int = 5,
    every: bool = False,
    embed: bool = False,
    columns: str | None = None,
    split: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str | None = None,
    flip: bool = False,
    accuracy: float | None = None,
    coverage: float | None = None,
) -> Any:
    """Classify images; returns one row an image with class, probability and the runners-up.

    A pandas DataFrame where pandas is installed, else an Arrow table; the columns are those of
    :func:`sagitta.evaluation.predict`. ``unfamiliar``, of runs that could note how their training images look, is the
    share of known images that look less unusual to the model; from 0.99 on an image looks like none of the classes.

    Args:
        run: run directory or checkpoint file.
        paths: image files, folders of them, patterns such as ``photos/**/*.jpg``, tars and zips, or datasets.
        top_k: how many classes a row.
        every: a column ``p:CLASS`` for the probability of every class.
        embed: a column ``features``: what the network's last layer is given.
        columns: a template in place of the usual columns, such as ``id,label``.
        split: of datasets, all by default.
        batch_size: images at a time, by default what is fast on the device.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        precision: as Lightning names it; by default that of the training, and on a CPU float32.
        flip: take the mean of the probabilities of each image and its mirror image.
        accuracy: share of answers that are right, such as 0.99; ``abstain`` is true below the probability from which
            on the run's validation images reach it. Refused where none does.
        coverage: share of images whose class is in ``set``, such as 0.9.

    Raises:
        SagittaError: there is no such run or file, no image is readable, or what is asked for cannot be promised.
    """
    how: dict[str, Any] = {
        "top_k": top_k, "every": every, "embed": embed, "columns": columns, "split": split, "batch_size": batch_size,
        "device": device, "precision": precision, "flip": flip, "accuracy": accuracy, "coverage": coverage,
    }  # fmt: skip
    table = predict_table(run, paths, **how)
    return table.to_pandas() if find_spec("pandas") else table


def explain(
    run: PathLike,
    paths: PathLike | Sequence[PathLike],
    *,
    class_name: str | None = None,
    nearest: int = 5,
    output: PathLike | None = None,
) -> "Explanations":
    """Show what speaks for a class in images, and the training images that are most like them; in a notebook, pictures.

    Args:
        run: run directory or checkpoint file.
        paths: as for :func:`predict`.
        class_name: ``--class``, a word that Python keeps for itself; by default the most probable one, and of several
            labels each that is given.
        nearest: how many training images of each; 0 looks for none.
        output: folder for a picture of each and ``nearest.csv``, too.

    Raises:
        SagittaError: there is no such run, class or file, no image is readable, or the network has no positions.
    """
    from sagitta.evaluation import inputs_for

    folder, inputs = None if output is None else path_of(output), inputs_for(path_of(run), listed(paths))
    preload()
    from sagitta.evaluation import explain as explain_images

    found, notes = explain_images(path_of(run), inputs, class_name=class_name, nearest=nearest, output=folder)
    for note in notes:
        show(note)
    return found


def predict_table(
    run: PathLike, paths: PathLike | Sequence[PathLike], *, split: str | None = None, **asked: Any
) -> "pa.Table":
    """Do what :func:`predict` does, as an Arrow table.

    Raises:
        SagittaError: as :func:`predict`.
    """
    from sagitta.evaluation import Asked
    from sagitta.evaluation import predict as predict_images

    return predict_images(path_of(run), listed(paths), Asked(**asked), split=split)


def export(
    run: PathLike,
    to: str = "onnx",
    *,
    precision: str = "32",
    out: PathLike | None = None,
    data: PathLike | None = None,
) -> "Exported":
    """Write a run's model in another format, prove it on real images, and return what was found.

    Images of the run's val, and odd copies of one, go through the file in a process without Sagitta. Where a decision
    or a probability differs from the checkpoint's, nothing is written.

    Args:
        run: run directory or checkpoint file.
        to: ``onnx``, ``openvino`` or ``torch``, which take pixels and give calibrated probabilities; ``safetensors``,
            the run as a folder in which nothing runs code; ``hub``, a folder that timm and transformers load.
        precision: ``32``; ``16``, with probabilities within 0.01; ``bf16`` of ``torch``; ``int8`` of ``onnx`` and
            ``openvino``, calibrated on the run's training images, and refused where it loses more than 0.3 points of
            accuracy, or is not 1.3 times as fast as float32.
        out: folder, by default ``RUN/export``, and of the last two ``RUN/export/safetensors`` and ``RUN/export/hub``.
        data: other images to prove it on than those of the run.

    Raises:
        SagittaError: there is no such run, format or precision, a library is missing, or the model answers otherwise.
    """
    from sagitta.exporting import check_export

    target = None if out is None else path_of(out)
    check_export(path_of(run), to, target, precision)
    _check_images(path_of(run), data)
    preload()
    from sagitta.exporting import export as export_run

    return export_run(path_of(run), to, target, precision=precision, data=plain(data))


def benchmark(run: PathLike, *, data: PathLike | None = None) -> "Benchmark":
    """Measure a run as every format and precision of :func:`export` on this machine, and return a row of each.

    A row has size, decisions and accuracy against the checkpoint, and seconds for an image and for 32; or why it is not
    to be had. Nothing is kept on disk.

    Args:
        run: run directory or checkpoint file.
        data: other images to compare on than those of the run.

    Raises:
        SagittaError: there is no such run, or there are no images to compare on.
    """
    checkpoints_of(path_of(run))
    _check_images(path_of(run), data)
    preload()
    from sagitta.exporting import benchmark as measure

    return measure(path_of(run), data=plain(data))


def push(what: PathLike, repository: str, *, data: PathLike | None = None, public: bool = False) -> "Pushed":
    """Send a run or a converted dataset to the Hugging Face hub, with a card; the token is that of ``hf auth login``.

    Args:
        what: run directory or checkpoint file, which is exported and proven as ``hub`` first; what was exported so; or
            a converted dataset.
        repository: ``user/name``; made where it is not there.
        data: other images to prove a run on than its own.
        public: anybody may see a repository that is made.

    Raises:
        SagittaError: there is nothing of the kind, nobody is logged in, or the hub refuses or does not answer.
    """
    from sagitta.exporting import check_push

    check_push(path_of(what), repository)
    from sagitta.exporting import push as push_files

    return push_files(path_of(what), repository, data=plain(data), public=public)


def report(runs: PathLike | Sequence[PathLike], *, out: PathLike | None = None, images: bool = True) -> Path:
    """Write one HTML page about a run, or about several side by side; returns the file, which loads nothing.

    Several runs are compared on the images that they were tested on: scores with intervals, paired tests, and where
    they disagree. A part that has nothing to show says why in one line.

    Args:
        runs: a run, or several.
        out: the file; by default ``report.html`` in the run, and of several ``comparison.html`` beside the first.
        images: show pictures of the data; without them the page can be shared where the data cannot.

    Raises:
        ConfigError: there is no such run, one is named twice, or ``out`` is a file that is no report.
    """
    from sagitta.reporting import check_report

    places, target = _runs(runs), None if out is None else path_of(out)
    check_report(places, target)
    preload()
    from sagitta.reporting import write_report

    return write_report(places, target, images)


def figures(runs: PathLike | Sequence[PathLike], folder: PathLike, *, images: bool = True) -> list[Path]:
    """Write each figure of a report as SVG, and PNG, and the table in Markdown and LaTeX; returns the files.

    PNG needs ``resvg-py``: ``pip install 'sagitta[report]'``; without it there are the SVG alone.

    Args:
        runs: a run, or several, whose figures lie in a folder each.
        folder: is made if need be.
        images: write a picture of the worst mistakes, too.

    Raises:
        ConfigError: there is no such run.
    """
    from sagitta.reporting import check_report

    places = _runs(runs)
    check_report(places)
    preload()
    from sagitta.reporting import write_figures

    return write_figures(places, path_of(folder), images=images)


def _check_images(run: Path, data: PathLike | None) -> None:
    """Refuse other images than a run's own that are not there; a checkpoint alone has none of its own."""
    if data is not None:
        check_early(plain(data), {}, {"data.convert.purpose": "test"})
    elif (folder := run_of(run)) is not None and (folder / CONFIG_FILE).is_file():
        own_source(folder, "name it with --data")


def _runs(runs: Any) -> list[Path]:
    return [path_of(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
