"""Builds beton/kernels; everything else about the package is in pyproject.toml.

The kernels are plain C functions that ctypes calls: nothing of a Python is in them, so that one wheel
serves every Python. They need a C++ compiler (GCC 11 or Clang 12 or newer; on Windows clang-cl) and no library but
the compiler's own. libstdc++ is not linked in: torch needs it anyway, the kernels use nothing of it that is newer than
GCC 7, and a copy of this compiler's would want a newer libc.
"""

import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

FOLDER = Path("beton/kernels")
# No -march=native: a wheel must run elsewhere. Files for one kind of CPU have its flags; the library chooses among
# them as it runs. Multiplications are never fused with additions, so that every CPU makes the same bits.
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0", "-Wall", "-Wextra"]
WINDOWS_FLAGS = ["/std:c++17", "/O2", "/clang:-ffp-contract=off"]
OF_FILE = {
    "passes_avx2.cpp": ["-mavx2"],
    # GCC 12 takes what its own header leaves undefined on purpose for an oversight
    "passes_avx512.cpp": ["-march=x86-64-v4", "-mprefer-vector-width=512", "-Wno-maybe-uninitialized"],
}
CHOOSE_BY_CPU = sys.platform == "linux" and platform.machine() == "x86_64"  # as in compiler.h


class BuildKernels(build_ext):
    """Compiles each file with its own flags; the library's name is that of no Python."""

    def get_ext_filename(self, name: str) -> str:
        """beton.kernels._kernels -> beton/kernels/_kernels.so (.dll)."""
        return name.replace(".", os.sep) + (".dll" if sys.platform == "win32" else ".so")

    def build_extension(self, extension: Extension) -> None:
        """Compile and link the shared library."""
        flags = FLAGS
        if self.compiler.compiler_type == "msvc":
            flags = WINDOWS_FLAGS
            self._use_clang()

        def compiled(source: str) -> str:
            flags_of_file = flags + OF_FILE.get(Path(source).name, [])
            return self.compiler.compile([source], self.build_temp, extra_postargs=flags_of_file)[0]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compiled, extension.sources))
        target = self.get_ext_fullpath(extension.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, target, target_lang="c++")

    def _use_clang(self) -> None:
        self.compiler.initialize()
        self.compiler.cc = shutil.which("clang-cl")
        if not self.compiler.cc:
            raise PlatformError("the kernels need clang-cl; add 'C++ Clang tools' in the Visual Studio Installer")


class WheelForEveryPython(bdist_wheel):
    """Tags the wheel py3-none-<platform>."""

    def get_tag(self) -> tuple[str, str, str]:
        """The tag of Python, of its ABI and of the platform."""
        return "py3", "none", super().get_tag()[2]


sources = sorted(map(str, FOLDER.glob("*.cpp")))
if not CHOOSE_BY_CPU:
    sources = [s for s in sources if Path(s).name not in OF_FILE]
kernels = Extension("beton.kernels._kernels", sources, depends=sorted(map(str, FOLDER.glob("*.h"))))
setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels, "bdist_wheel": WheelForEveryPython})
