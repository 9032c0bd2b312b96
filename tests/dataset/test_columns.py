import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagitta.dataset.columns import classes_among, common_label, label_numbers, label_texts
from sagitta.errors import DatasetError


def test_labels_as_text() -> None:
    numbers = pa.chunked_array([[1.0, 2.5], [float("nan"), None]])
    assert label_texts(numbers).to_pylist() == ["1", "2.5", None, None]
    assert label_texts(pa.chunked_array([["1.0", "NA", "", "None"]])).to_pylist() == ["1.0", None, None, "None"]


def test_minus_one_is_no_class_beside_two_others() -> None:
    assert classes_among(["10", "-1", "2"], numbers=True) == ("2", "10")
    assert classes_among(["1", "-1"], numbers=True) == ("-1", "1")
    assert classes_among(["b", "a", "-1"], numbers=False) == ("-1", "a", "b")


@given(st.lists(st.integers(-3, 12) | st.none(), min_size=1))
def test_numbers_find_their_names_as_text_does(labels: list[int | None]) -> None:
    names = classes_among({str(label) for label in labels if label is not None}, numbers=True)
    column = pa.chunked_array([pa.array(labels, pa.int32())])
    expected = [names.index(str(label)) if str(label) in names else -1 for label in labels]
    assert label_numbers(column, names, numbered=False).tolist() == expected
    assert label_numbers(column.cast(pa.string()), names, numbered=False).tolist() == expected


def test_a_named_column_must_be_in_every_file() -> None:
    schemas = {name: pa.schema([(name, pa.int64()), ("label", pa.int64())]) for name in ("a", "b")}
    assert common_label(schemas) == common_label(schemas, "label") == "label"
    assert common_label(schemas, "x") is None
    with pytest.raises(DatasetError, match="b: no column 'a', which a has"):
        common_label(schemas, "a")
