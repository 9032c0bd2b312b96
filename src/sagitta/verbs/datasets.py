"""Images to a dataset, and what is wrong with one."""

from typing import TYPE_CHECKING, Any, Literal

from sagitta.errors import ConfigError
from sagitta.models import preload
from sagitta.run import weights_file
from sagitta.settings import check_early, settings_of
from sagitta.terminal import show
from sagitta.verbs.places import Numbers, PathLike, numbers_text, path_of, plain

if TYPE_CHECKING:
    from sagitta.dataset import ShardSet, Verified
    from sagitta.diagnosis import Findings


def convert(
    source: PathLike,
    out: PathLike,
    *,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    group: str | None = None,
    layout: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    label_separator: str | None = None,
    resize: int | None = None,
    quality: int | None = None,
    range: Numbers = None,
    bands: Numbers = None,
    restart_markers: bool = False,
    shard_size: int | None = None,
    workers: int | None = None,
    on_bad: Literal["quarantine", "fail"] | None = None,
    min_images: int | None = None,
    allow_group_overlap: bool = False,
    drop_duplicates: bool = False,
    fix: PathLike | None = None,
) -> "ShardSet":
    """Turn images into a dataset of standard Parquet that every tool opens; returns it, open.

    Args:
        source: folder, archive, table, ``hf://USER/NAME`` or a built-in name.
        out: the folder to make.
        val: share of rows for val where the source has none (0.1).
        test: likewise for test (0.1 where no split is given).
        seed: of the stratified split.
        group: table's column whose equal values stay in one split.
        layout: how the source is laid out, where the detection is wrong.
        path_column: table's column with the file; likewise the next two with class and split.
        label_column: see there.
        split_column: see there.
        label_separator: between several labels in one cell; empty for one label; detected by default.
        resize: make the shorter side so many pixels long; never enlarges.
        quality: JPEG quality, 1 to 100, of re-encoded images.
        range: the values of samples of more than 8 bits that become black and white, such as ``(0, 4095)``; ``auto``
            takes the data's percentiles.
        bands: one or three of the stored bands, as grey or as red, green and blue, such as ``(3, 2, 1)``.
        restart_markers: let training decode only the tiles of a JPEG that a crop needs; lossless.
        shard_size: bytes.
        workers: processes; all cores by default. Never changes the output.
        on_bad: quarantine images that are unreadable or missing, or fail; by default only the missing ones of a table
            are refused.
        min_images: leave out classes with fewer readable images.
        allow_group_overlap: take given splits though a group has rows in several of them.
        drop_duplicates: leave out all but one of the images of equal pixels; of several splits, those of test stay,
            then those of val.
        fix: reviewed findings of :func:`doctor`: rows of action ``drop`` are left out, those of action
            ``relabel`` get the class in column ``proposed_label``.

    Raises:
        SagittaError: the source cannot be read or split, or ``out`` exists.
    """
    from sagitta.conversion import ConvertOptions
    from sagitta.conversion import convert as convert_source
    from sagitta.dataset import ShardSet
    from sagitta.files import user_cache
    from sagitta.sources import SourceOptions, open_source

    target = path_of(out)
    columns = SourceOptions(
        layout=layout, label_column=label_column, label_separator=label_separator, path_column=path_column,
        split_column=split_column, group_column=group, keep_missing=on_bad == "quarantine",
    )  # fmt: skip
    size: dict[str, Any] = {} if shard_size is None else {"shard_size": shard_size}
    options = ConvertOptions(
        val=val, test=test, seed=seed, resize=resize, quality=quality, range=numbers_text(range),
        bands=numbers_text(bands), restart_markers=restart_markers, workers=workers, on_bad=on_bad,
        min_images=min_images, allow_group_overlap=allow_group_overlap,
        drop_duplicates=drop_duplicates, fix=None if fix is None else str(path_of(fix)), **size,
    )  # fmt: skip
    opened = open_source(plain(source), columns, cache=user_cache())
    show(opened.describe())
    convert_source(opened, target, options, progress=True)
    return ShardSet.open(target)


def verify(dataset: PathLike) -> "Verified":
    """Make sure that a converted dataset is what was written, to the last bit; returns how much that is.

    Raises:
        DatasetError: something is damaged: names the file, the row or column where that is known, and what to do. Where
            there is more than one, each has been printed on a line of its own.
    """
    from sagitta.dataset import verify as read_all
    from sagitta.errors import DatasetError

    found = read_all(path_of(dataset), show=True)
    if len(found.damage) > 1:
        for line in found.damage:
            show(line)
    if found.damage:
        raise DatasetError(str(found))
    return found


def doctor(
    source: PathLike,
    *,
    model: str | None = None,
    pretrained: bool = False,
    weights: PathLike | None = None,
    run: PathLike | None = None,
    image_size: int | None = None,
    out: PathLike | None = None,
    contact_sheet: PathLike | None = None,
    val: float | None = None,
    test: float | None = None,
    group: str | None = None,
    range: Numbers = None,
    bands: Numbers = None,
    allow_group_overlap: bool | None = None,
    min_images: int | None = None,
    layout: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    label_separator: str | None = None,
) -> "Findings":
    """Look for what is wrong with a dataset: leaks, copies, odd images, cues, label errors; returns it, worst first.

    Args:
        source: a converted dataset, or anything that :func:`convert` takes, converted once into a cache.
        model: network of timm or torchvision, by whose features label errors are looked for.
        pretrained: with the weights that timm or torchvision publishes.
        weights: with those of a file, a checkpoint or a run.
        run: with the network and the weights of a run, instead of ``model``, ``weights`` and ``pretrained``.
        image_size: pixels a side of its input, by default that of the weights.
        out: file for the findings, ``.csv`` or ``.parquet``.
        contact_sheet: PNG to write, of the worst of each kind.
        val: as for :func:`fit`, and so the next ten.
        test: see there.
        group: see there.
        range: see there.
        bands: see there.
        allow_group_overlap: see there.
        min_images: see there.
        layout: see there.
        path_column: see there.
        label_column: see there.
        split_column: see there.
        label_separator: see there.

    Raises:
        SagittaError: the source cannot be read, or the network does not fit.
    """
    from sagitta.diagnosis import check_name
    from sagitta.files import check_place

    for place in (out, contact_sheet):
        if place is not None:
            check_place(path_of(place))
    if out is not None:
        check_name(path_of(out))
    file = _file_of(model, plain(weights), plain(run), pretrained=pretrained)
    options = {
        "val": val,
        "test": test,
        "group": group,
        "range": numbers_text(range),
        "bands": numbers_text(bands),
        "allow_group_overlap": allow_group_overlap,
        "min_images": min_images,
        "layout": layout,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "label_separator": label_separator,
    }
    check_early(plain(source), options)
    preload()
    from sagitta.diagnosis import examine, findings_sheet
    from sagitta.evaluation import quiet

    candidate = _candidate(model, file)
    with quiet():
        data = settings_of(plain(source), options).image_data(verbose=True)
        data.prepare_data()
        data.setup()
        findings = examine(data, candidate, image_size=image_size, verbose=True)
    if out is not None:
        findings.write(path_of(out))
    if contact_sheet is not None:
        findings_sheet(findings, data.shards, path_of(contact_sheet))
    return findings


def _file_of(model: str | None, weights: str | None, run: str | None, *, pretrained: bool) -> str | None:
    """Return the file or run with the weights of the network by whose features label errors are looked for, if any.

    Raises:
        ConfigError: there is none, or network and weights are not named together.
    """
    if run is not None and (model is not None or weights is not None or pretrained):
        raise ConfigError("--run names network and weights; leave --model, --weights and --pretrained out")
    if weights is not None and pretrained:
        raise ConfigError("pretrained and weights: give one of the two")
    if run is None and weights is None:
        if model is None and pretrained:
            raise ConfigError("--pretrained: of which network? Give its name with --model")
        if model is not None and not pretrained:
            raise ConfigError(f"--model {model}: of which weights? Give --weights FILE, or --pretrained")
        return None
    file = weights if run is None else run
    assert file is not None
    weights_file(path_of(file))
    return file


def _candidate(model: str | None, file: str | None) -> Any:
    """Return the network by whose features label errors are looked for, or None where none is named."""
    from sagitta.models import open_weights
    from sagitta.training import Candidate

    if file is None:
        return None if model is None else Candidate(model)
    return Candidate(open_weights(file).model() if model is None else model, file)
