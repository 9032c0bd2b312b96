"""The site is built from the pages as they are, and the reference holds every public name once."""

import importlib.util
import re
from pathlib import Path

import pytest

import sagitta
from sagitta.cli import main
from tests.test_docs import ROOT, script


def test_the_reference_has_every_public_name_once() -> None:
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    named = [name for page in pages for name in re.findall(r"^::: sagitta\.(\w+)$", page.read_text(), re.MULTILINE)]
    assert sorted(named) == sorted(set(dir(sagitta)) - {"__version__"})


def test_the_command_line_page_is_what_the_commands_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = script(ROOT / "docs" / "site.py").command_line()
    monkeypatch.setenv("COLUMNS", "100")
    names = re.findall(r"^## (\w+)$", page, re.MULTILINE)
    assert len(names) == 17 and {"convert", "benchmark", "report"} <= set(names)
    for name in names:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert f"{capsys.readouterr().out.rstrip()}\n```" in page
    parts = dict(zip(names, re.split(r"^## \w+$", page, flags=re.MULTILINE)[1:], strict=True))
    assert {name for name, text in parts.items() if "  --device " in text} == {"predict", "serve"}  # troubleshooting.md
    assert {"fit", "test"} <= {name for name, text in parts.items() if "  --devices " in text}


def test_links_lead_where_files_are_in_the_site_and_lose_those_that_are_not(tmp_path: Path) -> None:
    site = script(ROOT / "docs" / "site.py")
    text = (
        "<!-- network: far -->\n[a](docs/serving.md#logs) [b](src/sagitta/errors.py) [c](bench/README.md) "
        "[`d`](examples/mnist.py) ![e](docs/fit.svg) [f](https://example.org) [g](#h) [i](missing.md)"
    )
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "ROOT", tmp_path)
        patch.setattr(site, "HERE", tmp_path / "docs")
        for name in (
            "docs/serving.md",
            "docs/fit.svg",
            "src/sagitta/errors.py",
            "bench/README.md",
            "examples/mnist.py",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert site.gathered(page, "guides/page.md") == (
            "\n[a](../serving.md#logs) [b](../source/src/sagitta/errors.py.txt) [c](../benchmarks.md) "
            "[`d`](../reference/examples.md#mnistpy) ![e](../fit.svg) [f](https://example.org) [g](#h) [i](missing.md)"
        )


def test_lists_and_tables_begin_after_an_empty_line() -> None:
    site = script(ROOT / "docs" / "site.py")
    assert site.spaced("one\n- two\n  three\n- four\n\n## five\n- six") == (
        "one\n\n- two\n  three\n- four\n\n## five\n- six"
    )
    assert site.spaced("one:\n1. two\n2. three\nfour\n|a|\n|-|") == "one:\n\n1. two\n2. three\nfour\n\n|a|\n|-|"
    code = "```bash\na\n- b\n```"
    assert site.spaced(code) == code


def test_what_helps_is_in_sight_and_the_folder_of_guides_is_a_list_of_them() -> None:
    site = script(ROOT / "docs" / "site.py")
    found = site.pages()
    nav = {title: place for part in site.navigation(found) for title, place in part.items()}
    assert list(nav) == ["Home", "Tutorial", "Guides", "Coming from …", "Help and facts", "Reference", "Project"]
    help_pages = [page for part in nav["Help and facts"] for page in part.values()]
    assert help_pages == ["troubleshooting.md", "features.md", "scale.md", "benchmarks.md"]
    project = [page for part in nav["Project"] for page in part.values()]
    assert project == ["architecture.md", "contributing.md", "security.md", "changelog.md"]
    assert "(guides/index.md)" in found["index.md"]
    listed = re.findall(r"^- \[.+\]\((\w[\w-]*)\.md\): .+\.$", found["guides/index.md"], re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "docs" / "guides").glob("*.md"))


def test_an_option_in_a_table_is_one_word() -> None:
    site = script(ROOT / "docs" / "site.py")
    kept = '<td><code>fit <span class="whole">--ema</span> 0.9</code> a-b</td><p><code>--ema</code></p>'
    assert site.kept_whole("<td><code>fit --ema 0.9</code> a-b</td><p><code>--ema</code></p>") == kept


def test_problems_of_a_built_site_are_seen(tmp_path: Path) -> None:
    site = script(ROOT / "docs" / "site.py")
    (tmp_path / "b.html").write_text("<h1 id=there>b</h1>")
    (tmp_path / "a.html").write_text(
        "<a href='b.html#there'>1</a><a href='b.html#gone'>2</a><a href='c.html'>3</a><a href='https://example.org'>4</a>"
        "<script src='https://example.org/x.js'></script><link rel=stylesheet href='https://example.org/x.css'>"
        "<p>text\n- item</p><p><code>- code</code></p>"
    )
    assert list(site.problems(tmp_path)) == [
        "a.html: markup shows: - item",
        "a.html: b.html#gone: no such anchor",
        "a.html: c.html leads nowhere",
        "a.html: loads https://example.org/x.js",
        "a.html: loads https://example.org/x.css",
    ]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("zensical") is None, reason="pip install '.[docs]'")
def test_the_site_builds_without_a_warning_or_a_dead_link(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    site = script(ROOT / "docs" / "site.py")
    site.build(tmp_path / "site", tmp_path / "build")
    assert "no dead link" in capfd.readouterr().out
    assert "Train, validate and test a classifier" in (tmp_path / "site" / "reference" / "verbs.html").read_text()
