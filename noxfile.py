"""Every check, with its one command: ``nox -l`` lists them, ``nox -s tests`` runs one in an environment of its own.

``.ci/run`` and the workflow on GitHub call the same sessions. In the environment that is active, without installing
anything: ``nox --no-venv --no-install -s lint``. Another Python: ``nox -s tests --force-python 3.13``.
"""

from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests"]

PYTEST = ("pytest", "-q", "-n", "2", "--durations=25")
FAST = ("-m", "not slow")
WITH_THE_OLDEST = (
    *("tests/images", "tests/dataset", "tests/conversion", "tests/loading", "tests/models", "tests/exporting"),
    *("tests/serving", "tests/golden", "tests/test_settings.py", "tests/reporting/test_page.py"),
)
"""What of our packages depends most on others."""


@nox.session
def lint(session: nox.Session) -> None:
    """Style of Python and of the Containerfile."""
    session.install(".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("hadolint", "Containerfile")


@nox.session
def types(session: nox.Session) -> None:
    """Types of everything."""
    session.install(".[dev]")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but the slow ones, or those that are given: ``nox -s tests -- tests/images``."""
    session.install(".[dev]")
    session.run(*PYTEST, *(session.posargs or FAST))


@nox.session
def slow(session: nox.Session) -> None:
    """Tests of many processes, kills at random, long trainings, and what the pages show."""
    session.install(".[dev]")
    session.run(*PYTEST, "-m", "slow", *session.posargs)


@nox.session
def minimum(session: nox.Session) -> None:
    """Tests with the oldest versions that ``pyproject.toml`` admits; what these warn of is theirs."""
    session.install("--resolution", "lowest-direct", ".[dev]")
    session.run(*PYTEST, "-W", "default", *(session.posargs or (*FAST, *WITH_THE_OLDEST)))


@nox.session
def fuzz(session: nox.Session) -> None:
    """Damaged files, five minutes of them: ``nox -s fuzz -- --count 100000 --seed 7`` for a quiet hour."""
    session.install(".[dev]")
    session.run("python", "bench/fuzz.py", *(session.posargs or ("--count", "5000")))


@nox.session
def docs(session: nox.Session) -> None:
    """What the documents say of the code, and the site made of them."""
    session.install(".[dev,docs]")
    session.run("pytest", "-q", "tests/test_docs.py")
    session.run("python", "docs/site.py")


@nox.session
def wheel(session: nox.Session) -> None:
    """Sdist and wheel in ``dist/``, and the tests of the native core over what the wheel installs."""
    session.install("--group", "wheel", ".[dev]")
    dist = Path("dist")
    for old in dist.glob("sagitta-*"):
        old.unlink()
    no_source = 3  # of tools/libjpeg.py
    session.run("python", "tools/build_wheel.py", "--out", str(dist), success_codes=(0, no_source))
    made = [str(path) for path in dist.glob("*.whl")]
    if not made:
        session.skip("LEFT OUT: the source of libjpeg-turbo cannot be had here, so no wheel was built")
    session.run("uv", "pip", "install", "-q", "--no-deps", "--reinstall", *made, external=True)
    session.run("python", "-P", "-c", "import sagitta; assert 'site-packages' in sagitta.__file__, sagitta.__file__")
    session.run("sagitta", "inspect", "--engine")
    session.run("pytest", "-q", "-n", "2", *FAST, "tests/images")


@nox.session
def workflows(session: nox.Session) -> None:
    """What is wrong with the workflows on GitHub."""
    session.install("zizmor>=1.30", "check-jsonschema>=0.35")
    session.run("zizmor", "--offline", ".github")
    files = sorted(map(str, Path(".github", "workflows").glob("*.yml")))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
