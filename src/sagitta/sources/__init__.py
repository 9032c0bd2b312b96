"""What people have, as rows: where each image's bytes are, its class name, and its split if it has one.

In the order of their imports::

    base         options, and what every layout needs: names, splits, several labels a row
    tree         a folder, tar or zip as names, sizes and bytes; nothing is extracted
    splitfolders which folders are splits, classes or masks
    folders      class folders; labels in file names
    splitcolumns which column of a table gives splits
    matching     which file a table's cell means
    columns      which columns of a table hold the file, the class and the group
    annotations  what label tools write as JSON
    tables       tables and lists as columns: CSV, Parquet, JSON, lines of text
    joining      from tables that name images to rows
    manifest     tables that name files
    names        real names for classes that are numbers
    formats      annotations that are not read: named and refused
    webdataset   tar shards of samples
    arrays       MNIST's idx files, CIFAR's batches
    parquet      images in Parquet
    builtin      data sets known by name, the Hugging Face Hub
    detect       which of these a location is

To add a layout, write a function ``(Tree, SourceOptions) -> Source | None`` and name it in ``detect.LAYOUTS``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
