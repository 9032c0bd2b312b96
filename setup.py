"""Builds the native core. It is optional: without a compiler or libjpeg-turbo the install goes on without it."""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildCore(build_ext):
    """Names the core ``core.so``: a plain C library, loaded through ctypes, which fits every Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the file's path below the root of packages."""
        return f"{fullname.replace('.', '/')}.so"


setup(
    cmdclass={"build_ext": BuildCore},
    ext_modules=[
        Extension(
            "sagitta.images.native.core",
            sources=[
                f"src/sagitta/images/native/{name}.cpp"
                for name in ("batch", "jpeg", "layout", "normalize", "resample", "restart", "thumbnails")
            ],
            depends=["src/sagitta/images/native/core.h", "src/sagitta/images/native/jpeg.h"],
            libraries=["jpeg"],
            # No contraction: a fused multiply-add would round resize weights in another way than Pillow's.
            extra_compile_args=["-std=c++17", "-O3", "-ffp-contract=off", "-pthread", "-g0"],
            extra_link_args=["-pthread", "-g0"],
            optional=True,
        )
    ],
)
