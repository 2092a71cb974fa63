"""The decoders and the encoder of the kernels by themselves: compiled with harness.cpp, called through ctypes."""

import ctypes
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests.support.scripts import ROOT

GOOD, NO_JPEG, OTHER_SIZE, DAMAGED, NO_BLOCKS, DECODE_WHOLE = range(6)
RGB, YCC, GRAY = range(3)
SOURCES, HERE = ROOT / "beton" / "kernels", ROOT / "tests" / "beton" / "kernels"
FILES = [SOURCES / "jpeg.cpp", SOURCES / "modes.cpp", *SOURCES.glob("blocks_*.cpp")]
_FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fPIC", "-shared"]
VARIANTS = {
    "fast": ["-O3"],
    # Without intrinsics and variants for CPUs, and undefined behaviour ends the process
    "plain": ["-DPLAIN_KERNELS", "-D__SANITIZE_ADDRESS__", "-fsanitize=undefined", "-fno-sanitize-recover"],
}
_PLANE = ["step", "top", "left", "height", "width", "full_height", "full_width", "tall", "wide", "address"]


def compiled(folder: Path, file: str, flags: list[str]) -> list[str]:
    """The command that compiles a file of tests/beton/kernels with the decoders."""
    command = ["g++", *flags, f"-I{SOURCES}", HERE / file, *FILES, "-o", folder]
    return list(map(str, command))


def build(folder: Path) -> dict[str, "Kernels"]:
    """All variants."""
    libraries = {name: folder / f"{name}.so" for name in VARIANTS}
    commands = [compiled(libraries[name], "harness.cpp", [*_FLAGS, *flags]) for name, flags in VARIANTS.items()]
    runs = [subprocess.Popen(command) for command in commands]  # at the same time
    assert not any(run.wait() for run in runs)
    return {name: Kernels(path) for name, path in libraries.items()}


class Kernels:
    """The functions of kernels.h; one scratch for all calls, as in a thread."""

    def __init__(self, path: Path):
        self.lib = ctypes.CDLL(str(path))
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        self.lib.size_of.argtypes, self.lib.size_of.restype = [number, number], number
        self.lib.encode.argtypes = [pointer, number, number, pointer]
        self.lib.open_scratch.restype = pointer
        jpeg_arguments = [ctypes.c_int, pointer, number, number, number, pointer, ctypes.c_int, pointer, pointer]
        self.lib.decode.argtypes = jpeg_arguments
        self.scratch = self.lib.open_scratch()

    def encode_blocks(self, rgb):
        """The payload of a photo."""
        rgb = np.ascontiguousarray(rgb)
        out = np.full(self.lib.size_of(*rgb.shape[:2]) + 8, 77, np.uint8)
        self.lib.encode(rgb.ctypes.data, *rgb.shape[:2], out.ctypes.data)
        assert (out[-8:] == 77).all()
        return out[:-8].copy()

    def decode_blocks(self, payload, size, part=None):
        """The code, and the picture: its kind, shrink, planes (with `samples`)."""
        return self._decode(2, payload, size, part, 0)

    def decode_jpeg(self, data, size, part=None, shrink=0):
        """The same of a JPEG."""
        return self._decode(0, data, size, part, shrink)

    def _decode(self, mode, data, size, part, shrink):
        payload = np.frombuffer(bytes(data), np.uint8).copy()  # in memory of exactly its size
        part, fields = np.array(part or (0, 0, *size), np.int64), np.zeros(32, np.int64)
        addresses = self.scratch, fields.ctypes.data
        code = self.lib.decode(mode, payload.ctypes.data, payload.size, *size, part.ctypes.data, shrink, *addresses)
        kind, shrunk, *rest = fields.tolist()
        picture = SimpleNamespace(kind=kind, shrink=shrunk, planes=[])
        for i in range((3 if kind == YCC else 1) if code == GOOD else 0):
            plane = SimpleNamespace(**dict(zip(_PLANE, rest[10 * i : 10 * i + 10], strict=True)))
            shape, steps = (plane.height, plane.width), (plane.step, 1)
            if kind == RGB:
                shape, steps = (*shape, 3), (plane.step, 3, 1)
            length = sum((n - 1) * step for n, step in zip(shape, steps, strict=True)) + 1
            memory = np.ctypeslib.as_array((ctypes.c_uint8 * length).from_address(plane.address))
            plane.samples = np.lib.stride_tricks.as_strided(memory, shape, steps).copy()
            picture.planes.append(plane)
        return code, picture
