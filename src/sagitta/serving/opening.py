"""A path becomes an engine: an export runs by its own runtime, a run or checkpoint by torch."""

from importlib.util import find_spec
from pathlib import Path

from sagitta.errors import ConfigError
from sagitta.exporting import ONNX_FILE, OPENVINO_FILE, TORCH_FILE
from sagitta.serving.engine import Engine, Wanted

_MODELS = (ONNX_FILE, OPENVINO_FILE)  # in an export, the first that is there


def open_engine(path: Path, wanted: Wanted) -> Engine:
    """Open what is to be served: an export's folder, ``model.onnx``, ``model.xml``, a run or a checkpoint.

    Raises:
        ConfigError: it is nothing of these, is damaged, or a library is missing.
    """
    if (model := exported_model(path)) is not None:
        needed = "onnxruntime" if model.suffix == ".onnx" else "openvino"
        _need(needed, model, "sagitta[serve]" if needed == "onnxruntime" else "openvino")
        from sagitta.serving.exported import Exported

        return Exported(model, wanted)
    if path.suffix == ".pt2" or (path / TORCH_FILE).exists():
        raise ConfigError(f"{path}: a program of torch is not served; serve its run, or sagitta export RUN --to onnx")
    if not path.exists():
        raise ConfigError(f"{path}: no such run, checkpoint or export")
    if find_spec("torch") is None:
        beside = path / "export"
        hint = f"serve {beside}" if exported_model(beside) else "export it where it was made: sagitta export RUN"
        raise ConfigError(f"{path}: a run is served by torch, which is not installed here; {hint}")
    from sagitta.evaluation import Asked
    from sagitta.models import preload
    from sagitta.run import checkpoints_of

    Asked(device=wanted.device, accuracy=wanted.accuracy, coverage=wanted.coverage).check()
    checkpoints_of(path)
    preload()
    from sagitta.serving.trained import Trained

    return Trained(path, wanted)


def exported_model(path: Path) -> Path | None:
    """Return the model's file in an export that is served without torch; None where a path is something else."""
    if path.name.endswith((".onnx", ".xml")) and path.is_file():
        return path
    return next((path / name for name in _MODELS if (path / name).is_file()), None)


def identity(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a model's files are replaced: names, sizes and times."""
    if (model := exported_model(path)) is not None:
        files = [model, model.with_suffix(".bin")]
    elif path.is_dir():
        files = [path / "run.json", path / "validation.parquet", *sorted(path.glob("*.safetensors"))]
        files += sorted(path.glob("checkpoints/*.ckpt")) + sorted(path.glob("members/*/checkpoints/*.ckpt"))
    else:
        files = [path]
    found = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            continue
        found.append((str(file), state.st_size, state.st_mtime_ns))
    return tuple(found)


def name_of(path: Path) -> str:
    """Return what a model is called: its run's folder, or its own file."""
    whole = path.absolute()
    if whole.suffix in (".onnx", ".xml"):
        whole = whole.parent
    if whole.name == "export" and whole.parent.name:
        whole = whole.parent
    return whole.stem if whole.is_file() else whole.name or "model"


def _need(module: str, model: Path, package: str) -> None:
    if find_spec(module) is None:
        raise ConfigError(f"{model}: runs by {module}, which is not installed: pip install '{package}'")
