"""What is answered over HTTP is what `sagitta predict` says of the same files, of a run and of its export."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sagitta.cli import main
from sagitta.errors import ConfigError
from sagitta.exporting import export
from sagitta.serving import Named, Wanted, open_engine
from sagitta.verbs import predict_table
from tests.reporting import browser
from tests.serving.servers import Served, serving
from tests.serving.test_app import PASTE, chromium, look

PROMISED = ("--accuracy", 0.8, "--coverage", 0.8)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with ``run``, ``run/export`` and the files in ``odd``."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAGITTA_CACHE", str(folder / "cache"))
        rng = np.random.default_rng(0)
        for number in range(120):
            pixels = np.repeat(np.repeat(rng.integers(0, 180, (10 + number % 3, 11, 3), np.uint8), 4, 0), 4, 1)
            pixels[..., number % 3] += 75
            place = folder / "photos" / "rgb"[number % 3] / f"{number:03d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place)
        small = ["--model", "simple-cnn", "--image-size", "32", "--epochs", "6", "--batch-size", "8", "--val", "0.3"]
        assert main(["fit", "photos", *small, "--out", "run"]) == 0
        export(Path("run"))
        odd = folder / "odd"
        odd.mkdir()
        picture = Image.open(folder / "photos" / "r" / "000.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(odd / "turned.jpg", exif=exif)
        picture.convert("L").save(odd / "grey.png")
        picture.convert("CMYK").save(odd / "cmyk.jpg")
        picture.resize((900, 30)).save(odd / "wide.jpg")
        (odd / "broken.jpg").write_bytes((odd / "wide.jpg").read_bytes()[:400])
        yield folder


@pytest.fixture(scope="module")
def served(work: Path) -> Iterator[Served]:
    with serving(work, "run", "export=run/export", *PROMISED, "--device", "cpu") as it:
        yield it


def files() -> list[Path]:
    return [*sorted(Path("odd").iterdir()), *sorted(Path("photos").rglob("*.png"))[::6]]


@pytest.fixture(scope="module")
def predicted(work: Path) -> pa.Table:  # noqa: ARG001  # names its files from there
    # One at a time, as they are asked here: a network's last bits depend on what else is in the batch.
    return predict_table("run", files(), accuracy=0.8, coverage=0.8, batch_size=1)


def answers(served: Served, model: str) -> list[dict[str, Any]]:
    return [served.predict(path.read_bytes(), "image/jpeg", f"?model={model}")[1] for path in files()]


@pytest.mark.parametrize(("model", "close"), [("run", 1e-7), ("export", 1e-4)])
def test_answers_are_those_of_predict(served: Served, predicted: pa.Table, model: str, close: float) -> None:
    compared = 0
    for told, row in zip(answers(served, model), predicted.to_pylist(), strict=True):
        if row["error"] is not None:
            assert told["error"]["status"] == 422 and told["error"]["message"] == f"image: {row['error']}"
            continue
        (found,) = told["predictions"]
        assert found["class"] == row["class"] and found["abstain"] == row["abstain"] and found["set"] == row["set"]
        shares = [each["probability"] for each in found["top"]]
        wanted = [row[f"probability{end}"] for end in ("", "_2", "_3")]
        assert shares == pytest.approx(wanted, abs=close)
        if model == "run":
            # A rank among 36 known images, by distances whose last bits depend on how many are computed at a time.
            assert found["unfamiliar"] == pytest.approx(row["unfamiliar"], abs=1 / 36)
        else:
            assert "unfamiliar" not in found
        compared += 1
    assert compared == len(files()) - 1


def test_a_run_has_heat_maps_and_says_so(served: Served) -> None:
    photo = files()[-1].read_bytes()
    for query in ("?model=run", "?model=run&class=r"):
        status, png, headers = served.ask("POST", f"/v1/explain{query}", photo)
        assert status == 200 and headers["content-type"] == "image/png"
        assert Image.open(BytesIO(png)).size == (224, 224)
    assert served.ask("POST", "/v1/explain?model=run&class=x", photo)[1]["error"]["code"] == "no_such_class"
    assert served.ask("POST", "/v1/explain?model=run", b"hello")[1]["error"]["code"] == "unreadable"
    assert served.ask("POST", "/v1/explain?model=export", photo)[0] == 501
    run, exported = served.ask("GET", "/v1/models")[1]["models"]
    assert run["heat_maps"] and run["unfamiliar"] == "there" and run["engine"] == "torch on cpu"
    assert not exported["heat_maps"] and exported["abstention"] == "there" and exported["network"] == "simple-cnn"
    assert run["classes"] == exported["classes"] and run["result"] == exported["result"]


def test_no_answer_says_where_anything_lies(served: Served, work: Path) -> None:
    for path in ("/v1/models", "/openapi.json", "/metrics", "/ready"):
        _, told, _ = served.ask("GET", path)
        assert str(work) not in str(told) and "photos" not in str(told)


@chromium
def test_the_page_shows_a_heat_map(served: Served) -> None:
    how = f"""{PASTE} await wait(() => !at("explain").hidden); at("explain").click();
    await wait(() => at("heat").querySelector("img").naturalWidth);"""
    (seen,), complaints = browser.visit(f"http://127.0.0.1:{served.port}/", [look(how)])
    assert not complaints and seen["explain"] and seen["message"]


def test_openvino_answers_alike_and_what_has_no_runtime_is_refused(work: Path) -> None:
    export(Path("run"), "openvino", work / "ov")
    images = [Named(path.name, path.read_bytes()) for path in files()]
    wanted = Wanted(accuracy=0.8, coverage=0.8)
    first, second = (open_engine(path, wanted) for path in (Path("run/export"), work / "ov"))
    assert (first.kind, second.kind) == ("onnxruntime", "openvino") and first.names == second.names
    one, other = first.answer(images), second.answer(images)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert one.errors == other.errors and one.further == other.further
    (work / "program").mkdir()
    (work / "program" / "model.pt2").write_bytes(b"")
    with pytest.raises(ConfigError, match="a program of torch is not served"):
        open_engine(work / "program", wanted)
