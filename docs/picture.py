"""Draws fit.svg: what `sagitta fit digits` prints, what it says of validation images, and what it leaves behind.

python docs/picture.py    # trains for half a minute; the digits are scikit-learn's
"""

import json
import subprocess
import sys
import tempfile
import textwrap
from html import escape
from pathlib import Path
from typing import Any

from sagitta import ImageData, load_classifier

HERE = Path(__file__).parent
COLUMNS, LINE, CHARACTER, SIZE = 88, 15.5, 6.9, 11.5  # of the terminal: characters, and pixels
LEFT, TILE = 655, 60  # where the right half begins; a digit with its frame
PAPER, INK, FAINT, RIGHT, WRONG = "#11161d", "#d8dee6", "#8391a2", "#3fb950", "#f85149"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
NOTES = {
    "checkpoints": "the best, the last",
    "config.yaml": "repeats the run",
    "familiar.safetensors": "what the model knows",
    "lightning_logs": "every metric",
    "predictions": "these, for each epoch",
    "run.json": "versions, data, result",
    "test_logs.csv": "a line a test",
    "tests": "each class and image",
    "training_images.parquet": "known again in a test",
    "validation.parquet": "calibrated on these",
}


def shown(output: str) -> list[str]:
    """Return the lines that fit into the picture, and an ellipsis where some are left out."""
    lines = output.splitlines()
    epochs = [line for line in lines if line.startswith("epoch")]
    history = [line for line in lines if line.startswith(("  val_acc ", "  val_loss ")) and "▁" in line]
    test = lines[lines.index("Test, with 95 % intervals") :]
    table = next(index for index, line in enumerate(test) if line.lstrip().startswith("class"))
    first = lines[: lines.index(epochs[0])]
    kept = [*first, *epochs[:3], "…", epochs[-1], "", "Run history", *history, "", *test[: table + 5], "  …", test[-1]]
    return [part for line in kept for part in (textwrap.wrap(line, COLUMNS, drop_whitespace=False) or [""])]


def terminal(lines: list[str]) -> list[str]:
    """Return a terminal's lines as SVG; each is as wide as its characters, whatever the font."""
    parts = []
    for number, line in enumerate(lines):
        y, text = 58 + number * LINE, line.rstrip()
        indent = len(text) - len(text.lstrip())
        colour = "#ffffff" if text.startswith(("$", "Run history", "Test,")) else FAINT if text.strip() == "…" else INK
        if text:
            parts.append(
                f'<text x="{24 + indent * CHARACTER:.1f}" y="{y:.1f}" fill="{colour}" xml:space="preserve" '
                f'textLength="{(len(text) - indent) * CHARACTER:.1f}">{escape(text.strip())}</text>'
            )
    return parts


def digit(image: Any, x: float, y: float, colour: str, caption: str) -> str:
    """Return one image (H, W) of uint8 as squares in a frame, and what the model says of it."""
    side = (TILE - 4) / max(image.shape)
    squares = "".join(
        f'<path d="M{x + 2 + column * side:.1f} {y + 2 + row * side:.1f}h{side + 0.2:.1f}v{side + 0.2:.1f}'
        f'h-{side + 0.2:.1f}z" fill="#{value:02x}{value:02x}{value:02x}"/>'
        for row, values in enumerate(image.tolist())
        for column, value in enumerate(values)
        if value
    )
    return (
        f'<rect x="{x}" y="{y}" width="{TILE}" height="{TILE}" fill="#000" stroke="{colour}" stroke-width="2"/>'
        f"{squares}"
        f'<text x="{x}" y="{y + TILE + 14}" fill="{colour}">{escape(caption)}</text>'
    )


def predictions(run: Path) -> list[str]:
    """Return what the best checkpoint says of sixteen validation images, as SVG."""
    data = ImageData("digits")
    data.prepare_data()
    data.setup()
    images, labels = data.sample("val", 16)
    classifier = load_classifier(run / json.loads((run / "run.json").read_text())["best_checkpoint"]).eval()
    probabilities = classifier(data.preprocessing.normalize(images)).softmax(dim=1).detach()
    parts = [f'<text x="{LEFT}" y="58" fill="#ffffff">16 of the validation images</text>']
    for number, (label, image, row) in enumerate(zip(labels.tolist(), images, probabilities, strict=True)):
        best = int(row.argmax())
        x, y = LEFT + number % 4 * (TILE + 24), 70 + number // 4 * (TILE + 24)
        text = f"{data.class_names[best]} {float(row[best]):.0%}"
        text += "" if best == label else f", is {data.class_names[label]}"
        parts.append(digit(image[0].numpy(), x, y, RIGHT if best == label else WRONG, text))
    return parts


def folder(run: Path, y: float) -> list[str]:
    """Return the run directory's content as SVG."""
    parts = [f'<text x="{LEFT}" y="{y:.0f}" fill="#ffffff">runs/digits-1/</text>']
    for number, path in enumerate(sorted(run.iterdir()), 1):
        name = path.name + "/" * path.is_dir()
        parts.append(
            f'<text x="{LEFT}" y="{y + number * LINE:.1f}" fill="{INK}">{name}<tspan x="{LEFT + 180}" fill="{FAINT}" '
            f'font-size="10.5">{NOTES.get(path.name, "")}</tspan></text>'
        )
    return parts


def draw(output: str, run: Path) -> str:
    """Return the picture of a run and of what it printed, as SVG."""
    lines = ["$ sagitta fit digits", *shown(output)]
    below = 70 + 4 * (TILE + 24) + 20
    height = max(58 + len(lines) * LINE, below + len(list(run.iterdir())) * LINE + 14) + 6
    dots = "".join(f'<circle cx="{26 + 18 * n}" cy="20" r="5.5" fill="#3a4450"/>' for n in range(3))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="{height:.0f}" '
            f'viewBox="0 0 1000 {height:.0f}" font-family="{MONO}" font-size="{SIZE}">',
            "<title>sagitta fit digits: its output, its predictions, its files</title>",
            f'<rect width="1000" height="{height:.0f}" rx="10" fill="{PAPER}"/>{dots}',
            *terminal(lines),
            *predictions(run),
            *folder(run, below),
            "</svg>\n",
        ]
    )


def main() -> None:
    """Train, and draw."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "sagitta", "fit", "digits"]
        output = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, text=True, check=True).stdout
        (HERE / "fit.svg").write_text(draw(output, Path(place) / "runs" / "digits-1"))


if __name__ == "__main__":
    main()
