"""`sagitta export`: one run, one format, one proof; or no file at all."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sagitta.errors import ConfigError
from sagitta.evaluation import one_classifier, quiet
from sagitta.exporting import reader
from sagitta.exporting.formats import check_format
from sagitta.exporting.graph import Graph, an_input
from sagitta.exporting.metadata import metadata_of
from sagitta.exporting.proof import ExportError, Proof, prove, write_images
from sagitta.files import check_place
from sagitta.loading import ImageData
from sagitta.models import Classifier
from sagitta.run import CONFIG_FILE, find_source, run_of
from sagitta.settings import Settings

PREPROCESSING_FILE, READER_FILE = "preprocessing.json", "reader.py"


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
        proof = self.proof
        return "\n".join(
            [
                f"{self.path}: {self.bytes / 1e6:.1f} MB, for {self.runtime} and newer",
                f"proof: {proof.same} of {proof.images} images are decided alike in a process without Sagitta, "
                f"probabilities within {proof.difference:.1e} ({proof.split}, and copies turned, grey, CMYK, "
                "transparent, long)",
                f"speed: {1e3 * proof.one:.1f} ms an image, {1e3 * proof.many:.1f} ms for 32, on two cores",
                f"beside it: {PREPROCESSING_FILE}, what has to be done to a file before; {READER_FILE} does it",
            ]
        )

    def __str__(self) -> str:
        return self.text()


def export(run: Path, to: str = "onnx", out: Path | None = None, *, data: str | None = None) -> Exported:
    """Write a run's model in another format, and prove it.

    Args:
        run: run directory or checkpoint file.
        to: ``onnx``, ``openvino`` or ``torch`` (a program of ``torch.export``).
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
    target = out if out is not None else Path(str(folder)) / "export"
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target}: is a file; an export is a folder")
    check_place(target / form.file if target.exists() else target)
    images = _images(run, folder, data)
    how = classifier.preprocessing
    graph = Graph(classifier)
    assert how is not None
    with quiet(), TemporaryDirectory(prefix=".export-", dir=target.absolute().parent) as temporary:
        work, files = Path(temporary) / "export", Path(temporary) / "images"
        work.mkdir()
        files.mkdir()
        split, listed, called = write_images(images, files)
        metadata = metadata_of(run, folder, classifier)
        try:
            form.write(graph, an_input(how, 2), metadata, work / form.file)
        except Exception as error:  # exporters raise whatever comes of an operation that they do not know
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ExportError(f"{classifier.name} cannot be written as {to}: {reason}") from error
        (work / PREPROCESSING_FILE).write_text(metadata["preprocessing"] + "\n")
        shutil.copyfile(reader.__file__, work / READER_FILE)
        proof = prove(to, work, form.file, classifier, listed, called, split)
        names = [form.file, *form.beside]
        size = sum((work / name).stat().st_size for name in names)
        found = Exported(target / form.file, to, form.runtime, size, proof)
        told = {"format": to, "runtime": form.runtime, "bytes": size, "proof": proof.to_dict()} | metadata
        (work / f"{to}.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(work.iterdir(), key=lambda path: path.name == form.file):  # the model last
            path.replace(target / path.name)
    return found


def _images(run: Path, folder: Path | None, data: str | None) -> ImageData:
    """Return the data to prove an export on, set up."""
    if data is not None:
        settings = Settings.of({"source": data, "data.convert.purpose": "val"})
    elif folder is None or not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{run}: no configuration that names the data, and an export is proven on images; give --data"
        )
    else:
        own = Settings.read(folder / CONFIG_FILE)
        settings = own.changed({"source": find_source(folder, own.source), "data.batch_size": None})
    images = settings.image_data()
    images.prepare_data()
    images.setup("test")
    return images
