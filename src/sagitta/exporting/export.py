"""`sagitta export`: one run, one format, one proof; or no file at all."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from sagitta.errors import ConfigError, SagittaError
from sagitta.evaluation import one_classifier, quiet
from sagitta.exporting import reader
from sagitta.exporting.asking import check_folder
from sagitta.exporting.formats import check_format, plain_model
from sagitta.exporting.job import Job
from sagitta.exporting.judging import ExportError, Proof, told_gains, told_share
from sagitta.exporting.metadata import structured
from sagitta.exporting.precision import FLOAT32, INT8, gate_of, precision_named
from sagitta.exporting.proof import prove
from sagitta.exporting.subject import Subject, opened_subject
from sagitta.files import check_place
from sagitta.run import PREPROCESSING_FILE, run_of

READER_FILE = "reader.py"
_SPECIFIED = f"beside it: {PREPROCESSING_FILE}, what has to be done to a file before; {READER_FILE} does it"
_BESIDE = {
    "safetensors": "the folder is a run that nobody has to trust: predict, test, explain and --weights take it",
    "hub": "the folder is what timm and transformers load; read README.md and state a licence before it is sent",
}


@dataclass(frozen=True)
class Exported:
    """A model that was handed on.

    Attributes:
        path: of the model.
        format: its name.
        runtime: the least version that reads it.
        bytes: size of the model's files.
        proof: what it was compared with.
        precision: its short name.
    """

    path: Path
    format: str
    runtime: str
    bytes: int
    proof: Proof
    precision: str = FLOAT32

    def text(self) -> str:
        """Return what a person wants to know, in lines."""
        proof, where = self.proof, "by Sagitta anew" if self.format == "safetensors" else "in a process without Sagitta"
        kept = "" if self.precision == FLOAT32 else f"precision {self.precision}, "
        cores = f"{proof.cores} {'core' if proof.cores == 1 else 'cores'}"
        lines = [
            f"{self.path}: {self.bytes / 1e6:.1f} MB, {kept}for {self.runtime} and newer",
            f"proof: {proof.same} of {proof.images} images are decided alike {where}, probabilities within "
            f"{proof.difference:.1e} ({proof.split}, and copies turned, grey, CMYK, long)",
            f"speed: {1e3 * proof.one:.1f} ms an image, {1e3 * proof.many:.1f} ms for 32, on {cores}",
        ]
        if self.precision != FLOAT32 and proof.accuracy is not None and proof.before is not None:
            lines.append(
                f"accuracy: {told_share(proof.accuracy)} of {proof.labelled} labelled images, the checkpoint's "
                f"{told_share(proof.before)}"
            )
        if proof.plain is not None:
            lines.append(f"against float32: {told_gains(proof)}")
        return "\n".join([*lines, _BESIDE.get(self.format, _SPECIFIED)])

    def __str__(self) -> str:
        return self.text()


def export(
    run: Path, to: str = "onnx", out: Path | None = None, *, precision: str = FLOAT32, data: str | None = None
) -> Exported:
    """Write a run's model in another format, and prove it.

    Args:
        run: run directory or checkpoint file.
        to: ``onnx``, ``openvino``, ``torch`` (a program of ``torch.export``), ``safetensors`` (the run as a folder that
            nobody has to trust) or ``hub`` (what timm and transformers load).
        out: folder, by default ``RUN/export``; what an earlier export left there is replaced when this one is proven.
        precision: ``32``, ``16``, ``bf16`` or ``int8``, as far as the format has it.
        data: images to prove it on, other than the run's own.

    Raises:
        ConfigError: there is no such run, format or precision, a library is missing, or members read images in
            different ways.
        ExportError: the exported model does not answer as the checkpoint does, or int8 is not faster; no file is left.
        SagittaError: the run's data is not there any more.
    """
    bits = precision_named(precision)
    form, folder = check_format(to, bits), run_of(run)
    if out is None and folder is None:
        one_classifier(run)  # that there is nothing at all is said first
        raise ConfigError(f"{run}: a checkpoint without its run; say where to export to, with -o FOLDER")
    target = out if out is not None else Path(str(folder)) / "export" / ("" if form.reader else to)
    check_folder(target)
    if (target / form.file).exists() and not (target / f"{to}.json").exists():
        raise ConfigError(f"{target / form.file}: is there already, and no export as {to}; name another folder with -o")
    check_place((target if target.exists() else _above(target)) / form.file)
    with quiet(), opened_subject(run, data, _above(target)) as subject:
        found = made(subject, to, bits)
        target.mkdir(parents=True, exist_ok=True)
        work = found.path.parent
        for path in work.iterdir():  # safetensors writes for its owner alone, and another one may serve it
            path.chmod((work / f"{to}.json").stat().st_mode)
        for name in set(_files_of(target / f"{to}.json")) - {path.name for path in work.iterdir()}:
            (target / name).unlink(missing_ok=True)
        for path in sorted(work.iterdir(), key=lambda path: path == found.path):  # the model last
            path.replace(target / path.name)
    return replace(found, path=target / form.file)


def made(subject: Subject, to: str, precision: str) -> Exported:
    """Write a model into a folder of its own below the subject's, and prove it.

    Args:
        subject: what is exported.
        to: name of the format.
        precision: its short name.

    Raises:
        SagittaError: as :func:`export`.
    """
    form = check_format(to, precision)
    work, between = subject.work / f"{to}-{precision}", subject.work / "between"
    work.mkdir()
    training = subject.training if precision == INT8 else None
    metadata = subject.metadata | {"precision": precision}
    job = Job(subject.run, subject.folder, subject.classifier, metadata, work, between, precision, training)
    try:
        form.write(job)
        against = plain_model(to, job) if precision == INT8 else None
    except SagittaError:
        raise
    except Exception as error:  # exporters raise whatever comes of an operation that they do not know
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExportError(f"{subject.classifier.name} cannot be written as {to}: {reason}") from error
    if form.reader:
        (work / PREPROCESSING_FILE).write_text(metadata["preprocessing"] + "\n")
        shutil.copyfile(reader.__file__, work / READER_FILE)
    size = sum((work / name).stat().st_size for name in (form.file, *form.beside))
    proof = prove(to, work, form, subject.classifier, subject.photos, precision=precision, against=against)
    told = {"format": to, "runtime": form.runtime, "bytes": size, "gate": gate_of(precision), "proof": proof.to_dict()}
    names = sorted(path.name for path in work.iterdir())
    told |= structured(metadata) | {"files": names}
    (work / f"{to}.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    return Exported(work / form.file, to, form.runtime, size, proof, precision)


def _above(target: Path) -> Path:
    """Return the nearest folder above a path that is there."""
    return next(folder for folder in target.absolute().parents if folder.is_dir())


def _files_of(told: Path) -> list[str]:
    """Return the names of an earlier export's files, where it says them."""
    found: list[str] = json.loads(told.read_text()).get("files", []) if told.is_file() else []
    return [name for name in found if Path(name).name == name]
