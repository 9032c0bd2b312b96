"""What those who write exports and those who run them call things; without torch, which the latter do without."""

ONNX_FILE, OPENVINO_FILE, TORCH_FILE = "model.onnx", "model.xml", "model.pt2"
"""Of the folder of an export."""
FORMAT_NAMES = ("onnx", "openvino", "torch", "safetensors", "hub")
"""What a model is written as, see :data:`sagitta.exporting.formats.FORMATS`."""
HUB_PROOF = "hub.json"
"""Of a folder for the hub: how it was proven."""
INPUT, OUTPUT = "images", "probabilities"
"""What an exported model takes and gives."""
ONE_LABEL, SEVERAL_LABELS = "one label an image", "several labels an image"
"""``task`` of its metadata."""
