import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sagitta.conversion import ConvertOptions
from sagitta.diagnosis.examination import Glance, examine, glance, told
from sagitta.diagnosis.findings import Findings, finding, table_of
from sagitta.loading import ImageData
from sagitta.signals import Interrupted
from sagitta.training import Candidate
from tests.diagnosis.conftest import converted, picture, put, saved


@pytest.fixture
def data(faulty: Path) -> ImageData:
    found = ImageData(faulty)
    found.prepare_data()
    found.setup()
    return found


def test_everything_is_found_at_once(data: ImageData) -> None:
    found = examine(data)
    assert found.images == 50 and found.leaks == 3
    assert {"exact-leak", "near-leak", "label-conflict", "exact-duplicate", "near-duplicate", "blank", "dark"} <= set(
        found.kinds
    )
    assert [note.partition(":")[0] for note in found.notes] == ["label errors"]


def test_a_network_adds_label_errors_or_doubts(data: ImageData, weights_folder: Path) -> None:
    found = examine(data, Candidate("resnet20", str(weights_folder / "weights.pth")))
    assert not found.notes
    assert any(kind.startswith("label-") for kind in found.kinds)  # a random network: whatever it says are doubts


def test_a_glance_finds_leaks_and_says_what_it_left_out(data: ImageData) -> None:
    found = glance(data)
    assert found.leaks == 3 and not found.notes
    hurried = glance(data, seconds=-1)
    assert hurried.leaks == 0 and hurried.notes == ("all but copies of equal bytes in 50 of 50 images",)


def test_one_line_where_all_is_well_else_one_for_each_serious_kind() -> None:
    file = Path("runs/x-1/findings.parquet")
    assert told(Findings("x", 3, table_of([])), file) == ["doctor: at a glance nothing serious among 3 images"]
    lesser = Findings("x", 3, table_of([finding("dark", "")]), ("so",))
    assert told(lesser, file) == [
        "doctor: at a glance nothing serious among 3 images; 1 lesser finding in runs/x-1/findings.parquet; "
        "not looked for: so"
    ]
    worse = Findings("x", 3, table_of([finding("dark", ""), finding("exact-leak", "e"), finding("near-leak", "n")]))
    lines = told(worse, file)
    assert len(lines) == 3 and lines[0].startswith("doctor: !! 1 image has an exact copy") and "1 lesser" in lines[2]


def test_a_run_keeps_the_findings(data: ImageData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Glance()(data)(tmp_path)
    assert "exact copy in another split" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "findings.parquet")["kind"].to_pylist().count("exact-leak") == 2


def test_images_of_several_labels_say_what_has_no_meaning(tmp_path: Path) -> None:
    put(tmp_path / "images", {f"{number}.jpg": saved(picture(number, 40)) for number in range(12)})
    put(tmp_path / "images", {"again.jpg": saved(picture(3, 40)), "light.jpg": saved(picture(4, 40), quality=70)})
    lines = [f"{number}.jpg,{'cat;dog' if number % 2 else 'cat'}" for number in range(12)]
    lines += ["again.jpg,dog", "light.jpg,cat"]
    put(tmp_path / "images", {"labels.csv": "\n".join(["path,label", *lines]).encode()})
    converted(tmp_path / "images", tmp_path / "out", ConvertOptions(val=0.2, test=0.2))
    data = ImageData(tmp_path / "out")
    data.setup()
    found = examine(data)
    assert "label errors and cues: images have several labels here" in found.notes
    conflicts = found.of("label-conflict").to_pylist()
    labels = {row["path"]: (row["label"], row["proposed_label"]) for row in conflicts}
    assert labels == {"again.jpg": ("dog", "cat;dog"), "3.jpg": ("cat;dog", "dog")}


def test_predictions_out_of_fold_add_label_errors(
    data: ImageData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look = Glance()
    look(data)(tmp_path)
    look.judge(tmp_path)  # a run without any
    before = pq.read_table(tmp_path / "findings.parquet")
    split = data.shards.splits["train"]
    said = [[0.95, 0.05] if label == 0 else [0.05, 0.95] for label in split.labels.tolist()]
    said[3] = said[3][::-1]
    paths = [split.path(row) for row in range(len(split))]
    names = [data.class_names[label] for label in split.labels.tolist()]
    (tmp_path / "out_of_fold").mkdir()
    table = pa.table({"path": paths, "label": names, "probabilities": pa.array(said, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "out_of_fold" / "predictions.parquet")
    look.judge(tmp_path)
    after = pq.read_table(tmp_path / "findings.parquet")
    assert after.num_rows == before.num_rows + 1
    (row,) = after.filter(pc.equal(after["kind"], "label-error")).to_pylist()
    assert row["path"] == paths[3] and row["proposed_label"] != row["label"] == names[3]
    said_last = capsys.readouterr().out
    assert "1 label is probably wrong" in said_last
    assert f"doctor: now {after.num_rows} findings in {tmp_path / 'findings.parquet'}" in said_last


def test_who_ends_the_judging_of_labels_is_told_that_the_run_is_there(data: ImageData, tmp_path: Path) -> None:
    class Asked(Glance):
        def _judge(self, run: Path) -> None:
            raise Interrupted(number=signal.SIGTERM)

    look = Asked()
    look(data)(tmp_path)
    with pytest.raises(Interrupted, match=f"{tmp_path} is there, .*: sagitta report {tmp_path} writes that") as caught:
        look.judge(tmp_path)
    assert caught.value.number == signal.SIGTERM
