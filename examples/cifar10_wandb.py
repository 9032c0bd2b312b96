"""CIFAR-10 with Weights & Biases: early stopping, checkpoints, prediction images, a run history and summary.

python examples/cifar10_wandb.py                       # downloads CIFAR-10 once
WANDB_MODE=offline python examples/cifar10_wandb.py cifar-10-batches-py --epochs 3
"""

import argparse

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from sagitta import Classifier, ImageData, PredictionImages


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", default="cifar10")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()

    pl.seed_everything(0)
    data = ImageData(args.data, batch_size=128)  # download, clean and save, load, transform, wrap: the five steps
    model = Classifier(
        "simple-cnn", lr=2e-3
    )  # computations, train, validation and test loops, optimizers: the five sections
    logger = WandbLogger(project="cifar10", name="simple-cnn")
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        logger=logger,
        callbacks=[
            EarlyStopping("val_loss", patience=5),
            ModelCheckpoint(monitor="val_loss"),
            PredictionImages(32),
        ],
        log_every_n_steps=5,
    )
    trainer.fit(model, data)
    trainer.test(model, data, ckpt_path="best", weights_only=True)
    logger.experiment.finish()  # prints the run history and the run summary


if __name__ == "__main__":
    main()
