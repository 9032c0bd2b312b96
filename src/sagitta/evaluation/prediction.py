"""Image files -> class names and probabilities, with the model's own preprocessing."""

import json
import operator
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sagitta.errors import ConfigError, SourceError
from sagitta.evaluation.members import Part, open_model
from sagitta.evaluation.testing import quiet, quiet_trainer
from sagitta.evaluation.trust import head_input, open_trust
from sagitta.files import check_place, write_atomic
from sagitta.loading import FilePixels
from sagitta.models import Classifier, HeadInput, inference_batch
from sagitta.pool import progress
from sagitta.sources import image_files


def predict(
    run: Path,
    paths: Sequence[Path],
    *,
    top_k: int = 5,
    batch_size: int | None = None,
    flip: bool = False,
    accuracy: float | None = None,
    coverage: float | None = None,
) -> pa.Table:
    """Classify image files with a run's best checkpoint, or by the mean of its members' probabilities.

    On a terminal, standard error shows how far it is.

    Args:
        run: run directory or checkpoint file.
        paths: image files, or folders of them, see :func:`list_files`.
        top_k: how many classes a row, where the model gives one label.
        batch_size: images a batch; by default what is fast on the device.
        flip: take the mean of the probabilities of each image and its mirror image.
        accuracy: abstain where it is not reached.
        coverage: give the set of classes that holds the label of a share of images.

    Returns:
        One row a file, in the order given: ``path``; ``class`` and ``probability`` of the most probable class;
        ``class_2``, ``probability_2`` … of the next, ``top_k`` in all; ``error``, null where the image was readable.
        Where the model gives several labels: ``classes`` and ``probabilities``, lists of all labels whose probability
        reaches the label's threshold, the most probable first. And the columns of
        :class:`sagitta.evaluation.trust.Trust`.

    Raises:
        ConfigError: there is no such run, a number is below 1, or what is asked for cannot be promised.
        SourceError: a path does not exist, or no image is readable.
    """
    top_k = _whole("--top-k", top_k)
    batch_size = None if batch_size is None else _whole("--batch-size", batch_size)
    files = list_files(paths).files
    model = open_model(run, flip=flip)
    trust = open_trust(run, model, accuracy=accuracy, coverage=coverage, flip=flip)
    if any(part.classifier.preprocessing is None for part in model.parts):
        raise ConfigError(f"{run}: its checkpoint has no preprocessing; it was trained without ImageData")
    errors: dict[str, str] = {}
    lost: dict[str, int] = {}
    mean = np.zeros((len(files), len(model.class_names)), np.float32)
    features: list[npt.NDArray[np.float32]] = []
    with quiet(), progress("predicting", len(files) * len(model.parts), show=True) as advance:
        for number, part in enumerate(model.parts):
            watch = head_input(model) if number == 0 and trust.needs_features else None
            batches, outputs = _read_and_classified(part, files, batch_size, advance, watch, features)
            errors |= batches.errors
            lost |= batches.reduced
            readable = [row for row, path in enumerate(files) if path not in batches.errors]
            columns = [part.classifier.class_names.index(name) for name in model.class_names]
            mean[readable] += np.float32(part.share) * outputs[:, columns]
    if len(errors) == len(files):
        raise SourceError(f"none of the {len(files)} files is a readable image; {files[0]}: {errors[files[0]]}")
    probabilities = torch.from_numpy(mean[[path not in errors for path in files]])
    answers = {"path": pa.array(files)}
    if model.first.multilabel:
        answers |= _labels(files, errors, probabilities, model.first)
    else:
        answers |= _top(files, errors, probabilities, model.class_names, top_k)
    found = trust(probabilities.numpy(), np.concatenate(features) if features else None)
    answers |= {name: _with_gaps(column, [path in errors for path in files]) for name, column in found.items()}
    table = pa.table(answers | {"error": pa.array([errors.get(path) for path in files], pa.string())})
    notes = {"reduced": lost, "told": trust.lines()}
    return table.replace_schema_metadata({name: json.dumps(note) for name, note in notes.items() if note})


def _with_gaps(column: pa.Array, missing: Sequence[bool]) -> pa.Array:
    """Return a column of the files that could be read as one of all of them."""
    rows = np.cumsum(~np.array(missing)) - 1
    return column.take(pa.array(rows, mask=np.array(missing)))


def _read_and_classified(
    part: Part,
    files: list[str],
    batch_size: int | None,
    advance: Callable[[int], None],
    watch: HeadInput | None,
    features: list[npt.NDArray[np.float32]],
) -> tuple[FilePixels, npt.NDArray[np.float32]]:
    """Return how the files were read, and the probabilities (N, classes) of those that can be; adds their features."""
    trainer = quiet_trainer(devices=1)
    how = part.classifier.preprocessing
    assert how is not None
    batches = FilePixels(files, how, batch_size or inference_batch(trainer.strategy.root_device))
    with nullcontext() if watch is None else watch:
        outputs = trainer.predict(part.classifier, _Followed(batches, advance)) or []
    features += [] if watch is None else [watch.take().numpy() for _ in outputs]
    found = [output.numpy() for output in outputs if isinstance(output, Tensor)]
    return batches, np.concatenate([np.empty((0, part.classifier.num_classes), np.float32), *found])


def reduced(table: pa.Table) -> dict[str, int]:
    """Return what decoding lost of the files that :func:`predict` read, and in how many of them."""
    return dict(json.loads((table.schema.metadata or {}).get(b"reduced", b"{}")))


def told(table: pa.Table) -> list[str]:
    """Return what a person has to know of the predictions of :func:`predict`, one line each."""
    return list(json.loads((table.schema.metadata or {}).get(b"told", b"[]")))


def _whole(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} {value}: must be a whole number, at least 1")
    return number


@dataclass(frozen=True)
class _Followed:
    """Batches of a source, each told when it has been used."""

    batches: FilePixels
    advance: Callable[[int], None]

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches:
            yield batch
            self.advance(len(batch))


@dataclass(frozen=True)
class Listed:
    """What :func:`list_files` found.

    Attributes:
        files: that may be images.
        skipped: how many in the folders are none, by their names.
    """

    files: list[str]
    skipped: int


def list_files(paths: Sequence[Path]) -> Listed:
    """Return the files named, and the files in the folders named that may be images, sorted within each folder.

    In a folder what conversion skips is skipped: hidden files, and files of text beside the images.

    Raises:
        SourceError: a path does not exist, a name is not UTF-8, or there is no file at all.
    """
    files: list[str] = []
    skipped = 0
    for path in paths:
        if path.is_dir():
            names, others = image_files(path)
            files += [str(path / name) for name in names]
            skipped += others
        elif os.path.lexists(path):  # a link that leads nowhere is a row with an error
            files.append(str(path))
        else:
            raise SourceError(f"{path}: no such file or folder")
    for file in files:
        if not file.isprintable() and any("\udc80" <= letter <= "\udcff" for letter in file):
            raise SourceError(f"{file!a}: the name is not valid UTF-8; rename that file")
    if not files:
        raise SourceError(f"no image files in {', '.join(map(str, paths)) or 'an empty list'}")
    return Listed(files, skipped)


def check_output(output: Path) -> None:
    """Refuse a place for :func:`write_predictions` before anything is predicted.

    Raises:
        ConfigError: the name does not end in .csv or .parquet.
        OSError: there is no such folder, or it cannot be written to.
    """
    if output.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{output}: the name must end in .csv or .parquet")
    check_place(output)


def write_predictions(table: pa.Table, output: Path | None) -> None:
    """Write the table as ``.csv`` or ``.parquet`` by the name's ending, or as CSV to standard output.

    In CSV the items of a list are separated by ``;``.

    Raises:
        ConfigError: the ending is another one.
        OSError: it cannot be written there.
    """
    sink = pa.BufferOutputStream()
    if output is not None:
        check_output(output)
    if output is not None and output.suffix == ".parquet":
        pq.write_table(table, sink)
    else:
        pa.csv.write_csv(_flat(table), sink, pa.csv.WriteOptions(quoting_style="needed"))
    data = sink.getvalue().to_pybytes()
    if output is None:
        sys.stdout.write(data.decode())
    else:
        write_atomic(output, data)


def _flat(table: pa.Table) -> pa.Table:
    """Return the table with lists as text."""
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            lists = table[field.name].cast(pa.list_(pa.string()))
            table = table.set_column(index, field.name, pc.binary_join(lists, ";"))
    return table


def _labels(
    files: Sequence[str], errors: dict[str, str], probabilities: Tensor, classifier: Classifier
) -> dict[str, pa.Array]:
    names, thresholds = classifier.class_names, np.array(classifier.thresholds)
    rows = iter(probabilities.numpy())
    classes: list[list[str] | None] = []
    shares: list[list[float] | None] = []
    for path in files:
        row = None if path in errors else next(rows)
        given = [] if row is None else sorted(np.flatnonzero(row >= thresholds).tolist(), key=lambda label: -row[label])
        classes.append(None if row is None else [names[label] for label in given])
        shares.append(None if row is None else [float(row[label]) for label in given])
    return {
        "classes": pa.array(classes, pa.list_(pa.string())),
        "probabilities": pa.array(shares, pa.list_(pa.float32())),
    }


def _top(
    files: Sequence[str],
    errors: dict[str, str],
    probabilities: Tensor,
    class_names: Sequence[str],
    top_k: int,
) -> dict[str, pa.Array]:
    top = probabilities.float().topk(min(top_k, len(class_names)), dim=1)
    readable = np.array([path not in errors for path in files])
    position = np.cumsum(readable) - 1
    columns: dict[str, pa.Array] = {}
    for rank in range(top.indices.shape[1]):
        suffix = "" if rank == 0 else f"_{rank + 1}"
        names = np.array(class_names, object)[top.indices[:, rank].numpy()][position]
        columns[f"class{suffix}"] = pa.array(names, pa.string(), mask=~readable)
        columns[f"probability{suffix}"] = pa.array(top.values[:, rank].numpy()[position], pa.float32(), mask=~readable)
    return columns
