"""Why a run says what it says: hot at the mark, beside training images that are alike."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sagitta
from sagitta.cli import main
from sagitta.evaluation import Explanation, explain
from sagitta.evaluation.explain import heated
from sagitta.evaluation.inputs import open_inputs

pytestmark = pytest.mark.usefixtures("inside")


def mark_of(path: str) -> tuple[float, float]:
    """Return the middle of the mark (top, left) in an image of 30x24 pixels."""
    with Image.open(path) as image:
        pixels = np.asarray(image).astype(int)
    colour = (255, 0, 0) if "red" in path else (0, 255, 0)
    rows, columns = np.nonzero((pixels == colour).all(axis=2))
    return float(rows.mean()) + 0.5, float(columns.mean()) + 0.5


def test_the_heat_lies_at_the_mark_in_the_whole_image() -> None:
    paths = sorted(map(str, Path("images").rglob("*.png")))[::4]
    found, notes = explain(Path("run"), open_inputs(paths), nearest=0)
    assert notes == [] and [each.path for each in found] == paths
    near = []
    for each in found:
        height, width = each.heat.shape
        assert each.image.size == (width, height) and each.heat.min() >= 0 and each.heat.max() <= 1
        assert not each.heat[: 2 * height // 30].any()  # above the crop, which is square
        top, left = np.unravel_index(each.heat.argmax(), each.heat.shape)
        middle = mark_of(each.path)
        near.append(abs(top * 30 / height - middle[0]) < 6 and abs(left * 24 / width - middle[1]) < 6)
    assert np.mean(near) > 0.85


def test_the_nearest_training_images_and_their_table() -> None:
    run = sagitta.Run(Path("run"))
    found = run.explain(["images/red/001.png", "images/green/000.png"], nearest=3, output="typed")
    assert sorted(each.name for each in Path("typed").iterdir()) == ["000.png", "001.png", "nearest.csv"]
    for each in found:
        similar = [near.similarity for near in each.nearest]
        assert len(similar) == 3 and similar == sorted(similar, reverse=True) and 0 < similar[0] <= 1.0001
        assert all(near.label in near.path for near in each.nearest)
        assert sum(near.label == each.class_name for near in each.nearest) >= 2
    table = found.table
    assert table.column_names == [
        "path",
        "class",
        "probability",
        "unfamiliar",
        "rank",
        "nearest",
        "label",
        "similarity",
    ]
    assert table["rank"].to_pylist() == [1, 2, 3] * 2 and table["path"][0].as_py() == "images/red/001.png"
    html = found._repr_html_()
    assert html.count("<img alt=") == 2 and "data:image/png;base64" in html
    (itself,) = run.explain(found[0].nearest[0].path.join(["images/", ""]), nearest=1)
    assert itself.nearest[0].path in itself.path and itself.nearest[0].similarity == pytest.approx(1, abs=1e-3)


def test_the_command_writes_a_picture_each_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("images/red", "more/red", dirs_exist_ok=True)
    Path("broken.png").write_text("no image")
    paths = ["images/red/001.png", "more/red/001.png", "broken.png"]
    assert main(["explain", "run", *paths, "-o", "out", "--class", "green", "--nearest", "2"]) == 0
    printed = capsys.readouterr().out
    assert "out/001.png: " in printed and "out/001-2.png: " in printed and "% green" in printed
    assert "broken.png: not an image" in printed
    assert sorted(path.name for path in Path("out").iterdir()) == ["001-2.png", "001.png", "nearest.csv"]
    with Image.open("out/001.png") as picture:
        assert picture.size[0] > 2 * 224
    with Path("out/nearest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["green"] * 4 and rows[0]["nearest"].startswith("red/")


def test_a_checkpoint_by_itself_has_no_nearest_images(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = next(Path("run/checkpoints").glob("image-*.ckpt"))
    shutil.copy(checkpoint, "alone.ckpt")
    assert main(["explain", "alone.ckpt", "images/red/001.png", "-o", "alone"]) == 0
    assert "no nearest training images: alone.ckpt: names no training data" in capsys.readouterr().out
    assert [path.name for path in Path("alone").iterdir()] == ["001.png"]


def test_what_cannot_be_explained_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, arguments in {
        "--class blue: no class of the model, which knows green, red": ["images/red/001.png", "--class", "blue"],
        "no image is readable; bad.png: not an image": ["bad.png"],
        "nowhere.png: no such file": ["nowhere.png"],
    }.items():
        Path("bad.png").write_text("no image")
        assert main(["explain", "run", *arguments, "-o", "refused"]) == 2
        assert words in capsys.readouterr().err


def test_a_heat_map_leaves_what_is_cold_as_it_is_in_grey() -> None:
    image = Image.new("RGB", (4, 4), (200, 100, 0))
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 1
    pixels = np.asarray(heated(image, heat)).astype(int)
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}) == 2
    assert np.ptp(pixels[0, 0]) == 0 and np.ptp(pixels[1, 2]) > 20
    words = repr(Explanation("a.png", "cat", 0.5, heat, image))
    assert words == "a.png: 50.0% cat"
    strange = Explanation("a.png", "cat", 0.5, heat, image, unfamiliar=0.995)
    assert repr(strange) == "a.png: 50.0% cat, but it looks like none of the classes"
    named = Explanation("a.png", "other classes", 0.5, heat, image)  # what a class is called says nothing of that
    assert named.picture().height == Explanation("a.png", "cat", 0.5, heat, image).picture().height
    assert strange.picture().height > Explanation("a.png", "cat", 0.5, heat, image).picture().height


def test_members_that_read_images_differently_have_the_mean_of_their_maps() -> None:
    sagitta.fit("images", epochs=1, batch_size=16, model="simple-cnn", image_size=16, out="second")
    sagitta.ensemble(["run", "second"], out="both")
    apart = {
        run: explain(Path(run), open_inputs(["images/red/001.png"]), class_name="red", nearest=0)[0][0]
        for run in ("run", "second")
    }
    (found,), notes = explain(Path("both"), open_inputs(["images/red/001.png"]), class_name="red")
    assert notes == ["no nearest training images: both: several networks, which have no features in common"]
    weights = sagitta.Run(Path("both")).record["ensemble"]["weights"]
    mean = sum(weight * each.heat for weight, each in zip(weights, apart.values(), strict=True))
    np.testing.assert_allclose(found.heat, mean, atol=1e-5)
    assert found.nearest == () and found.probability == pytest.approx(
        sum(weight * each.probability for weight, each in zip(weights, apart.values(), strict=True)), abs=1e-5
    )
