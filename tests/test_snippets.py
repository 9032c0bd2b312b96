"""Every command and every line of Python that README and the pages show is run, in their order, as a reader would.

Each page has a folder of its own, in which lies what the pages speak of: ``photos/`` and ``other_photos/`` (class
folders ``cat``, ``dog``, ``bird``), ``new/`` with single images, ``photo.jpg``, and ``mobilenetv2_100.safetensors``
(timm's network with random weights). What a block makes is there for the next one. Blocks of these languages are run:

- ``bash``: by ``bash -euo pipefail``. `sagitta serve` is started as if in another terminal: the block goes on when it
  listens, and it ends with the next one or with the page. Port 8000 becomes a free one, in what follows too.
- ``console``: lines that begin with ``$``, likewise; what is shown below must appear in this order among what they
  print, where ``…`` stands for anything.
- ``python``, ``pycon``: in one namespace a page.

Other languages are shown, not run. Code that stands in a page in another manner (``~~~``, indented, in a quotation) is
refused. An HTML comment on the line before a block marks it:

- ``<!-- network: WHY -->``: not run, for it needs the internet, a GPU or a cluster. ``<!-- network 1, 4: WHY -->``: two
  of its lines are not. `NOT_RUN` counts both, so that a mark is seen when it is added.
- ``<!-- fails: CODE -->``: a refused command, which must end with this code.
"""

import ast
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from sagitta.sources import open_source

ROOT = Path(__file__).parent.parent
# CONTRIBUTING's commands are the gate itself, which runs these tests; those of bench/README.md take days.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Blocks, or lines of blocks, that are not run; a page that is not named has none.
NOT_RUN = {
    "README.md": 3,  # the installation, which .ci/run does; published weights
    "docs/coming-from/wandb.md": 1,  # CIFAR-10 is downloaded
    "docs/guides/devices.md": 1,  # GPUs, clusters
    "docs/guides/probe.md": 1,  # published weights
    "docs/guides/time.md": 1,  # likewise
    "docs/guides/transfer.md": 1,  # likewise
    "docs/serving.md": 3,  # two of containers; an installation of its own
    "docs/tutorial.md": 2,  # as in README
}

SHELL, PYTHON = ("bash", "console"), ("python", "pycon")
SHOWN = ("text", "yaml", "json", "toml", "dockerfile", "csv", "html", "protobuf", "jsonl")
SECONDS = 1800  # that a block may take: none takes more than a few minutes, but machines are busy
_FENCE = re.compile(
    r"(?:^ *<!-- (?P<mark>network|fails)(?P<lines>[ \d,]*): (?P<why>[^\n]*?) -->\n)?"
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_UNSEEN = re.compile(r" {4}|\t| *~~~|[ >*+\d.)-]*[>*+.)-] *(?:```|~~~)| *> {5}|[ >]*<(?:pre|code)\b", re.IGNORECASE)
_SERVING = """#!/usr/bin/env bash
# `sagitta`, but that a server is left alone once it listens, as if it ran in another terminal.
case "${1-} $*" in serve*--help*) ;; serve*)
    stop() { kill "$1" 2>/dev/null || return 0; while kill -0 "$1" 2>/dev/null; do sleep 0.1; done; }
    [ ! -e "$PAGE_SERVER" ] || stop "$(cat "$PAGE_SERVER")"
    "$PAGE_PYTHON" -m sagitta "$@" --port "$PAGE_PORT" >"$PAGE_SERVER.log" 2>&1 &
    echo $! >"$PAGE_SERVER"
    until (exec 3<>"/dev/tcp/127.0.0.1/$PAGE_PORT") 2>/dev/null; do
        kill -0 $! 2>/dev/null || { code=0; wait $! || code=$?; cat "$PAGE_SERVER.log" >&2; exit $code; }
        sleep 0.1
    done
    exit ;;
esac
exec "$PAGE_PYTHON" -m sagitta "$@"
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands (its first line of code, from 1), what it is, and which of it is to be run."""

    page: Path
    line: int
    language: str
    code: str
    left_out: int = 0
    fails: int = 0

    def __str__(self) -> str:
        """Where it stands, as editors open it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, text: str | None = None) -> list[Block]:
    """Return the blocks of a page; of those that are not run at all, the code is empty."""
    text = page.read_text() if text is None else text
    found = []
    for match in _FENCE.finditer(text):
        code = textwrap.dedent(match["code"])
        left_out, fails = 0, 0
        if match["mark"] == "network":
            assert match["why"], f"{page}: a mark without a reason"
            out = {int(number) for number in re.findall(r"\d+", match["lines"])}
            rows = code.splitlines(keepends=True)
            assert all(1 <= number <= len(rows) for number in out), f"{page}: {match[0]}"
            left_out = len(out) or 1
            kept = [row if out and number not in out else "\n" for number, row in enumerate(rows, 1)]
            code = "".join(kept) if out else ""
        elif match["mark"] == "fails":
            fails = int(match["why"])
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(page, line, match["language"].strip(), code, left_out, fails))
    return found


def unseen(text: str) -> list[str]:
    """Return the lines at which code begins that is in no block: ~~~, indented, in a quotation, after a list's mark."""
    return [line for line in _FENCE.sub("", text).splitlines() if _UNSEEN.match(line)]


def commands_of(page: Path) -> list[Block]:
    """Return the blocks of a page that are run."""
    return [block for block in blocks(page) if block.code.strip() and block.language in (*SHELL, *PYTHON)]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_of_a_known_language_and_well_formed(page: Path) -> None:
    text = page.read_text()
    found = blocks(page)
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(found), "a fence is not closed"
    marked = sum(block.left_out > 0 or block.fails > 0 for block in found)
    assert len(re.findall(r"^ *<!-- (?:network|fails)\b", text, re.MULTILINE)) == marked, "a mark that marks no block"
    assert {block.language for block in found} <= {*SHELL, *PYTHON, *SHOWN}, "no such language here"
    for block in found:
        if block.language == "python":
            ast.parse(block.code, str(block))
        elif block.language == "bash":
            said = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True, check=False)
            assert said.returncode == 0, f"{block}: {said.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_code_stands_where_no_block_is_seen(page: Path) -> None:
    assert unseen(page.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "~~~bash\nls\n~~~", "  ~~~\nls\n  ~~~", "> ```bash\n> ls\n> ```", "> > ~~~\n> > ls\n> > ~~~",
        "- ```bash\n  ls\n  ```", "1. ```bash\n   ls\n   ```", "- > ```\n  > ls\n  > ```",
        "    ls", "\tls", ">     ls", "<pre>\nls\n</pre>",
    ],
)  # fmt: skip
def test_code_that_would_not_be_run_is_found(code: str) -> None:
    assert unseen(f"words\n\n{code}\n\nwords\n")[:1] == code.splitlines()[:1]


def test_blocks_lists_quotations_and_long_lines_are_no_code_that_is_not_seen() -> None:
    assert unseen(EXAMPLE) == []
    assert unseen("- a `b`\n  - c ``` d\n\n> `e`\n\n1. f\n   g\n\n---\n") == []
    assert unseen("```text\n    indented\n~~~\n```\n") == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_is_counted(page: Path) -> None:
    assert sum(block.left_out for block in blocks(page)) == NOT_RUN.get(name_of(page), 0)


def test_pages_that_are_counted_exist() -> None:
    assert set(NOT_RUN) <= {name_of(page) for page in PAGES}


def test_the_installation_is_what_the_gate_does() -> None:
    first = re.search(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    gate = (ROOT / ".ci" / "run").read_text() + (ROOT / "noxfile.py").read_text()
    assert first is not None
    for words in ("python3 -m venv", "pip install", "'.[dev]'", "sagitta fit digits", "pytest"):
        assert words in first[1] and words in gate


EXAMPLE = """
<!-- network 2: far away -->
```bash
echo near
echo far
```
<!-- network: all of it -->
```bash
echo far
```
<!-- fails: 3 -->
```bash
exit 3
```
- in a list

  ```python
  x = 1
  ```
"""


def test_marks_say_what_is_run() -> None:
    found = [(block.line, block.language, block.code, block.left_out, block.fails) for block in blocks(ROOT, EXAMPLE)]
    assert found == [
        (4, "bash", "echo near\n\n", 1, 0),
        (9, "bash", "", 1, 0),
        (13, "bash", "exit 3\n", 0, 3),
        (18, "python", "x = 1\n", 0, 0),
    ]


def texture(rng: np.random.Generator, side: int) -> Image.Image:
    """Return a smooth background that no other image has: no two images are near copies."""
    coarse = rng.integers(60, 200, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def animal(kind: str, rng: np.random.Generator, side: int = 64) -> Image.Image:
    """Draw what a small network tells apart: a cat with ears, a dog with hanging ones, a bird with wings."""
    image = texture(rng, side)
    draw = ImageDraw.Draw(image)
    x, y = rng.uniform(0.4, 0.6, 2) * side
    r = rng.uniform(0.2, 0.28) * side
    shade = tuple(int(v) for v in rng.integers(-25, 26, 3))
    red, green, blue = {"cat": (225, 140, 50), "dog": (110, 70, 40), "bird": (60, 120, 220)}[kind]
    colour = (red + shade[0], green + shade[1], blue + shade[2])
    if kind == "bird":
        draw.polygon([(x, y), (x - 2 * r, y - r), (x - r, y + r / 2)], fill=colour)
        draw.polygon([(x, y), (x + 2 * r, y - r), (x + r, y + r / 2)], fill=colour)
        draw.ellipse([x - r / 2, y - r / 2, x + r / 2, y + r / 2], fill=colour)
        draw.polygon([(x, y), (x + r / 3, y + r / 3), (x - r / 3, y + r / 3)], fill=(240, 200, 40))
    else:
        draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
        for way in (-1, 1):
            tip = y - 1.7 * r if kind == "cat" else y + 1.2 * r
            draw.polygon([(x + way * r, y - r / 3), (x + way * r / 4, y - 0.9 * r), (x + way * r, tip)], fill=colour)
            draw.ellipse([x + way * r / 2 - 2, y - r / 3, x + way * r / 2 + 2, y - r / 3 + 4], fill=(20, 20, 20))
    return image.filter(ImageFilter.GaussianBlur(0.5))


@pytest.fixture(scope="session")
def what_pages_speak_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that each page begins with, see the top of this file."""
    import timm
    import torch
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(16)
    for folder in ("photos", "other_photos"):
        for kind in ("cat", "dog", "bird"):
            (root / folder / kind).mkdir(parents=True)
            for number in range(1, 17):
                animal(kind, rng).save(root / folder / kind / f"{number:02d}.jpg", quality=92)
    (root / "new").mkdir()
    for number, kind in enumerate(("cat", "dog", "bird", "bird", "dog", "cat"), 1):
        animal(kind, rng).save(root / "new" / f"{number}.jpg", quality=92)
    animal("cat", rng, 240).save(root / "photo.jpg", quality=92)
    torch.manual_seed(0)
    save_file(timm.create_model("mobilenetv2_100").state_dict(), root / "mobilenetv2_100.safetensors")
    return root


class Page:
    """One page's folder, its environment, its Python and its server.

    Args:
        folder: with what pages speak of.
        beside: a folder for what the page does not see: caches, logs, the command.
    """

    def __init__(self, folder: Path, beside: Path) -> None:
        self.folder, self.log = folder, beside / "python.log"
        command = beside / "bin" / "sagitta"
        command.parent.mkdir(parents=True)
        command.write_text(_SERVING)
        command.chmod(0o755)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            self.port = listening.getsockname()[1]
        self.server = beside / "server"
        (beside / ".curlrc").write_text("fail-with-body\n")  # else an answer that refuses would pass
        self.environment = {
            **os.environ,
            "PATH": f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PAGE_PYTHON": sys.executable,
            "PAGE_PORT": str(self.port),
            "PAGE_SERVER": str(self.server),
            "SAGITTA_CACHE": str(beside / "cache"),
            "CURL_HOME": str(beside),
            "HF_HOME": str(beside / "hf"),
            "TORCH_HOME": str(beside / "torch"),
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._python: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """End its Python and its server."""
        if self._python is not None:
            assert self._python.stdin is not None
            self._python.stdin.close()
            self._python.wait(SECONDS)
            assert self._python.stdout is not None
            self._python.stdout.close()
        if self.server.exists():
            with contextlib.suppress(ProcessLookupError):  # a block may have ended it
                os.kill(int(self.server.read_text()), signal.SIGTERM)

    def run(self, block: Block) -> None:
        """Run one block, and assert that it ends as the page says."""
        code = re.sub(r"\b(localhost|127\.0\.0\.1):8000\b", rf"\1:{self.port}", block.code)
        if block.language == "bash":
            self.bash(block, code)
        elif block.language == "console":
            self.console(block, code)
        elif block.language in PYTHON:
            self.python(block, code)

    def bash(self, block: Block, code: str) -> str:
        """Return what the commands print."""
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        assert result.returncode == block.fails, (
            f"{block} ended with {result.returncode}, not {block.fails}:\n{block.code}\n{result.stdout[-4000:]}"
        )
        return result.stdout

    def console(self, block: Block, code: str) -> None:
        """Compare what is printed with what is shown."""
        commands = [line[2:] for line in code.splitlines() if line.startswith("$ ")]
        shown = [line for line in code.splitlines() if line.strip() and not line.startswith("$ ")]
        rest = printed = re.sub(r"\x1b\[[\d;]*m", "", self.bash(block, "\n".join(commands)))
        for line in shown:
            pattern = r"[^\n]*".join(r"[ ]+".join(map(re.escape, part.split(" "))) for part in line.strip().split("…"))
            match = re.search(rf"^ *{pattern} *$", rest, re.MULTILINE)
            assert match, f"{block}: not printed, or not in this order:\n{line}\namong\n{printed}"
            rest = rest[match.end() :]

    def python(self, block: Block, code: str) -> None:
        """Run it after the page's Python before it."""
        if self._python is None:
            with self.log.open("w") as log:
                self._python = subprocess.Popen(
                    [sys.executable, ROOT / "tests" / "page_python.py"],
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        assert self._python.stdin is not None and self._python.stdout is not None
        asked: dict[str, Any] = {"code": code, "name": str(block), "line": block.line - 1}
        print(json.dumps(asked | {"console": block.language == "pycon"}), file=self._python.stdin, flush=True)
        answer = self._python.stdout.readline()
        said = json.loads(answer or '"its process ended"')
        assert said is None, f"{block}:\n{said}\n{self.log.read_text()[-4000:]}"


@pytest.fixture
def folder_of_page(what_pages_speak_of: Path, tmp_path: Path) -> Iterator[Page]:
    """A page that nothing has been run of."""
    page = Page(copytree(what_pages_speak_of, tmp_path / "page"), tmp_path / "beside")
    yield page
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)], ids=name_of)
def test_what_a_page_shows_runs(page: Path, folder_of_page: Page) -> None:
    for block in commands_of(page):
        folder_of_page.run(block)


def test_the_tutorial_copies_photos_of_any_name_to_names_of_their_class(folder_of_page: Page) -> None:
    copying = next(block for block in blocks(ROOT / "docs" / "tutorial.md") if "data/train" in block.code)
    photos = folder_of_page.folder / "photos"
    for old, new in {"cat/01": "cat.cat.123", "cat/02": "IMG_0001", "dog/03": "photo (1)", "dog/04": "bird.7"}.items():
        (photos / f"{old}.jpg").rename(photos / old.partition("/")[0] / f"{new}.jpg")
    folder_of_page.run(copying)
    for split in ("train", "test"):
        source = open_source(str(folder_of_page.folder / "data" / split), cache=folder_of_page.folder)
        assert source.class_names == ("cat", "dog") and source.rows.num_rows == 32


def a_block(language: str, code: str, fails: int = 0) -> Block:
    return Block(ROOT / "README.md", 1, language, code, fails=fails)


def test_a_block_that_is_wrong_fails(folder_of_page: Page) -> None:
    page = folder_of_page
    page.run(a_block("bash", "ls photos/cat/01.jpg new/1.jpg photo.jpg mobilenetv2_100.safetensors\ntrue\n"))
    page.run(a_block("bash", "sagitta fit nothing/\n", fails=2))
    page.run(a_block("console", "$ echo one; echo two 2 three\none\ntwo … three\n"))
    page.run(a_block("python", "x = 1\n"))
    page.run(a_block("pycon", ">>> x + 1\n2\n"))
    for language, code in {
        "bash": "false\ntrue\n",
        "console": "$ echo one; echo two\ntwo\none\n",
        "python": "assert x == 2\n",
        "pycon": ">>> x\n2\n",
    }.items():
        with pytest.raises(AssertionError):
            page.run(a_block(language, code))
    with pytest.raises(AssertionError, match="ended with 2, not 0"):
        page.run(a_block("bash", "sagitta serve nothing/\n"))
