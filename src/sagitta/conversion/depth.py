"""Samples of more than 8 bits and bands beyond three, in a whole source: which range they get, and what was lost."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sagitta.conversion.options import ConvertOptions
from sagitta.dataset import Reader, Source, plural
from sagitta.errors import ImageError
from sagitta.images import SCALED, Reduction, find_range, tally

_LOOKED_AT = 64


def reduction_of(source: Source, options: ConvertOptions) -> Reduction | None:
    """Return what becomes of deep samples and of bands, or None where nothing was asked for.

    The range ``auto`` is that of a few images, spread evenly over those that may be trained on; where none of them has
    more than 8 bits, there is none.
    """
    how, auto = Reduction.of(options.range, options.bands)
    if auto:
        trains = pc.fill_null(pc.equal(source.rows["split"], "train"), True)
        paths = (source.rows.filter(trains) if pc.any(trains).as_py() else source.rows)["path"]
        chosen = np.unique(np.linspace(0, len(paths) - 1, min(_LOOKED_AT, len(paths))).astype(np.int64))
        found = find_range(_readable(source.reader, [paths[place].as_py() for place in chosen.tolist()]), how.bands)
        how = Reduction(found, how.bands)
    return how if how != Reduction() else None


def _readable(reader: Reader, paths: list[str]) -> Iterator[bytes]:
    for path in paths:
        try:
            yield reader.read(path)
        except (ImageError, OSError):  # the scan will say it
            continue


def reductions(rows: pa.Table) -> dict[str, int]:
    """Return what was lost unasked in how many of the scanned rows, by the words that they share."""
    lost = rows.filter(pc.is_valid(rows["reduced"])).select(["reduced", "lowest", "highest"])
    found = lost.group_by("reduced").aggregate([([], "count_all"), ("lowest", "min"), ("highest", "max")])
    columns = (found[name].to_pylist() for name in ("reduced", "count_all", "lowest_min", "highest_max"))
    return tally({words: (count, low, high) for words, count, low, high in sorted(zip(*columns, strict=True))})


def depth_doubts(rows: pa.Table, options: ConvertOptions) -> Iterator[str]:
    """Yield what a person should know about the depths of the scanned rows, one sentence each."""
    deep = pc.sum(rows["deep"]).as_py() or 0
    scaled = pc.sum(pc.match_substring(rows["reduced"], SCALED)).as_py() or 0
    if 0 < deep < rows.num_rows:
        yield (
            f"mixed depths: {plural(deep, 'image has', 'images have')} more than 8 bits a sample and "
            f"{rows.num_rows - deep:,} 8, so that a grey level means different things; give images of one depth"
        )
    if options.range is not None and scaled:
        yield (
            f"--range {options.range} changed nothing in {plural(scaled, 'image')} of more than 8 bits, whose format "
            "is read in 8; convert them to 16-bit PNG or TIFF"
        )
    elif options.range is not None and not deep:
        yield f"--range {options.range} changed nothing: no image has more than 8 bits a sample"
