"""Everything that a client can ask: answers, refusals in one form, and what a person sees."""

import base64
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its types are a package of their own
import pytest

from tests.reporting import browser
from tests.serving.servers import NAMES, Served, picture, serving, write_export

RED, BLUE = picture("red"), picture("blue")
TOKEN = "0123456789abcdef-secret"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    promises = json.dumps({"accuracy": {"0.99": 0.9}, "coverage": {"0.9": 0.2}})
    write_export(folder / "colours" / "export", abstention=promises)
    write_export(folder / "unsure" / "export", sharpness=0.005, abstention=promises)
    write_export(folder / "several", task="several labels an image", thresholds="[0.3, 0.2, 0.5]")
    (folder / "token").write_text(TOKEN + "\n")
    return folder


@pytest.fixture(scope="module")
def served(work: Path) -> Iterator[Served]:
    with serving(
        work, "colours/export", "unsure=unsure/export", "several", "--max-images", 3, "--max-body", "1M"
    ) as it:
        yield it


def form(*files: tuple[str, bytes]) -> bytes:
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in files
    ]
    return b"".join([*parts, b"--B--\r\n"])


def test_every_kind_of_body_is_answered_alike(served: Served) -> None:
    coded = base64.b64encode(RED).decode()
    kinds: list[tuple[bytes, str]] = [
        (RED, "image/jpeg"),
        (RED, "application/octet-stream"),
        (RED, "application/x-www-form-urlencoded"),  # what curl --data-binary says by itself
        (RED, ""),
        (json.dumps({"image": coded}).encode(), "application/json"),
        (json.dumps({"images": [f"data:image/jpeg;base64,{coded}"], "top_k": 5}).encode(), "application/json"),
        (form(("a.jpg", RED)), "multipart/form-data; boundary=B"),
    ]
    found = [served.predict(body, kind) for body, kind in kinds]
    (first, *others) = [told["predictions"][0] for _, told in found]
    assert {status for status, _ in found} == {200} and first["class"] == "red"
    assert [each["class"] for each in first["top"]] == ["red", "blue", "green"]
    assert sum(each["probability"] for each in first["top"]) == pytest.approx(1, abs=1e-6)
    assert all(each["top"] == first["top"] for each in others)


def test_many_images_are_answered_in_their_order_and_an_unreadable_one_says_why(served: Served) -> None:
    status, told = served.predict(
        form(("r.jpg", RED), ("x.txt", b"hello"), ("b.jpg", BLUE)), "multipart/form-data; boundary=B"
    )
    assert status == 200 and told["model"] == "colours"
    assert [each["name"] for each in told["predictions"]] == ["r.jpg", "x.txt", "b.jpg"]
    assert [each.get("class") for each in told["predictions"]] == ["red", None, "blue"]
    assert told["predictions"][1] == {"name": "x.txt", "error": "not an image but text"}


def test_models_are_asked_by_name_and_say_what_they_are(served: Served) -> None:
    assert served.predict(RED, query="?model=unsure&top_k=1")[1]["predictions"][0]["top"][0]["probability"] < 0.7
    several = served.predict(RED, query="?model=several")[1]["predictions"][0]
    assert several["classes"] == ["red"] and several["probabilities"] == [several["top"][0]["probability"]]
    _, told, _ = served.ask("GET", "/v1/models")
    assert [model["name"] for model in told["models"]] == ["colours", "unsure", "several"]
    first = told["models"][0]
    assert first["classes"] == NAMES and first["input"] == [16, 16, 3] and first["engine"] == "onnxruntime"
    assert first["unfamiliar"].startswith("not there") and not first["heat_maps"]
    assert told["models"][2]["labels"] == "several" and told["limits"]["images"] == 3


REFUSED: list[tuple[str, str, bytes | None, str, int, str]] = [
    ("GET", "/nothing", None, "", 404, "no_such_path"),
    ("GET", "/v1/predict", None, "", 405, "wrong_method"),
    ("POST", "/v1/predict", b"", "image/jpeg", 400, "no_image"),
    ("POST", "/v1/predict", b"hello", "image/jpeg", 422, "unreadable"),
    ("POST", "/v1/predict", RED[:300], "image/jpeg", 422, "unreadable"),
    ("POST", "/v1/predict", b"a=b", "application/x-www-form-urlencoded", 415, "unknown_type"),
    ("POST", "/v1/predict", RED, "text/plain", 415, "unknown_type"),
    ("POST", "/v1/predict", b"{", "application/json", 400, "bad_json"),
    ("POST", "/v1/predict", b"[" * 100_000, "application/json", 400, "bad_json"),
    ("POST", "/v1/predict", b'{"images": 1}', "application/json", 400, "bad_json"),
    ("POST", "/v1/predict", b'{"image": "%%"}', "application/json", 400, "bad_base64"),
    ("POST", "/v1/predict", b'{"image": "", "colour": 1}', "application/json", 400, "bad_json"),
    ("POST", "/v1/predict", b"--B\r\n", "multipart/form-data; boundary=B", 400, "bad_form"),
    ("POST", "/v1/predict", form(("a", RED))[:-9], "multipart/form-data; boundary=B", 400, "bad_form"),
    ("POST", "/v1/predict", form(("a", RED)), "multipart/form-data", 400, "bad_form"),
    ("POST", "/v1/predict", form(*[("a", RED)] * 4), "multipart/form-data; boundary=B", 413, "too_many_images"),
    ("POST", "/v1/predict", bytes(2**20 + 1), "image/jpeg", 413, "body_too_large"),
    ("POST", "/v1/predict?model=other", RED, "image/jpeg", 404, "no_such_model"),
    ("POST", "/v1/predict?top_k=0", RED, "image/jpeg", 400, "bad_top_k"),
    ("POST", "/v1/predict?top_k=²", RED, "image/jpeg", 400, "bad_top_k"),
    ("POST", "/v1/explain", RED, "image/jpeg", 501, "no_heat_maps"),
]


@pytest.mark.parametrize(("method", "path", "body", "kind", "status", "code"), REFUSED)
def test_refusals_have_one_form(
    served: Served, method: str, path: str, body: bytes | None, kind: str, status: int, code: str
) -> None:
    found, told, headers = served.ask(method, path.replace("²", "%C2%B2"), body, kind)
    assert (found, told["error"]["code"], told["error"]["status"]) == (status, code, status)
    words = json.dumps(told)
    assert told["error"]["message"] and str(served.log.parent) not in words and "site-packages" not in words
    assert "Traceback" not in words and headers["content-type"] == "application/json"


def test_a_compressed_body_and_a_length_that_is_none_are_refused(served: Served) -> None:
    assert served.predict(RED, **{"Content-Encoding": "gzip"})[1]["error"]["code"] == "compressed"


def test_answers_and_refusals_are_what_openapi_says(served: Served) -> None:
    _, described, _ = served.ask("GET", "/openapi.json")
    resolved = json.loads(json.dumps(described).replace("#/components", "#/$defs/components"))
    schemas = described["components"]["schemas"]

    def check(value: Any, name: str) -> None:
        whole = {"$ref": f"#/$defs/components/schemas/{name}", "$defs": {"components": resolved["components"]}}
        jsonschema.Draft202012Validator(whole).validate(value)

    check(served.predict(RED)[1], "Predictions")
    check(served.predict(RED, query="?model=several")[1], "Predictions")
    check(served.predict(b"hello")[1], "Error")
    assert schemas["Prediction"]["properties"].keys() >= served.predict(RED)[1]["predictions"][0].keys()
    for path, methods in described["paths"].items():
        assert served.ask(next(iter(methods)).upper(), path, b"" if "post" in methods else None)[0] not in (404, 405)


def test_metrics_count_and_logs_are_lines_of_json_without_images(served: Served) -> None:
    served.predict(RED)
    _, text, headers = served.ask("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    counts = dict(re.findall(r"^(sagitta_\w+\{[^}]*\}) (\S+)$", text.decode(), re.MULTILINE))
    assert float(counts['sagitta_images_total{model="colours",outcome="answered"}']) >= 1
    assert float(counts['sagitta_requests_total{path="/v1/predict",status="200"}']) >= 1
    last = [line for line in served.lines() if line.get("path") == "/v1/predict"][-1]
    assert (
        last["status"] == 200 and last["model"] == "colours" and last["bytes"] == len(RED) and last["level"] == "info"
    )


def test_a_token_is_asked_for_and_promises_are_kept(work: Path) -> None:
    options = ("--token-file", "token", "--accuracy", 0.99, "--coverage", 0.9)
    with serving(work, "unsure/export", *options) as served:
        assert served.ask("GET", "/health")[0] == served.ask("GET", "/ready")[0] == served.ask("GET", "/")[0] == 200
        for path in ("/v1/models", "/metrics", "/openapi.json"):
            status, told, headers = served.ask("GET", path)
            assert status == 401 and told["error"]["code"] == "no_token" and headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer ", f"Bearer {TOKEN}x", TOKEN, "Bearer \xff"):
            assert served.predict(RED, Authorization=wrong)[0] == 401
        status, told = served.predict(RED, Authorization=f"Bearer {TOKEN}")
        (found,) = told["predictions"]
        assert status == 200 and found["abstain"] and found["set"] == ["red", "blue", "green"][: len(found["set"])]
        assert TOKEN not in served.log.read_text()


LOOK = """(async () => {
  const wait = async (met) => { for (let i = 0; i < 400 && !met(); i++) await new Promise((r) => setTimeout(r, 25)); };
  const at = (id) => document.getElementById(id);
  await wait(() => at("about").textContent);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [64, 48];
  const paint = canvas.getContext("2d"); paint.fillStyle = "COLOUR"; paint.fillRect(0, 0, 64, 48);
  const blob = await new Promise((r) => canvas.toBlob(r, "image/png"));
  const data = new DataTransfer(); data.items.add(new File([blob], "photo.png", { type: "image/png" }));
  HOW
  await wait(() => at("classes").children.length || at("message").classList.contains("wrong"));
  return { message: at("message").textContent, notes: at("notes").textContent, about: at("about").textContent,
    classes: [...at("classes").children].map((row) => row.innerText),
    fits: document.documentElement.scrollWidth <= innerWidth,
    explain: !at("explain").hidden, models: at("models").hidden ? 0 : at("model").options.length,
    ink: getComputedStyle(document.body).color };
})()"""
PASTE = 'document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));'
DROP = 'document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));'
TAKE = """at("camera").click(); await wait(() => at("video").videoWidth); at("shot").click();"""
chromium = pytest.mark.skipif(browser.found() is None, reason="no Chromium; apt-get install chromium")


def look(how: str, colour: str = "red") -> str:
    return LOOK.replace("HOW", how).replace("COLOUR", colour)


@chromium
def test_a_person_pastes_drops_or_takes_a_photo_and_sees_what_it_is(served: Served) -> None:
    address = f"http://127.0.0.1:{served.port}/"
    (light,), complaints = browser.visit(address, [look(PASTE)])
    assert not complaints and light["message"] == "red" and light["fits"] and light["models"] == 3
    assert "nobody noted whether its probabilities are calibrated" in light["about"]
    assert light["classes"][0].startswith("red") and len(light["classes"]) == 3 and not light["explain"]
    (dark,), complaints = browser.visit(address, [look(DROP, "blue")], width=390, height=800, dark=True)
    assert not complaints and dark["message"] == "blue" and dark["fits"] and dark["ink"] != light["ink"]
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    (taken,), complaints = browser.visit(address, [look(TAKE)], options=camera)
    assert not complaints and taken["message"] in NAMES and len(taken["classes"]) == 3


@chromium
def test_the_page_asks_for_a_token_and_says_that_it_abstains(work: Path) -> None:
    with serving(work, "unsure/export", "--token-file", "token", "--accuracy", 0.99) as served:
        ask = f"""await wait(() => !at("ask").hidden); at("token").value = "{TOKEN}"; at("ask").requestSubmit();
        await wait(() => at("about").textContent); {PASTE}"""
        script = look(ask).replace('await wait(() => at("about").textContent);', "", 1)
        (seen,), _ = browser.visit(f"http://127.0.0.1:{served.port}/", [script])
        assert seen["message"] == "No answer: too uncertain." and "less often right" in seen["notes"]


def counted(served: Served, name: str) -> float:
    """Return one of the metrics, 0 where nothing was counted."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", served.ask("GET", "/metrics")[1].decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_who_waits_in_vain_is_sent_away_and_what_nobody_waits_for_is_not_computed(tmp_path: Path) -> None:
    write_export(tmp_path / "slow", work=600)
    kind, name = "multipart/form-data; boundary=B", 'sagitta_queued_images{model="slow"}'

    def pictures(count: int) -> bytes:
        return form(*[(f"{number}.jpg", RED) for number in range(count)])

    whole = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n".encode()
    whole += b"Content-Length: %d\r\n\r\n" % len(pictures(24)) + pictures(24)
    limits = ("--max-images", 64, "--max-queue", 64, "--batch-size", 1)
    with serving(tmp_path, "slow", *limits) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.predict, pictures(40), kind)
        while not counted(served, name):
            assert not first.done(), "the model is too fast for this test"
        with socket.create_connection(("127.0.0.1", served.port), 20) as impatient:
            impatient.sendall(whole)
            while counted(served, name) <= 39:  # more than are left of the first
                assert not first.done(), "the model is too fast for this test"
            status, told, headers = served.ask("POST", "/v1/predict", pictures(40), kind)
            assert status == 429 and told["error"]["code"] == "busy" and int(headers["retry-after"]) >= 1
        assert first.result()[0] == 200
        assert served.predict(RED)[0] == 200
        gone = [line for line in served.lines() if line.get("reason") == "gone"]
        assert len(gone) == 1 and gone[0]["status"] == 400
        assert counted(served, 'sagitta_images_total{model="slow",outcome="answered"}') == 41
        assert counted(served, 'sagitta_batch_images_sum{model="slow"}') == 41
