"""Facts about the machine and the versions of the packages that results depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from beton import system

_PACKAGES = (
    "ffcv", "fastargs", "numba", "numpy", "opencv-python", "pillow", "timm", "torch", "torchvision",
)  # fmt: skip


def facts() -> dict:
    """Processor, cores that this process may use, memory (bytes), GPUs, system, Python."""
    import psutil  # here and not above, as torch is: not every caller needs them
    import torch

    return {
        "cpu": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": system.cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict:
    """Package name -> installed version, or None."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def has_bf16_instructions() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (otherwise it is emulated, and slower)."""
    flags = set((_cpuinfo("flags") + " " + _cpuinfo("Features")).split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _cpuinfo(key: str) -> str:
    """The first value of a key in /proc/cpuinfo; '' when there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")
