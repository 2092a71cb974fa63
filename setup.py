"""Builds pipelines/kernels; everything else about the package is in pyproject.toml."""

import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = Path("pipelines/kernels")
# No -march=native: a wheel must run elsewhere. Files for one kind of CPU have its flags; the library chooses among
# them as it runs. Multiplications are never fused with additions, so that every CPU makes the same bits.
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
OF_FILE = {"passes_avx2.cpp": ["-mavx2"], "passes_avx512.cpp": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}


def pkg_config(kind: str) -> list[str]:
    """Flags for libturbojpeg, without the -I, -L or -l."""
    done = subprocess.run(["pkg-config", kind, "libturbojpeg"], capture_output=True, text=True, check=True)
    return [flag[2:] for flag in done.stdout.split()]


class BuildKernels(build_ext):
    """Compiles each file with its own flags."""

    def build_extension(self, extension: Extension) -> None:
        """Compile and link the shared library."""

        def compiled(source: str) -> str:
            flags = FLAGS + OF_FILE.get(Path(source).name, [])
            folders = extension.include_dirs
            return self.compiler.compile([source], self.build_temp, include_dirs=folders, extra_postargs=flags)[0]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compiled, extension.sources))
        target = self.get_ext_fullpath(extension.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            objects,
            target,
            libraries=extension.libraries,
            library_dirs=extension.library_dirs,
            runtime_library_dirs=extension.library_dirs,
            target_lang="c++",
        )


sources = sorted(map(str, FOLDER.glob("*.cpp")))
if platform.machine() not in ("x86_64", "AMD64"):
    sources = [s for s in sources if Path(s).name not in OF_FILE]
kernels = Extension(
    "pipelines.kernels._kernels",
    sources,
    include_dirs=pkg_config("--cflags-only-I"),
    library_dirs=pkg_config("--libs-only-L"),
    libraries=pkg_config("--libs-only-l"),
    depends=sorted(map(str, FOLDER.glob("*.h"))),
)
setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels})
