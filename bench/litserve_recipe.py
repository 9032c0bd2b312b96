"""A classifier behind LitServe as its documentation writes one: PIL, numpy, ONNX Runtime, batching by its own options.

python bench/litserve_recipe.py EXPORT PORT
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import onnxruntime
from PIL import Image

BATCH, WAIT = 32, 0.01  # images at most; seconds that one waits for others


class Classifier(litserve.LitAPI):  # type: ignore[misc]  # litserve is not installed where types are checked
    """Decodes base64, resizes, crops, classifies."""

    def setup(self, device: str) -> None:
        """Open the model."""
        del device
        folder = Path(sys.argv[1])
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        self.names = json.loads(self.session.get_modelmeta().custom_metadata_map["class_names"])
        self.how = json.loads((folder / "preprocessing.json").read_text())

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Return (H, W, 3) uint8."""
        image = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB")
        short, side = self.how["resize"]["shorter_side"], self.how["crop"]["height"]
        width, height = image.size
        factor = short / min(width, height)
        image = image.resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return np.asarray(image.crop((left, top, left + side, top + side)))

    def batch(self, inputs: list[Any]) -> Any:
        """Return (B, H, W, 3)."""
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """Return (B, classes)."""
        return self.session.run(["probabilities"], {"images": x})[0]

    def unbatch(self, output: Any) -> list[Any]:
        """Return a row an image."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return the five most probable classes."""
        best = np.argsort(-output)[:5]
        return {"top": [{"class": self.names[each], "probability": float(output[each])} for each in best]}


if __name__ == "__main__":
    api = Classifier(max_batch_size=BATCH, batch_timeout=WAIT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", log_level="warning", generate_client_file=False)
