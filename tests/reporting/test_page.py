"""The page itself: nothing from data breaks out of it, it loads nothing, and in a browser its parts answer."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sagitta import ShardSet
from sagitta.clock import Clock
from sagitta.reporting import page, single, write_report
from sagitta.reporting.embedding import Features
from sagitta.reporting.gathering import gather
from tests.reporting import browser, runs
from tests.reporting.test_matrix import confused

chromium = pytest.mark.skipif(browser.found() is None, reason="no Chromium; apt-get install chromium")


class Elements(HTMLParser):
    """Collects the tags of a page with their attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of classes and files with names that mean harm, and the reports of the first and of both."""
    work = tmp_path_factory.mktemp("page")
    data = runs.dataset(work / "data", (*runs.HOSTILE, "plain"), each=12, named=True)
    for seed, name in enumerate(("one", "two")):
        runs.log(run := runs.run_of(work / name, data, seed=seed, skill=0.5, command="sagitta fit '<b>' \u202e --lr 1"))
        runs.find(run, data)
    (work / "one" / "out_of_fold").mkdir()  # a second set of predictions, between which a reader chooses
    predictions = (work / "one" / "tests" / "001-dataset" / "predictions.parquet").read_bytes()
    (work / "one" / "out_of_fold" / "predictions.parquet").write_bytes(predictions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single, "features_of", features)
        write_report([work / "one"], umap=False)
    write_report([work / "one", work / "two"])
    return work


def features(_run: object, _model: object, shards: ShardSet, _clock: object) -> tuple[Features, str]:
    """Return features of all images, for a map."""
    rows = [(name, row) for name, split in shards.splits.items() for row in range(len(split))]
    vectors = np.random.default_rng(0).normal(size=(len(rows), 4)).astype(np.float32)
    return Features([name for name, _ in rows], [row for _, row in rows], vectors, "made by hand"), ""


@pytest.mark.parametrize("name", ["one/report.html", "comparison.html"])
def test_nothing_from_data_becomes_an_element_and_nothing_is_loaded(work: Path, name: str) -> None:
    text = (work / name).read_text()
    elements = Elements(text)
    kinds = [attributes.get("type") for tag, attributes in elements.tags if tag == "script"]
    assert kinds.count(None) == 1 and set(kinds) == {None, "application/json"}
    assert not [script for script in elements.scripts if "alert(1)" in script and not script.startswith("{")]
    assert "<!--" not in text and "<b>it" not in text and "<b>' --lr" not in text
    addresses = [v for _, a in elements.tags for k, v in a.items() if k in ("src", "href") and v]
    assert addresses and not [each for each in addresses if not each.startswith(("data:image/", "#", "one/", "two/"))]
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert len(text) < 5_000_000


@pytest.mark.parametrize("name", ["one/report.html", "comparison.html"])
def test_pictures_have_words_and_headings_and_names_are_unique(work: Path, name: str) -> None:
    elements = Elements((work / name).read_text()).tags
    pictures = [attributes for tag, attributes in elements if tag == "img"]
    assert pictures and all(attributes.get("alt") for attributes in pictures)
    names = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert [tag for tag, _ in elements].count("h1") == 1
    assert all(a.get("aria-label") for tag, a in elements if tag == "svg" and a.get("role") == "img")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_stand_out_as_wcag_asks(theme: str) -> None:
    style = Path(page.__file__).with_name("page.css").read_text()
    block = re.search(r":root\{(.*?)\}" if theme == "light" else r":root\[data-theme=dark\]\{(.*?)\}", style)
    assert block is not None
    colours = dict(re.findall(r"--([\w-]+):(#\w+)", block[1]))

    def luminance(name: str) -> float:
        digits = colours[name][1:]
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    letters = [contrast(name, "card") for name in ("ink", "soft", "accent", "miss")]
    letters += [contrast("ink", "paper"), contrast("soft", "paper"), contrast("ink", "warm")]
    lines = [contrast(f"s{number}", "card") for number in range(8)]
    assert min(letters) >= 4.5 and min(lines) >= 3


@chromium
def test_a_browser_shows_it_without_complaint_and_everything_answers(work: Path) -> None:
    script = Path(__file__).with_name("interactions.js").read_text()
    (seen,), complaints = browser.visit(work / "one" / "report.html", [script])
    assert not complaints
    assert seen["gallery"]["open"] and "taken for" in seen["gallery"]["title"] and seen["closed"]
    assert seen["gallery"]["pictures"] and set(seen["gallery"]["pictures"]) == {"data:image/"}
    assert seen["moved"] and seen["stops"] == 1
    assert seen["orders"] == [True] * 4 and seen["restored"]
    (falling, first), (rising, second) = seen["sorted"]
    assert (falling, rising) == ("descending", "ascending")
    assert first == sorted(first, reverse=True) and second == sorted(second)
    assert seen["filtered"]
    words, aloud, hidden = seen["read"]
    assert "train: 0.5" in words and aloud == words and not hidden
    assert "train: 0.3333" in seen["hovered"] and seen["left"]
    assert [name for name, _ in seen["themes"]] == ["light", "dark", "auto"]
    assert seen["themes"][0][1] != seen["themes"][1][1]
    assert seen["addresses"] == ["data:image/"] and seen["fits"] and seen["scripts"] == 1
    assert "<script>alert(1)</script>" in seen["classes"]


@chromium
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["one/report.html", "comparison.html"])
def test_names_that_mean_harm_do_none(work: Path, name: str, width: int) -> None:
    script = Path(__file__).with_name("hostile.js").read_text()
    (seen,), complaints = browser.visit(work / name, [script], width=width)
    assert not complaints and not seen["handlers"] and (seen["scripts"], seen["styles"]) == (1, 1)
    assert not seen["bad"] and not seen["turned"]  # nothing unseen, and no direction that goes beyond its name
    assert seen["wide"] <= 0 and not seen["out"] and not seen["cut"] and not seen["endless"]
    assert name != "one/report.html" or len(seen["titles"]) > 20


@chromium
@pytest.mark.parametrize("how", ["light", "dark", "paper"])
@pytest.mark.parametrize("name", ["one/report.html", "comparison.html"])
def test_everything_that_is_shown_stands_out_as_wcag_asks(work: Path, name: str, how: str) -> None:
    script = Path(__file__).with_name("contrast.js").read_text()
    open_all = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
    choose = """document.querySelector('[data-cell]')?.click(); COLOUR = document.querySelector('#map-colour')"""
    choose += "; if (COLOUR) { COLOUR.value = 'class'; COLOUR.dispatchEvent(new Event('change')); }"
    again = "if (COLOUR) { COLOUR.value = 'split'; COLOUR.dispatchEvent(new Event('change')); }"
    dark = "document.documentElement.dataset.theme = 'dark'"
    scripts = [open_all, script, choose, script, again, script, *([dark, script] if how == "paper" else [])]
    seen, complaints = browser.visit(work / name, scripts, dark=how != "light", paper=how == "paper")
    assert not complaints
    for found in (each for each in seen if isinstance(each, dict)):
        assert found["looked"] > 100 and not found["worst"]
    ground = "getComputedStyle(document.body).backgroundColor"
    shown, _ = browser.visit(work / name, [ground, dark, ground], dark=True, paper=True)
    assert set(shown[::2]) == {"rgb(255, 255, 255)"}


@chromium
@pytest.mark.parametrize("width", [400, 1280])
def test_of_a_thousand_classes_every_number_opens_its_images(work: Path, tmp_path: Path, width: int) -> None:
    run = replace(gather(work / "one"), judged=[confused(1000)])
    values = single.Single(run, images=False, clock=Clock(), umap=False).values()
    (tmp_path / "page.html").write_text(page.render("run.html", values))
    scripts = [
        Path(__file__).with_name("contrast.js").read_text(),
        "document.documentElement.scrollWidth <= innerWidth",
        "document.querySelector('.matrix figcaption').textContent",
        Path(__file__).with_name("cells.js").read_text(),
    ]
    (contrast, fits, title, seen), complaints = browser.visit(tmp_path / "page.html", scripts, width=width)
    assert not complaints and fits and not contrast["worst"]
    assert "40 of 1,000 classes, 305 of 360 mistakes (84.7%)" in title
    assert seen["rows"] == 40 and seen["stops"] == 1  # the arrow keys go everywhere
    cells = seen["cells"]
    assert len(cells) == 20 + 40  # mistakes, and what is right, which is muted
    words = "class 15, taken for class 984"
    assert ["miss", "16 of 20 class 15 taken for class 984", words, "8 of 16 images, the surest first", 8] in cells
    assert ["muted", "4 of 20 class 15 right", "class 15: right", "4 images, the surest first", 4] in cells


@chromium
def test_several_runs_and_a_phone(work: Path) -> None:
    scripts = [
        "[...document.querySelectorAll('.tiles img')].map((image) => image.complete && image.naturalWidth > 0)",
        "document.documentElement.scrollWidth <= innerWidth",
        "document.querySelector('#significance').textContent",
        # Letters as they are shown: no plot is drawn so small that they cannot be read.
        "[...document.querySelectorAll('.plot svg')]"
        ".map((svg) => (12 * svg.getBoundingClientRect().width) / svg.viewBox.baseVal.width)",
    ]
    (pictures, fits, words, letters), complaints = browser.visit(work / "comparison.html", scripts, width=390)
    assert not complaints and pictures and all(pictures) and fits
    assert "points of accuracy" in words and min(letters) >= 8
