"""Say what is on photos, as CSV: python predict.py CHECKPOINT PHOTO… (files, or folders of them)."""

import csv
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from sagitta import Preprocessing
from sagitta.loading import DecodedAhead, EncodedFiles
from train import Net


def predict(checkpoint: str, photos: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """Yield file, class and probability of each photo; one that cannot be read is told on standard error."""
    told = torch.load(checkpoint, map_location="cpu", weights_only=True)["ImageData"]  # of the training's images
    how = Preprocessing.from_dict(told["transforms"]["evaluation"] | told["normalisation"])
    net = Net.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
    paths = [Path(photo) for photo in photos]
    inside = {path: sorted(each for each in path.rglob("*") if each.is_file()) for path in paths if path.is_dir()}
    files = [str(each) for path in paths for each in inside.get(path, [path])]
    for chunk in DecodedAhead(EncodedFiles(files), [how], chunk=32):
        for number, reason in chunk.errors.items():
            print(f"{files[number]}: {reason}", file=sys.stderr)
        if chunk.readable:
            with torch.inference_mode():
                best = net.network(how.normalize(chunk.pixels[0])).softmax(dim=1).max(dim=1)
            for number, probability, label in zip(chunk.readable, best.values, best.indices, strict=True):
                yield files[number], net.hparams["class_names"][label], float(probability)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="of train.py: runs/version_0/checkpoints/….ckpt")
    parser.add_argument("photos", nargs="+")
    arguments = parser.parse_args()
    out = csv.writer(sys.stdout)
    out.writerow(("path", "class", "probability"))
    out.writerows(predict(arguments.checkpoint, arguments.photos))
