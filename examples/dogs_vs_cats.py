"""Dogs vs. cats through Arrow: JPEG folders become Parquet, a DataModule reads it, a ResNet-50 learns it.

python examples/dogs_vs_cats.py data                        # data/train/cat.0.jpg …, data/test/dog.1.jpg …
python examples/dogs_vs_cats.py data --devices 2 --nodes 2  # the same command on each of two nodes (torchrun, SLURM)
"""

import argparse
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

import sagitta
from sagitta import Classifier, ImageData
from sagitta.evaluation import append_test_log


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="folder with train/ and test/")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--precision", default=None, help="16-mixed on GPUs")
    args = parser.parse_args()
    pl.seed_everything(0)
    parquet = Path("data_parquet")
    if not parquet.exists():
        sagitta.convert(args.data, parquet)
    data = ImageData(parquet, batch_size=32)
    name = "image-classifier-{epoch:02d}-{val_loss:.2f}"
    checkpoints = ModelCheckpoint("checkpoints", name, monitor="val_loss", save_last=True)
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        devices=args.devices,
        num_nodes=args.nodes,
        strategy="ddp" if args.devices * args.nodes > 1 else "auto",
        precision=args.precision,
        callbacks=[checkpoints],
        log_every_n_steps=1,
    )
    trainer.fit(model := Classifier(args.model, lr=1e-3), data)
    results = trainer.test(model, data, ckpt_path=checkpoints.best_model_path, weights_only=True)
    tested = {"dataset": str(parquet), "checkpoint": checkpoints.best_model_path}
    append_test_log(Path(), {**tested, **results[0]})


if __name__ == "__main__":
    main()
