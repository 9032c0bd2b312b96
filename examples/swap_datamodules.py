"""One model, any DataModule: change one word and train on something else.

python examples/swap_datamodules.py digits mnist cifar10 path/to/imagenet path/to/your/folder
"""

import sys

import lightning.pytorch as pl

from sagitta import Classifier, ImageData


def main() -> None:
    for word in sys.argv[1:] or ["digits"]:
        pl.seed_everything(0)
        data = ImageData(word)
        model = Classifier()  # the number of classes, channels and pixels are found
        trainer = pl.Trainer(max_epochs=2, enable_checkpointing=False, logger=False, enable_model_summary=False)
        trainer.fit(model, data)
        trainer.test(model, data)
        answers = data.answers()
        for question in ("splits", "transforms", "normalisation", "preparation"):
            print(f"{word}: {question}: {answers[question]}")


if __name__ == "__main__":
    main()
