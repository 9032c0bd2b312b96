"""A run as one folder that can be handed on: nothing in it runs code, and no place on somebody's disk is told.

::

    model.safetensors     the checkpoint, see :mod:`sagitta.models.tensors`
    run.json              data, versions and results of the training, of which only places and the command are left out
    validation.parquet    what --accuracy and --coverage are found by, without the names of the images
    familiar.safetensors  what tells images that are none of the classes

Whatever takes a run takes the folder: ``predict``, ``test`` with DATA, ``explain``, ``fit --weights``.
"""

import json
from pathlib import Path

from sagitta.dataset import read_table, write_table
from sagitta.evaluation import FAMILIAR_FILE, VALIDATION_FILE, read_familiar, write_familiar
from sagitta.exporting.job import Job, check_one_network
from sagitta.exporting.metadata import data_of, record_of
from sagitta.exporting.precision import FLOAT16
from sagitta.models import save_classifier
from sagitta.run import HANDED_ON, RUN_FILE, find_checkpoint

_TOLD = ("versions", "seed", "epochs", "result", "calibration")
_OF_DATA = ("splits", "transforms", "normalisation", "fingerprint", "class_names")


def write_run(job: Job) -> None:
    """Write a run as a folder.

    Raises:
        ConfigError: it has members.
    """
    check_one_network(job, "safetensors")
    save_classifier(job.out / HANDED_ON, job.classifier, half=job.precision == FLOAT16)
    record = record_of(job.run, job.folder)
    data = {name: value for name, value in record.get("dataset", {}).items() if name in _OF_DATA}
    data |= {"class_names": job.classifier.class_names, "name": data_of(record)["name"]}
    told = {name: record[name] for name in _TOLD if name in record}
    told |= {"dataset": data, "best_checkpoint": HANDED_ON}
    (job.out / RUN_FILE).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if job.folder is not None and "best_checkpoint" in record:  # else it knows nothing of this model
        _copy_trust(job.folder, job.out)


def _copy_trust(folder: Path, out: Path) -> None:
    if (folder / VALIDATION_FILE).is_file():
        table = read_table(folder / VALIDATION_FILE)
        write_table(out / VALIDATION_FILE, table.select([name for name in table.column_names if name != "path"]))
    if (folder / FAMILIAR_FILE).is_file() and (
        known := read_familiar(folder, find_checkpoint(folder).name)
    ) is not None:
        write_familiar(out, known, HANDED_ON)
