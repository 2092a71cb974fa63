"""Facts about the machine and the versions of what runs on it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

_PACKAGES = (
    "ffcv", "fastargs", "numba", "numpy", "opencv-python", "pillow", "timm", "torch", "torchmetrics", "torchvision",
)  # fmt: skip


def _cpuinfo(key: str) -> str:
    """The first value of a key in /proc/cpuinfo, or '' where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")


def machine() -> dict:
    """Processor, cores that this process may use, memory (bytes), GPUs, system, Python."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict:
    """Installed versions of the packages that the figures depend on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def has_bf16_instructions() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (elsewhere it is emulated, and slower)."""
    flags = set((_cpuinfo("flags") + " " + _cpuinfo("Features")).split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
