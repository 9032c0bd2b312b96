"""`sagitta probe`: a linear head on frozen features, solved in seconds; the best of several networks becomes a run.

The head is that of :mod:`sagitta.training.head`, put into the network's last linear layer. What is said of rows that it
has not seen stands in the run::

    RUN/out_of_fold/   predictions.parquet, per_class.csv: each row by a head that has not seen it
    RUN/val/           likewise of a val that the source gives, by the head itself
"""

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sagitta.clock import extra
from sagitta.dataset import plural, warning_line
from sagitta.evaluation import (
    Evaluation,
    Seen,
    choose_split,
    describe,
    digest_column,
    digests_of,
    judge,
    keep_seen,
    overlap_warnings,
    quiet,
    read_seen,
    record_test,
    seen_of,
    tempered,
)
from sagitta.files import new_file
from sagitta.loading import ImageData, Preprocessing
from sagitta.models import (
    SINGLE_LABEL,
    Classifier,
    Floats,
    open_weights,
    pretrained_preprocessing,
    vectors_array,
)
from sagitta.run import (
    CONFIG_FILE,
    OUT_OF_FOLD,
    check_free,
    new_run_directory,
    read_record,
    save_config,
    write_record,
)
from sagitta.settings import Settings
from sagitta.terminal import show, table
from sagitta.training.checks import Look
from sagitta.training.solving import Solved, check_labelled, rows_to_fit, solve, write_checkpoint
from sagitta.training.trust import BANK, KNOWN, all_of_val, calibrate, divided, note_familiar, out_of_fold, unable

_CHUNK = 16_384  # rows that an export holds at a time


@dataclass(frozen=True)
class Candidate:
    """A network to probe.

    Attributes:
        name: see :func:`sagitta.models.networks.build_network`.
        weights: file, checkpoint or run; None takes what timm or torchvision publishes.
    """

    name: str
    weights: str | None = None


@dataclass(frozen=True)
class Probed:
    """What a probe found out about one network.

    Attributes:
        candidate: what was asked for.
        classifier: the network with its new head, on the CPU, in evaluation mode.
        solved: the head, the features, and the seconds for both.
        judged: the rows that the head, or one like it, has not seen, ``val_``: out of fold, or a given ``val``.
        test: every score of ``test``; None where the dataset has no such split.
    """

    candidate: Candidate
    classifier: Classifier
    solved: Solved
    judged: Evaluation
    test: Evaluation | None

    @property
    def out_of_fold(self) -> bool:
        """Whether the rows that are judged are those of folds."""
        return "val" in self.solved.fitted or self.judged.tested is None


def probe(
    data: ImageData,
    candidates: Sequence[Candidate],
    *,
    image_size: int | None = None,
    batch_size: int | None = None,
    refit: bool = False,
    verbose: bool = False,
) -> list[Probed]:
    """Probe each candidate; returns the best first: by the log loss of rows that the heads have not seen.

    The head is fitted to ``train``, and to ``val`` too where Sagitta made that, since folds judge as well; a ``val``
    that the source gives stays unseen.

    Args:
        data: set up, with one label an image.
        candidates: at least one.
        image_size: other height and width of the input than the weights were trained with.
        batch_size: images at a time; by default what is fast on the device.
        refit: fit to a given ``val``, too.
        verbose: print what the weights files were, and show progress.

    Raises:
        ConfigError: no class has two images; a network without one last linear layer; weights that cannot be had or do
            not fit.
        DatasetError: an image cannot be decoded.
    """
    fitted = rows_to_fit(data, refit=refit)
    check_labelled(data, fitted)
    results = [_probe_one(data, candidate, fitted, image_size, batch_size, verbose) for candidate in candidates]
    return sorted(results, key=lambda result: result.judged.metrics["val_log_loss"])


def _probe_one(
    data: ImageData,
    candidate: Candidate,
    fitted: tuple[str, ...],
    image_size: int | None,
    batch_size: int | None,
    verbose: bool,
) -> Probed:
    classifier, preprocessing = build_candidate(data, candidate, image_size)
    if verbose and classifier.weights_report:
        show(classifier.weights_report)
    others = [name for name in data.shards.splits if name not in fitted]
    solved = solve(
        classifier, data, preprocessing, fitted=fitted, others=others, batch_size=batch_size, verbose=verbose
    )
    if "val" in others:
        judged = _judge(solved, data, "val")
    else:
        judged = _scores(data, solved.head.logits, solved.labels, solved.paths, "val_")
    test = _judge(solved, data, "test") if len(data.shards.splits.get("test", ())) else None
    return Probed(candidate, classifier, solved, judged, test)


def build_candidate(data: ImageData, candidate: Candidate, image_size: int | None) -> tuple[Classifier, Preprocessing]:
    """Return the network with a new head, and the preprocessing that its weights were trained with."""
    weights = None if candidate.weights is None else open_weights(candidate.weights)
    found = weights.preprocessing(candidate.name) if weights else pretrained_preprocessing(candidate.name)
    preprocessing = replace(found or data.preprocessing, reduction=data.preprocessing.reduction)
    if image_size is not None:
        preprocessing = replace(preprocessing, size=(image_size, image_size))
    classifier = Classifier(
        candidate.name,
        pretrained=weights is None,
        weights=candidate.weights,
        tune="head",
        class_names=data.class_names,
        preprocessing=preprocessing.to_dict(),
    )
    return classifier.eval(), preprocessing


def _scores(data: ImageData, logits: Floats, labels: npt.NDArray[Any], paths: Sequence[str], prefix: str) -> Evaluation:
    """Return every score of rows by their logits (N, classes)."""
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    return judge(SINGLE_LABEL, probabilities, labels, paths, data.class_names, {}, prefix)


def _judge(solved: Solved, data: ImageData, name: str) -> Evaluation:
    """Return every score of a split that the head has not seen."""
    split = data.shards.splits[name]
    rows, paths = np.arange(len(split)), [split.path(row) for row in range(len(split))]
    judged = _scores(data, solved.logits(data, name), split.labels, paths, f"{name}_")
    chosen = choose_split(data, name, own=True)
    tested = describe(data, chosen, rows, split.labels, data.class_names, _seen(data, solved))
    loss = {f"{name}_loss": judged.metrics[f"{name}_log_loss"]}
    return replace(judged, metrics=loss | judged.metrics, tested=tested)


def _seen(data: ImageData, solved: Solved) -> Seen:
    """Return what a head has seen."""
    return seen_of(data.shards.splits, trained=solved.fitted, chose=())


def probe_run(
    settings: Settings,
    candidates: Sequence[Candidate],
    out: Path | None = None,
    *,
    batch_size: int | None = None,
    refit: bool = False,
    embed: bool = False,
    look: Look | None = None,
) -> Path:
    """Probe each candidate and make the best an ordinary run; returns its directory.

    Args:
        settings: of the data, and ``data.image_size``; those of the model are the candidates'.
        candidates: see :func:`probe`.
        out: run directory to make; by default the first free ``runs/NAME-1``, ``-2`` and so on.
        batch_size: see :func:`probe`.
        refit: likewise.
        embed: keep all features as Parquet in the run directory.
        look: at the data, before the features.

    Raises:
        SagittaError: as :func:`probe` does; there is no run directory then.
    """
    check_free(out)
    with quiet():
        data = settings.image_data(verbose=True)
        data.prepare_data()
        data.setup()
        looked = None if look is None else look(data)
        image_size = settings.data["image_size"]
        how: dict[str, Any] = {"image_size": image_size, "batch_size": batch_size, "refit": refit}
        results = probe(data, candidates, **how, verbose=True)
        best = results[0].candidate
        made = {"model.weights": best.weights, "model.pretrained": best.weights is None, "refit": refit}
        chosen = settings.changed({"model.name": best.name, "model.tune": "head", **made})
        run = new_run_directory(out, settings.source)
        try:
            write_record(run, probe=[_summary(each) for each in results])  # what a kill leaves is no fit to go on with
            if looked is not None:
                looked(run)
            save_config(run / CONFIG_FILE, chosen.to_yaml())
            write_run(run, data, results, embed=embed)
        except BaseException:
            shutil.rmtree(run, ignore_errors=True)
            raise
    return run


def write_run(run: Path, data: ImageData, results: Sequence[Probed], *, embed: bool = False) -> None:
    """Make the first of ``results`` an ordinary run: checkpoint, record and test; with ``embed`` all their features.

    Raises:
        OSError: a file cannot be written.
    """
    best = results[0]
    # What the record says of the images has to be what this network was given, not what one from scratch would be.
    data.adopt(data.class_names, best.classifier.preprocessing)
    loss = best.judged.metrics["val_log_loss"]
    checkpoint = run / "checkpoints" / f"image-classifier-probe-val_loss={loss:.2f}.ckpt"
    write_checkpoint(best.classifier, checkpoint)
    keep_seen(run, _seen(data, best.solved), best.candidate.weights)
    with extra():
        temperature, judged = _calibrated(run, checkpoint, best, data)
        _note_known(run, checkpoint, best, data)
    result = {"val_loss": judged.metrics["val_log_loss"], **judged.metrics}
    judged = _with_digests(best, judged, data) if best.out_of_fold else judged
    judged.write(run / (OUT_OF_FOLD if best.out_of_fold else "val"))
    if best.test is not None:
        test = tempered(best.test, SINGLE_LABEL, data.class_names, temperature, "test_", ())
        record_test(run, data.source, checkpoint.name, test)
        result |= test.metrics
    write_record(
        run,
        seed=0,
        dataset=data.answers(augmented=False) | {"preprocessing": best.classifier.hparams["preprocessing"]},
        best_checkpoint=os.path.relpath(checkpoint, run),
        result=result,
    )
    for each in results if embed else ():
        write_features(run / f"features-{each.solved.store.folder.name}.parquet", each.solved, data)


def _calibrated(run: Path, checkpoint: Path, best: Probed, data: ImageData) -> tuple[float, Evaluation]:
    """Calibrate the checkpoint; returns the temperature, and what is said with it of the rows that are judged."""
    unseen = out_of_fold(data, best.solved) if best.out_of_fold else all_of_val(best.judged, data)
    judged = calibrate(run, checkpoint, best.classifier, unseen)
    return read_record(run)["calibration"]["temperature"], replace(judged, tested=best.judged.tested)


def _note_known(run: Path, checkpoint: Path, best: Probed, data: ImageData) -> None:
    """Note what the network knows: its features do not depend on the head."""
    bank, known = divided(data, BANK, KNOWN, frozen=True)
    if (reason := unable(data, best.classifier, known)) is not None:
        show(f"predictions come without `unfamiliar`: {reason}")
        return
    hashes = {name: split.content_hashes for name, split in data.shards.splits.items()}
    vectors = [
        best.solved.read(
            pa.concat_arrays([hashes[name].take(pa.array(rows)) for name, rows in some.items() if len(rows)])
        )
        for some in (bank, known)
    ]
    note_familiar(run, checkpoint, *vectors)


def _with_digests(best: Probed, judged: Evaluation, data: ImageData) -> Evaluation:
    """Return what was judged out of fold, with ``digest``: null where the weights were trained on the image before."""
    splits = [data.shards.splits[name] for name in best.solved.fitted]
    digests = np.concatenate([digests_of(split)[:, 0] for split in splits])[best.solved.head.judged]
    before = None if best.candidate.weights is None else read_seen(Path(best.candidate.weights))
    table = judged.predictions.append_column("digest", digest_column(digests, before))
    return replace(judged, predictions=table)


def _summary(each: Probed) -> dict[str, Any]:
    """Return what ``run.json`` keeps of each network."""
    test = each.test.scores["test_acc"] if each.test else None
    tested = each.test.tested if each.test else None
    val, solved = each.judged.scores["val_acc"], each.solved
    assert val is not None
    return {
        "model": each.candidate.name,
        "weights": each.candidate.weights,
        "parameters": sum(parameter.numel() for parameter in each.classifier.parameters()),
        "features": solved.store.folder.name,
        "computed": solved.computed,
        "feature_seconds": round(solved.feature_seconds, 3),
        "head_seconds": round(solved.head_seconds, 3),
        "method": solved.head.method,
        "stages": bool(each.classifier.hparams["stages"]),
        "fitted": list(solved.fitted),
        "out_of_fold": each.out_of_fold,
        "folds": solved.head.folds,
        "alone": solved.alone,
        "val_images": len(solved.labels) if each.out_of_fold else each.judged.predictions.num_rows,
        "val_acc": val.value,
        "val_interval": [val.low, val.high],
        "val_loss": each.judged.metrics["val_log_loss"],
        "test_acc": test and test.value,
        "test_interval": test and [test.low, test.high],
        "test_images": tested and tested.images,
        "test_trained_on": tested and tested.trained_on,
    }


def write_features(path: Path, solved: Solved, data: ImageData) -> None:
    """Write what the head is given of each image: ``path``, ``split``, ``label`` (name), ``vector`` (list<float>)."""

    def tables() -> Iterator[pa.Table]:
        for name, split in data.shards.splits.items():
            hashes, labels = split.content_hashes, split.labels
            for start in range(0, len(split), _CHUNK):
                rows = range(start, min(start + _CHUNK, len(split)))
                yield pa.table(
                    {
                        "path": pa.array([split.path(row) for row in rows]),
                        "split": pa.array([name] * len(rows)),
                        "label": pa.array([data.class_names[label] for label in labels[rows.start : rows.stop]]),
                        "vector": vectors_array(solved.read(hashes.slice(start, len(rows)))),
                    }
                )

    first = next(written := tables())
    with new_file(path) as temporary, pq.ParquetWriter(temporary, first.schema) as writer:
        for table in itertools.chain([first], written):
            writer.write_table(table)


def probe_text(record: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the networks, the best first, with 95 % intervals of the accuracies; weights below their model.

    Args:
        record: ``probe`` of ``run.json``.
    """
    rows = []
    for each in record:
        seconds, computed = each["feature_seconds"], each["computed"]
        named = each["model"] if each["weights"] is None else f"{each['model']}\n{each['weights']}"
        rows.append(
            [
                named,
                f"{each['parameters'] / 1e6:.2f} M",
                f"{computed / max(seconds, 1e-3):,.0f} images/s" if computed else "cached",
                f"{seconds + each['head_seconds']:.1f} s",
                _percent(each["val_acc"], each["val_interval"]),
                "-" if each["test_acc"] is None else _percent(each["test_acc"], each["test_interval"]),
            ]
        )
    # Before 0.2.0, 0 folds meant that val decided.
    unseen = "out of fold" if record[0].get("out_of_fold", record[0]["folds"]) else "val"
    heads = ["model", "size", "features", "time", unseen, "test"]
    return "\n".join(table(heads, rows))


def probe_notes(record: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a person has to know of the figures, one sentence each.

    Args:
        record: as for :func:`probe_text`.
    """
    best, notes = record[0], []
    if best.get("out_of_fold"):
        how = "a fifth was held out" if best["folds"] == 1 else f"{best['folds']} folds"
        notes.append(
            f"out of fold: {best['val_images']:,} images of {' and '.join(best['fitted'])}, each judged by a head that "
            f"has not seen it ({how}); the head that is kept has seen all"
        )
        if alone := best.get("alone"):  # 0.1.0 did not count them
            notes.append(
                f"{plural(alone, 'image')} more {'is' if alone == 1 else 'are'} not judged: without it, or those that "
                "belong to it, its class would have none to learn from; expect such to be wrong"
            )
    if seeing := [each["model"] for each in record if each.get("stages")]:
        notes.append(
            f"the head of {' and of '.join(seeing)} sees every stage of the network: on images that neither has seen, "
            "it is better than one that sees the last features alone, by more than chance"
        )
    if best["test_acc"] is None:
        notes.append("there is no test set: these figures are all there is")
    elif best.get("test_trained_on"):  # 0.1.0 did not note it here
        notes += map(warning_line, overlap_warnings(best["test_images"], best["test_trained_on"], None))
    return notes


def _percent(accuracy: float, interval: Sequence[float]) -> str:
    return f"{accuracy:.1%} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
