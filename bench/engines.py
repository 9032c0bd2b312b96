"""The peers that decode in C++ of their own: SPDL, DALI and FFCV."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from peers import CORES, MEAN, RATIO, RESIZED, SCALE, SIZE, STD, Batch, Peer, Work, normalize, random_box


class Spdl(Peer):
    """SPDL: threads, FFmpeg's decoder and filters."""

    environment = "spdl"
    threads = 8

    def run(self) -> Iterator[Batch]:
        """Yield an epoch."""
        import spdl.io
        import torch
        from spdl.pipeline import PipelineBuilder

        torch.set_num_threads(1)
        order = np.arange(len(self.work.files)) if self.work.evaluate else np.random.permutation(len(self.work.files))

        def collate(rows: list[Batch]) -> Batch:
            images = spdl.io.to_torch(spdl.io.convert_frames([frames for frames, _ in rows])).permute(0, 3, 1, 2)
            return (normalize(images) if self.work.normalized else images), [label for _, label in rows]

        builder = PipelineBuilder().add_source(order.tolist()).pipe(self._load, concurrency=self.threads)
        builder = builder.aggregate(self.work.batch, drop_last=True).pipe(collate).add_sink(2)
        pipeline = builder.build(num_threads=self.threads)
        with pipeline.auto_stop():
            yield from pipeline

    def _load(self, index: int) -> Batch:
        import spdl.io

        packets = spdl.io.demux_image(self.work.files[index].read_bytes())
        flags = "flags=bilinear+accurate_rnd,format=rgb24"
        if self.work.evaluate:
            steps = f"scale={RESIZED}:{RESIZED}:force_original_aspect_ratio=increase:{flags},crop={SIZE}:{SIZE}"
        else:
            left, top, right, bottom = random_box(packets.width, packets.height)
            steps = f"crop={right - left}:{bottom - top}:{left}:{top}:exact=1,scale={SIZE}:{SIZE}:{flags}"
            steps += ",hflip" if np.random.rand() < 0.5 else ""
        return spdl.io.decode_packets(packets, filter_desc=steps), self.work.labels[index]


class Dali(Peer):
    """NVIDIA DALI's pipeline on the CPU; it works ahead into the next epoch, so it is endless."""

    environment = "dali"
    ahead = 4

    def __init__(self, work: Work) -> None:
        from nvidia.dali import pipeline_def

        super().__init__(work)
        self.pipeline = pipeline_def(self._steps, batch_size=work.batch, num_threads=CORES, device_id=None)()
        self.pipeline.build()

    def _steps(self) -> Any:
        from nvidia.dali import fn, types

        train = not self.work.evaluate
        files, labels = list(map(str, self.work.files)), list(self.work.labels)
        encoded, numbers = fn.readers.file(files=files, labels=labels, random_shuffle=train, initial_fill=256)
        mirror = fn.random.coin_flip() if train else 0
        if train:
            ratio, area = list(RATIO), list(SCALE)
            images = fn.decoders.image_random_crop(encoded, random_aspect_ratio=ratio, random_area=area)
            images = fn.resize(images, size=[SIZE, SIZE], interp_type=types.INTERP_LINEAR, antialias=self.antialias)
        else:
            images = fn.decoders.image(encoded)
            linear = types.INTERP_LINEAR
            images = fn.resize(images, resize_shorter=RESIZED, interp_type=linear, antialias=self.antialias)
        if self.work.normalized:
            mean, std = [255 * value for value in MEAN], [255 * value for value in STD]
            window = {"crop": (SIZE, SIZE)}
            images = fn.crop_mirror_normalize(images, dtype=types.FLOAT, mean=mean, std=std, mirror=mirror, **window)
        else:
            images = fn.flip(images, horizontal=mirror) if train else fn.crop(images, crop=(SIZE, SIZE))
        return images, numbers

    def run(self) -> Iterator[Batch]:
        """Yield batches without end."""
        while True:
            images, labels = self.pipeline.run()
            yield np.asarray(images.as_tensor()), np.asarray(labels.as_tensor()).ravel()


class DaliNoAntialias(Dali):
    """The same, with a resize that drops pixels."""

    antialias = False


class Ffcv(Peer):
    """FFCV: JPEG mode, compiled pipeline, area resize by OpenCV."""

    environment = "ffcv"
    format = "ffcv"

    def __init__(self, work: Work) -> None:
        from ffcv.fields.decoders import CenterCropRGBImageDecoder, IntDecoder, RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage

        super().__init__(work)
        if work.evaluate:
            steps = [CenterCropRGBImageDecoder((SIZE, SIZE), SIZE / RESIZED)]
        else:
            steps = [RandomResizedCropRGBImageDecoder((SIZE, SIZE), SCALE, RATIO), RandomHorizontalFlip()]
        if work.normalized:
            steps += [NormalizeImage(255 * np.array(MEAN), 255 * np.array(STD), np.float32)]
        self.loader = Loader(
            str(work.folder / "data.beton"),
            batch_size=work.batch,
            num_workers=CORES,  # threads; more than cores is an error
            os_cache=True,
            order=OrderOption.SEQUENTIAL if work.evaluate else OrderOption.RANDOM,
            pipelines={"image": [*steps, ToTensor(), ToTorchImage()], "label": [IntDecoder(), ToTensor()]},
        )

    def run(self) -> Iterator[Batch]:
        """Yield an epoch."""
        for images, labels in self.loader:
            yield images, labels.ravel()
