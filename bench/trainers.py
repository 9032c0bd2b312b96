"""What others fine-tune with, one process and one environment each: `python trainers.py SYSTEM JOB.json`.

A job (JSON) names ``data`` (folders train, val and test of class folders), ``network`` (timm's name), ``weights``,
``seed``, ``cpu_seconds`` (None: no limit), ``epochs`` (None: the system's own) and ``out``. The answer is
``OUT/answer.npz``: ``files`` (T,) below ``test``, ``classes`` (C,) and ``probabilities`` (T, C); and
``OUT/answer.json``: ``reported``, the accuracy by the system's own metric, and what it did. Who is over the limit
stops after the epoch; every system ends with the checkpoint that is best on val.

All get the same weights: :func:`local_weights` makes timm take them from the file instead of a hub.

Imports nothing of Sagitta; :mod:`measure` has the standard library only.
"""

import json
import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from measure import cpu_seconds

Job = dict[str, Any]
Answer = tuple[list[str], np.ndarray, dict[str, Any]]
"""Class names (C,), probabilities (T, C) of :func:`test_files`, and what is to be told of it."""


def over(job: Job) -> bool:
    """Tell whether this process and all that it started have used more than the job's processor time."""
    return job["cpu_seconds"] is not None and cpu_seconds(os.getsid(0)) > float(job["cpu_seconds"])


def test_files(job: Job) -> list[Path]:
    """Return the test images, by class and name."""
    return sorted(file for file in (Path(job["data"]) / "test").rglob("*") if file.is_file())


def class_names(job: Job) -> list[str]:
    """Return the classes; train has all of them."""
    return sorted(folder.name for folder in (Path(job["data"]) / "train").iterdir())


def truth(job: Job) -> list[int]:
    """Return the numbers of the test images' classes."""
    names = class_names(job)
    return [names.index(file.parent.name) for file in test_files(job)]


def local_weights(job: Job) -> None:
    """Let ``timm.create_model`` start from the job's weights whatever it is asked for: there is no hub here."""
    import timm
    import timm.models

    create: Any = timm.create_model

    def create_model(model_name: str, *args: Any, **kwargs: Any) -> Any:
        kwargs |= {"pretrained": True, "pretrained_cfg_overlay": {"file": job["weights"]}}
        return create(model_name, *args, **kwargs)

    timm.create_model = timm.models.create_model = create_model


def fastai(job: Job) -> Answer:
    """`fine_tune(8)` of fastai, as its tutorial on pets does it: resized to 460, then augmented to 224.

    One epoch for the head, eight for everything, learning rates by depth; of each phase the epoch of least val loss.
    """
    from fastai.vision import all as fast

    class Limit(fast.Callback):  # type: ignore[misc]
        order = fast.SaveModelCallback.order + 1
        epochs, stopped = 0, False

        def after_epoch(self) -> None:
            self.epochs += 1
            if over(job):
                self.stopped = True
                raise fast.CancelFitException

    fast.set_seed(job["seed"])
    limit = Limit()
    data = fast.ImageDataLoaders.from_folder(
        job["data"],
        train="train",
        valid="val",
        bs=min(64, sum(1 for file in (Path(job["data"]) / "train").rglob("*") if file.is_file())),
        item_tfms=fast.Resize(460),
        batch_tfms=fast.aug_transforms(size=224),
    )
    learner = fast.vision_learner(data, job["network"], metrics=fast.accuracy, path=job["out"])
    saver = fast.SaveModelCallback(monitor="valid_loss")
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(job["epochs"] or 8, cbs=[saver, limit])
        test = data.test_dl(test_files(job), with_labels=True)
        probabilities, targets = learner.get_preds(dl=test)
    reported = float(fast.accuracy(probabilities, targets))
    told = {"reported": reported, "epochs": limit.epochs, "stopped": limit.stopped}
    return list(data.vocab), probabilities.numpy(), told


LR, WARMUP_LR, WEIGHT_DECAY, CLIP, BATCH, EPOCHS = 4e-4, 1e-5, 0.05, 1.0, 32, 30
"""timm's train.py has no settings of its own for fine-tuning. These are what its author advises: AdamW at a tenth of
4e-3 or less, weight decay of 0.01 to 0.05, gradients clipped (huggingface/pytorch-image-models, issue 2493). The rest
are defaults of train.py: cosine schedule from a warm-up at 1e-5, crops of 8 to 100 %, flips, colour jitter of 0.4,
label smoothing of 0.1, no mixup, each epoch judged by top 1 on val. The batch fits the small sets."""


def timm_script(job: Job) -> Answer:
    """Run timm's train.py, written anew around its factories, for the script is not in the package.

    The first epoch is the warm-up's, and tells how many the limit leaves room for: the schedule is laid over
    those, 30 at most, so that it comes to its end.
    """
    import copy

    import timm
    import torch
    from timm.data import create_dataset, create_loader, resolve_model_data_config
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import dispatch_clip_grad

    torch.manual_seed(job["seed"])
    random.seed(job["seed"])
    np.random.seed(job["seed"])
    names = class_names(job)
    network = timm.create_model(job["network"], num_classes=len(names))
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]

    def loader(split: str) -> Any:
        numbers = {name: number for number, name in enumerate(names)}
        rows = create_dataset("", root=str(Path(job["data"]) / split), class_map=numbers)
        train = split == "train"
        return create_loader(
            rows,
            input_size=config["input_size"],
            batch_size=min(BATCH, len(rows)),
            is_training=train,
            use_prefetcher=False,
            interpolation="random" if train else config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            crop_pct=config["crop_pct"],
            color_jitter=0.4,
            num_workers=2,
            device=torch.device("cpu"),
        )

    @torch.inference_mode()
    def judge(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
        network.eval()
        found = [(network(images).softmax(dim=1), targets) for images, targets in batches]
        return torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])

    train, val = loader("train"), loader("val")
    optimizer = create_optimizer_v2(network, opt="adamw", lr=LR, weight_decay=WEIGHT_DECAY)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    epochs, epoch, best, kept, scheduler = int(job["epochs"] or EPOCHS), 0, -1.0, {}, None
    for group in optimizer.param_groups:
        group["lr"] = WARMUP_LR
    began = cpu_seconds(os.getsid(0))
    while epoch < epochs:
        network.train()
        for images, targets in train:
            optimizer.zero_grad()
            criterion(network(images), targets).backward()
            dispatch_clip_grad(network.parameters(), CLIP)
            optimizer.step()
        probabilities, targets = judge(val)
        right = float((probabilities.argmax(dim=1) == targets).float().mean())
        if right > best:
            best, kept = right, copy.deepcopy(network.state_dict())
        epoch += 1
        if scheduler is None:
            if job["cpu_seconds"] is not None:
                used = cpu_seconds(os.getsid(0))
                room = max(0.0, float(job["cpu_seconds"]) - used)
                epochs = min(epochs, 1 + int(room / (used - began)))
            for group in optimizer.param_groups:
                group["lr"] = LR
            scheduler, _ = create_scheduler_v2(
                optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=min(5, epochs // 4), warmup_lr=WARMUP_LR
            )
        if over(job):
            break
        scheduler.step(epoch)
    network.load_state_dict(kept)
    probabilities, targets = judge(loader("test"))
    reported = float((probabilities.argmax(dim=1) == targets).float().mean())
    return names, probabilities.numpy(), {"reported": reported, "epochs": epoch, "stopped": epoch < epochs}


def autogluon(job: Job) -> Answer:
    """AutoGluon's `medium_quality` with the same network; its limit is in seconds, all cores taken to be busy."""
    import pandas
    from autogluon.multimodal import MultiModalPredictor

    def frame(split: str) -> Any:
        files = sorted(file for file in (Path(job["data"]) / split).rglob("*") if file.is_file())
        return pandas.DataFrame({"image": list(map(str, files)), "label": [file.parent.name for file in files]})

    settings: dict[str, Any] = {"model.names": ["timm_image"], "model.timm_image.checkpoint_name": job["network"]}
    if job["epochs"]:
        settings["optim.max_epochs"] = job["epochs"]
    seconds = None if job["cpu_seconds"] is None else float(job["cpu_seconds"]) / len(os.sched_getaffinity(0))
    predictor = MultiModalPredictor(
        label="label", problem_type="classification", path=f"{job['out']}/model", verbosity=1
    )
    predictor.fit(
        frame("train"),
        tuning_data=frame("val"),
        presets="medium_quality",
        time_limit=seconds,
        hyperparameters=settings,
        seed=job["seed"],
    )
    test = frame("test")
    probabilities = predictor.predict_proba(test, as_pandas=True)
    reported = float((predictor.predict(test) == test["label"]).mean())
    return [str(name) for name in probabilities.columns], probabilities.to_numpy(), {"reported": reported}


def lightly(job: Job) -> Answer:
    """lightly-train's `train_image_classification`, with its own settings but for the number of steps.

    By default it takes 100,000 steps; so ten are timed first, and as many are taken as the limit leaves room for.
    """
    import lightly_train
    import lightly_train._models.timm.timm as wrapper
    import torch

    # Its way to ask EfficientNets and MobileNets for features leaves their last convolution out, so that the head does
    # not fit; the way that it has for other networks does not.
    wrapper._get_forward_features_fn = lambda **_model: wrapper._forward_features
    names = class_names(job)
    root = Path(job["data"])

    def train(out: str, steps: int) -> None:
        lightly_train.train_image_classification(
            out=out,
            data={"train": str(root / "train"), "val": str(root / "val"), "classes": dict(enumerate(names))},
            model=f"timm/{job['network']}",
            steps=steps,
            seed=job["seed"],
            precision="32-true",
        )

    used = cpu_seconds(os.getsid(0))
    train(f"{job['out']}/timed", 10)
    step = (cpu_seconds(os.getsid(0)) - used) / 10
    room = 100_000.0 if job["cpu_seconds"] is None else (float(job["cpu_seconds"]) - cpu_seconds(os.getsid(0))) / step
    steps = 10 if job["epochs"] else max(10, min(100_000, int(room)))
    train(f"{job['out']}/model", steps)
    exported = Path(job["out"]) / "model" / "exported_models"
    model: Any = lightly_train.load_model(str(exported / "exported_best.pt"))
    rows = []
    for file in test_files(job):
        found = model.predict(str(file), topk=len(names))
        row = torch.zeros(len(names))
        row[found["labels"].long()] = found["scores"].float()
        rows.append(row.numpy())
    probabilities = np.stack(rows)
    reported = float((probabilities.argmax(axis=1) == np.array(truth(job))).mean())
    return names, probabilities, {"reported": reported, "steps": steps}


SYSTEMS: dict[str, Callable[[Job], Answer]] = {
    "fastai": fastai,
    "timm": timm_script,
    "autogluon": autogluon,
    "lightly": lightly,
}


def main() -> None:
    """Do the job, and write the answer."""
    warnings.simplefilter("ignore")
    job: Job = json.loads(Path(sys.argv[2]).read_text())
    local_weights(job)
    names, probabilities, told = SYSTEMS[sys.argv[1]](job)
    files = [str(file.relative_to(Path(job["data"]) / "test")) for file in test_files(job)]
    out = Path(job["out"])
    np.savez(out / "answer.npz", files=np.array(files), classes=np.array(names), probabilities=probabilities)
    (out / "answer.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
