"""`sagitta push`: a run or a dataset -> a repository of the Hugging Face hub, as one commit.

Who may write is the business of ``HF_TOKEN`` or ``hf auth login``; the token is never read into anything that is shown.
A new repository is private unless it is to be public, since what was sent cannot be taken back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError

from sagitta.dataset import INFO_FILE, QUARANTINE_FILE, DatasetInfo, features_of, read_schema
from sagitta.errors import ConfigError, SourceError
from sagitta.exporting.asking import check_push
from sagitta.exporting.export import export
from sagitta.exporting.hub import CARD, CONFIG
from sagitta.exporting.names import HUB_PROOF
from sagitta.network import reach

_SPLITS = {"train": "train", "val": "validation", "test": "test"}  # as the hub calls them


@dataclass(frozen=True)
class Pushed:
    """What was sent.

    Attributes:
        url: of the repository.
        kind: ``model`` or ``dataset``.
        files: how many.
        bytes: of all of them.
    """

    url: str
    kind: str
    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.url}: {self.files} files, {self.bytes / 1e6:.1f} MB; its card is yours to complete (licence!)"


def push(what: Path, repository: str, *, data: str | None = None, public: bool = False) -> Pushed:
    """Send a run, as :mod:`sagitta.exporting.hub` writes it, a folder that was exported so, or a converted dataset.

    Args:
        what: run directory, checkpoint file, folder of ``export --to hub``, or converted dataset.
        repository: ``user/name``; is made where it is not there.
        data: other images to prove the export on than the run's.
        public: anybody may see a repository that is made.

    Raises:
        ConfigError: there is nothing of the kind, the name is none, nobody is logged in, or the hub refuses.
        SourceError: the hub does not answer.
        SagittaError: the run cannot be exported, see :func:`sagitta.export`.
    """
    check_push(what, repository)
    if (what / INFO_FILE).is_file():
        files: dict[str, Path | bytes] = _dataset_files(what)
        return _send(repository, "dataset", files, public)
    if (what / CONFIG).is_file() and (what / HUB_PROOF).is_file():
        return _send(repository, "model", _model_files(what), public)
    _check_login()  # before an export takes its time
    with TemporaryDirectory() as temporary:
        export(what, "hub", Path(temporary) / "hub", data=data)
        return _send(repository, "model", _model_files(Path(temporary) / "hub"), public)


def _model_files(folder: Path) -> dict[str, Path | bytes]:
    names = json.loads((folder / HUB_PROOF).read_text(encoding="utf-8"))["files"]
    return {name: folder / name for name in [*names, HUB_PROOF] if Path(name).name == name}


def _dataset_files(folder: Path) -> dict[str, Path | bytes]:
    """Return the files of a dataset by their names in the repository; no place on somebody's disk is among them."""
    info = DatasetInfo.read(folder)
    source = str(info.provenance.get("source", ""))
    told = replace(info, provenance={**info.provenance, "source": PurePath(source).name})
    files: dict[str, Path | bytes] = {name: folder / name for split in info.splits.values() for name in split.files}
    if (folder / QUARANTINE_FILE).is_file():
        files[QUARANTINE_FILE] = folder / QUARANTINE_FILE
    files |= {CARD: dataset_card(folder, told).encode(), INFO_FILE: told.to_json().encode()}
    return files


def dataset_card(folder: Path, info: DatasetInfo) -> str:
    """Return the card of a dataset in Markdown: its splits and the features of its schema, as the hub reads them."""
    first = next(name for split in info.splits.values() for name in split.files)
    features = features_of(read_schema(folder / first))
    head = {
        "license": "other",
        "license_name": "not-stated",
        "task_categories": ["image-classification"],
        "size_categories": [_size(sum(split.rows for split in info.splits.values()))],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": _SPLITS[name], "path": list(split.files)} for name, split in info.splits.items()
                ],
            }
        ],
        "dataset_info": {
            "features": [{"name": name, **_feature(kind)} for name, kind in features.items()],
            "splits": [{"name": _SPLITS[name], "num_examples": split.rows} for name, split in info.splits.items()],
        },
    }
    name = info.provenance.get("source") or "Images"
    told = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        f"Images of {len(info.class_names)} classes, {'several labels' if info.multilabel else 'one label'} each: "
        + ", ".join(f"{split.rows:,} for {name}" for name, split in info.splits.items())
        + f". Made by Sagitta; fingerprint {info.fingerprint}.",
        '```python\nfrom datasets import load_dataset\n\ndata = load_dataset("user/name")\n```',
        "## Licence\n\nNot stated. Whoever publishes this writes that of the images here and in `license` on top.",
    ]
    told += ["## What to know\n\n" + "\n".join(f"- {each}" for each in info.warnings)] if info.warnings else []
    return "\n\n".join(told) + "\n"


def _feature(kind: Mapping[str, Any]) -> dict[str, Any]:
    """Return a feature as cards have it."""
    match kind.get("_type"):
        case "Image":
            return {"dtype": "image"}
        case "ClassLabel":
            return {
                "dtype": {"class_label": {"names": {str(number): name for number, name in enumerate(kind["names"])}}}
            }
        case "Sequence" | "List" | "LargeList":
            inner = _feature(kind["feature"])["dtype"]
            return {"list": inner}
        case _:
            return {"dtype": kind["dtype"]}


def _size(rows: int) -> str:
    """Return how large a dataset is in the hub's words."""
    steps = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((words for limit, words in steps if rows < limit), "1M<n<10M" if rows < 10**7 else "n>10M")


def _check_login() -> str:
    """Return the token; raises ConfigError without one."""
    if (token := get_token()) is None:
        raise ConfigError("nobody is logged in to the hub: run hf auth login, or set HF_TOKEN")
    return token


def _send(repository: str, kind: str, files: Mapping[str, Path | bytes], public: bool) -> Pushed:
    token = _check_login()
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("HF_HUB_OFFLINE is set: unset it to push")
    try:
        reach(constants.ENDPOINT)
    except ConnectionError as error:
        raise SourceError(f"{repository}: {error}") from None
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    operations = [
        CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in files.items()
    ]
    try:
        made = api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True)
        api.create_commit(repository, operations, commit_message="Sent by Sagitta", repo_type=kind)
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).replace(token, "…").split())
        raise ConfigError(f"{repository}: the hub refuses: {said}") from None
    size = sum(len(each) if isinstance(each, bytes) else each.stat().st_size for each in files.values())
    return Pushed(str(made), kind, len(files), size)
