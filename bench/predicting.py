"""How near `sagitta predict` comes to its network's own speed.

    python bench/predicting.py --weights mobilenetv2_100.safetensors --photos PHOTOS
    python bench/predicting.py --photos PHOTOS --images 64 --repeats 1 --results /tmp/predicting.json    # a smoke

The photos, named again and again, are predicted into Parquet by a run of random weights (or of those given), with what
``predict`` takes by itself. Beside it stand the same network on the same images decoded before (``network``), and
reading and decoding without a network (``decoding``), alternating with it. ``images_s`` are images a second of
wall-clock time, ``cpu_ms`` the processor time of all threads an image, both without opening the run (``once_s``); of
the repeats, the median.

``of_network`` is the share of the network's own speed. On a GPU decoding has the cores for itself, and 0.9 is asked
for. On a CPU both want the same cores: what can be had then is ``bound``, the speed of both one after the other, and
``of_bound`` the share of that. ``cpu_over`` is processor time beside that of network and decoding, as a share of both:
it says the same on a machine where others compute.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from measure import machine
from sagitta.evaluation import Asked, predict_into
from sagitta.evaluation.inputs import inputs_for
from sagitta.evaluation.predictor import Predictor
from sagitta.loading import DecodedAhead
from sagitta.models import Classifier, open_weights, pretrained_preprocessing
from sagitta.training.solving import write_checkpoint

RESULTS = Path(__file__).parent / "results" / "predicting.json"
CLASSES = 120


def checkpoint(model: str, weights: str | None, folder: Path) -> Path:
    """Return a checkpoint of a network."""
    how = open_weights(weights).preprocessing(model) if weights else pretrained_preprocessing(model)
    assert how is not None
    torch.manual_seed(0)
    names = [f"class {number}" for number in range(CLASSES)]
    made = Classifier(model, weights=weights, class_names=names, preprocessing=how.to_dict()).eval()
    made.prepare()
    write_checkpoint(made, folder / "network.ckpt")
    return folder / "network.ckpt"


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds of wall-clock and of processor time of a piece of work."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(work: Callable[[], object], images: int, beside: Callable[[], object] | None = None) -> dict[str, float]:
    """Return the rates of a piece of work, without what is done once in it, which ``beside`` does alone."""
    (seconds, cpu), (once, own) = spent(work), (0.0, 0.0) if beside is None else spent(beside)
    return {"images_s": images / (seconds - once), "cpu_ms": 1000 * (cpu - own) / images, "once_s": once}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Return the medians of all three, and what they say of one another."""
    photos = sorted(map(str, Path(options.photos).iterdir()))
    paths = [photos[number % len(photos)] for number in range(options.images)]
    with tempfile.TemporaryDirectory() as folder:
        network = checkpoint(options.model, options.weights, Path(folder))
        asked = Asked(device=options.device)
        predictor, inputs = Predictor(network, asked), inputs_for(network, paths)
        (member,) = predictor.members
        size = predictor.batch_size
        few = DecodedAhead(inputs, [member.preprocessing], min(len(paths), 256)).decode(range(min(len(paths), 256)))
        batches = torch.split(few.pixels[0], size)

        def forward() -> None:
            for number in range(len(paths) // size):
                found = member.probabilities(batches[number % len(batches)])
            found.cpu()

        def decode() -> None:
            for _ in DecodedAhead(inputs, [member.preprocessing], predictor.chunk):
                pass

        def whole(paths: list[str]) -> None:
            predict_into(network, paths, Path(folder) / "found.parquet", asked)

        member.probabilities(batches[0])
        cases = ("network", "decoding", "predict")
        runs = [
            {
                "network": measured(forward, len(paths)),
                "decoding": measured(decode, len(paths)),
                "predict": measured(lambda: whole(paths), len(paths), lambda: whole(paths[:1])),
            }
            for _ in range(options.repeats)
        ]
    rates = {
        name: {key: statistics.median(each[name][key] for each in runs) for key in runs[0][name]} for name in cases
    }
    alone, decoding, found = (rates[name]["images_s"] for name in cases)
    on_cpu = predictor.device.type == "cpu"
    bound = 1 / (1 / alone + 1 / decoding) if on_cpu else min(alone, decoding)
    both = rates["network"]["cpu_ms"] + rates["decoding"]["cpu_ms"]
    return {
        "device": str(predictor.device),
        "batch": size,
        **rates,
        "of_network": found / alone,
        "bound": bound,
        "of_bound": found / bound,
        "cpu_over": rates["predict"]["cpu_ms"] / both - 1,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--model", default="mobilenetv2_100")
    parser.add_argument("--weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = run(options)
    words = {"model": options.model, "images": options.images, "repeats": options.repeats}
    versions = {name: version(name) for name in ("torch", "timm", "numpy", "pyarrow")}
    options.results.parent.mkdir(exist_ok=True)
    text = json.dumps({**words, **found, "machine": machine(), "versions": versions}, indent=2)
    options.results.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
