import threading
from pathlib import Path

import pytest

from sagitta.conversion.workspace import RESULT, remove_left, work_folder
from sagitta.errors import DatasetError, SourceError
from sagitta.files import lock, new_file


def fill(folder: Path, text: str) -> None:
    with new_file(folder / RESULT / "file", folder) as temporary:
        temporary.write_text(text)


def test_the_result_appears_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with work_folder(out, "key") as folder:
        fill(folder, "done")
        assert not out.exists()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["new", "new/out", "new/out/file"]


def break_off(out: Path, key: str, error: Exception, found: bool = False) -> None:
    """Begin work that finds a file or not, writes it, and fails."""
    with work_folder(out, key) as folder:
        assert (folder / RESULT / "file").exists() == found
        fill(folder, key)
        raise error


def test_work_goes_on_with_the_same_key_only(tmp_path: Path) -> None:
    for key, found in (("a", False), ("a", True), ("b", False)):
        with pytest.raises(OSError, match="full"):
            break_off(tmp_path / "out", key, OSError("full"), found)
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_where_going_on_is_no_use(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        break_off(tmp_path / "out", "key", SourceError("wrong"))
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="exists"):
        break_off(tmp_path / "out", "key", AssertionError())
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_file_that_is_not_finished_never_appears(tmp_path: Path) -> None:
    def half() -> None:
        with new_file(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        half()
    assert not list(tmp_path.iterdir())


def test_one_works_and_the_others_wait(tmp_path: Path) -> None:
    inside, outcomes = [], []

    def work() -> None:
        try:
            with work_folder(tmp_path / "out", "key") as folder:
                inside.append(folder)
                assert len(inside) == 1
                fill(folder, "done")
            outcomes.append("done")
        except DatasetError:
            outcomes.append("exists")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done", *["exists"] * 7]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_what_a_kill_behind_the_last_rename_leaves_is_removed_unless_somebody_is_at_it(tmp_path: Path) -> None:
    out, left = tmp_path / "out", tmp_path / ".out.partial"
    (left / "scan").mkdir(parents=True)
    (left / "scan" / "00000.arrow").write_text("part")
    remove_left(out)  # of an unfinished one, which goes on
    assert (left / "scan").exists()
    out.mkdir()
    with lock(left / "lock"):
        remove_left(out)
        assert (left / "scan").exists()
    remove_left(out)
    assert list(tmp_path.iterdir()) == [out]
    left.mkdir()  # killed between the removal of the lock and that of the folder
    remove_left(out)
    assert list(tmp_path.iterdir()) == [out]
