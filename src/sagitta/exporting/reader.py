"""Reads image files as the model beside this file wants them; needs Pillow and numpy, and onnxruntime to run it.

    python reader.py model.onnx PHOTO…

As a module: ``read(path, json.load(open("preprocessing.json")))`` returns (height, width, channels) uint8.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def read(path: str, how: dict[str, Any]) -> Any:
    """Return an image file upright, resized and cropped, (H, W, C) uint8."""
    if how["decode"]["reduction"]:
        raise ValueError(
            "this model's images were reduced from more than 8 bits or bands, which this reader does not do"
        )
    image: Any = Image.open(path)
    turn = 1 if image.format == "TIFF" else image.getexif().get(274, 1)  # Pillow turns a TIFF itself
    image.load()
    if image.mode.startswith("I"):
        image = Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).clip(0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if turn in range(2, 9):  # transpose methods of Pillow, by EXIF's number
        image = image.transpose((0, 3, 1, 5, 4, 6, 2)[turn - 2])
    height, width = how["crop"]["height"], how["crop"]["width"]
    if how["resize"]["shorter_side"]:
        short, long = how["resize"]["shorter_side"], max(image.size) * how["resize"]["shorter_side"] // min(image.size)
        size = (short, long) if image.width <= image.height else (long, short)
        size = (short, short) if image.width == image.height else size
    else:
        factor = max(how["resize"]["cover"][0] / image.height, how["resize"]["cover"][1] / image.width)
        size = (max(round(image.width * factor), width), max(round(image.height * factor), height))
    image = image.resize(size, getattr(Image.Resampling, how["resize"]["filter"].upper()))
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)).convert(how["convert"]))
    return pixels.reshape(height, width, -1)


if __name__ == "__main__":
    import onnxruntime

    session = onnxruntime.InferenceSession(sys.argv[1])
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    how = json.loads((Path(sys.argv[1]).parent / "preprocessing.json").read_text())
    for path in sys.argv[2:]:
        (probabilities,) = session.run(None, {"images": read(path, how)[None]})[0]
        best = int(probabilities.argmax())
        print(f"{path}\t{names[best]}\t{probabilities[best]:.4f}")
