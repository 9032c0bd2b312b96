"""Imports without looking for garbage, and garbage that is looked for afterwards as before."""

import gc
import os
import subprocess
import sys

import pytest

from sagitta.models import preload, preloading

SEARCHES = """
import gc, sys
from sagitta.models import preload
searches = []
gc.callbacks.append(lambda phase, info: searches.append(phase))
preload()
print(len(searches), gc.isenabled(), {"lightning.pytorch", "timm"} <= set(sys.modules))
"""


def test_nothing_is_searched_while_libraries_are_imported_and_then_it_is_again() -> None:
    done = subprocess.run([sys.executable, "-c", SEARCHES], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "True"]


def test_an_import_that_fails_leaves_the_collector_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preloading, "_LIBRARIES", ("no_such_library",))
    with pytest.raises(ImportError):
        preload()
    assert gc.isenabled()


def test_who_waits_at_a_terminal_sees_what_for() -> None:
    code = "from sagitta.models import preload; preload(); preload()"
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", 0) as read:
        piped = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
        os.close(theirs)
        assert read.read(1000).decode().count("loading PyTorch") == 1 and not piped.stderr
