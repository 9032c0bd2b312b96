"""What people are told; imports nothing, so that ``--help`` starts fast."""

UNDERSTOOD = (
    "class folders (CLASS/x.jpg), also under train/, val/ and test/; files named cat.0.jpg, dog.0.jpg; a CSV, TSV, "
    "JSON or Parquet table or a list of file names and labels; a .tar or .zip of these; WebDataset tars; "
    "MNIST idx files; CIFAR batches; "
    "image Parquet"
)
"""The layouts that are detected, for help and for the error where none is."""

LAYOUT_NAMES = ("cifar", "idx", "parquet", "webdataset", "manifest", "folders", "filenames")
"""What ``--layout`` may be, for help; the names of ``detect.LAYOUTS``."""
