"""A checkpoint -> the classifier that wrote it."""

from pathlib import Path

from sagitta.errors import ConfigError
from sagitta.models.classifier import ARGUMENTS, Classifier
from sagitta.models.weights import SAGITTA_FIELDS, read_checkpoint


def load_classifier(path: str | Path) -> Classifier:
    """Open a checkpoint of a :class:`Classifier`, on the CPU, in evaluation mode; nothing in it is executed.

    Raises:
        ConfigError: there is no such file, it is damaged, or it is a checkpoint of another model.
    """
    checkpoint = read_checkpoint(path)
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
