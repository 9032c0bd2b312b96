"""ImageData: the dataset as a plain LightningDataModule. Hooks only; convert, shards and loader do the work."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sagitta.conversion import ConvertOptions
from sagitta.dataset import DatasetInfo, ShardSet
from sagitta.errors import ConfigError, DatasetError
from sagitta.images import Profile, Reduction
from sagitta.loading.augmentation import Augmentation
from sagitta.loading.loader import Batch, Loader, match_labels, shorten
from sagitta.loading.mapstyle import SplitDataset
from sagitta.loading.opening import dataset_path, folded
from sagitta.loading.pixels import CachedPixels, EncodedPixels
from sagitta.loading.preprocessing import Preprocessing
from sagitta.loading.ranges import check_arguments
from sagitta.loading.transforms import OwnTransform, Transform
from sagitta.sources import SourceOptions

_BATCH_SIZE = 64


class ImageData(pl.LightningDataModule):
    """Images and labels for any LightningModule whose steps say ``x, y = batch``.

    A batch is ``(images, labels)``: float32 normalised (B, C, H, W) and int64 (B,); on the way to the device the images
    are uint8. Classes, channels and image size are found.

    Args:
        source: a converted dataset; anything that ``sagitta convert`` understands, converted once into a cache; or a
            built-in name (digits, mnist, fashion-mnist, cifar10, cifar100, imagenette).
        batch_size: images a device and batch; by default 64.
        image_size: height and width of the model's input; by default that of ``preprocessing``, else thumbnails as they
            are and photos at 224.
        profile: ``exact`` for Pillow's pixels, or ``fast`` for large photos decoded at a fraction of their size; by
            default that of ``preprocessing``, else exact. It travels with the model's checkpoint.
        augmentation: random changes of training images.
        balanced: in training, show every class equally often, however many images it has.
        folds: divide train and val anew into so many folds, by class and ``seed``; groups stay together.
        fold: which of them, from 1, is ``val``; the others are ``train``, and ``test`` stays. None: all splits stay,
            and ``sagitta.fit`` trains a member a fold.
        convert: how a source that is not yet converted is split and stored.
        layout: how the source is laid out, where the detection is wrong.
        threads: decoding threads; by default every core of the process.
        seed: of order and augmentation.
        class_names: label order wanted, that of a trained model; matched by name.
        preprocessing: that of a trained model; by default the one that a model brings (:meth:`adopt`), else derived
            from the dataset.
        verbose: print what was detected and show progress while converting.
        train_transform: of each uint8 training image, after crop and ``augmentation``: torchvision's or
            Albumentations', seeded by (seed, epoch, row); see :mod:`sagitta.loading.transforms`. It returns uint8,
            which is normalised here, or floats, which are passed on as float32.
        eval_transform: likewise, of each image for validation, test and prediction.
        transform_workers: apply them in so many spawned processes; 0 applies them in the consumer's thread.

    Attributes:
        tested_split: what a test is made on: ``test``.

    Raises:
        ConfigError: an argument is out of range, or a transform cannot be called or sent to processes; or, when loaders
            are made, ``class_names`` does not fit the dataset.
        SourceError: in ``prepare_data``, the source cannot be read.
        DatasetError: in ``setup``, the dataset is damaged.
    """

    def __init__(
        self,
        source: str | Path,
        batch_size: int | None = None,
        *,
        image_size: int | None = None,
        profile: Profile | None = None,
        augmentation: Augmentation = Augmentation(),
        balanced: bool = False,
        folds: int | None = None,
        fold: int | None = None,
        convert: ConvertOptions = ConvertOptions(),
        layout: SourceOptions = SourceOptions(),
        threads: int | None = None,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        verbose: bool = False,
        train_transform: Transform | None = None,
        eval_transform: Transform | None = None,
        transform_workers: int = 0,
    ) -> None:
        super().__init__()
        check_arguments(batch_size, image_size, profile, folds, fold, transform_workers)
        self.source = str(source)
        self.batch_size = _BATCH_SIZE if batch_size is None else batch_size
        self.seed = seed
        self.image_size = image_size
        self._profile = profile
        self.augmentation = augmentation
        self._balanced = balanced
        self.folds, self.fold = folds, fold
        self._convert = convert
        self._layout = layout
        self._threads = threads
        self._wanted_names = None if class_names is None else tuple(class_names)
        self.wanted_preprocessing = preprocessing
        self._model_names: tuple[str, ...] | None = None  # of the model that was adopted, likewise
        self._model_preprocessing: Preprocessing | None = None
        self._verbose = verbose
        self._transforms = {"train": train_transform, "eval": eval_transform}
        self._workers = transform_workers
        for own in (OwnTransform(transform) for transform in self._transforms.values() if transform is not None):
            if transform_workers:
                own.check_sendable()
        self.tested_split = "test"
        self._path: Path | None = None  # where this process prepared the dataset: looking for it again takes as long
        self._shards: ShardSet | None = None
        self._pixels: dict[str, CachedPixels | EncodedPixels] = {}  # of each split, for all its loaders
        self._position: dict[str, Any] | None = None  # of a resumed fit, until its loader is made

    # What the data is, known after `setup`.

    @property
    def shards(self) -> ShardSet:
        """The open dataset.

        Raises:
            DatasetError: ``setup`` was not called.
        """
        if self._shards is None:
            raise DatasetError("the dataset is not open yet: call prepare_data() and setup(), or use it in a Trainer")
        return self._shards

    @property
    def info(self) -> DatasetInfo:
        """What the dataset says about itself."""
        return self.shards.info

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels in the batches: the adopted or the wanted ones, or the dataset's."""
        return self._model_names or self._wanted_names or self.info.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes of the labels."""
        return len(self.class_names)

    @property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """Training rows of each of ``class_names``, int64 (C,); zeros where there is no ``train`` split."""
        own = self.info.class_names
        rows = np.zeros(len(own), np.int64)
        if "train" in self.shards.splits:
            labels = self.shards.splits["train"].labels
            rows = np.bincount(labels, minlength=len(own)) if labels.ndim == 1 else labels.sum(axis=0)
        counts = dict(zip(own, rows.tolist(), strict=True))
        return np.array([counts.get(name, 0) for name in self.class_names], np.int64)

    @property
    def rows(self) -> int:
        """Training rows; 0 where there is no ``train`` split."""
        return len(self.shards.splits.get("train", ()))

    @property
    def multilabel(self) -> bool:
        """Whether a row has several labels, or none."""
        return self.info.multilabel

    @property
    def preprocessing(self) -> Preprocessing:
        """What turns images into model input."""
        base = self._model_preprocessing or self.wanted_preprocessing
        if base is None:
            return Preprocessing.of_dataset(self.info, self.image_size, self._profile or "exact")
        return self._sized(base)

    def _sized(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return the same with the image size and the profile that were asked for."""
        side = self.image_size
        size = preprocessing.size if side is None else (side, side)
        return replace(preprocessing, size=size, profile=self._profile or preprocessing.profile)

    def adopt(self, class_names: Sequence[str], preprocessing: Preprocessing | None) -> None:
        """Take over what a model's outputs mean and what its input has to be; called after ``setup``.

        What was asked for in the constructor stays: it has to agree, but for ``image_size`` and ``profile``, which
        change the model's preprocessing. A model adopted later replaces this one.

        Args:
            class_names: of the model's outputs, in their order; the dataset may have fewer, in another order.
            preprocessing: of the model's input; None leaves the one that was asked for, or the dataset's.

        Raises:
            ConfigError: the dataset has classes that the model does not know; or class names or a preprocessing were
                asked for that are not the model's.
            DatasetError: ``setup`` was not called.
        """
        names = tuple(class_names)
        match_labels(np.empty(0, np.int64), self.info.class_names, names)
        if self._wanted_names not in (None, names):
            raise ConfigError(
                f"ImageData was given other class names, or in another order, than the model's: {shorten(names)}; "
                "leave class_names out"
            )
        wanted = self.wanted_preprocessing
        if wanted and preprocessing and self._sized(wanted) != self._sized(preprocessing):
            raise ConfigError(
                f"ImageData was given {wanted}, but the model takes {preprocessing}; leave the preprocessing out"
            )
        if preprocessing is not None:
            self._check_reduction(preprocessing.reduction)
        self._model_names, self._model_preprocessing = names, preprocessing

    def _check_reduction(self, models: Reduction | None) -> None:
        """Refuse deep samples or bands that became other 8-bit pixels than those of the model did."""
        fields = self.info.reduction
        own = None if fields is None else Reduction.from_dict(fields)
        if own != models and (own is not None or any("bit" in lost or "band" in lost for lost in self.info.reduced)):
            raise ConfigError(
                f"{self.source} was converted with {own or 'neither --range nor --bands'}, but the model was trained "
                f"on images with {models or 'neither'}; convert it again like that"
            )

    def forget_model(self) -> None:
        """Take back what was adopted from a model; a fresh one begins with the dataset's own."""
        self._model_names = self._model_preprocessing = None

    def answers(self, *, augmented: bool = True) -> dict[str, Any]:
        """Answer the four questions in plain values: splits, transforms, normalisation, preparation.

        Args:
            augmented: whether what learns is given changed images; False where it learns from features of images as
                they are evaluated.
        """
        preprocessing = self.preprocessing.to_dict()
        normalisation = {name: preprocessing.pop(name) for name in ("mean", "std")}
        augmentation = vars(self.augmentation.resolve(self.preprocessing.channels)).copy()
        if not augmentation["vertical"]:
            del augmentation["vertical"]  # younger than records of earlier versions, which say the same without it
        train = augmentation if augmented else "none: images as they are evaluated"
        return {
            "splits": {name: len(split) for name, split in self.shards.splits.items()},
            "transforms": {"train": train, "evaluation": preprocessing} | self._own_transforms(),
            "normalisation": normalisation,
            "preparation": dict(self.info.provenance),
            "fingerprint": self.info.fingerprint,
            "class_names": list(self.class_names),
        }

    def _own_transforms(self) -> dict[str, str]:
        """Return what is known of the person's own transforms, where there are any."""
        given = {f"{name}_transform": own for name, own in self._transforms.items() if own is not None}
        return {name: OwnTransform(own).describe() for name, own in given.items()}

    # Lightning's hooks.

    def prepare_data(self) -> None:
        """Convert the source into the cache if need be; called once a node, and safe under many processes."""
        if self._shards is None:
            self._path = dataset_path(self.source, self._layout, self._convert, verbose=self._verbose)

    def setup(self, stage: str | None = None) -> None:
        """Open the dataset in this process."""
        if self._shards is None:
            shards = ShardSet.open(self._path or dataset_path(self.source, self._layout, self._convert))
            self._shards = folded(shards, self.folds, self.fold, self.seed) if self.folds and self.fold else shards

    def train_dataloader(self) -> Loader:
        """Return shuffled, augmented batches; the tail batch is dropped.

        With the Trainer's ``overfit_batches`` every epoch has the same ones; Lightning takes so many of ``val``, too.
        """
        loader = self._loader("train")
        trainer: Any = self.trainer
        loader.same_rows = trainer is not None and trainer.overfit_batches > 0
        if self.trainer is not None:  # a loader made anew in mid-run goes on with that epoch's order
            loader.set_epoch(self.trainer.current_epoch)
        if self._position is not None:
            loader.load_state_dict(self._position)
            self._position = None
        return loader

    def val_dataloader(self) -> Loader:
        """Return every row of ``val`` exactly once over all ranks."""
        return self._loader("val")

    def test_dataloader(self) -> Loader:
        """Return every row of ``test`` exactly once over all ranks, or of the split that ``tested_split`` names.

        Raises:
            ConfigError: there is no such split.
        """
        if self.tested_split not in self.shards.splits:
            has = ", ".join(self.shards.splits)
            raise ConfigError(
                f"{self.source}: no {self.tested_split} split to test on, only {has}; convert with --test 0.1, or take "
                "trainer.validate for the figures of val"
            )
        return self._loader(self.tested_split, train=False)

    def predict_dataloader(self) -> Loader:
        """Return every row of ``test`` once, or where there is none of ``val``: a prediction measures nothing."""
        names = [name for name in ("test", "val", "train") if name in self.shards.splits]
        return self._loader(names[0], train=False)

    def teardown(self, stage: str) -> None:
        """Close the dataset's files after fitting, testing or predicting; ``setup`` opens them again."""
        if self._shards is not None:
            self._shards.close()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise uint8 images on the device they are on, in the Trainer's precision; anything else is unchanged.

        Lightning has the precision's plugin convert a batch before it is transferred, when images are bytes.
        """
        if isinstance(batch, list | tuple) and isinstance(batch[0], Tensor) and batch[0].dtype == torch.uint8:
            images = self.preprocessing.normalize(batch[0])
            return images if self.trainer is None else self.trainer.precision_plugin.convert_input(images), *batch[1:]
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Put the four answers, and where training stands in its data, into every checkpoint."""
        loader = None if self.trainer is None else self.trainer.train_dataloader
        return self.answers() | ({"train_loader": loader.state_dict()} if isinstance(loader, Loader) else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let a resumed fit go on where it stood.

        Lightning itself restores a loader only if it is made after the state of its loops is read; a schedule that asks
        for the number of steps (``estimated_stepping_batches``) has it made before.
        """
        if self.trainer is not None and self.trainer.state.fn == "fit":
            self._position = state_dict.get("train_loader")

    # For callbacks and reports.

    def sample(self, split: str, count: int) -> Batch:
        """Return ``count`` rows spread evenly over a split, as uint8 images (B, C, H, W) and labels (B,).

        Only these are decoded; transforms of one's own are not applied.
        """
        loader = self._loader(split, batch_size=count)
        rows = np.unique(np.linspace(0, len(self.shards.splits[split]) - 1, count).round().astype(np.int64))
        images, labels = loader.take(rows)
        return images.cpu(), labels

    def as_dataset(self, split: str = "train", transform: Transform | None = None) -> SplitDataset:
        """Return a split as a map-style torch ``Dataset`` of ``(image, label)``, labels as in the batches.

        Raises:
            ConfigError: the dataset has classes that ``class_names`` lacks, or the transform cannot be called.
            DatasetError: there is no such split, or ``setup`` was not called.
        """
        return SplitDataset(self.shards, split, transform, class_names=self.class_names)

    def _loader(self, split: str, batch_size: int | None = None, *, train: bool | None = None) -> Loader:
        loader = Loader(
            self.shards,
            split,
            batch_size or self.batch_size,
            train=train,
            preprocessing=self.preprocessing,
            augmentation=self.augmentation,
            balanced=self._balanced,
            class_names=self.class_names,
            transform=self._transforms["train" if split == "train" and train is None else "eval"],
            seed=self.seed,
            threads=self._threads,
            normalize=False,
            device=torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device,
            transform_workers=self._workers,
        )
        kept = self._pixels.get(split)
        if kept is not None and kept.reading == loader.pixels.reading:
            loader.pixels = kept
        self._pixels[split] = loader.pixels
        return loader
