"""Builds the native core.

It is optional: without a compiler or libjpeg-turbo an install goes on without it. For a wheel it is not: where
``SAGITTA_LIBJPEG`` names a folder that ``tools/libjpeg.py`` made, the static libjpeg-turbo in it is linked in, and
what cannot be built ends the build.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

LIBJPEG = os.environ.get("SAGITTA_LIBJPEG", "")
NATIVE = "src/sagitta/images/native"
LICENCES = ("README.ijg", "LICENSE.md")
NOTICE = "This software is based in part on the work of the Independent JPEG Group.\n"


class BuildCore(build_ext):
    """Names the core ``core.so``: a plain C library, loaded through ctypes, which fits every Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the file's path below the root of packages."""
        return f"{fullname.replace('.', '/')}.so"


class CoreWheel(bdist_wheel):
    """Tags the wheel for a system, but for no Python; with libjpeg-turbo inside, its licences are there, too."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of Python, its binary interface and the system."""
        return "py3", "none", super().get_tag()[2]

    def egg2dist(self, egginfo_path: str, distinfo_path: str) -> None:
        """Write the wheel's metadata."""
        super().egg2dist(egginfo_path, distinfo_path)
        if LIBJPEG:
            add_licences(Path(distinfo_path))


def add_licences(distinfo: Path) -> None:
    """Put libjpeg-turbo's licences into the metadata of a wheel, and name them there."""
    folder = distinfo / "licenses" / "libjpeg-turbo"
    folder.mkdir(parents=True)
    for name in LICENCES:
        shutil.copy(Path(LIBJPEG, "share", "doc", "libjpeg-turbo", name), folder)
    (folder / "NOTICE").write_text(NOTICE)
    metadata = distinfo / "METADATA"
    head, blank, body = metadata.read_text(encoding="utf-8").partition("\n\n")
    ours, all_of_them = "License-Expression: Apache-2.0\n", "License-Expression: Apache-2.0 AND IJG AND Zlib\n"
    if ours not in head:
        raise ValueError(f"{metadata}: {ours!r} is missing, so the licences of what is linked in cannot be added to it")
    named = "".join(f"\nLicense-File: libjpeg-turbo/{name}" for name in (*LICENCES, "NOTICE"))
    metadata.write_text(head.replace(ours, all_of_them) + named + blank + body, encoding="utf-8")


def linked() -> dict[str, object]:
    """Return how the core gets its libjpeg-turbo: the system's, if there is one, or the one given for a wheel.

    A libjpeg inside is seen by nobody else, whatever other libjpeg the process has loaded.
    """
    threads = ["-pthread", "-g0"]
    if not LIBJPEG:
        return {"libraries": ["jpeg"], "extra_link_args": threads, "optional": True}
    hidden = (
        ["-Wl,-exported_symbol,_sagitta_*"]
        if sys.platform == "darwin"
        else [f"-Wl,--version-script={NATIVE}/exports.map", "-Wl,--strip-all", "-Wl,--no-undefined"]
    )
    return {
        "include_dirs": [f"{LIBJPEG}/include"],
        "extra_objects": [f"{LIBJPEG}/lib/libjpeg.a"],
        "extra_link_args": threads + hidden,
    }


setup(
    cmdclass={"build_ext": BuildCore, "bdist_wheel": CoreWheel},
    ext_modules=[
        Extension(
            "sagitta.images.native.core",
            sources=[
                f"{NATIVE}/{name}.cpp"
                for name in ("batch", "jpeg", "layout", "normalize", "resample", "restart", "thumbnails")
            ],
            depends=[f"{NATIVE}/{name}" for name in ("core.h", "jpeg.h", "exports.map")],
            # No contraction: a fused multiply-add would round resize weights in another way than Pillow's.
            extra_compile_args=["-std=c++17", "-O3", "-ffp-contract=off", "-pthread", "-g0"],
            **linked(),
        )
    ],
)
