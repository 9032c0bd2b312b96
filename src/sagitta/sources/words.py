"""What people are told; imports nothing, so that ``--help`` starts fast."""

UNDERSTOOD = (
    "class folders (CLASS/x.jpg), also under train/, val/, test/; files named cat.0.jpg; a CSV, TSV, JSON or Parquet "
    "table or a list of files and labels; a .tar or .zip of these; WebDataset; MNIST idx; CIFAR batches; .npz; image "
    "Parquet"
)
"""The layouts that are detected, for help and for the error where none is."""

LAYOUT_NAMES = ("cifar", "idx", "npy", "parquet", "webdataset", "manifest", "folders", "filenames")
"""What ``--layout`` may be, for help; the names of ``detect.LAYOUTS``."""
