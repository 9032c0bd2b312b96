"""MNIST from nothing: your own LightningModule, unchanged, on Sagitta's loaders.

python examples/mnist.py               # downloads MNIST once; python examples/mnist.py FOLDER uses the idx files in it
"""

import argparse

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sagitta import Augmentation, ConvertOptions, ImageData


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.fc1, self.fc2 = nn.Linear(1600, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_acc", (self(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


if __name__ == "__main__":
    pl.seed_everything(0)
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", default="mnist")
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    data = ImageData(args.data, convert=ConvertOptions(val=1 / 6), augmentation=Augmentation(shift=0))
    trainer = pl.Trainer(max_epochs=args.epochs, deterministic=True)
    trainer.fit(model := Net(), data)
    trainer.validate(model, data)
