"""The errors that a person can mend.

::

    SagittaError            anything a person can mend; the command line prints it as one line and exits with 2
    |-- SourceError         what was given cannot be read as images with labels
    |-- ImageError          one image cannot be decoded
    |-- DatasetError        a converted dataset is missing, damaged or of another format
    `-- ConfigError         an option, a model name or a checkpoint does not fit
"""


class SagittaError(Exception):
    """An error whose message says which file, what is wrong and what to do."""


class SourceError(SagittaError):
    """The given folder, file, archive or name cannot be read as labelled images."""


class ImageError(SagittaError):
    """One image cannot be decoded; the message is the reason."""


class DatasetError(SagittaError):
    """A dataset is missing, incomplete, damaged or of another format version."""


class ConfigError(SagittaError):
    """An option, a model name or a checkpoint does not fit the rest."""
