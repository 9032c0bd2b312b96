"""Lines and tables in narrow and wide terminals: nothing is cut, and no word is broken."""

import io

import pytest

from sagitta.terminal import columns, printable, show, table, wrapped

PATH = "/data/a-very-long-folder-name/" + "x" * 60 + "/weights.safetensors"


@pytest.mark.parametrize("wide", [20, 40, 80, 160])
def test_a_line_is_broken_between_words_alone(wide: int) -> None:
    text = f"recipe: fine-tuning pretrained weights on few photos; from {PATH}, then bf16-mixed precision"
    lines = wrapped(text, wide, "  ")
    assert " ".join(line.strip() for line in lines) == text
    assert all(len(line) <= wide or len(line.split()) == 1 for line in lines)


def test_a_command_at_the_end_of_a_line_can_be_copied() -> None:
    lines = wrapped("what was done up to its last checkpoint is kept: sagitta fit --resume runs/photos-1", 60, "  ")
    assert lines == ["what was done up to its last checkpoint is kept:", "  sagitta fit --resume runs/photos-1"]


def test_each_of_two_commands_can_be_copied() -> None:
    told = "Next: sagitta predict runs/photos-1 PHOTOS…   or   sagitta test runs/photos-1 OTHER_DATA"
    assert wrapped(told, 80, "  ") == [
        "Next: sagitta predict runs/photos-1 PHOTOS…   or",
        "  sagitta test runs/photos-1 OTHER_DATA",
    ]


def test_a_sentence_that_begins_with_a_command_is_broken_like_any_other() -> None:
    told = "Act on it: sagitta convert SRC OUT --drop-duplicates for equal pixels; or review FINDINGS.csv, and run it"
    assert wrapped(told, 60) == [
        "Act on it: sagitta convert SRC OUT --drop-duplicates for",
        "equal pixels; or review FINDINGS.csv, and run it",
    ]


def test_columns_of_a_line_that_is_broken_stay_where_they_are() -> None:
    told = "test_ece       0.0026  0.0003 to 0.1708; before calibration 0.0124  0.0028 to 0.1805"
    assert wrapped(told, 80, "  ") == [
        "test_ece       0.0026  0.0003 to 0.1708; before calibration 0.0124  0.0028 to",
        "  0.1805",
    ]
    assert wrapped("   3 images are smaller than that", 20, "  ") == ["   3 images are", "  smaller than that"]


def test_letters_of_two_cells_count_twice() -> None:
    assert wrapped("猫猫猫 犬犬犬", 8) == ["猫猫猫", "犬犬犬"]


def test_in_a_file_lines_stay_whole_and_in_a_terminal_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    file, terminal = io.StringIO(), io.StringIO()
    assert columns(file) is None
    show("word " * 40, file)
    monkeypatch.setenv("COLUMNS", "80")
    show("word " * 40, terminal)
    assert file.getvalue().count("\n") == 1
    assert max(map(len, terminal.getvalue().splitlines())) <= 80


def test_a_name_that_leaves_no_room_has_a_line_of_its_own() -> None:
    rows = [("cat", "12", "0.5"), (PATH, "3", "0.25")]
    assert table(("class", "images", "F1"), rows, foot=("total", "15", ""), wide=40) == [
        "class  images    F1",
        "───────────────────",
        "cat        12   0.5",
        PATH,
        "            3  0.25",
        "───────────────────",
        "total      15",
    ]
    assert f"{PATH}       3  0.25" in table(("class", "images", "F1"), rows, wide=160)


def test_what_would_move_the_cursor_is_escaped() -> None:
    assert printable("a\nb\tc\x1b[0m 猫") == r"a\nb\tc\x1b[0m 猫"
