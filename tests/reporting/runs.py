"""Runs for the tests, made by hand from generated predictions: what a training leaves behind, without one."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import sagitta
from sagitta.evaluation import Tested, judge, record_test
from sagitta.evaluation.calibration import beside_uncalibrated
from sagitta.models import task_of
from sagitta.run import write_record
from sagitta.settings import Settings

HOSTILE = (
    "<script>alert(1)</script>",
    "<!-- a & b -->",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)",
    "&amp;",
    "</style><style>*{display:none}",
    "</script><img src=x onerror=alert(1)>",
    "exe\u202egpj",
    "\u2067turned\u2066 \u202d\u202b",
    "\u2069\u2069\u202eout",
    "new\nline\ttab\x00nul\x1b[31m",
    "אבגד הזחט",
    "{{ 7 * 7 }} ${x} `b`",
    "x" * 300,
    "word " * 60,
    "👩\u200d🔬 🏳️\u200d🌈",
    "%$#_{}~^\\\\|*[link](x)",
    "javascript:alert(1)",
    "0",
)
"""Names that mean harm, or that nobody expects."""

EVIL = ("<script>alert(1)</script>", "<!-- a & b -->", "plain")
"""Names of classes that would break out of a page that does not escape."""


def dataset(
    root: Path, names: Sequence[str], each: int = 10, side: int = 24, *, several: bool = False, named: bool = False
) -> Path:
    """Convert a table of noisy images in the colours of their classes; with ``named``, files are called like these."""
    random = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    rows = [("file", "label")]
    for label, name in enumerate(names):
        colour = np.array([(label * 97) % 255, (label * 41 + 80) % 255, (label * 13 + 160) % 255])
        for index in range(each):
            safe = re.sub(r"[/\\\x00]", "-", name[:100])  # what no file name holds, or is read as a folder
            called = f"{label}-{safe}" if named else label
            file = f"images/{called}-{index}.png"
            pixels = np.clip(random.normal(colour, 30, (side, side, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / file)
            name = re.sub(r"[\x00-\x1f]", " ", name)  # no class is converted that is called otherwise
            both = [name, names[(label + 1) % len(names)]] if several and index % 3 == 0 else [name]
            rows.append((file, "|".join(both)))
    with (root / "table.csv").open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, lineterminator="\n").writerows(rows)
    made: Any = sagitta.convert(root / "table.csv", root / "dataset", label_separator="|" if several else "")
    return Path(made.root)


def probabilities(labels: np.ndarray[Any, Any], classes: int, seed: int, skill: float = 2.0) -> np.ndarray[Any, Any]:
    """Return (N, classes) of a model that is right more often than not."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), classes))
    if labels.ndim == 2:
        return (1 / (1 + np.exp(-(logits + skill * (2 * labels - 1))))).astype(np.float32)
    logits[np.arange(len(labels)), labels] += skill
    raised = np.exp(logits)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


def run_of(
    root: Path,
    data: Path,
    *,
    seed: int = 0,
    split: str = "test",
    skill: float = 2.0,
    tempered: float = 1.0,
    **record: Any,
) -> Path:
    """Make a run that was tested on a split of a dataset, by such a temperature; keywords go into its record."""
    root.mkdir(parents=True)
    shards = sagitta.ShardSet.open(data)
    names, own = shards.info.class_names, shards.splits[split]
    labels, paths = own.labels, [own.path(row) for row in range(len(own))]
    task = task_of(shards.info.multilabel)
    chances = probabilities(labels, len(names), seed, skill)
    (root / "config.yaml").write_text(Settings.of({"source": str(data), "model.name": "resnet20"}).to_yaml())
    opened: Any = sagitta.ImageData(data)
    opened.setup()
    write_record(root, seed=seed, dataset=opened.answers(), **record)
    judged = judge(task, chances, labels, paths, names, {}, "test_", [0.5] * len(names))
    if tempered != 1:
        judged = beside_uncalibrated(judged, task, names, tempered, "test_")
    tested = Tested(str(data), split, len(paths), 0, shards.info.fingerprint, trained_on=0)
    record_test(root, str(data), "best.ckpt", sagitta.Evaluation(**{**vars(judged), "tested": tested}))
    write_record(root, best_checkpoint="checkpoints/best-epoch=01-x.ckpt", result=judged.metrics)
    return root


def log(run: Path, epochs: int = 3) -> None:
    """Give a run the log of a training, and its pace."""
    (folder := run / "lightning_logs" / "version_0").mkdir(parents=True)
    rows = ["epoch,step,train_loss_epoch,val_loss,val_acc"]
    rows += [
        f"{epoch},{epoch * 10 + 9},{1 / (epoch + 1)},{1.1 / (epoch + 1)},{0.5 + epoch / 10}" for epoch in range(epochs)
    ]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    pace = [f"{epoch},1.5,0.001,{100 + epoch},0.25" for epoch in range(epochs)]
    (run / "pace.csv").write_text("epoch,seconds,lr,images_per_second,wait_share\n" + "\n".join(pace) + "\n")


def find(run: Path, data: Path) -> None:
    """Give a run findings of the doctor: a copy across splits, a suspected label, and one in doubt."""
    train, test = (sagitta.ShardSet.open(data).splits[name] for name in ("train", "test"))
    empty = dict.fromkeys(("other_split", "other_path", "label", "proposed_label"))
    copy = {"kind": "exact-leak", "severity": "serious", "evidence": "same pixels", "score": 1.0, "action": "drop"}
    doubt = {"kind": "label-error", "severity": "doubtful", "evidence": "<b>it</b>", "score": 0.93, "action": "relabel"}
    rows = [
        {**empty, **copy, "split": "train", "path": train.path(0), "other_split": "test", "other_path": test.path(0)},
        {**empty, **doubt, "split": "train", "path": train.path(1), "label": "plain", "proposed_label": EVIL[0]},
        {**empty, **doubt, "kind": "label-doubt", "split": "train", "path": train.path(2), "label": EVIL[1]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), run / "findings.parquet")


def change(run: Path, **fields: Any) -> None:
    """Change the record of a run; None removes a field."""
    record = json.loads((run / "run.json").read_text()) | fields
    (run / "run.json").write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
