"""One virtual environment a peer, made by uv from PyPI: peers ask for conflicting versions of numpy and others.

They live outside of the repository, in ``$SAGITTA_BENCH`` (by default ``~/.cache/sagitta-bench``)::

    python bench/environments.py            # make all that are missing
    python bench/environments.py ffcv dali  # make these
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SECONDS = 480
"""A peer that does not install within this time is reported as not installable."""

TORCH = ("torch", "torchvision", "numpy", "pillow", "setuptools<81")
LOADERS: dict[str, tuple[str, ...]] = {
    "torchvision": TORCH,
    "datasets": (*TORCH, "datasets"),
    "webdataset": (*TORCH, "webdataset"),
    "litdata": (*TORCH, "litdata"),
    "streaming": (*TORCH, "mosaicml-streaming"),
    "grain": (*TORCH, "grain"),
    "spdl": (*TORCH, "spdl[io]"),
    "dali": ("torch", "numpy", "pillow", "nvidia-dali-cuda120"),
    # Its extension is compiled here against Debian's libopencv-dev and libturbojpeg0-dev, found by pkg-config.
    "ffcv": ("torch", "torchvision", "numpy<2", "pillow", "setuptools<81", "opencv-python-headless<4.12", "ffcv"),
}
# For fine-tuning; timm needs none of its own, Sagitta's holds it.
TRAINERS: dict[str, tuple[str, ...]] = {
    "fastai": ("timm", "safetensors", "scikit-learn", "fastai"),
    "autogluon": ("safetensors", "scikit-learn", "autogluon.multimodal"),
    "lightly": ("timm", "safetensors", "scikit-learn", "lightly-train"),
}
REQUIREMENTS = {**LOADERS, **TRAINERS}


def cache() -> Path:
    """Return the folder of environments and of written data."""
    return Path(os.environ.get("SAGITTA_BENCH", "~/.cache/sagitta-bench")).expanduser()


def python(name: str) -> Path:
    """Return the interpreter of an environment: Sagitta's is the one that runs this, a peer's its own."""
    return Path(sys.executable) if name == "sagitta" else cache() / "environments" / name / "bin" / "python"


def make(name: str) -> str | None:
    """Make an environment unless it is there; returns None, or why that failed.

    A failure is kept beside the environments, so that it is reported without being tried at every run; delete
    ``NAME.failed`` to try again.
    """
    folder = cache() / "environments" / name
    failed = folder.with_name(f"{name}.failed")
    if failed.exists():
        return failed.read_text()
    if name == "sagitta" or (folder / "ready").exists():
        return None
    folder.parent.mkdir(parents=True, exist_ok=True)
    install = ["uv", "pip", "install", "--quiet", "--python", str(python(name)), *REQUIREMENTS[name]]
    for command in (["uv", "venv", "--quiet", "--clear", "--python", "3.11", str(folder)], install):
        reason = _run(command)
        if reason:
            failed.write_text(reason)
            return reason
    (folder / "ready").touch()
    return None


def versions(group: Mapping[str, tuple[str, ...]] = LOADERS) -> dict[str, str]:
    """Return the versions of what a group's environments hold for their own sake: the last thing each asks for."""
    code = "import sys, importlib.metadata as m; print(*(m.version(name) for name in sys.argv[1:]))"
    found = {}
    for name, requirements in group.items():
        if (cache() / "environments" / name / "ready").exists():
            own = re.split(r"[<\[]", requirements[-1])[0]
            own = "torchvision" if name == "torchvision" else own
            result = subprocess.run([str(python(name)), "-c", code, own], capture_output=True, text=True, check=True)
            found[own] = result.stdout.strip()
    return found


def _run(command: list[str]) -> str | None:
    """Run a command; returns None, or the end of what it complained about."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"not installed within {SECONDS} s"
    return None if result.returncode == 0 else result.stderr.strip()[-400:]


def main() -> None:
    """Make the environments that are named, or all."""
    for name in sys.argv[1:] or REQUIREMENTS:
        print(f"{name}: {make(name) or 'ready'}", flush=True)


if __name__ == "__main__":
    main()
