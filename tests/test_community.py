"""What a person meets who cites, reports or contributes: files in the form that their readers ask for, and true."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_docs import ROOT

FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
SHOWN = re.findall(r"git show (?:'(:/.+?)'|([0-9a-f]{7,}))`, (\d+) files", CONTRIBUTING)


def test_the_citation_is_of_this_version_and_has_what_its_format_requires() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["title"] and cited["type"] == "software"
    assert cited["authors"] and all(author.keys() <= {"name", "website"} for author in cited["authors"])
    assert str(cited["version"]) == project["version"] and cited["license"] == project["license"]


def test_there_is_a_form_for_what_fails_for_what_is_wrong_and_for_questions() -> None:
    assert [path.stem for path in FORMS] == ["bug", "question", "wrong-result"]
    config = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml").read_text())
    assert config == {"blank_issues_enabled": False, "contact_links": []}
    assert (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text().count("- [ ]") >= 4


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_have_the_keys_that_github_requires_and_ask_for_the_system(path: Path) -> None:
    form: dict[str, Any] = yaml.safe_load(path.read_text())
    assert form.keys() <= {"name", "description", "title", "labels", "body"} and form["name"] and form["description"]
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert fields and all(part["type"] in KINDS for part in form["body"])
    for part in form["body"]:
        assert part.keys() <= {"type", "id", "attributes", "validations"}
        assert part["attributes"]["value" if part["type"] == "markdown" else "label"]
        assert part.get("validations", {}).keys() <= {"required"}
    names = [part["id"] for part in fields]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)
    (system,) = [part for part in fields if part["id"] == "system"]
    assert "sagitta inspect --system" in system["attributes"]["label"]


def test_what_is_said_of_security_names_tests_that_are_there() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = re.findall(r"`(tests/[\w/.]+)`", text)
    assert len(named) > 10 and [name for name in named if not (ROOT / name).is_file()] == []
    assert "private vulnerability reporting" in text and not re.search(r"[\w.]+@[\w.]+", text)


def test_filters_of_the_report_that_are_named_are_there() -> None:
    said = re.search(r"\*\*A section of the report\*\*.*?3\.", CONTRIBUTING, re.DOTALL)
    code = (ROOT / "src" / "sagitta" / "reporting" / "page.py").read_text()
    assert said is not None
    words = re.findall(r"`(\w+)`", said[0].partition("Text of data")[2])
    assert {"autoescape", "finalize", "named", "safe"} <= set(words)
    assert [word for word in words if word != "safe" and f'"{word}"' not in code and f"{word}=" not in code] == []


def test_additions_to_learn_from_are_in_the_history() -> None:
    """Each commit is there and has as many files as is said; without the whole history nothing can be looked up."""
    assert len(SHOWN) == 4
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():  # a source distribution
        return

    def told(*arguments: str) -> str:
        done = subprocess.run([git, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    if told("rev-parse", "--is-shallow-repository") == "true":
        return
    for words, digest, files in SHOWN:
        assert len(told("show", "--name-only", "--format=", words or digest).splitlines()) == int(files), (
            words or digest
        )
