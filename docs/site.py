"""Builds the site: pages, command line and examples as the code has them; a warning or a dead link is an error.

pip install '.[docs]' && python docs/site.py      # site/index.html; `python docs/site.py FOLDER` writes it there

What stands in the repository is gathered in ``build/docs``: README is the home page, links to files that are no pages
lead to copies of them, marks for the tests go. Zensical makes pages of it; every link of what it made is
followed, every anchor is looked for, and nothing may be loaded from elsewhere.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "docs"
# Pages that stand elsewhere in the repository.
GATHERED = {
    "README.md": "index.md",
    "bench/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
# The page that a link to this folder leads to; it lists the pages in it.
GUIDES = "guides/index.md"
# The order of what is in a folder; what is not named here follows by name.
ORDER = {
    "guides": "index convert doctor train transfer probe time folds test predict explain report export serve "
    "new-project resume devices",
    "coming-from": "timm fastai ultralytics imagefolder wandb",
    "reference": "cli verbs run data model options results errors examples",
}
SHOWN = {".svg", ".png", ".jpg", ".css"}
SOURCE = re.compile(r"\]\((?:\.\./)*source/([^)#]+)\.txt\)")


def pages() -> dict[str, str]:
    """Return the site's pages, path below its root -> Markdown, as they stand in the repository or are made of it."""
    found = {target: gathered(ROOT / source, target) for source, target in GATHERED.items()}
    for path in sorted(HERE.rglob("*.md")):
        target = path.relative_to(HERE).as_posix()
        found[target] = gathered(path, target)
    return found | {GUIDES: guides(found), "reference/cli.md": command_line(), "reference/examples.md": examples()}


def gathered(source: Path, target: str) -> str:
    """Return a page of the repository with links that lead where its neighbours are in the site.

    Args:
        source: the file.
        target: its path in the site.
    """
    text = re.sub(r"^ *<!--.*?-->$", "", source.read_text(), flags=re.MULTILINE)
    link = r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)|!\[([^\]]*)\]\(([^)\s]+)\)"
    return spaced(re.sub(link, lambda match: _link(match, source, target), text))


def spaced(text: str) -> str:
    """Return a page with an empty line before each list and table, which GitHub does not need and Zensical does."""
    lines: list[str] = []
    fenced = False
    for line in text.split("\n"):
        before = lines[-1] if lines else ""
        fenced ^= line.lstrip().startswith("```")
        begins = next((start for start in (r"- ", r"\d+\. ", r"\|") if re.match(start, line)), None)
        if begins and before and not fenced and not re.match(rf"{begins}|\s|#", before):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _link(match: re.Match[str], source: Path, target: str) -> str:
    link = match[2] or match[4]
    address, _, anchor = link.partition("#")
    if urlsplit(link).scheme or not address:
        return match[0]
    file = Path(os.path.normpath(source.parent / address))
    if not file.exists():
        return match[0]  # the build says so
    inside = file.relative_to(ROOT).as_posix()
    if inside == "examples" or (inside.startswith("examples/")):
        page, anchor = "reference/examples.md", file.name.replace(".", "")
    elif inside in GATHERED:
        page = GATHERED[inside]
    elif file == HERE / "guides":
        page = GUIDES
    elif file.is_relative_to(HERE) and (file.suffix == ".md" or file.suffix in SHOWN):
        page = file.relative_to(HERE).as_posix()
    elif file.is_file():
        page, anchor = f"source/{inside}.txt", ""  # which a browser shows, and does not download
    else:
        return match[1]
    address = os.path.relpath(page, Path(target).parent) + (f"#{anchor}" if anchor and inside != "examples" else "")
    return f"[{match[1]}]({address})" if match[2] else f"![{match[3]}]({address})"


def guides(found: dict[str, str]) -> str:
    """Return the page of all guides: the title of each, and its goal, which is the line below."""
    lines = ["# All guides", "A task each: command, what you see, the same in Python, how it works, limits.", ""]
    for page in in_folder("guides", found):
        title, goal, *_ = found[page].splitlines()
        lines.append(f"- [{title.removeprefix('# ')}]({Path(page).name}): {goal}")
    return "\n".join(lines) + "\n"


def in_folder(name: str, found: dict[str, str]) -> list[str]:
    """Return the pages of a folder in the order of `ORDER`, and then those that it does not name."""
    order = [f"{name}/{stem}.md" for stem in ORDER[name].split()]
    here = {page for page in found if page.startswith(f"{name}/")}
    return [page for page in order if page in here] + sorted(here - set(order))


def said_by(*arguments: str) -> str:
    """Return what the command line prints for these arguments, in lines of at most 100 letters."""
    from sagitta.cli import main

    out = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS="100"), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(arguments)
    return out.getvalue().rstrip()


def commands() -> list[str]:
    """Return the names of the commands, as `sagitta --help` lists them."""
    return re.findall(r"^    (\w+)(?:  |$)", said_by("--help"), re.MULTILINE)


def command_line() -> str:
    """Return the page of all commands: what each says of itself."""
    parts = [
        "# Command line",
        "What each command says of itself. An error that you can mend is one line, and the command ends with 2; where "
        "`--strict` finds something it ends with 1; after Ctrl-C with 130, after SIGTERM with 143.",
        _shown("sagitta --help", said_by("--help")),
        *(f"## {name}\n\n{_shown(f'sagitta {name} --help', said_by(name, '--help'))}" for name in commands()),
        "## Every setting\n\nBeside the short options, by their full names: arguments of `ImageData`, `Classifier` and "
        "Lightning's Trainer. They are the same for `fit` and in `config.yaml`.",
        _shown("sagitta fit --help all", said_by("fit", "--help", "all")),
    ]
    return "\n\n".join(parts) + "\n"


def _shown(command: str, text: str) -> str:
    return f'```text title="{command}"\n{text}\n```'


def examples() -> str:
    """Return the page of complete programs."""
    parts = ["# Examples", "Complete programs of 50 lines or fewer; the tests run each of them on real images."]
    for path in sorted((ROOT / "examples").glob("*.py")):
        parts.append(f"## {path.name}\n\n```python\n{path.read_text().rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def navigation(found: dict[str, str]) -> list[object]:
    """Return the order of pages; a page that has no place in it is an error.

    Raises:
        SystemExit: a page is not in it.
    """
    wanted: list[tuple[str, str | list[str]]] = [
        ("Home", "index.md"),
        ("Tutorial", "tutorial.md"),
        ("Guides", in_folder("guides", found)),
        ("Coming from …", in_folder("coming-from", found)),
        ("Help and facts", ["troubleshooting.md", "features.md", "scale.md", "benchmarks.md"]),
        ("Reference", [*in_folder("reference", found), "serving.md", "resume.md", "report.md", "trainer.md"]),
        ("Project", ["architecture.md", "contributing.md", "security.md", "changelog.md"]),
    ]
    nav: list[object] = []
    placed: set[str] = set()
    for title, place in wanted:
        if isinstance(place, str):
            if place in found:
                nav.append({title: place})
                placed.add(place)
        elif inside := [page for page in place if page in found]:
            nav.append({title: [{title_of(found[page]): page} for page in inside]})
            placed.update(inside)
    if left := sorted(set(found) - placed):
        raise SystemExit(f"not in the navigation of docs/site.py: {', '.join(left)}")
    return nav


def title_of(text: str) -> str:
    """Return a page's title without markup."""
    match = re.search(r"^# (.+)$", text, re.MULTILINE)
    return match[1].replace("`", "") if match else "Untitled"


def gather(folder: Path) -> Path:
    """Write pages, pictures and configuration into a folder, which is replaced; return the configuration."""
    shutil.rmtree(folder, ignore_errors=True)
    found = pages()
    for name, text in found.items():
        (folder / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "docs" / name).write_text(text)
    copies = {f"source/{name}.txt": ROOT / name for text in found.values() for name in SOURCE.findall(text)}
    copies |= {path.relative_to(HERE).as_posix(): path for path in HERE.rglob("*") if path.suffix in SHOWN}
    for name, path in copies.items():
        (folder / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "docs" / name)
    text = (ROOT / "zensical.toml").read_text()
    nav = f"nav = {_toml(navigation(found))}\n"
    configuration = folder / "zensical.toml"
    configuration.write_text(text.replace("[project]\n", f"[project]\n{nav}", 1).replace("ROOT", ROOT.as_posix()))
    return configuration


def _toml(value: object) -> str:
    """Write lists, tables of one line and texts as TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def kept_whole(page: str) -> str:
    """Return a built page in whose tables no word of code breaks behind a hyphen: not ``--`` and, below it, ``ema``."""

    def words(code: re.Match[str]) -> str:
        return "<code>" + re.sub(r"[^\s<>]*-[^\s<>]*", r'<span class="whole">\g<0></span>', code[1]) + "</code>"

    def cell(found: re.Match[str]) -> str:
        return re.sub(r"<code>([^<]*)</code>", words, found[0])

    return re.sub(r"<td.*?</td>", cell, page, flags=re.DOTALL)


@dataclass
class Made(HTMLParser):
    """What one page of the site links to and loads, the anchors it has, and text that was meant as markup."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    raw: list[str] = field(default_factory=list)
    _inside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to or loads."""
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])
        if tag in ("p", "pre", "code", "script"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Leave a tag."""
        if tag in self._inside:
            self._inside.remove(tag)

    def handle_data(self, data: str) -> None:
        """Note a paragraph's line that was meant as a list, a table or a fence."""
        if self._inside == ["p"]:
            self.raw += [line for line in data.splitlines() if re.match(r"- |\d+\. |\|.*\||```|:::|#+ ", line)]


def problems(site: Path) -> Iterator[str]:
    """Yield what is wrong with a built site: dead links and anchors, loads from elsewhere, markup that shows."""
    made: dict[Path, Made] = {}
    for path in sorted(site.rglob("*.html")):
        made[path] = Made()
        made[path].feed(path.read_text())
    for path, page in made.items():
        where = path.relative_to(site)
        yield from (f"{where}: markup shows: {line}" for line in page.raw)
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    yield f"{where}: loads {link}"
                continue
            file = (site / parts.path[1:]) if parts.path.startswith("/") else (path.parent / unquote(parts.path))
            file = Path(os.path.normpath(file)) if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.exists():
                yield f"{where}: {link} leads nowhere"
            elif parts.fragment and file in made and unquote(parts.fragment) not in made[file].anchors:
                yield f"{where}: {link}: no such anchor"
    for path in sorted(site.rglob("*.css")):
        yield from (
            f"{path.relative_to(site)}: loads {address}"
            for address in re.findall(r"url\([\"']?(https?:[^)\"']+)", path.read_text())
        )


def build(target: Path, folder: Path = BUILD) -> None:
    """Build the site.

    Args:
        target: a folder that is replaced.
        folder: likewise, for what the site is made of.

    Raises:
        SystemExit: a warning, or a problem that the built pages have.
    """
    configuration = gather(folder)
    built = folder / "site"
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(configuration)]
    result = subprocess.run(command, cwd=folder, check=False)
    if result.returncode:
        raise SystemExit(result.returncode)
    for path in built.rglob("*.html"):
        path.write_text(kept_whole(path.read_text()))
    if found := list(problems(built)):
        raise SystemExit("\n".join(found))
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(built, target)
    print(f"{target}: {len(list(target.rglob('*.html')))} pages, no dead link")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site")
