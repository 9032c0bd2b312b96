"""`sagitta export`: one run, one format, one proof; or no file at all."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sagitta.errors import ConfigError, SagittaError
from sagitta.evaluation import one_classifier, other_settings, own_settings, quiet
from sagitta.exporting import reader
from sagitta.exporting.formats import check_format
from sagitta.exporting.job import Job
from sagitta.exporting.metadata import metadata_of
from sagitta.exporting.proof import ExportError, Proof, prove, write_images
from sagitta.files import check_place
from sagitta.images import Reduction
from sagitta.loading import ImageData
from sagitta.run import CONFIG_FILE, run_of

PREPROCESSING_FILE, READER_FILE = "preprocessing.json", "reader.py"
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
    """

    path: Path
    format: str
    runtime: str
    bytes: int
    proof: Proof

    def text(self) -> str:
        """Return what a person wants to know, in lines."""
        proof, where = self.proof, "by Sagitta anew" if self.format == "safetensors" else "in a process without Sagitta"
        lines = [
            f"{self.path}: {self.bytes / 1e6:.1f} MB, for {self.runtime} and newer",
            f"proof: {proof.same} of {proof.images} images are decided alike {where}, probabilities within "
            f"{proof.difference:.1e} ({proof.split}, and copies turned, grey, CMYK, long)",
            f"speed: {1e3 * proof.one:.1f} ms an image, {1e3 * proof.many:.1f} ms for 32, on two cores",
        ]
        return "\n".join([*lines, _BESIDE.get(self.format, _SPECIFIED)])

    def __str__(self) -> str:
        return self.text()


def export(run: Path, to: str = "onnx", out: Path | None = None, *, data: str | None = None) -> Exported:
    """Write a run's model in another format, and prove it.

    Args:
        run: run directory or checkpoint file.
        to: ``onnx``, ``openvino``, ``torch`` (a program of ``torch.export``), ``safetensors`` (the run as a folder that
            nobody has to trust) or ``hub`` (what timm and transformers load).
        out: folder, by default ``RUN/export``; what an earlier export left there is replaced when this one is proven.
        data: images to prove it on, other than the run's own.

    Raises:
        ConfigError: there is no such run or format, a library is missing, or members read images in different ways.
        ExportError: the exported model does not answer as the checkpoint does; no file is left.
        SagittaError: the run's data is not there any more.
    """
    form, classifier, folder = check_format(to), one_classifier(run), run_of(run)
    if out is None and folder is None:
        raise ConfigError(f"{run}: a checkpoint without its run; say where to export to, with -o FOLDER")
    target = out if out is not None else Path(str(folder)) / "export" / ("" if form.reader else to)
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target}: is a file; an export is a folder")
    if (target / form.file).exists() and not (target / f"{to}.json").exists():
        raise ConfigError(f"{target / form.file}: is there already, and no export as {to}; name another folder with -o")
    check_place((target if target.exists() else _above(target)) / form.file)
    if classifier.preprocessing is None:
        raise ConfigError(f"{run}: its checkpoint has no preprocessing; it was trained without ImageData")
    images = _images(run, folder, data, classifier.preprocessing.reduction)
    with quiet(), TemporaryDirectory(prefix=".export-", dir=_above(target)) as temporary:
        work, files = Path(temporary) / "export", Path(temporary) / "images"
        work.mkdir()
        files.mkdir()
        photos = write_images(images, files)
        job = Job(run, folder, classifier, metadata_of(run, folder, classifier), work)
        try:
            form.write(job)
        except SagittaError:
            raise
        except Exception as error:  # exporters raise whatever comes of an operation that they do not know
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ExportError(f"{classifier.name} cannot be written as {to}: {reason}") from error
        if form.reader:
            (work / PREPROCESSING_FILE).write_text(job.metadata["preprocessing"] + "\n")
            shutil.copyfile(reader.__file__, work / READER_FILE)
        size = sum((work / name).stat().st_size for name in (form.file, *form.beside))
        proof = prove(to, work, form, classifier, photos)
        found = Exported(target / form.file, to, form.runtime, size, proof)
        told = {"format": to, "runtime": form.runtime, "bytes": size, "proof": proof.to_dict(), **job.metadata}
        names = sorted(path.name for path in work.iterdir())
        (work / f"{to}.json").write_text(json.dumps(told | {"files": names}, indent=2, ensure_ascii=False) + "\n")
        target.mkdir(parents=True, exist_ok=True)
        for path in work.iterdir():  # safetensors writes for its owner alone, and another one may serve it
            path.chmod((work / f"{to}.json").stat().st_mode)
        for name in set(_files_of(target / f"{to}.json")) - set(names):
            (target / name).unlink(missing_ok=True)
        for path in sorted(work.iterdir(), key=lambda path: path.name == form.file):  # the model last
            path.replace(target / path.name)
    return found


def _above(target: Path) -> Path:
    """Return the nearest folder above a path that is there."""
    return next(folder for folder in target.absolute().parents if folder.is_dir())


def _files_of(told: Path) -> list[str]:
    """Return the names of an earlier export's files, where it says them."""
    found: list[str] = json.loads(told.read_text()).get("files", []) if told.is_file() else []
    return [name for name in found if Path(name).name == name]


def _images(run: Path, folder: Path | None, data: str | None, reduction: Reduction | None) -> ImageData:
    """Return the data to prove an export on, set up."""
    if data is not None:
        settings = other_settings(data, "val", reduction)
    elif folder is None or not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{run}: no configuration that names the data, and an export is proven on images; give --data"
        )
    else:
        settings = own_settings(folder, "name it with --data").changed({"data.batch_size": None})
    images = settings.image_data()
    images.prepare_data()
    images.setup("test")
    return images
