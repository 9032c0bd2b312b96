import subprocess
import sys

import pytest

from sagitta.cli.libraries import postponed

WITHOUT = """
import sys
from sagitta.cli.libraries import load
load()
print(*sorted({"scipy.signal", "pandas", "wandb"} & sys.modules.keys()))
import pyarrow as pa
table = pa.table({"a": [1, None]}).to_pandas()
print(table.a.isna().tolist(), pa.array(table.a).null_count)
import timm.utils.summary as summary
import scipy.signal, wandb
print(summary.wandb.init is wandb.init, scipy.signal.convolve([1], [2]))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A package that says when it is imported."""
    (tmp_path / "spoken").mkdir()
    (tmp_path / "spoken" / "__init__.py").write_text("import builtins\nbuiltins.spoken += 1\nword = 'here'\n")
    (tmp_path / "spoken" / "inside.py").write_text("from spoken import word\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("builtins.spoken", 0, raising=False)
    yield
    for name in ("spoken", "spoken.inside"):
        sys.modules.pop(name, None)


def test_a_command_loads_neither_sounds_nor_tables_nor_trackers_and_has_them_when_they_are_used():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["", "[False, True] 1", "True [2]"], done.stderr


@pytest.mark.usefixtures("module")
def test_a_postponed_module_is_imported_by_its_first_use():
    import builtins

    with postponed(("spoken", "no_such_module")):
        import spoken

        assert spoken.word is None and spoken.__spec__.name == "spoken"
        assert not hasattr(spoken, "__file__")  # nor does whoever looks through all modules import it
    assert builtins.spoken == 0 and "spoken" not in sys.modules
    assert spoken.word == "here" and builtins.spoken == 1
    with pytest.raises(AttributeError):
        spoken.other  # noqa: B018
    import spoken.inside as inside

    assert inside.word == "here" and builtins.spoken == 1


@pytest.mark.usefixtures("module")
def test_a_module_that_is_there_stays():
    import spoken

    with postponed(("spoken",)):
        assert sys.modules["spoken"] is spoken
    assert sys.modules["spoken"] is spoken
