import json
from typing import Any

import pytest

from sagitta.errors import SourceError
from sagitta.sources.annotations import records


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"a.jpg": "cat", "b.jpg": 2}, [("a.jpg", "cat"), ("b.jpg", 2)]),
        ({"cat": ["x/1", "x/2"], "dog": ["x/3"]}, [("x/1", "cat"), ("x/2", "cat"), ("x/3", "dog")]),
        ({"labels": {"a": [0, 1], "b": []}, "classes": ["x", "y"]}, [("a", ["x", "y"]), ("b", [])]),
        ({"labels": {"a": {"label": "x"}}}, [("a", "x")]),
        (
            {
                "images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "b"}, {"id": 3, "file_name": "c"}],
                "annotations": [{"image_id": i, "category_id": k} for i, k in ((1, 7), (1, 8), (2, 7))],
                "categories": [{"id": 7, "name": "x"}, {"id": 8, "name": "y"}],
            },
            [("a", ["x", "y"]), ("b", ["x"])],
        ),
    ],
)  # fmt: skip
def test_forms_of_json(data: Any, expected: list[Any]) -> None:
    assert [(row["path"], row["label"]) for row in records("t", json.dumps(data))] == expected


def test_categories_without_names_are_numbers() -> None:
    images, marks = [{"id": 1, "file_name": "a"}], [{"image_id": 1, "category_id": 7}]
    data = {"images": images, "annotations": marks, "categories": [{"id": 7, "supercategory": "Birds"}]}
    assert records("t", json.dumps(data)) == [{"path": "a", "label": "7"}]


def test_ids_of_coco_are_one_whether_text_or_number() -> None:
    data = {
        "images": [{"id": "1", "file_name": "a"}, {"id": 2, "file_name": "b"}],
        "annotations": [{"image_id": 1, "category_id": "7"}, {"image_id": "2", "category_id": 7}],
        "categories": [{"id": 7, "name": "x"}],
    }
    assert [(row["path"], row["label"]) for row in records("t", json.dumps(data))] == [("a", "x"), ("b", "x")]


def test_label_studio_leaves_out_what_nobody_labelled() -> None:
    answer = {"result": [{"type": "choices", "value": {"choices": ["x"]}}]}
    tasks = [
        {"id": 1, "data": {"image": "a.jpg"}, "annotations": [answer, answer]},
        {"id": 2, "data": {"image": "b.jpg"}, "annotations": []},
        {"id": 3, "data": {"image": "c.jpg"}, "annotations": [{"was_cancelled": True, "result": []}]},
    ]
    assert records("t", json.dumps(tasks)) == [{"path": "a.jpg", "label": "x"}]
    other = {"result": [{"type": "choices", "value": {"choices": ["y"]}}]}
    with pytest.raises(SourceError, match="task 1 has different answers"):
        records("t", json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [answer, other]}]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}, r"objects \(COCO\), for detection"),
        (
            {"images": [], "annotations": [{"image_id": 1, "caption": "a cat"}]},
            "without category_id",
        ),
        ({"images": [{"id": 1}], "annotations": [{"image_id": 2, "category_id": 7}]}, "no annotation is of a listed"),
        (
            {
                "images": [{"id": 1}],
                "annotations": [{"image_id": 1, "category_id": 8}],
                "categories": [{"id": 7, "name": "x"}],
            },
            "image 1 is of category 8, which is not listed",
        ),
        ([{"data": {"image": "a"}, "annotations": [{"result": [{"type": "rectanglelabels"}]}]}], "rectanglelabels"),
        ({"labels": {"a": [{"label": "x", "bounding_box": [0, 0, 1, 1]}]}}, "FiftyOne"),
        ({"labels": {"a": 5}, "classes": ["x"]}, "has label 5, but there are 1 classes"),
        ({"a1": {"filename": "a", "regions": [{}]}}, "VGG Image Annotator"),
        ([{"data_row": {}}], "Labelbox"),
        ([{"data_units": {}}], "Encord"),
        ({"a.jpg": {"metadata": {}, "instances": []}}, "SuperAnnotate"),
        ([{"image": "a", "label": [{"label": "x", "topX": 0.1}]}], "topX"),
        ([{"image": "a", "annotations": [{"label": "x", "coordinates": {"x": 1}}]}], "coordinates"),
        ({"items": [], "categories": {}}, "Datumaro"),
        ({"samples": []}, "FiftyOneDataset"),
        ({"a": None}, "of a form that is not understood"),
        ({"images": [1], "annotations": [1]}, "of a form that is not understood"),
    ],
)
def test_other_tasks_and_tools_are_named(data: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        records("t.json", json.dumps(data))
