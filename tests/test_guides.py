"""Each guide has the template's headings in their order, and what pages say of messages and figures is so."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES = [
    *GUIDES,
    *sorted((ROOT / "docs" / "coming-from").glob("*.md")),
    ROOT / "docs" / "scale.md",
    ROOT / "docs" / "troubleshooting.md",
]
HEADINGS = ["Command", "What you see", "In Python", "How it works", "Limits", "Reproduce"]


def parts(page: Path) -> dict[str, str]:
    """Return a page's text below each heading of the second level; that above the first below ``""``."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)  # a comment of Bash is no heading
    above, *rest = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return {"": above, **dict(zip(rest[::2], rest[1::2], strict=True))}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_has_the_template(page: Path) -> None:
    found = parts(page)
    assert list(found)[1:] == HEADINGS
    title, goal, *_ = found[""].strip().splitlines()
    assert title.startswith("# ") and goal.endswith(".")
    assert "](" in found["How it works"], "a link to where more is said"
    assert len(page.read_text().splitlines()) <= 100


def test_every_picture_of_the_guides_is_small_and_shown() -> None:
    shown = {link for page in GUIDES for link in re.findall(r"!\[[^]]+\]\(([^)/]+)\)", page.read_text())}
    pictures = {path.name: path for path in (ROOT / "docs" / "guides").iterdir() if path.suffix in {".png", ".svg"}}
    assert set(pictures) == shown
    assert all(path.stat().st_size < 60_000 for path in pictures.values())


def test_headings_of_blocks_are_not_taken(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\nGoal.\n\n## Command\n```bash\n## no heading\n```\nwords\n## Limits\nnone\n")
    assert {name: text.strip() for name, text in parts(page).items()} == {
        "": "# Title\nGoal.", "Command": "words", "Limits": "none",
    }  # fmt: skip


def anchors(page: Path) -> set[str]:
    """Return what a link may name behind ``#`` in a page: its headings, as GitHub writes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = re.findall(
        r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    )
    assert [path for path, _ in links if path and not (page.parent / path).exists()] == []
    lost = [(path, name) for path, name in links if name and name not in anchors(page.parent / path if path else page)]
    assert lost == []


def messages() -> list[str]:
    """Return every text in Sagitta's code, with ``…`` where a value is put in; white space as one blank."""
    found = []
    for path in (ROOT / "src" / "sagitta").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append(" ".join("".join(map(str, parts)).split()))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(" ".join(node.value.split()))
    return found


def is_said(message: str, said: list[str]) -> bool:
    """Return whether one text of the code has the message's words between each ``…``, in their order."""
    words = [part.strip() for part in message.split("…") if part.strip()]
    pattern = re.compile(".*".join(map(re.escape, words)))
    return any(pattern.search(text) for text in said)


def test_messages_on_the_page_of_troubles_are_those_that_are_raised() -> None:
    named = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    assert len(named) >= 25
    said = messages()
    assert [message for message in named if not is_said(message, said)] == []


def test_a_message_that_nobody_raises_is_found() -> None:
    said = ["the dataset has … that the model does not know: …; rename its folders", "no room left"]
    assert is_said("the dataset has … that the model does not know", said)
    assert not is_said("that the model does not know … the dataset has", said)
    assert not is_said("no room is left", said)
