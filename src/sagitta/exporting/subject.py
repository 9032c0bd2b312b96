"""What is exported, opened once: the model, what travels with it, the images that it is proven and calibrated on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from sagitta.errors import ConfigError
from sagitta.evaluation import one_classifier, other_settings, own_settings
from sagitta.exporting.judging import Photos, Pixels
from sagitta.exporting.metadata import metadata_of
from sagitta.exporting.proof import pixels_of, spread, write_images
from sagitta.exporting.quantising import MOST
from sagitta.images import Reduction
from sagitta.loading import ImageData
from sagitta.models import Classifier
from sagitta.run import CONFIG_FILE, run_of


@dataclass(frozen=True)
class Subject:
    """A run to export.

    Attributes:
        run: run directory or checkpoint file.
        folder: of the run, where there is one.
        classifier: of it, on the CPU.
        photos: to compare on.
        work: a folder that is gone afterwards, for what formats have in common.
    """

    run: Path
    folder: Path | None
    classifier: Classifier
    photos: Photos
    work: Path

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What travels with the model."""
        return metadata_of(self.run, self.folder, self.classifier)

    @cached_property
    def training(self) -> Pixels:
        """Images of the run's training, evenly spread over it, as the model is given them, (N, H, W, C).

        Raises:
            ConfigError: they are not there any more.
        """
        missing = f"{self.run}: int8 is calibrated on the run's own training images"
        if self.folder is None or not (self.folder / CONFIG_FILE).is_file():
            raise ConfigError(f"{missing}, and it has no configuration that names them; --precision 16 needs none")
        try:
            data = images_of(self.run, self.folder, None, None, "--precision 16 needs none")
        except ConfigError as error:
            raise ConfigError(f"{missing}: {error}") from None
        if not len(split := data.shards.splits.get("train", ())):
            raise ConfigError(f"{missing}, and its data has no train split any more; --precision 16 needs none")
        rows = spread(len(split), MOST).tolist()
        paths = [str(data.shards.splits["train"].path(row)) for row in rows]
        files = []
        with TemporaryDirectory(dir=self.work) as folder:
            for row in rows:
                files.append(Path(folder) / f"{row}")
                files[-1].write_bytes(data.shards.splits["train"].image(row))
            how = self.classifier.preprocessing
            assert how is not None
            return pixels_of(how, files, paths)


@contextmanager
def opened_subject(run: Path, data: str | None, temporary: Path) -> Iterator[Subject]:
    """Open a run for exports.

    Args:
        run: run directory or checkpoint file.
        data: images to prove exports on, other than the run's own.
        temporary: folder in which a folder is made meanwhile.

    Raises:
        SagittaError: there is no such run, its members read images in different ways, or its data is not there.
    """
    classifier, folder = one_classifier(run), run_of(run)
    if classifier.preprocessing is None:
        raise ConfigError(f"{run}: its checkpoint has no preprocessing; it was trained without ImageData")
    images = images_of(run, folder, data, classifier.preprocessing.reduction)
    with TemporaryDirectory(prefix=".export-", dir=temporary) as work:
        for name in ("images", "between"):
            (Path(work) / name).mkdir()
        photos = write_images(images, Path(work) / "images", classifier.class_names)
        yield Subject(run, folder, classifier, photos, Path(work))


def images_of(
    run: Path,
    folder: Path | None,
    data: str | None,
    reduction: Reduction | None,
    remedy: str = "name it with --data",
) -> ImageData:
    """Return the data to prove an export on, set up.

    Args:
        run: run directory or checkpoint file.
        folder: of the run, where there is one.
        data: other data than the run's own.
        reduction: that other data becomes what the model reads by.
        remedy: what to do where the run's own is gone.

    Raises:
        SagittaError: there is none.
    """
    if data is not None:
        settings = other_settings(data, "val", reduction)
    elif folder is None or not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{run}: no configuration that names the data, and an export is proven on images; give --data"
        )
    else:
        settings = own_settings(folder, remedy).changed({"data.batch_size": None})
    images = settings.image_data()
    images.prepare_data()
    images.setup("test")
    return images
