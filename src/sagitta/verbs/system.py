"""What a report of a mistake needs to know of a machine, and nothing that is private."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from PIL import features

from sagitta.images import engine
from sagitta.pool import usable_cores

_PACKAGES = (
    *("torch", "torchvision", "timm", "lightning", "pyarrow", "pillow", "numpy", "onnxruntime", "openvino"),
    "datasets",
)
_FOLDERS = re.compile(r"(?<![\w./~-])(?:[A-Za-z]:|~)?[/\\](?:[^\s/\\:;,()'\"]+[/\\])+")


def system() -> str:
    """Return lines about versions, decoder, processor, memory and GPUs, to be pasted into an issue.

    There is no name of a person, a machine or a folder in them: of paths, such as in the reason why the native core
    does not load, only the last part is left.
    """
    lines = {
        "sagitta": version("sagitta"),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{_distribution()}, {platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "processor": f"{_processor()} ({platform.machine()})",
        "cores": f"{usable_cores()} may be used, of {os.cpu_count()}",
        "memory": _memory(),
        "GPUs": _accelerators(),
        "decoder": engine(),
        "Pillow's own": f"libjpeg-turbo {features.version('libjpeg_turbo')}, zlib {features.version('zlib')}, "
        f"WebP {features.version('webp')}, AVIF {features.version('avif')}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
    }
    room = max(map(len, lines)) + 2
    return "\n".join(f"{name:<{room}}{without_folders(text)}" for name, text in lines.items())


def without_folders(text: str) -> str:
    """Return text in which only the last part of every absolute path is left, behind ``…/``."""
    return _FOLDERS.sub("…/", text)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not there"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # not Linux, or one that does not say
        return platform.platform(terse=True)


def _processor() -> str:
    """Return the processor's name, which Python knows on few systems."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
            return next(names, "") or platform.processor()
    except OSError:  # not Linux
        return platform.processor()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, others lack one of the names
        return "unknown"


def _accelerators() -> str:
    """Return names and memory of the GPUs that torch sees."""
    try:
        import torch
    except ImportError:  # where exports are served it is not needed
        return "unknown without torch"
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    names = [f"{each.name} ({each.total_memory / 2**30:.0f} GiB)" for each in found]
    if names:
        names.append(f"CUDA {torch.version.cuda or torch.version.hip}")
    if torch.backends.mps.is_available():
        names.append("Apple's, by MPS")
    return ", ".join(names) or "none"
