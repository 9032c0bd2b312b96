"""Columns from probabilities: literals for one label and several, templates, rows without a prediction."""

import numpy as np
import pyarrow as pa
import pytest

from sagitta.errors import ConfigError
from sagitta.evaluation.answers import Answers
from sagitta.evaluation.asked import read_template
from sagitta.models import MULTI_LABEL, SINGLE_LABEL, Floats

NAMES = ["in/1.a.jpg", "bad.png", "zip/x"]
PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], np.float32)
FEATURES = np.array([[1, 2], [3, 4]], np.float32)
CLASSES = ["ant", "bee", "c,d"]


def rows(answers: Answers, features: Floats | None = None) -> list[dict[str, object]]:
    table: list[dict[str, object]] = answers.table(NAMES, {1: "broken"}, PROBABILITIES, features).to_pylist()
    return table


def test_one_label_has_the_most_probable_classes_in_order_and_the_first_of_equal_ones_first() -> None:
    found = rows(Answers(SINGLE_LABEL, CLASSES, [], top_k=2))
    assert found[0] == {
        "path": "in/1.a.jpg", "class": "bee", "probability": pytest.approx(0.7), "class_2": "c,d",
        "probability_2": pytest.approx(0.2), "error": None,
    }  # fmt: skip
    assert found[1] == dict.fromkeys(found[0]) | {"path": "bad.png", "error": "broken"}
    assert (found[2]["class"], found[2]["class_2"]) == ("ant", "bee")


def test_every_class_and_features_stand_before_the_error() -> None:
    found = rows(Answers(SINGLE_LABEL, CLASSES, [], top_k=9, every=True, embed=True), FEATURES)
    assert list(found[0])[7:] == ["p:ant", "p:bee", "p:c,d", "features", "error"]
    assert [found[0]["p:bee"], found[2]["p:ant"]] == pytest.approx([0.7, 0.5])
    assert [each["features"] for each in found] == [[1, 2], None, [3, 4]]


def test_several_labels_are_those_that_reach_their_thresholds() -> None:
    answers = Answers(MULTI_LABEL, CLASSES, [0.1, 0.6, 0.3], every=True)
    found = rows(answers)
    assert [each["classes"] for each in found] == [["bee", "ant"], None, ["ant"]]
    assert found[0]["probabilities"] == pytest.approx([0.7, 0.1]) and found[0]["p:c,d"] == pytest.approx(0.2)
    template = Answers(MULTI_LABEL, CLASSES, [1.0, 1.0, 1.0], template=read_template("id,label,number"))
    assert rows(template)[0] == {"id": "1.a", "label": [], "number": []}


def test_a_template_chooses_and_renames() -> None:
    template = read_template("image=id, label ,n=number,cat=p:ant,probability,file")
    found = rows(Answers(SINGLE_LABEL, CLASSES, [], top_k=1, template=template))
    assert found[0] == {
        "image": "1.a", "label": "bee", "n": 1, "cat": pytest.approx(0.1), "probability": pytest.approx(0.7),
        "file": "1.a.jpg",
    }  # fmt: skip
    assert found[1] == dict.fromkeys(found[0]) | {"image": "bad", "file": "bad.png"} and found[2]["image"] == "x"
    every = rows(Answers(SINGLE_LABEL, CLASSES, [], template=read_template("id,all")))
    assert list(every[0]) == ["id", "ant", "bee", "c,d"]
    assert list(rows(Answers(SINGLE_LABEL, CLASSES, [], template=read_template("class_3")))[0]) == ["class_3"]


@pytest.mark.parametrize(
    ("template", "words"),
    [("id,,label", "a name is missing"), ("id=", "a name is missing"), ("a=id,a=file", "a is given twice")],
)
def test_a_template_that_means_nothing_is_refused(template: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_template(template)


def test_a_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    for name in ("klass", "p:cat", "features", "class_4"):
        with pytest.raises(ConfigError, match=rf"{name}.* is no column; there are path, .*class_2.*p:CLASS"):
            rows(Answers(SINGLE_LABEL, CLASSES, [], template=[("x", name)]))


def test_further_columns_come_from_each_batch() -> None:
    class Unsure:
        needs_features = True

        def __call__(self, probabilities: Floats, features: Floats | None) -> dict[str, pa.Array]:
            assert features is not None and len(features) == len(probabilities)
            return {"abstain": pa.array(probabilities.max(axis=1) < 0.6, pa.bool_())}

    answers = Answers(SINGLE_LABEL, CLASSES, [], top_k=1, further=[Unsure()])
    assert answers.needs_features
    found = rows(answers, FEATURES)
    assert list(found[0])[-2:] == ["abstain", "error"] and [each["abstain"] for each in found] == [False, None, True]
    named = Answers(SINGLE_LABEL, CLASSES, [], template=read_template("sure=abstain"), further=[Unsure()])
    assert rows(named, FEATURES)[2] == {"sure": True}
