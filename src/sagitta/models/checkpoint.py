"""A checkpoint -> the classifier that wrote it, and back into a file of tensors and plain values alone."""

import zipfile
import zlib
from importlib.metadata import version
from pathlib import Path

from sagitta.errors import ConfigError
from sagitta.models.classifier import ARGUMENTS, Classifier
from sagitta.models.tensors import halved, save_tensors
from sagitta.models.weights import SAGITTA_FIELDS, read_checkpoint


def load_classifier(path: str | Path) -> Classifier:
    """Open a checkpoint of a :class:`Classifier`, on the CPU, in evaluation mode.

    No pickle in it is executed. A network of somebody's own is named in it by a class path, which is imported and
    called: open such a checkpoint only where its module is one that you would run (SECURITY.md).

    Raises:
        ConfigError: there is no such file, it is damaged, or it is a checkpoint of another model.
    """
    checkpoint = read_checkpoint(path)
    if not is_intact(path):
        raise ConfigError(f"{path}: damaged, not as it was written; take another checkpoint of the run, or train again")
    stored = checkpoint.get("hyper_parameters", {})
    if not set(stored) >= SAGITTA_FIELDS:
        raise ConfigError(
            f"{path}: a checkpoint of another model, not of sagitta.Classifier; load it with the code that wrote it"
        )
    known = {name: value for name, value in stored.items() if name in ARGUMENTS}
    classifier = Classifier(**{**known, "compile": False})
    classifier.on_load_checkpoint(checkpoint)
    try:
        classifier.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, KeyError) as error:
        raise ConfigError(
            f"{path}: the weights do not fit model {stored['name']!r}: {str(error).splitlines()[0]}"
        ) from None
    return classifier.eval()


def save_classifier(path: Path, classifier: Classifier, *, half: bool = False) -> None:
    """Write a trained classifier as safetensors, see :mod:`sagitta.models.tensors`.

    :func:`load_classifier` opens it, and ``--weights`` takes it.

    Args:
        path: of the file.
        classifier: to be written.
        half: keep floats in 16 bits; they are opened as 32.

    Raises:
        OSError: it cannot be written.
    """
    fields = {
        "version": version("sagitta"),
        "hyper_parameters": dict(classifier.hparams),
        "origin": classifier.origin,
        "thresholds": classifier.thresholds if classifier.multilabel else None,
        "temperature": classifier.temperature,
    }
    state = classifier.state_dict()
    save_tensors(path, halved(state) if half else state, fields)


def is_intact(path: str | Path) -> bool:
    """Return whether a checkpoint's files have their CRC-32, at which torch itself does not look.

    One that is no ZIP archive has none.
    """
    try:
        if not zipfile.is_zipfile(path):
            return True
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
        return False
