import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.errors import SourceError
from sagitta.sources.tables import head, read_table
from sagitta.sources.tree import FolderReader, Tree


def named(text: str) -> bool:
    return text in ("a1", "a2", "img/a1.jpg")


def read(name: str, data: str | bytes) -> dict[str, list[object]]:
    found: dict[str, list[object]] = read_table(
        name, name, data.encode() if isinstance(data, str) else data, named
    ).to_pydict()
    return found


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("t.csv", "id,label\na1,cat\n", {"id": ["a1"], "label": ["cat"]}),
        ("t.csv", "a1,cat\na2,dog\n", {"column 1": ["a1", "a2"], "column 2": ["cat", "dog"]}),
        ("t.csv", "lost.jpg,cat\na2,dog\n", {"column 1": ["lost.jpg", "a2"], "column 2": ["cat", "dog"]}),
        ("t.csv", "lost,cat\na3,cat\n", {"column 1": ["lost", "a3"], "column 2": ["cat", "cat"]}),
        ("t.csv", "a1,x|y|z\na2,x\n", {"column 1": ["a1", "a2"], "column 2": ["x|y|z", "x"]}),
        ("t.csv", "id,x,x\na1,1,2\n", {"id": ["a1"], "x": ["1"], "3.x": ["2"]}),
        ("t.csv", ",id,label\n7,a1,1\n", {"column 1": ["7"], "id": ["a1"], "label": ["1"]}),
        ("t.csv", "sep=;\r\nid;label\r\na1;1,5\r\n", {"id": ["a1"], "label": ["1,5"]}),
        ("t.txt", "img/a1.jpg 0\nmy b.jpg 1\n", {"column 1": ["img/a1.jpg", "my b.jpg"], "column 2": ["0", "1"]}),
        ("t.txt", "a1 Boeing 707\na2 A320\n", {"column 1": ["a1", "a2"], "column 2": ["Boeing 707", "A320"]}),
        ("t.txt", "# list\na1  1  2\n", {"column 1": ["a1"], "column 2": ["1"], "column 3": ["2"]}),
        ("t.txt", "2\nA B\na1  1 -1\na2 -1 1\n", {"column 1": ["a1", "a2"], "A": ["1", "-1"], "B": ["-1", "1"]}),
        ("t.txt", "image kind\na1 x2\na2 x3\n", {"image": ["a1", "a2"], "kind": ["x2", "x3"]}),
        ("t.txt", "image,label\na1,cat\n", {"image": ["a1"], "label": ["cat"]}),
        ("t.jsonl", '{"f": "a1", "m": {"k": 1}}\n{"f": "a2"}\n', {"f": ["a1", "a2"], "m.k": ["1", None]}),
        ("t.json", '[{"f": "a1", "l": ["x", "y"]}, {"f": "a2", "l": []}]', {"f": ["a1", "a2"], "l": [["x", "y"], []]}),
        ("t.csv", "id,label\na1,é\n".encode("utf-16"), {"id": ["a1"], "label": ["é"]}),
        ("t.csv", "id,label\ra1,cat\ra2,dog\r", {"id": ["a1", "a2"], "label": ["cat", "dog"]}),
    ],
)  # fmt: skip
def test_columns_of_every_format(name: str, data: str | bytes, expected: dict[str, list[object]]) -> None:
    assert read(name, data) == expected


def parquet(columns: dict[str, list[str]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="none", use_dictionary=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


WRITTEN = parquet({"id": ["a1", "a2"], "label": ["cat", "dog"]})


def test_a_parquet_head_that_is_no_text_is_not_looked_at(tmp_path: Path) -> None:
    for data, seen in ((WRITTEN, True), (WRITTEN.replace(b"cat", b"c\xe9t"), False)):
        (tmp_path / "t.parquet").write_bytes(data)
        tree = Tree("here", dict, FolderReader(str(tmp_path)), str(tmp_path))
        assert (head(tree, "t.parquet", named) is not None) == seen


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"id,label\na,caf\xe9\n", r"t\.csv: cannot be read as a table: byte 14 is not UTF-8 \(Windows-1252"),
        ("t.csv", "id,label\n".encode("utf-16-le") + b"\xff", "UTF-16 without its mark"),
        ("t.txt", "q x y\nr z\n", "its lines differ in length"),
        ("t.json", "[1, 2]", "JSON without objects"),
        ("t.json", "{", "neither JSON nor JSON lines"),
        ("t.parquet", b"PAR1", "cannot be read as a table"),
        ("t.parquet", WRITTEN.replace(b"cat", b"c\xe9t"), r"cannot be read as a table .*Invalid UTF8"),
        ("t.parquet", WRITTEN[:10] + b"\xff" * 9 + WRITTEN[19:], r"cannot be read as a table \(.*\)[^\n]*$"),
    ],
)
def test_what_cannot_be_read_is_said(name: str, data: str | bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(name, data)


def test_of_json_that_names_no_file_nothing_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"a": "b"}')
    tree = Tree("given", lambda: {"t.json": 9}, FolderReader(str(tmp_path)), str(tmp_path))
    assert head(tree, "t.json", named) is None
    (tmp_path / "t.json").write_text('[{"f": "img\\/a1.jpg"}]')
    assert head(tree, "t.json", named) == pa.table({"f": ["img/a1.jpg"]})


def test_declared_names_stand_for_numbers() -> None:
    """As ``datasets`` writes a table of paths: names in the schema, numbers in the column."""
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for labels, expected in (([1, 0, -1, None], ["dog", "cat", None, None]), ([2], None)):
        table = pa.table({"id": ["a"] * len(labels), "label": pa.array(labels, pa.int64())})
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(metadata), sink)
        data = sink.getvalue().to_pybytes()
        if expected:
            assert read("t.parquet", data)["label"] == expected
        else:
            with pytest.raises(SourceError, match="column 'label' holds 2, but has 2 class names; mend one"):
                read("t.parquet", data)
