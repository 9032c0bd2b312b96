"""Why a run says of an image what it says: where it looked, and which training images are most like it.

Heat maps are those of :mod:`sagitta.evaluation.heatmaps`; of several networks, the mean of theirs, each where its crop
lies in the image. The nearest images are those of :mod:`sagitta.evaluation.neighbours`.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import torch
from PIL import Image
from torch import Tensor

from sagitta.errors import ConfigError, SagittaError, SourceError
from sagitta.evaluation.computing import first_head, inputs_of
from sagitta.evaluation.heatmaps import heat_maps
from sagitta.evaluation.inputs import Inputs
from sagitta.evaluation.members import Model, Part, open_model
from sagitta.evaluation.neighbours import Neighbour, Neighbours
from sagitta.evaluation.novelty import UNUSUAL
from sagitta.evaluation.trust import open_trust
from sagitta.files import write_atomic
from sagitta.images import Tile, decode, fitted, grid, reduce
from sagitta.loading import Decoded, DecodedAhead, Preprocessing, crop_box
from sagitta.models import Floats, limit_threads

NEAREST_FILE = "nearest.csv"
_CHUNK = 8  # images at a time
_SIDE = 224  # pixels of a picture
_COLOURS = ((0, 0, 0, 60), (0.25, 80, 20, 120), (0.5, 190, 40, 80), (0.75, 250, 140, 30), (1, 255, 250, 150))
_WEIGHT = 0.75  # of the hottest colour, beside the image
_STRANGE = "looks like none of the classes"


@dataclass(frozen=True, repr=False)
class Explanation:
    """What speaks for a class in an image.

    Attributes:
        path: the image, as it was named.
        class_name: what is explained.
        probability: of it.
        heat: where in the whole image it is seen, (height, width) float32 in 0..1, as large as ``image``.
        image: the whole image, small.
        nearest: the training images that are most like it, the nearest first.
        unfamiliar: share of known images that look less unusual, see :mod:`sagitta.evaluation.novelty`; None where the
            run does not know.
    """

    path: str
    class_name: str
    probability: float
    heat: npt.NDArray[np.float32]
    image: Image.Image
    nearest: tuple[Neighbour, ...] = ()
    unfamiliar: float | None = None

    @property
    def is_strange(self) -> bool:
        """Whether the image looks like none of the classes."""
        return self.unfamiliar is not None and self.unfamiliar >= UNUSUAL

    @property
    def said(self) -> str:
        """The class in words, or that the image looks like none of them."""
        return f"{self.probability:.1%} {self.class_name}" + f", but it {_STRANGE}" * self.is_strange

    @property
    def overlay(self) -> Image.Image:
        """The image under its heat map."""
        return heated(self.image, self.heat)

    def picture(self) -> Image.Image:
        """Return the image beside its heat map, and below them the nearest training images."""
        strange = (_STRANGE,) * self.is_strange
        said = (f"{self.probability:.1%} {self.class_name}", *strange, self.path.rpartition("/")[2])
        tiles = [Tile(self.image, said), Tile(self.overlay, (f"what speaks for {self.class_name}",))]
        columns = max(2, len(self.nearest))
        rest = [
            Tile(each.picture, (f"{each.similarity:.2f} {each.label}", each.path.rpartition("/")[2]))
            for each in self.nearest
        ]
        empty = [None] * (columns - 2) if rest else []
        return grid([*tiles, *empty, *rest], columns, side=_SIDE)

    def __repr__(self) -> str:
        near = f"; like {', '.join(each.path for each in self.nearest)}" if self.nearest else ""
        return f"{self.path}: {self.said}{near}"

    def _repr_html_(self) -> str:
        data = io.BytesIO()
        self.picture().save(data, "PNG")
        words = escape(f"{self.path}: {self.said}", quote=True)
        encoded = base64.b64encode(data.getvalue()).decode()
        shown = f'<img alt="{words}" src="data:image/png;base64,{encoded}">'
        return f"<figure>{shown}<figcaption>{words}</figcaption></figure>"


class Explanations(tuple[Explanation, ...]):
    """Some explanations; shown in a notebook, they are pictures."""

    __slots__ = ()

    @property
    def table(self) -> pa.Table:
        """One row a nearest training image, see :func:`table_of`."""
        return table_of(self)

    def _repr_html_(self) -> str:
        return "".join(each._repr_html_() for each in self)


def table_of(explanations: Sequence[Explanation]) -> pa.Table:
    """Return one row a nearest training image, or one alone where there is none.

    Columns are ``path``, ``class``, ``probability`` and ``unfamiliar`` of the image; ``rank``, ``nearest`` (its path),
    ``label`` and ``similarity`` of the training image.
    """
    rows = [
        (
            each.path,
            each.class_name,
            each.probability,
            each.unfamiliar,
            rank,
            near and near.path,
            near and near.label,
            near and near.similarity,
        )
        for each in explanations
        for rank, near in _ranked(each)
    ]
    text, whole, number = pa.string(), pa.int64(), pa.float32()
    names = ("path", "class", "probability", "unfamiliar", "rank", "nearest", "label", "similarity")
    kinds = (text, text, number, number, whole, text, text, number)
    columns = [[row[place] for row in rows] for place in range(len(names))]
    return pa.table({name: pa.array(column, kind) for name, column, kind in zip(names, columns, kinds, strict=True)})


def _ranked(each: Explanation) -> list[tuple[int | None, Neighbour | None]]:
    return [*enumerate(each.nearest, 1)] or [(None, None)]


class Explainer:
    """A run, ready to explain.

    Args:
        run: run directory or checkpoint file.
        class_name: what is explained; None takes the most probable class, and of several labels each that is given.
        nearest: how many training images are shown beside.

    Attributes:
        notes: what is left out, and why, one sentence each.

    Raises:
        ConfigError: there is no such run or class.
    """

    def __init__(self, run: Path, class_name: str | None = None, nearest: int = 5) -> None:
        limit_threads()
        self.model: Model = open_model(run)
        if any(part.classifier.preprocessing is None for part in self.model.parts):
            raise ConfigError(f"{run}: its checkpoint has no preprocessing; it was trained without ImageData")
        names = self.model.class_names
        if class_name is not None and class_name not in names:
            some = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise ConfigError(f"--class {class_name}: no class of the model, which knows {some}")
        self._class = None if class_name is None else names.index(class_name)
        self._count, self.notes = nearest, list[str]()
        self._neighbours: Neighbours | None = None
        if nearest:
            try:
                self._neighbours = Neighbours(run, self.model)
            except SagittaError as error:
                self.notes.append(f"no nearest training images: {error}")
        self._trust = open_trust(run, self.model)
        networks = [part.classifier.network for part in self.model.parts if part.classifier.network is not None]
        self._head = first_head(networks, self._trust)
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        for part in self.model.parts:
            part.classifier.to(device)

    @property
    def finds_nearest(self) -> bool:
        """Whether training images are found."""
        return self._neighbours is not None

    def explain(self, inputs: Inputs) -> Iterator[Explanation]:
        """Yield why the run says of images what it says; one that cannot be read is a note.

        Raises:
            ConfigError: a network has no place for a heat map.
            SourceError: no image can be read.
        """
        hows = list(dict.fromkeys(_how(part) for part in self.model.parts))
        read = 0
        for decoded in DecodedAhead(inputs, hows, _CHUNK):
            self.notes += [f"{inputs.name(number)}: {reason}" for number, reason in sorted(decoded.errors.items())]
            read += len(decoded.readable)
            if decoded.readable:
                yield from self._explained(inputs, decoded, hows)
        if not read:
            raise SourceError(f"no image is readable; {self.notes[-1]}")

    def _explained(self, inputs: Inputs, decoded: Decoded, hows: Sequence[Preprocessing]) -> Iterator[Explanation]:
        pixels = {how: how.normalize(each.contiguous()) for how, each in zip(hows, decoded.pixels, strict=True)}
        with inputs_of(self._head) as seen:
            probabilities = self._probabilities(pixels)
        features = torch.cat(seen).cpu().numpy() if seen else None
        strange = self._trust(probabilities, features).get("unfamiliar")
        asked = [(place, each) for place, row in enumerate(probabilities) for each in self._classes(row)]
        near = self._neighbours and self._neighbours.nearest(pixels[hows[0]], self._count)
        places = [place for place, _ in asked]
        maps = [self._maps(part, pixels[_how(part)][places], [each for _, each in asked]) for part in self.model.parts]
        for row, (place, number) in enumerate(asked):
            whole = _whole_image(inputs, decoded.readable[place], hows[0])
            image = fitted(whole, _SIDE)
            heat = np.zeros((image.height, image.width), np.float32)
            for part, each in zip(self.model.parts, maps, strict=True):
                heat += np.float32(part.share) * _on_the_whole(each[row], whole.size, image.size, _how(part))
            yield Explanation(
                inputs.name(decoded.readable[place]),
                self.model.class_names[number],
                float(probabilities[place, number]),
                heat,
                image,
                tuple(near[place]) if near else (),
                None if strange is None else strange[place].as_py(),
            )

    def _probabilities(self, pixels: dict[Preprocessing, Tensor]) -> Floats:
        names = self.model.class_names
        mean = np.zeros((len(next(iter(pixels.values()))), len(names)), np.float32)
        for part in self.model.parts:
            order = [part.classifier.class_names.index(name) for name in names]
            with torch.inference_mode():
                device = next(part.classifier.parameters()).device
                found = part.classifier.predict_step(pixels[_how(part)].to(device), 0)
            mean += np.float32(part.share) * found[:, order].float().cpu().numpy()
        return mean

    def _classes(self, row: Floats) -> list[int]:
        """Return the numbers of the classes that are explained of one image."""
        if self._class is not None:
            return [self._class]
        decided = self.model.task.decide(row[None], self.model.first.thresholds)[0]
        given = np.flatnonzero(decided).tolist() if self.model.task.multilabel else [int(decided)]
        return given or [int(row.argmax())]

    def _maps(self, part: Part, images: Tensor, classes: Sequence[int]) -> npt.NDArray[np.float32]:
        own = part.classifier.class_names
        return heat_maps(part.classifier, images, [own.index(self.model.class_names[each]) for each in classes])


def explain(
    run: Path,
    inputs: Inputs,
    *,
    class_name: str | None = None,
    nearest: int = 5,
    output: Path | None = None,
) -> tuple[Explanations, list[str]]:
    """Return why a run says of images what it says, and what is left out, one sentence each.

    Args:
        run: run directory or checkpoint file.
        inputs: the images, see :func:`sagitta.evaluation.inputs.inputs_for`.
        class_name: as :class:`Explainer`, and so the next.
        nearest: see there.
        output: folder for what :func:`write_explanations` writes, too.

    Raises:
        SagittaError: as :class:`Explainer` does, or no image can be read.
        OSError: it cannot be written there.
    """
    explainer = Explainer(run, class_name, nearest)
    found = Explanations(explainer.explain(inputs))
    if output is not None:
        for _ in _written(found, output, nearest=explainer.finds_nearest):
            pass
    return found, [*inputs.notes, *explainer.notes]


def write_explanations(
    run: Path, inputs: Inputs, folder: Path, *, class_name: str | None = None, nearest: int = 5
) -> Iterator[str]:
    """Write a picture of each explanation, ``NAME.png``, and their table, ``nearest.csv``, into a folder.

    What was of that name is replaced; images of one name get numbers.

    Yields:
        a line on each picture, and at the end on what is left out.

    Raises:
        SagittaError: as :func:`explain` does.
        OSError: it cannot be written there.
    """
    explainer = Explainer(run, class_name, nearest)
    yield from _written(explainer.explain(inputs), folder, nearest=explainer.finds_nearest)
    yield from (*inputs.notes, *explainer.notes)


def _written(explanations: Iterable[Explanation], folder: Path, *, nearest: bool) -> Iterator[str]:
    """Write explanations into a folder, each as it comes; yields a line on each file."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    tables = []
    for found in explanations:
        stem, count = Path(found.path).stem or "image", 1
        while (name := stem if count == 1 else f"{stem}-{count}").casefold() in taken:
            count += 1
        taken.add(name.casefold())
        data = io.BytesIO()
        found.picture().save(data, "PNG")
        write_atomic(folder / f"{name}.png", data.getvalue())
        tables.append(table_of([found]))
        yield f"{folder / f'{name}.png'}: {found.said}"
    if nearest:
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(pa.concat_tables(tables), sink, pa.csv.WriteOptions(quoting_style="needed"))
        write_atomic(folder / NEAREST_FILE, sink.getvalue().to_pybytes())
        yield f"{folder / NEAREST_FILE}: the training images that are most like them"


def heated(image: Image.Image, heat: npt.NDArray[np.float32]) -> Image.Image:
    """Return an image in grey under its heat map: the hotter, the less of the image, and the lighter the colour."""
    places, *channels = np.array(_COLOURS, np.float64).T
    colours = np.stack([np.interp(heat, places, channel) for channel in channels], axis=-1)
    weight = _WEIGHT * np.clip(heat, 0, 1)[..., None] ** 0.75
    pixels = np.asarray(image.convert("L").convert("RGB"), np.float64)
    return Image.fromarray(np.rint(pixels * (1 - weight) + colours * weight).astype(np.uint8))


def _how(part: Part) -> Preprocessing:
    assert part.classifier.preprocessing is not None
    return part.classifier.preprocessing


def _whole_image(inputs: Inputs, number: int, how: Preprocessing) -> Image.Image:
    data = inputs.read(number)
    if how.reduction is not None and not inputs.is_reduced(number):
        data = reduce(bytes(data), how.reduction).data
    return Image.fromarray(decode(data))


def _on_the_whole(
    heat: npt.NDArray[np.float32], whole: tuple[int, int], shown: tuple[int, int], how: Preprocessing
) -> npt.NDArray[np.float32]:
    """Return the map of a crop on the image as it is shown, 0 beside the crop.

    Args:
        heat: (H, W) of the crop.
        whole: (width, height) of the image.
        shown: likewise, as it is shown.
        how: the crop was made.
    """
    box = np.array(crop_box(whole[1], whole[0], how)) * np.tile(np.array(shown) / np.array(whole), 2)
    left, top, right, bottom = np.rint(box).astype(int).tolist()
    width, height = max(1, right - left), max(1, bottom - top)
    sized = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR))
    found = np.zeros((shown[1], shown[0]), np.float32)
    area = found[max(0, top) : bottom, max(0, left) : right]
    area[:] = sized[max(0, -top) :, max(0, -left) :][: area.shape[0], : area.shape[1]]
    return found
