"""What label tools write as JSON, as records of a file and its class; formats for other tasks are named and refused."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sagitta.dataset import split_of
from sagitta.errors import SourceError
from sagitta.sources.base import IMAGE_SUFFIXES, suffix

Record = dict[str, Any]

_ROW = "write a CSV with the columns path and label"
_REGIONS = (
    "bbox", "segmentation", "keypoints", "bounding_box", "detections", "coordinates", "polygon", "objects", "topX",
    "xmin", "points",
)  # fmt: skip
_OF_COCO = frozenset({"id", "file_name", "label", "width", "height", "license", "coco_url", "flickr_url", "url"})
"""Keys of COCO's images that say nothing of them; others (``location``, ``seq_id``) may be groups, or splits."""
_EXPORTS = {
    ("data_row",): "Labelbox's",
    ("Labeled Data",): "Labelbox's",
    ("data_units",): "Encord's",
    ("metadata", "instances"): "SuperAnnotate's",
}
"""Keys of a tool's objects, where its export is not read."""


def records(where: str, text: str) -> list[Record]:
    """Return one record a row from JSON or JSON lines; ``path`` and ``label`` where the format is known.

    Read are COCO, Label Studio, FiftyOne, VGG VIA, lists of objects, lines of objects, and one object of
    path -> class, class -> paths, or split -> rows of (path, number, class).

    Raises:
        SourceError: it is no JSON, of no form that is understood, or says where objects are in their images.
    """
    data = _parsed(where, text)
    try:
        return _of_any(where, data)
    except (AttributeError, TypeError, KeyError, IndexError, StopIteration) as error:
        raise SourceError(f"{where}: JSON of a form that is not understood ({error!r}); {_ROW}") from None


def _of_any(where: str, data: Any) -> list[Record]:
    if isinstance(data, list):
        return _of_list(where, data)
    if not isinstance(data, dict):
        raise SourceError(f"{where}: JSON of one value, no rows; {_ROW}")
    if isinstance(data.get("images"), list) and isinstance(data.get("annotations"), list):
        return list(_coco(where, data))
    if isinstance(data.get("labels"), dict):
        return list(_fiftyone(where, data))
    if any(isinstance(item, dict) and "regions" in item for item in data.get("_via_img_metadata", data).values()):
        return list(_via(where, data.get("_via_img_metadata", data)))
    if isinstance(data.get("items"), list) and "categories" in data:
        raise SourceError(f"{where}: Datumaro's JSON, which is not read; export it as ImageNet folders, or {_ROW}")
    if isinstance(data.get("samples"), list):
        raise SourceError(f"{where}: a FiftyOneDataset; export it as FiftyOneImageClassificationDataset, or {_ROW}")
    _refuse_exports(where, data.values())
    return list(_of_dict(where, data))


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise SourceError(f"{where}: cannot be read as a table: neither JSON nor JSON lines ({error})") from None


def _of_list(where: str, data: Sequence[Any]) -> list[Record]:
    rows = [row for row in data if isinstance(row, dict)]
    if len(rows) < len(data) or not rows:
        raise SourceError(f"{where}: JSON without objects of a file and its class; {_ROW}")
    if any(isinstance(row.get("data"), dict) and ("annotations" in row or "completions" in row) for row in rows):
        return [record for row in rows if (record := _label_studio(where, row)) is not None]
    _refuse_exports(where, rows)
    for row in rows:
        items = [row, *(item for value in row.values() if isinstance(value, list) for item in value)]
        if found := next((key for item in items if isinstance(item, dict) for key in _REGIONS if item.get(key)), None):
            raise _regions(where, f"objects ({found!r})")
    return [{name: _choices(value) for name, value in row.items()} for row in rows]


def _refuse_exports(where: str, rows: Iterable[Any]) -> None:
    for row in rows:
        for keys, tool in _EXPORTS.items() if isinstance(row, dict) else ():
            if all(key in row for key in keys):
                raise SourceError(f"{where}: {tool} export, which is not read; {_ROW}")


def _choices(value: Any) -> Any:
    """Return what a cell of Label Studio's holds: several choices are an object."""
    return value["choices"] if isinstance(value, dict) and isinstance(value.get("choices"), list) else value


def _regions(where: str, what: str) -> SourceError:
    return SourceError(f"{where}: annotations of {what}, for detection or segmentation, not classes of images; {_ROW}")


def _coco(where: str, data: Mapping[str, Any]) -> Iterator[Record]:
    """Yield the records of COCO's JSON; ids are compared as text, for some write ``7`` here and ``"7"`` there.

    Raises:
        SourceError: it has boxes or captions, an annotation is of no listed category, or none is of a listed image.
    """
    given = [category for category in data.get("categories", ()) if category.get("name") is not None]
    names = {str(category.get("id")): str(category["name"]) for category in given}  # iNaturalist's may have none
    found: defaultdict[str, list[str]] = defaultdict(list)
    for annotation in data["annotations"]:
        if annotation.get("bbox") or annotation.get("segmentation") or annotation.get("keypoints"):
            raise _regions(where, "objects (COCO)")
        category, image = str(annotation.get("category_id")), str(annotation.get("image_id"))
        if annotation.get("category_id") is None:
            raise SourceError(f"{where}: annotations without category_id (COCO's captions?), no classes; {_ROW}")
        if names and category not in names:
            raise SourceError(f"{where}: image {image} is of category {category}, which is not listed; mend one")
        label = names.get(category, category)
        if label not in found[image]:
            found[image].append(label)
    single = all(len(labels) == 1 for labels in found.values())
    rows = [(image, labels) for image in data["images"] if (labels := found.get(str(image.get("id"))))]
    if found and not rows:
        raise SourceError(f"{where}: no annotation is of a listed image (image_id {next(iter(found))}); mend one")
    for image, labels in rows:
        about = {key: value for key, value in image.items() if key not in _OF_COCO and isinstance(value, str | int)}
        yield {**about, "path": image.get("file_name"), "label": labels[0] if single else labels}


def _label_studio(where: str, task: Mapping[str, Any]) -> Record | None:
    """Return the record of a task; None where nobody has labelled it."""
    answers = []
    for annotation in task.get("annotations", task.get("completions")) or ():
        if annotation.get("was_cancelled") or not annotation.get("result"):
            continue
        for result in annotation["result"]:
            if result.get("type") not in ("choices", "rating", "taxonomy"):
                raise _regions(where, f"{result.get('type', 'objects')} (Label Studio)")
        answers.append(
            [str(choice) for result in annotation["result"] for choice in result["value"].get("choices", ())]
        )
    if not answers:
        return None
    if any(sorted(answer) != sorted(answers[0]) for answer in answers):
        raise SourceError(f"{where}: task {task.get('id')} has different answers of several people; keep one of them")
    values = [value for value in task["data"].values() if isinstance(value, str)]
    path = next((value for value in values if suffix(value.partition("?")[0]) in IMAGE_SUFFIXES), values[0])
    return {"path": path, "label": answers[0][0] if len(answers[0]) == 1 else answers[0]}


def _fiftyone(where: str, data: Mapping[str, Any]) -> Iterator[Record]:
    classes = data.get("classes") or []
    for path, target in data["labels"].items():
        targets = target if isinstance(target, list) else [target]
        if any(isinstance(item, dict) and ("bounding_box" in item or "mask" in item) for item in targets):
            raise _regions(where, "objects (FiftyOne)")
        named = [item.get("label") if isinstance(item, dict) else item for item in targets]
        if any(isinstance(item, int) and classes and not 0 <= item < len(classes) for item in named):
            raise SourceError(f"{where}: {path!r} has label {target}, but there are {len(classes)} classes; mend one")
        labels = [classes[item] if isinstance(item, int) and classes else item for item in named]
        yield {"path": path, "label": labels if isinstance(target, list) else labels[0]}


def _via(where: str, data: Mapping[str, Any]) -> Iterator[Record]:
    for item in data.values():
        if item.get("regions"):
            raise _regions(where, "regions (VGG Image Annotator)")
        attributes = {
            name: [key for key, on in value.items() if on] if isinstance(value, dict) else value
            for name, value in (item.get("file_attributes") or {}).items()
        }
        yield {"path": item.get("filename"), **attributes}


def _of_dict(where: str, data: Mapping[str, Any]) -> Iterator[Record]:
    """Yield records of path -> class, class -> paths, split -> rows, or split -> paths."""
    by_split = len(data) > 1 and all(map(split_of, data))
    for key, value in data.items():
        items = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(value, list) and isinstance(item, list) and len(item) == 3:
                yield {"path": item[0], "label": item[2], "split": key}
            elif isinstance(value, list) and isinstance(item, str) and _is_path(item):
                yield {"path": item, "split" if by_split else "label": key}
            elif isinstance(item, str | int) and not isinstance(value, list):
                yield {"path": key, "label": item}
            elif isinstance(item, dict) and not any(name in item for name in _REGIONS) and _is_path(key):
                yield {"path": key, **item}
            else:
                raise SourceError(f"{where}: JSON of a form that is not understood (at {key!r}); {_ROW}")


def _is_path(text: str) -> bool:
    return "/" in text or suffix(text) in IMAGE_SUFFIXES or re.search(r"\d", text) is not None
