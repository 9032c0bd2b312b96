"""Your own transforms, and a split as a Dataset of your own DataLoader.

python examples/own_transforms.py digits    (or a folder of photos)
"""

import sys

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler
from torchvision.transforms import v2

from sagitta import Augmentation, Classifier, ImageData


def main() -> None:
    pl.seed_everything(0)
    data = ImageData(
        sys.argv[1] if len(sys.argv) > 1 else "digits",
        augmentation=Augmentation(flip=0.0),
        # On each uint8 image after its crop; the numbers drawn are a function of (seed, epoch, row).
        train_transform=v2.Compose([v2.RandomRotation(10), v2.ColorJitter(brightness=0.3, contrast=0.3)]),
        # An Albumentations pipeline does as well; transform_workers=2 would spread it over processes.
    )
    trainer = pl.Trainer(max_epochs=2, enable_checkpointing=False, logger=False, enable_model_summary=False)
    trainer.fit(Classifier(), data)
    print(f"recorded: {data.answers()['transforms']['train_transform']}")

    # Samplers, collate functions and further columns of your own: a map-style Dataset is all that they need.
    size = data.preprocessing.size
    rows = data.as_dataset("train", v2.Compose([v2.Resize(size), v2.ToDtype(torch.float32, scale=True)]))
    weights = (1 / data.class_counts)[data.shards.splits["train"].labels]
    sampler = WeightedRandomSampler(weights.tolist(), num_samples=64)
    images, labels = next(iter(DataLoader(rows, batch_size=64, sampler=sampler)))
    print(f"my own batch: {tuple(images.shape)}, {len(labels.unique())} classes")


if __name__ == "__main__":
    main()
