"""Builds the static libjpeg-turbo that goes into wheels: ``python tools/libjpeg.py PREFIX``.

The source is the archive of upstream's tag, or, where upstream cannot be reached, that of Debian's package, which has
the same bytes: one digest fits both. Wants cmake, a C compiler (``CC``), on x86-64 nasm, and no packages of Python.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

VERSION = "3.1.3"
SHA256 = "3a13a5ba767dc8264bc40b185e41368a80d5d5f945944d1dbaa4b2fb0099f4e5"
UPSTREAM = f"https://github.com/libjpeg-turbo/libjpeg-turbo/archive/refs/tags/{VERSION}.tar.gz"

NO_SOURCE = 3
"""The exit status where the source cannot be had: nothing is wrong with us."""

OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_C_VISIBILITY_PRESET": "hidden",
    "CMAKE_INSTALL_LIBDIR": "lib",  # elsewhere it would be lib64 on some systems
    "CMAKE_POSITION_INDEPENDENT_CODE": "ON",
    "ENABLE_SHARED": "OFF",
    "REQUIRE_SIMD": "ON",  # without nasm it would be built all the same, and several times slower
    "WITH_TOOLS": "OFF",
    "WITH_TURBOJPEG": "OFF",
}


SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""How archives are unpacked; before Python 3.11.4 there is no choice, and their digest says what they are."""


class NoSourceError(Exception):
    """Neither upstream nor Debian gives the source."""


def from_upstream(folder: Path) -> Path:
    """Return the archive, downloaded into ``folder``.

    Raises:
        OSError: the network, or upstream.
    """
    archive = folder / "upstream.tar.gz"
    with urllib.request.urlopen(UPSTREAM, timeout=60) as answer, archive.open("wb") as file:
        shutil.copyfileobj(answer, file)
    return archive


def from_debian(folder: Path) -> Path:
    """Return the archive, downloaded into ``folder`` from the mirror that this machine's apt uses.

    The machine's own lists of packages stay as they are.

    Raises:
        OSError: there is no apt.
        subprocess.CalledProcessError: apt reaches nothing.
        ValueError: Debian has other versions now.
    """
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    mirror = subprocess.run(targets, check=True, capture_output=True, text=True).stdout.split()[:1]
    sources = folder / "debian.sources"
    sources.write_text(f"Types: deb-src\nURIs: {''.join(mirror)}\nSuites: testing sid\nComponents: main\n")
    (folder / "lists").mkdir()
    settings = {"Etc::sourcelist": sources, "Etc::sourceparts": "/dev/null", "State::lists": folder / "lists"}
    options = [part for name, value in settings.items() for part in ("-o", f"Dir::{name}={value}")]
    subprocess.run(["apt-get", *options, "-qq", "update"], check=True, capture_output=True)
    shown = subprocess.run(
        ["apt-cache", *options, "showsrc", "libjpeg-turbo"], check=True, capture_output=True, text=True
    ).stdout
    packaged = re.search(rf"^Version: (.*\b{re.escape(VERSION)}-.*)$", shown, re.MULTILINE)
    if packaged is None:
        raise ValueError(f"Debian has no libjpeg-turbo {VERSION} any more")
    fetch = ["apt-get", *options, "-qq", "source", "--download-only", f"libjpeg-turbo={packaged[1]}"]
    subprocess.run(fetch, check=True, capture_output=True, cwd=folder)
    return folder / f"libjpeg-turbo_{VERSION}.orig.tar.gz"


def source(folder: Path) -> Path:
    """Return the folder of the unpacked source, below ``folder``.

    Raises:
        NoSourceError: nobody gives it.
        ValueError: what was given is something else.
    """
    failures = []
    for get in (from_upstream, from_debian):
        try:
            archive = get(folder)
            break
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            failures.append(f"{get.__name__}: {error}")
    else:
        raise NoSourceError(f"libjpeg-turbo {VERSION} cannot be had: {'; '.join(failures)}")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{archive} has the SHA-256 {digest}, not {SHA256}")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, **SAFELY)
    return folder / f"libjpeg-turbo-{VERSION}"


def build(prefix: Path) -> None:
    """Put library, headers and licences into ``prefix``.

    Raises:
        NoSourceError, ValueError: see :func:`source`.
        subprocess.CalledProcessError: cmake or the compiler fails, and has said why.
    """
    with tempfile.TemporaryDirectory() as work:
        folder = source(Path(work))
        options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
        made = f"{work}/build"
        options.append(f"-DCMAKE_INSTALL_PREFIX={prefix.resolve()}")
        configure = ["cmake", "-Wno-dev", "-S", str(folder), "-B", made, *options]
        for command in (configure, ["cmake", "--build", made, "-j", str(os.cpu_count())], ["cmake", "--install", made]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Build it, or exit with :data:`NO_SOURCE` or another error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prefix", type=Path)
    try:
        build(parser.parse_args().prefix)
    except NoSourceError as error:
        print(error)
        raise SystemExit(NO_SOURCE) from None


if __name__ == "__main__":
    main()
