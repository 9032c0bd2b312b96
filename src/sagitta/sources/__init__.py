"""What people have, as rows: where each image's bytes are, its class name, and its split if it has one.

In the order of their imports::

    base         rows, reader, source: what everything here becomes
    tree         a folder, tar or zip as names, sizes and bytes; nothing is extracted
    images       class folders; labels in file names
    labels       several labels a row
    manifest     tables that name files
    webdataset   tar shards of samples
    arrays       MNIST's idx files, CIFAR's batches
    parquet      images in Parquet
    builtin      data sets known by name, the Hugging Face Hub
    detect       which of these a location is

To add a layout, write a function ``(Tree, SourceOptions) -> Source | None`` and name it in ``detect.LAYOUTS``.
"""

from sagitta.sources.base import ROWS, Reader, Source, SourceOptions
from sagitta.sources.builtin import BUILTIN
from sagitta.sources.detect import LAYOUTS, open_source

__all__ = ["BUILTIN", "LAYOUTS", "ROWS", "Reader", "Source", "SourceOptions", "open_source"]
