from pathlib import Path

from sagitta.conversion import ConvertOptions
from sagitta.diagnosis.balance import known_findings
from sagitta.diagnosis.rows import Rows
from tests.diagnosis.conftest import Maker, converted, picture, put, saved


def test_classes_too_small_imbalance_and_quarantine(rows_of_files: Maker) -> None:
    files = {f"many/{number}.jpg": saved(picture(number, 32)) for number in range(40)}
    files |= {f"few/{number}.jpg": saved(picture(100 + number, 32)) for number in range(3)}
    files["many/broken.jpg"] = b"nothing"
    found = {row["kind"]: row for row in known_findings(rows_of_files(files))}
    assert found.keys() == {"small-class", "imbalance", "quarantined"}
    assert found["small-class"]["label"] == "few" and "1 in train" in found["small-class"]["evidence"]
    assert "'many'" in found["imbalance"]["evidence"] and found["imbalance"]["score"] > 10
    assert found["quarantined"]["path"] == "many/broken.jpg" and found["quarantined"]["action"] == "none"


def test_a_group_in_several_splits_is_a_leak(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(12)]
    put(tmp_path / "images", {name: saved(picture(number, 32)) for number, name in enumerate(names)})
    lines = [f"{name},{'ab'[n % 2]},{'train' if n < 8 else 'test'},g{n % 10}" for n, name in enumerate(names)]
    table = tmp_path / "images" / "labels.csv"
    table.write_text("\n".join(["path,label,split,patient", *lines]))
    options = ConvertOptions(allow_group_overlap=True, val=0)
    from sagitta.conversion import convert
    from sagitta.dataset import ShardSet
    from sagitta.sources import SourceOptions, open_source

    convert(open_source(str(table), SourceOptions(group_column="patient"), cache=tmp_path), tmp_path / "out", options)
    found = [row for row in known_findings(Rows(ShardSet.open(tmp_path / "out"))) if row["kind"] == "group-leak"]
    assert {row["path"] for row in found} == {"0.jpg", "1.jpg"}
    assert all((row["split"], row["other_split"]) == ("train", "test") for row in found)
    assert "group 'g0' has 1 image in train and 1 image in test" in {row["evidence"] for row in found}


def test_what_was_dropped_as_asked_is_no_fault(tmp_path: Path, faulty: Path) -> None:
    shards = converted(faulty.parent / "images", tmp_path / "out", ConvertOptions(drop_duplicates=True))
    assert shards.info.quarantined and not [r for r in known_findings(Rows(shards)) if r["kind"] == "quarantined"]
