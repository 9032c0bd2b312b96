"""Transfer learning on your own photos: a pretrained ResNet-50 with a new head, Adam at 1e-4, early stopping.

python examples/butterflies.py butterflies              # butterflies/Danaus_plexippus/1.png …
python examples/butterflies.py butterflies --scratch    # where the published weights cannot be had
"""

import argparse

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from sagitta import Classifier, ImageData


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="a folder with one folder of photos for each species")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--scratch", action="store_true")
    args = parser.parse_args()

    pl.seed_everything(0)
    # Pretrained weights decide how their pixels must be prepared, and the model tells the data.
    data = ImageData(args.data, batch_size=32)
    model = Classifier(args.model, pretrained=not args.scratch, optimizer="adam", lr=1e-4, schedule="constant")
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        accelerator="auto",
        devices="auto",
        callbacks=[EarlyStopping("val_loss", patience=5), ModelCheckpoint(every_n_epochs=1, save_top_k=-1)],
        log_every_n_steps=1,
    )
    trainer.fit(model, data)
    trainer.test(model, data)


if __name__ == "__main__":
    main()
