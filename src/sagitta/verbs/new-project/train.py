"""Train a network on a folder of photos, and test it; the settings are those of config.yaml."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import timm
import yaml
from lightning.pytorch import callbacks, loggers
from torch import Tensor, nn, optim
from torchmetrics.classification import MulticlassAccuracy

from sagitta import ImageData, SagittaError
from sagitta.models import pretrained_preprocessing


class Net(pl.LightningModule):
    def __init__(self, name: str, class_names: list[str], channels: int, lr: float, pretrained: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="pretrained")  # whoever opens a checkpoint has its weights
        self.network = timm.create_model(name, pretrained, num_classes=len(class_names), in_chans=channels)
        self.accuracy = MulticlassAccuracy(len(class_names), average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        self.log("train_loss", loss := nn.functional.cross_entropy(self.network(images), labels))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.accuracy(self.network(batch[0]), batch[1])
        self.log("test_acc" if self.trainer.testing else "val_acc", self.accuracy, prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.AdamW(self.parameters(), lr=self.hparams["lr"])


def train(photos: str, network: str, pretrained: bool, epochs: int, lr: float, **of_data: Any) -> tuple[str, Any]:
    data = ImageData(photos, preprocessing=pretrained_preprocessing(network), verbose=True, **of_data)
    data.prepare_data()
    data.setup()
    best = callbacks.ModelCheckpoint(filename="{epoch}-{val_acc:.3f}", monitor="val_acc", mode="max")
    trainer = pl.Trainer(max_epochs=epochs, callbacks=[best], logger=loggers.CSVLogger("runs", ""), log_every_n_steps=1)
    trainer.fit(net := Net(network, list(data.class_names), data.preprocessing.channels, float(lr), pretrained), data)
    measure = trainer.test if "test" in data.shards.splits else trainer.validate
    return best.best_model_path, measure(net, data, ckpt_path="best", weights_only=True)[0]


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("photos", help="a folder with a folder of photos for each class, or what else sagitta takes")
    pl.seed_everything(0, verbose=False)
    try:
        settings = yaml.safe_load(Path(__file__).with_name("config.yaml").read_text())
        checkpoint, measured = train(parser.parse_args().photos, **settings)
    except SagittaError as error:
        parser.error(str(error))
    print(*(f"{name} {value:.1%};" for name, value in measured.items()), f"next: python predict.py {checkpoint} PHOTO…")
